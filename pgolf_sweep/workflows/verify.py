"""`verify`: does a submission folder pass the rules?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.config.rules import load_record, load_rules
from pgolf_sweep.submission.folder import read_folder
from pgolf_sweep.verify.verify import check_folder, rules_for

if TYPE_CHECKING:
    from pgolf_sweep.verify.verify import Verification


def verify(
    folder: str | Path, *, rules: str | None = None, record: str | Path | None = None
) -> Verification:
    """Check a submission folder, anyone's, rule by rule; nothing of it is run.

    Args:
        folder: The folder.
        rules: A preset or a YAML file; else what submission.json or the track implies.
        record: YAML file of the record to beat, with its date and source.

    Returns:
        Every rule with its verdict; `ok` where none is broken.

    Raises:
        InputError: There is no such folder or file.
    """
    found = read_folder(Path(folder))
    held = load_rules(rules, base=Path.cwd()) if rules is not None else rules_for(found)
    if record is not None:
        held = dataclasses.replace(held, record=load_record(Path(record)))
    return check_folder(found, held)

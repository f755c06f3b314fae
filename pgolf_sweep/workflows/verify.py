"""`verify`: does a submission folder pass the rules?"""

from __future__ import annotations

import dataclasses
import logging
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.config.rules import load_record, load_rules
from pgolf_sweep.core.clock import SystemClock
from pgolf_sweep.core.errors import InterruptedSweepError
from pgolf_sweep.data import locate
from pgolf_sweep.submission.folder import read_folder
from pgolf_sweep.verify.rerun import dataset_name, resources_for, score_artifact
from pgolf_sweep.verify.rerun import rerun as run_again
from pgolf_sweep.verify.sources import opened
from pgolf_sweep.verify.verify import check_folder, rules_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pgolf_sweep.config.rules import Record, Rules
    from pgolf_sweep.submission.folder import Folder
    from pgolf_sweep.verify.check import Check
    from pgolf_sweep.verify.verify import Verification


logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunAgain:
    """How a folder's script is trained once more.

    Attributes:
        seed: Its seed; None for the first log's.
        data: Its data set; None for the one that the folder names.
        data_root: Folder of the data sets.
        address: An existing Ray cluster; None for a local one.
        work: Folder that gets the log and the model, in one of the submission's name.
        report: Takes a line for people before the run.
    """

    seed: int | None = None
    data: str | None = None
    data_root: Path = Path("data")
    address: str | None = None
    work: Path = Path("rerun")
    report: Callable[[str], None] = logger.info


def verify(
    folder: str | Path,
    *,
    rules: str | None = None,
    record: str | Path | None = None,
    rerun: RunAgain | None = None,
) -> Verification:
    """Check a submission folder, anyone's, rule by rule; nothing of it is run without `rerun`.

    Args:
        folder: The folder, a zip of it, or ``REPO@REF:PATH`` of a local git repository.
        rules: A preset or a YAML file; else what submission.json or the track implies.
        record: YAML file of the record to beat, with its date and source.
        rerun: How to score the model and train the script once more; needs the hardware.

    Returns:
        Every rule with its verdict; `ok` where none is broken.

    Raises:
        InputError: There is no such folder or file, or a zip or commit is larger than a submission.
    """
    return _verify(Path(folder), *_read_rules(rules, record), rerun)


def verify_each(
    folders: Sequence[str | Path],
    *,
    rules: str | None = None,
    record: str | Path | None = None,
    rerun: RunAgain | None = None,
) -> Iterator[tuple[Path, Verification | Exception]]:
    """`verify` of several folders, one after the other; what one raises does not end the others.

    Yields:
        A folder, and the answer or what was raised instead of one.

    Raises:
        InputError: There are no such rules or no such record, or they have mistakes.
        InterruptedSweepError: Ctrl-C.
    """
    held, beaten = _read_rules(rules, record)
    for folder in map(Path, folders):
        answer: Verification | Exception
        try:
            answer = _verify(folder, held, beaten, rerun)
        except InterruptedSweepError:
            raise
        except Exception as error:  # noqa: BLE001 - a folder of someone else may hold anything
            answer = error
        yield folder, answer


def _read_rules(rules: str | None, record: str | Path | None) -> tuple[Rules | None, Record | None]:
    return (
        None if rules is None else load_rules(rules, base=Path.cwd()),
        None if record is None else load_record(Path(record)),
    )


def _verify(
    folder: Path, rules: Rules | None, record: Record | None, rerun: RunAgain | None
) -> Verification:
    with opened(str(folder)) as place:
        found = read_folder(place)
        held = rules or rules_for(found)
        if record is not None:
            held = dataclasses.replace(held, record=record)
        answer = check_folder(found, held)
        checks = answer.checks
        if rerun is not None:
            checks = (*checks, *_run_again(found, held, rerun))
    return dataclasses.replace(answer, folder=folder, checks=checks)


def _run_again(folder: Folder, rules: Rules, how: RunAgain) -> tuple[Check, Check]:
    """Score the folder's model and train its script once more, on a Ray slot like its runs'."""
    from pgolf_sweep.launch.ray.launcher import RayLauncher  # noqa: PLC0415 - ray loads late

    name = how.data or dataset_name(folder)
    env = locate(name, how.data_root).env() if name is not None else {}
    resources = resources_for(folder, rules)
    how.report(f"running {folder.root} again on {resources.gpus or 'no'} GPUs ...")
    with closing(RayLauncher(address=how.address, resources=resources, slots=1)) as launcher:
        clock, work = SystemClock(), how.work.resolve() / folder.root.resolve().name
        return (
            score_artifact(folder, rules, env=env, launcher=launcher, clock=clock, work=work),
            run_again(
                folder,
                rules,
                seed=how.seed,
                env=env,
                launcher=launcher,
                clock=clock,
                work=work,
            ),
        )

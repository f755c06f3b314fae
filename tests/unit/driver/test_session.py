"""The environment that a trial gets."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from support.sweeps import build_bench

from pgolf_sweep.script.program import from_files

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = b"""
import os
WORD = os.environ.get("WORD", "false").lower() == "true"
NUMBER = bool(int(os.environ.get("NUMBER", "0")))
LISTED = os.environ.get("LISTED", "yes") not in ("no", "off")
"""


def test_booleans_reach_a_trial_as_the_texts_that_its_script_takes(tmp_path: Path) -> None:
    program = from_files("train_gpt.py", {"train_gpt.py": SCRIPT}, builtin=False)
    session = dataclasses.replace(build_bench(tmp_path).session, program=program)
    for value, texts in {True: ("true", "1", "yes"), False: ("false", "0", "no")}.items():
        knobs = dict.fromkeys(("WORD", "NUMBER", "LISTED"), value)
        spec = session.trial_spec(0, knobs, "test", run_id="r")
        assert tuple(spec.env[name] for name in knobs) == texts
        assert spec.knobs == knobs

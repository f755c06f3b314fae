"""`knobs` lists what a script reads from its environment and what it takes as flags."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from typer.testing import CliRunner

from pgolf_sweep.cli import app

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
import argparse, os
WIDTH = int(os.environ.get("MODEL_DIM", 64))
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--opt", choices=["adam", "sgd"])
parser.add_argument("--amp", action="store_true")
"""


def test_both_kinds_are_listed(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    shown = CliRunner().invoke(app, ["knobs", str(script)])
    assert shown.exit_code == 0, shown.output
    for part in ("MODEL_DIM", "--lr", "adam/sgd", "(no value)", "1 environment variables, 3 flags"):
        assert part in shown.output
    document = json.loads(CliRunner().invoke(app, ["knobs", str(script), "--json"]).stdout)
    assert [knob["name"] for knob in document["knobs"]] == ["MODEL_DIM"]
    assert [(f["name"], f["kind"], f["takes_value"]) for f in document["flags"]] == [
        ("lr", "float", True),
        ("opt", "str", True),
        ("amp", "bool", False),
    ]
    assert document["beyond"] == []


def test_our_trainer_takes_no_flags() -> None:
    document = json.loads(CliRunner().invoke(app, ["knobs", "trainer", "--json"]).stdout)
    assert document["flags"] == []
    assert len(document["knobs"]) > 50

"""``report`` writes the page where it says it does."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from pgolf_sweep.cli import app
from pgolf_sweep.config.sweep_file import load_spec
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.paths import StudyPaths, write_text
from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.search.study import open_study


@pytest.fixture
def paths(tmp_path):
    found = StudyPaths(tmp_path / "demo")
    write_text(
        found.sweep,
        "name: demo\nprogram: trainer\nmethod: random\nparameters: {EMA: {values: [0, 1]}}\n",
    )
    study = open_study(load_spec(found.sweep), found, write=True)
    for ema in (0, 1):
        study.enqueue({"EMA": ema}, by="test")
        record = TrialRecord(
            number=ema, outcome=State.COMPLETED, knobs={"EMA": ema}, val_bpb=2.512345678
        )
        study.ask()
        study.tell(record)
    study.close()
    return found


def test_the_page_lands_in_the_study(paths):
    done = CliRunner().invoke(app, ["report", "demo", "--runs", str(paths.root.parent)])
    assert done.exit_code == 0, done.exception
    assert done.stdout == f"{paths.report}\n"
    assert "EMA changes nothing" in done.stderr
    assert "<h1>demo</h1>" in paths.report.read_text()


def test_the_page_lands_where_one_asks(paths, tmp_path):
    page = tmp_path / "new" / "page.html"
    words = ["report", "demo", "--runs", str(tmp_path), "--out", str(page), "--json"]
    done = CliRunner().invoke(app, words)
    assert json.loads(done.stdout) == {
        "study": "demo",
        "file": str(page),
        "no_op_knobs": [{"knobs": ["EMA"], "trials": [0, 1], "groups": [[0, 1]]}],
    }
    assert "<h1>demo</h1>" in page.read_text()
    assert not paths.report.exists()


def test_a_study_that_is_not_there_is_wrong_input(tmp_path):
    done = CliRunner().invoke(app, ["report", "none", "--runs", str(tmp_path)])
    assert isinstance(done.exception, InputError)
    assert not (tmp_path / "none").exists()

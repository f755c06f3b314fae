"""A launch that is only checked: what it says, and that it leaves nothing."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from support.sweeps import SCRIPT
from typer.testing import CliRunner

from pgolf_sweep.cli import app
from pgolf_sweep.config.overrides import Overrides
from pgolf_sweep.core.errors import InputError, SpecError
from pgolf_sweep.report.text import duration
from pgolf_sweep.workflows.launch import preview
from pgolf_sweep.workflows.plan import cost_line, plan
from pgolf_sweep.workflows.settings import parse_overrides

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """\
program: train_gpt.py
method: random
run_cap: 24
parameters:
  MATRIX_LR: {min: 0.01, max: 0.08}
  MODEL_DIM: {values: [64, 128]}
pgolf:
  rules: none
  resources: {gpus: 8}
  limits: {total_seconds: 900}
  budget: {usd_per_gpu_hour: 2.0}
"""


@pytest.fixture
def sweep(tmp_path) -> Path:
    (tmp_path / "train_gpt.py").write_bytes(SCRIPT)
    file = tmp_path / "night.yaml"
    file.write_text(TEXT)
    return file


def previewed(sweep, **changes):
    options = {"runs": sweep.parent / "runs", "data_root": sweep.parent, "wandb": "disabled"}
    return preview(sweep, **options | changes)


def test_cost_hours_and_share_are_said_before_anything_starts(sweep):
    found = previewed(sweep, slots=4)
    assert found.lines[0].startswith("study night: 2 knobs, random, run_cap 24")
    cost = plan(found.session, slots=4).cost
    assert cost.gpu_hours is not None
    line = found.lines[1]
    assert line.startswith(f"24 trials of about {duration(cost.trial_seconds)[:2]}")
    assert re.search(r" each, \d+\.\d GPU-hours, about \$\d+, 1 h \d\d min with 4 at a time$", line)
    assert not (sweep.parent / "runs").exists()


def test_command_line_wins_over_the_file_and_says_so(sweep):
    overrides = Overrides(run_cap=8, settings={"MODEL_DIM": 96, "SEED": 3})
    found = previewed(sweep, overrides=overrides)
    assert "8 trials" in found.lines[-1]
    assert "run_cap is 8 (not 24)" in found.lines
    assert "MODEL_DIM is fixed at 96 (the file searches it)" in found.lines
    assert "SEED is set to 3 (the file does not name it)" in found.lines
    assert found.session.spec.space.size() is None


def test_budget_ends_the_estimate(sweep):
    found = previewed(sweep, overrides=Overrides(budget={"gpu_hours": 12}))
    assert "the budget ends it there" in found.lines[-1]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (Overrides(settings={"MATRIX_LRR": 0.1}), "did you mean 'MATRIX_LR'"),
        (Overrides(budget={"gpu_hour": 1}), "gpu_hour"),
        (Overrides(budget={"gpu_hours": -1}), "gpu_hours"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_refused_like_in_the_file(sweep, overrides, message):
    with pytest.raises(SpecError, match=message):
        previewed(sweep, overrides=overrides)


def test_cost_of_a_resumed_study_is_that_of_the_rest(sweep):
    line = cost_line(previewed(sweep).session, slots=None, done=20)
    assert re.match(r"4 more trials of about \d+ min \d\d s each, \d\.\d GPU-hours, about \$", line)
    assert line.endswith("min of slots")


def test_dry_run_prints_one_document_and_writes_nothing(sweep, monkeypatch):
    monkeypatch.chdir(sweep.parent)
    words = ["launch", "night.yaml", "--dry-run", "--json", "--run-cap", "8", "--wandb", "disabled"]
    done = CliRunner().invoke(app, [*words, "--budget", "gpu_hours=40,deadline=36h"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["study"], document["resumes"]) == ("night", False)
    assert document["cost"]["trials"] == 8
    assert "nothing was started" in done.stderr
    assert sorted(path.name for path in sweep.parent.iterdir()) == ["night.yaml", "train_gpt.py"]


def test_options_become_values():
    found = parse_overrides(
        run_cap=None,
        settings=["A=0.5", "B=true", "C=wsd"],
        budget=["usd=20,gpu_hours=4", "trials=3"],
    )
    assert found.settings == {"A": 0.5, "B": True, "C": "wsd"}
    assert found.budget == {"usd": 20, "gpu_hours": 4, "trials": 3}
    with pytest.raises(InputError, match="--budget needs a name"):
        parse_overrides(run_cap=None, settings=[], budget=["40"])

"""A sweep on a function, from the command line."""

from __future__ import annotations

import json

import pytest
from support.sweeps import RATES, SCRIPT, SWEEP, WIDTHS
from typer.testing import CliRunner

import pgolf_sweep
from pgolf_sweep.cli import app
from pgolf_sweep.cli.common import plain
from pgolf_sweep.core.errors import InputError

OBJECTIVE = """
def run(knobs):
    width = knobs["MODEL_DIM"]
    return {"val_bpb": 3.0 - 0.002 * width, "artifact_bytes": 1500 * width, "minutes": 10}

value = 3
"""


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "objective_of_test.py").write_text(OBJECTIVE)
    (tmp_path / "train_gpt.py").write_bytes(SCRIPT)
    text = SWEEP.format(
        name="toy",
        method="random",
        run_cap=6,
        extra="",
        block="",
        width=WIDTHS,
        rate=RATES,
        seed="{value: 7}",
    )
    (tmp_path / "toy.yaml").write_text(text)
    return "toy.yaml"


def test_simulate_prints_what_the_function_returns(sweep, tmp_path):
    words = ["simulate", sweep, "--objective", "objective_of_test:run", "--seed", "4", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    from objective_of_test import run

    same = pgolf_sweep.simulate(sweep, run, seed=4)
    assert document["trials"] == plain(same.rows())
    assert same.winner is not None
    assert same.winner.val_bpb == min(
        row["val_bpb"] for row in document["trials"] if row["artifact_bytes"] <= 300_000
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "name", ["objective_of_test", "objective_of_test:nothing", "no_module:run"]
)
def test_an_objective_that_is_not_there_is_wrong_input(sweep, name):
    done = CliRunner().invoke(app, ["simulate", sweep, "--objective", name])
    assert isinstance(done.exception, InputError)


def test_an_objective_that_is_no_function_is_wrong_input(sweep):
    done = CliRunner().invoke(app, ["simulate", sweep, "--objective", "objective_of_test:value"])
    assert isinstance(done.exception, InputError)

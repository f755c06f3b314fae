"""The package as a library: few names, quick to import."""

from __future__ import annotations

import doctest
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import pgolf_sweep
from pgolf_sweep.cli import app
from pgolf_sweep.cli.common import plain

ROOT = Path(__file__).parents[2]

HEAVY = ("torch", "ray", "wandb", "optuna", "pandas", "scipy", "pydantic", "typer")


def test_import_is_light():
    code = f"import sys, pgolf_sweep; print([n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", pgolf_sweep.__all__)
def test_every_public_name_is_documented(name):
    found = getattr(pgolf_sweep, name)
    assert callable(found)
    assert found.__doc__
    assert name in dir(pgolf_sweep)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'luanch'"):
        _ = pgolf_sweep.luanch


@pytest.mark.parametrize("home", sorted(set(pgolf_sweep._HOMES.values())))
def test_examples_in_docstrings_are_true(home, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert doctest.testmod(importlib.import_module(f"pgolf_sweep.{home}")).failed == 0


def test_a_function_keeps_its_name_beside_a_folder_of_that_name():
    code = (
        "import pgolf_sweep, pgolf_sweep.gate.gate, pgolf_sweep.launch.base\n"
        "from pgolf_sweep.gate.gate import Gate\n"
        "import types\n"
        "print([n for n in pgolf_sweep.__all__ if isinstance(getattr(pgolf_sweep, n), "
        "types.ModuleType)])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def cli(*words):
    done = CliRunner().invoke(app, [*map(str, words), "--json"])
    return json.loads(done.stdout)


def test_gate_answers_as_the_command_does():
    sweep = ROOT / "sweeps/lr.yaml"
    answer = pgolf_sweep.gate({"MATRIX_LR": 0.02}, sweep=sweep)
    assert plain(answer.to_json()) == cli("gate", "--sweep", sweep, "--set", "MATRIX_LR=0.02")
    total = sum(group.model_bytes for group in answer.groups)
    assert total == pytest.approx(answer.artifact_bytes.mid - answer.verdict.code_bytes)


def test_plan_answers_as_the_command_does():
    sweep = ROOT / "sweeps/lr.yaml"
    found = plain(pgolf_sweep.plan(sweep, draws=50).to_json())
    assert found == cli("plan", sweep, "--draws", 50)
    assert found == plain(pgolf_sweep.plan(pgolf_sweep.load_sweep(sweep), draws=50).to_json())
    assert found["share"]["draws"] == 50

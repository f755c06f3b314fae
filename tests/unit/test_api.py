"""The package as a library: few names, quick to import."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pgolf_sweep

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

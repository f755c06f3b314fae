"""Knobs of our trainer as the gate sees them, without waiting for the bundle."""

from __future__ import annotations

import dataclasses
import os
from types import SimpleNamespace
from unittest import mock

import pytest

from trainer.config import read_config


@pytest.fixture(scope="session")
def defaults():
    """The trainer's default of every knob."""
    with mock.patch.dict(os.environ, clear=True):
        values = dataclasses.asdict(read_config())
    for name in ("rank", "world_size", "local_rank"):
        del values[name]
    return {name.upper(): value for name, value in values.items()}


@pytest.fixture(scope="session")
def program(defaults):
    """A stand-in for our bundled trainer: its knobs, and 50,000 bytes of code."""
    knobs = {name: SimpleNamespace(default=value) for name, value in defaults.items()}
    return SimpleNamespace(
        name="train_gpt.py", knobs=knobs, builtin=True, code_bytes=50_000, sha256="0" * 64
    )


@pytest.fixture(scope="session")
def stranger():
    """A script that is not ours."""
    knobs = {
        "MODEL_DIM": SimpleNamespace(default=512),
        "SEED": SimpleNamespace(default=1),
        "TAG": SimpleNamespace(default=None),
    }
    return SimpleNamespace(name="theirs.py", knobs=knobs, builtin=False, code_bytes=1_000)

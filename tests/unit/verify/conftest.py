"""Promotions whose seeds a simulated launcher runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.promotions import Bench
from support.promotions import bench as bench  # noqa: PLC0414 - a fixture is found by its name

from pgolf_sweep.config.rules import load_rules

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that passes every rule but `log_source`; not to be changed."""
    root = tmp_path_factory.mktemp("good")
    return Bench(root=root, rules=load_rules("demo", base=root)).promote().folder

"""Fixtures of the program's tests."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from support.sweeps import build_bench

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.sweeps import Bench


@pytest.fixture
def make_bench(tmp_path: Path) -> Callable[..., Bench]:
    """A factory of sweeps on simulated slots; keyword arguments fill the sweep file."""
    return partial(build_bench, tmp_path)

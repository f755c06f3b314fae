"""Launches that run long enough for something to happen to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support.aftermath import check_whole
from support.terminal import running_trials, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from support.terminal import Background, Terminal

GONE_SECONDS = 15.0
"""For Ray and all else that a driver began, on a loaded machine."""

RAY_AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Of a driver that had no last word: they ask for their dead head for a minute, then end."""


def sweep(terminal: Terminal, name: str, *, trial_seconds: float = 2.0, **changes: Any) -> str:
    """Write a sweep file whose trials take so long."""
    steps = {"ITERATIONS": {"value": 20}, "STEP_SECONDS": {"value": trial_seconds / 20}}
    return terminal.sweep(name, parameters=steps, **changes)


def wait_for_running(background: Background, study: Path, count: int = 2) -> list[int]:
    """Wait until so many trials of a study train; their numbers."""
    return wait_for(lambda: _if_enough(running_trials(study), count), 90.0, of=background)


def _if_enough(numbers: list[int], count: int) -> list[int]:
    return numbers if len(numbers) >= count else []


def check_completed(terminal: Terminal, name: str, run_cap: int) -> list[dict[str, Any]]:
    """`check_whole` of a study in which each of so many configurations was scored once."""
    rows = check_whole(terminal, name)
    assert {row["outcome"] for row in rows} == {"completed"}
    scored = [row for row in rows if row["duplicate_of"] is None]
    assert len(scored) == len({row["identity"] for row in scored}) == run_cap
    return scored

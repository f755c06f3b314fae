"""One study whose driver is killed -9 at one step after another; the same command resumes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support import dies
from support.aftermath import check_slots_are_back, check_whole, ends
from support.clusters import cluster_of
from support.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]

RUN_CAP = 10  # more than end before the last of the deaths
DEATHS = [
    ("asked", 2),
    ("noted", 1),  # queued
    ("noted", 3),  # running, and not launched
    ("launched", 1),
    ("reported", 2),
    ("half written", 1),
    ("written", 1),  # and not told
    ("told", 1),
    ("telling", 1),  # the constraint
    ("telling", 2),  # and the final row, and not the end
    ("half told", 1),
]
WRITTEN = {"written", "telling", "half told"}


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    with cluster_of(num_cpus=2, num_gpus=0) as address, Terminal(tmp_path, address) as made:
        yield made


def killed_at(terminal: Terminal, step: str, count: int, sweep: str) -> str:
    """Launch, and die; what was said before."""
    words = ["launch", sweep, "--address", str(terminal.address), "--wandb", "disabled"]
    done = subprocess.run(
        [sys.executable, dies.__file__, step, str(count), *words],
        cwd=terminal.folder,
        env=terminal.environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, (step, done.stdout + done.stderr)
    return done.stderr


def results(study: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in study.glob("trials/*/result.json")}


def test_driver_killed_between_any_two_steps_loses_nothing_and_tells_nothing_twice(
    terminal: Terminal,
) -> None:
    steps = {"ITERATIONS": {"value": 10}, "STEP_SECONDS": {"value": 0.1}}
    file = terminal.sweep("night", run_cap=RUN_CAP, parameters=steps)
    study = terminal.study("night")
    kept: dict[str, bytes] = {}
    for step, count in DEATHS:
        killed_at(terminal, step, count, file)
        found = results(study)
        assert found.items() >= kept.items(), step
        if (study / "study.journal").read_bytes().endswith(b"\n"):
            told = ends(study)
            assert set(told.values()) <= {0, 1}, step
            # What was told has its result; one more may be written and not told.
            assert 0 <= len(found) - sum(told.values()) <= (step in WRITTEN)
        kept = found
    said = terminal.launch(file, timeout=300)
    assert said.code == 0, said.err
    assert "resuming trials" in said.err
    rows = check_whole(terminal, "night")
    assert [row["outcome"] for row in rows] == ["completed"] * RUN_CAP
    assert len({row["identity"] for row in rows}) == RUN_CAP
    for number, content in kept.items():
        assert (study / "trials" / number / "result.json").read_bytes() == content
    numbers = {json.loads(content)["record"]["number"] for content in results(study).values()}
    assert numbers == set(range(RUN_CAP))
    assert terminal.wait_until_alone(20.0) == {}
    check_slots_are_back(terminal)

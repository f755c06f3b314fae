"""A disk that is full or read-only under the driver: a clear word, exit code 3, resumable."""

from __future__ import annotations

import os
import resource
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from support.terminal import running_trials, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.terminal import Terminal

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB; needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def check_resumed(terminal: Terminal, file: str, runs: Path, run_cap: int) -> None:
    said = terminal.launch(file, "--runs", str(runs))
    assert said.code == 0, said.err
    rows = terminal.run("trials", file.removesuffix(".yaml"), "--runs", str(runs), "--json").json()
    ends = [(row["outcome"], row["failure"]) for row in rows["trials"]]
    assert ends.count(("completed", None)) == run_cap
    # What the disk refused was tried again, and is nobody's fault but the disk's.
    assert set(ends) <= {("completed", None), ("failed", "infrastructure")}


def steps(seconds: float) -> dict[str, Any]:
    return {"ITERATIONS": {"value": 10}, "STEP_SECONDS": {"value": seconds / 10}}


def test_a_full_disk_ends_the_sweep_with_three_and_room_lets_it_go_on(
    terminal: Terminal, small_disk: Path
) -> None:
    # Each trial leaves a model of some 120 kB.
    file = terminal.sweep("full", run_cap=24, parameters=steps(0.05))
    said = terminal.launch(file, "--runs", str(small_disk / "runs"))
    assert said.code == 3, said.err
    assert "No space left on device" in said.err
    assert "next: " in said.err
    assert "Traceback" not in said.err
    study = small_disk / "runs" / "full"
    finished = {path: path.read_bytes() for path in study.glob("trials/*/result.json")}
    assert finished
    status = terminal.run("status", "full", "--runs", str(small_disk / "runs"), "--json")
    assert status.code == 0, status.err
    assert status.json()["trials"]["completed"] > 0

    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    check_resumed(terminal, file, small_disk / "runs", 24)
    for path, content in finished.items():
        assert path.read_bytes() == content


def test_a_file_that_may_not_grow_ends_the_sweep_with_three(terminal: Terminal) -> None:
    """The limit of a quota, or of an Optuna journal that has reached its file system's limit."""
    file = terminal.sweep("quota", run_cap=4, parameters=steps(2.0))
    driver = terminal.start_launch(file)
    study = terminal.study("quota")
    wait_for(lambda: len(running_trials(study)) == 2, 60.0, of=driver)
    size = (study / "study.journal").stat().st_size
    resource.prlimit(driver.pid, resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
    assert driver.wait(60.0) == 3, driver.said
    assert "File too large" in driver.said
    assert "next: " in driver.said
    assert "Traceback" not in driver.said
    check_resumed(terminal, file, terminal.folder / "runs", 4)


@pytest.mark.parametrize("kind", ["a file in its place", "read-only"])
def test_runs_that_cannot_be_written_are_told_before_ray_starts(alone: Terminal, kind: str) -> None:
    file = alone.sweep("s")
    runs = alone.folder / "runs"
    if kind == "read-only":
        runs.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(runs)]
        if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip("mounting needs root")
    else:
        runs.write_text("")
    try:
        said = alone.launch(file)
    finally:
        if kind == "read-only":
            subprocess.run(["umount", str(runs)], check=True)
    assert said.code == 3, said.err
    assert str(runs) in said.err
    assert "next: " in said.err
    assert "Traceback" not in said.err
    assert "Ray" not in said.err

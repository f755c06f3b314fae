"""Processes that die, hang or eat the memory: one sweep meets all of it, another loses a rank."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.aftermath import check_slots_are_back, check_whole
from support.clusters import cluster_of
from support.offline_runs import read_offline_runs
from support.terminal import Terminal, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]

SILENT_SECONDS = 10
OWN_FAULTS = {
    "device": "out of memory, asked for 2.00 GiB",
    "hangs": f"no output for {SILENT_SECONDS} s",
}
STRUCK = {"worker": "worker died", "script": "killed by SIGKILL"}
AGAIN_SECONDS = 45.0
"""Until a slot works again, on a machine that others load; alone it takes two."""


@pytest.fixture(scope="module")
def cgroup() -> Iterator[Path | None]:
    """A group of processes that the kernel kills beyond 100 MB, where one can be made."""
    root = Path("/sys/fs/cgroup")
    first = root / "memory"
    made = (first if first.is_dir() else root) / f"pgolf-sweep-{os.getpid()}"
    limit = made / ("memory.limit_in_bytes" if first.is_dir() else "memory.max")
    try:
        made.mkdir()
        limit.write_text("100000000")
    except OSError:
        with contextlib.suppress(OSError):
            made.rmdir()
        yield None
        return
    yield made
    made.rmdir()


def noted(notes: Path, name: str) -> tuple[int, float]:
    """Process id and time that a script left."""
    path = notes / name
    wait_for(path.is_file, 120.0)
    pid, at = path.read_text().split()
    return int(pid), float(at)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])


def running_again(study: Path, number: int) -> bool:
    folder = study / "trials" / str(number)
    logs = [folder / ".train.log.part", folder / "train.log"]
    again = any(log.is_file() and "model_params" in log.read_text() for log in logs)
    return again and (folder / "train.attempt1.log").is_file()


def parameters(notes: Path, **changes: Any) -> dict[str, Any]:
    fixed = {"NOTES": {"value": str(notes)}, "STEP_SECONDS": {"value": 0.02}}
    return {"MATRIX_LR": None, **fixed, **changes}


class Night:
    """Two sweeps with their faults, and how long each slot was gone."""

    def __init__(self, terminal: Terminal, cgroup: Path | None) -> None:
        self.terminal = terminal
        self.notes = terminal.folder / "notes"
        self.notes.mkdir()
        self.seconds: dict[str, float] = {}
        self.killed_at: dict[str, float] = {}
        faults = [*STRUCK, *OWN_FAULTS, *(["host"] if cgroup else []), "none"]
        one = self._start(
            "one",
            parameters=parameters(
                self.notes, FAULT={"values": faults}, CGROUP={"value": str(cgroup or "/")}
            ),
            pgolf={"files": ["good.py"], "limits": {"silent_seconds": SILENT_SECONDS}},
        )
        ranks = self._start(
            "ranks",
            parameters=parameters(self.notes, FAULT={"values": ["ranks"]}),
            pgolf={"files": ["good.py"], "resources": {"gpus": 2, "cpus": 1}},
        )
        other, _ = noted(self.notes, "ranks.0.0")
        rank, _ = noted(self.notes, "ranks.1.0")
        killed_at = self._kill("ranks", rank)
        wait_for(lambda: not Path(f"/proc/{other}").exists(), 60.0)
        self.seconds["other rank"] = time.time() - killed_at
        wait_for(lambda: running_again(terminal.study("ranks"), 0), 120.0)
        self.seconds["ranks"] = time.time() - killed_at
        # The trial that fills the memory comes after these.
        script, _ = noted(self.notes, "worker.0.0")
        self._kill("worker", parent(parent(script)))
        script, _ = noted(self.notes, "script.0.0")
        self._kill("script", script)
        for name in STRUCK:
            self.seconds[name] = noted(self.notes, f"{name}.0.1")[1] - self.killed_at[name]
        for launch in (one, ranks):
            assert launch.wait(200.0) == 0, launch.said
            assert "Traceback" not in launch.said
        self.said = one.said
        self.rows = {row["knobs"]["FAULT"]: row for row in check_whole(terminal, "one")}
        (self.ranks,) = check_whole(terminal, "ranks")

    def _start(self, name: str, **changes: Any) -> Any:
        file = self.terminal.sweep(
            name, program="faulty.py", method="grid", run_cap=None, **changes
        )
        return self.terminal.start_launch(file, "--wandb", "offline", "--slots", "2")

    def _kill(self, name: str, pid: int) -> float:
        os.kill(pid, signal.SIGKILL)
        self.killed_at[name] = time.time()
        return self.killed_at[name]

    def idle_after(self, fault: str) -> float:
        """Seconds from a trial's end to the next start of any; zero after the last."""
        ended = self.rows[fault]["ended_at"]
        starts = [row["started_at"] for row in self.rows.values() if row["started_at"] >= ended]
        return min(starts, default=ended) - ended


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory, cgroup: Path | None) -> Iterator[Night]:
    folder = tmp_path_factory.mktemp("processes")
    with cluster_of(num_cpus=3, num_gpus=2) as address, Terminal(folder, address=address) as made:
        yield Night(made, cgroup)


@pytest.mark.parametrize("fault", STRUCK)
def test_what_is_killed_from_outside_is_tried_again_once(
    night: Night, fault: str, measured: Callable[[float], None]
) -> None:
    row = night.rows[fault]
    assert (row["outcome"], row["attempts"]) == ("completed", 2)
    folder = night.terminal.study("one") / "trials" / str(row["number"])
    assert (folder / "train.attempt1.log").is_file()
    assert STRUCK[fault] in night.said
    measured(night.seconds[fault])
    assert night.seconds[fault] < AGAIN_SECONDS


@pytest.mark.parametrize("fault", OWN_FAULTS)
def test_what_is_the_trials_own_fault_is_not_tried_again(
    night: Night, fault: str, measured: Callable[[float], None]
) -> None:
    row = night.rows[fault]
    assert (row["outcome"], row["failure"], row["attempts"]) == ("failed", "deterministic", 1)
    assert row["reason"].startswith(OWN_FAULTS[fault])
    measured(night.idle_after(fault))
    assert night.idle_after(fault) < 5.0


def test_a_trial_that_the_kernel_kills_for_its_memory_is_not_tried_again(
    night: Night, measured: Callable[[float], None]
) -> None:
    if "host" not in night.rows:
        pytest.skip("no memory cgroup can be made here")
    row = night.rows["host"]
    assert (row["outcome"], row["failure"], row["attempts"]) == ("failed", "deterministic", 1)
    assert row["reason"].startswith("out of memory: lower")
    measured(night.idle_after("host"))


def test_a_killed_rank_ends_the_others_and_the_trial_is_tried_again(
    night: Night, measured: Callable[[float], None]
) -> None:
    assert (night.ranks["outcome"], night.ranks["attempts"]) == ("completed", 2)
    assert night.seconds["other rank"] < 30.0
    measured(night.seconds["ranks"])
    folder = night.terminal.study("ranks") / "trials" / "0"
    assert "(SIGKILL)" in (folder / "train.attempt1.log").read_text()


def test_each_attempt_that_had_an_end_is_in_wandb(night: Night) -> None:
    runs = read_offline_runs(night.terminal.study("one"))
    statuses: dict[str, list[str]] = {}
    for run in runs:
        statuses.setdefault(run.run.display_name, []).append(run.summary.get("status", ""))
    for fault, row in night.rows.items():
        found = statuses[f"one-{row['number']}"]
        assert found[-1] == row["outcome"]
        # A run's files come with its worker's answer: those of a killed worker are lost.
        assert len(found) == (2 if fault == "script" else 1)
    assert "one-summary" in statuses


def test_nothing_is_left_and_every_slot_is_back(night: Night) -> None:
    assert night.terminal.wait_until_alone(20.0) == {}
    check_slots_are_back(night.terminal)
    for note in night.notes.iterdir():
        assert not Path("/proc", note.read_text().split()[0]).exists()

"""The promises of the launcher protocol, checked for every launcher."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pgolf_sweep.core.errors import InfraError
from pgolf_sweep.core.trial import EndCause, Limits, LogSummary, Resources, StepReport, TrialSpec
from pgolf_sweep.launch.base import Ended, Event, Job, Launcher, Reported, Started
from pgolf_sweep.launch.inline import Finish, InlineLauncher, SimulatedClock

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

SLOTS = 2
LINE = "step:{step}/20 val_loss:2.5 val_bpb:{bpb} train_time:10ms step_avg:1.00ms"
SCRIPTS = {
    "reports": f"""
print("{LINE.format(step=10, bpb=1.5)}")
print("{LINE.format(step=20, bpb=1.25)}")
""",
    "hangs": "import time\nprint('up')\ntime.sleep(1000)",
    "fails": "import sys\nsys.exit(3)",
}


def simulate(job: Job) -> Iterator[tuple[float, StepReport | Finish]]:
    kind = job.spec.knobs["KIND"]
    if kind == "reports":
        yield 1.0, StepReport(step=10, total_steps=20, val_bpb=1.5)
        yield 1.0, StepReport(step=20, total_steps=20, val_bpb=1.25)
        yield 0.1, Finish(summary=LogSummary(steps=20))
    elif kind == "hangs":
        yield 1000.0, Finish()
    else:
        yield 0.1, Finish(exit_code=3)


@pytest.fixture(
    scope="module", params=["inline", "nodes", pytest.param("ray", marks=[pytest.mark.ray])]
)
def launcher(request: pytest.FixtureRequest) -> Iterator[Launcher]:
    if request.param == "inline":
        made: Launcher = InlineLauncher(SLOTS, simulate, SimulatedClock())
    elif request.param == "nodes":
        made = InlineLauncher(SLOTS, simulate, SimulatedClock(), slots_per_node=1)
    else:
        from pgolf_sweep.launch.ray.launcher import RayLauncher

        made = RayLauncher(None, Resources(gpus=0, cpus=1.0), SLOTS)
    yield made
    made.close()


class Bench:
    """A launcher with jobs for it; collects every event until all jobs are over."""

    def __init__(self, launcher: Launcher, folder: Path) -> None:
        self.launcher = launcher
        self.folder = folder
        self.events: list[Event] = []

    def job(
        self,
        key: str,
        kind: str,
        attempt: int = 0,
        avoid: Collection[str] = frozenset(),
        slots: int = 1,
    ) -> Job:
        spec = TrialSpec(
            study="contract",
            number=1,
            knobs={"KIND": kind},
            env={},
            program_name="train_gpt.py",
            program_sha256="0",
            resources=Resources(gpus=0, cpus=1.0),
            limits=Limits(total_seconds=60.0, silent_seconds=60.0),
            proposer="test",
        )
        files = {"train_gpt.py": SCRIPTS[kind].encode()}
        folder = self.folder / key
        return Job(
            key=key,
            attempt=attempt,
            spec=spec,
            files=files,
            folder=folder,
            avoid=avoid,
            slots=slots,
        )

    def start(
        self, key: str, kind: str, attempt: int = 0, avoid: Collection[str] = frozenset()
    ) -> str:
        return self.launcher.start(self.job(key, kind, attempt, avoid))

    def poll_until(self, kind: type[Event], count: int = 1) -> None:
        for _ in range(200):
            if sum(isinstance(event, kind) for event in self.events) >= count:
                return
            self.events += self.launcher.poll(0.5)
        pytest.fail(f"no {kind.__name__} among {self.events}")

    def of(self, key: str, attempt: int = 0) -> list[Event]:
        return [e for e in self.events if (e.key, e.attempt) == (key, attempt)]

    def end(self, key: str, attempt: int = 0) -> Ended:
        (end,) = [e for e in self.of(key, attempt) if isinstance(e, Ended)]
        return end


@pytest.fixture
def bench(launcher: Launcher, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(launcher, tmp_path)
    yield made
    for slot in launcher.slots():
        if slot.busy_with is not None:
            launcher.cancel(slot.busy_with, "the test is over")
    for _ in range(50):
        if launcher.free() == SLOTS:
            break
        launcher.poll(0.2)
    assert launcher.free() == SLOTS


def test_a_job_of_two_slots_takes_both_of_one_node(bench: Bench) -> None:
    wide = bench.job("wide", "hangs", slots=2)
    if len({slot.node for slot in bench.launcher.slots()}) == SLOTS:
        assert bench.launcher.free(slots=2) == 0
        with pytest.raises(InfraError, match="no free slot"):
            bench.launcher.start(wide)
        return
    assert bench.launcher.free(slots=2) == 1
    bench.launcher.start(wide)
    assert bench.launcher.free() == bench.launcher.free(slots=2) == 0
    assert [slot.busy_with for slot in bench.launcher.slots()] == ["wide", "wide"]
    bench.poll_until(Started)
    bench.launcher.cancel("wide", "seen enough")
    bench.poll_until(Ended)
    assert bench.end("wide").end.cause is EndCause.CANCELLED
    assert bench.launcher.free(slots=2) == 1


def test_run_starts_reports_in_order_and_ends_once(bench: Bench) -> None:
    bench.start("1", "reports")
    bench.poll_until(Ended)
    started, *reports, ended = bench.events
    assert isinstance(started, Started)
    assert [e.report.step for e in reports if isinstance(e, Reported)] == [10, 20]
    assert [e.report.val_bpb for e in reports if isinstance(e, Reported)] == [1.5, 1.25]
    assert isinstance(ended, Ended)
    assert ended.end.cause is EndCause.EXITED
    assert ended.end.exit_code == 0
    assert ended.end.summary.steps == 20
    assert ended.end.node == started.node
    assert started.at <= ended.end.ended_at
    assert ended.end.slot_seconds > 0
    assert bench.launcher.poll(0.3) == []


def test_exit_code_of_a_failed_script_is_told(bench: Bench) -> None:
    bench.start("1", "fails")
    bench.poll_until(Ended)
    assert bench.end("1").end.exit_code == 3
    assert bench.end("1").end.cause is EndCause.EXITED


def test_every_job_ends_exactly_once(bench: Bench) -> None:
    todo = [(str(n), kind) for n, kind in enumerate(["reports", "fails", "reports"] * 3)]
    waiting = list(todo)
    ended = 0
    while ended < len(todo):
        while waiting and bench.launcher.free():
            bench.start(*waiting.pop(0))
        new = bench.launcher.poll(5.0)
        bench.events += new
        ended += sum(isinstance(e, Ended) for e in new)
    bench.events += bench.launcher.poll(0.3)
    for key, kind in todo:
        assert bench.end(key).end.exit_code == (3 if kind == "fails" else 0)


def test_free_counts_slots_and_slots_name_their_jobs(bench: Bench) -> None:
    assert bench.launcher.free() == SLOTS
    bench.start("a", "hangs")
    assert bench.launcher.free() == SLOTS - 1
    bench.start("b", "hangs")
    assert bench.launcher.free() == 0
    assert {slot.busy_with for slot in bench.launcher.slots()} == {"a", "b"}
    bench.poll_until(Started, 2)
    bench.launcher.cancel("a", "room")
    bench.poll_until(Ended)
    assert bench.launcher.free() == 1
    assert {slot.busy_with for slot in bench.launcher.slots()} == {None, "b"}


def test_start_without_a_free_slot_is_refused(bench: Bench) -> None:
    bench.start("a", "hangs")
    bench.start("b", "hangs")
    with pytest.raises(InfraError, match="no free slot"):
        bench.start("c", "hangs")
    assert bench.launcher.free() == 0


def test_nodes_hold_all_slots_and_start_names_the_one_that_it_took(bench: Bench) -> None:
    nodes = {node.name for node in bench.launcher.nodes()}
    assert nodes == {slot.node for slot in bench.launcher.slots()}
    took = bench.start("a", "hangs")
    (busy,) = [slot for slot in bench.launcher.slots() if slot.busy_with == "a"]
    assert took == busy.node


def test_job_does_not_start_on_a_node_that_it_avoids(bench: Bench) -> None:
    slots = [slot.node for slot in bench.launcher.slots()]
    for name in set(slots):
        assert bench.launcher.free({name}) == SLOTS - slots.count(name)
    assert bench.launcher.free(set(slots)) == 0
    with pytest.raises(InfraError, match="no free slot"):
        bench.start("a", "hangs", avoid=set(slots))
    for key, name in enumerate(sorted(set(slots))[1:]):
        assert bench.start(str(key), "hangs", avoid={name}) != name


def test_start_of_a_live_key_is_refused(bench: Bench) -> None:
    bench.start("a", "hangs")
    with pytest.raises(InfraError, match="runs already"):
        bench.start("a", "hangs", attempt=1)
    assert bench.launcher.free() == SLOTS - 1


def test_cancel_ends_a_run_with_its_reason(bench: Bench) -> None:
    bench.start("a", "hangs")
    bench.poll_until(Started)
    bench.launcher.cancel("a", "pruned at step 3")
    bench.launcher.cancel("a", "once more")
    bench.poll_until(Ended)
    end = bench.end("a").end
    assert end.cause is EndCause.CANCELLED
    assert end.detail == "pruned at step 3"
    assert end.exit_code == -15
    assert bench.launcher.poll(0.5) == []


def test_cancel_right_after_start_ends_the_run(bench: Bench) -> None:
    bench.start("a", "hangs")
    bench.launcher.cancel("a", "changed my mind")
    bench.poll_until(Ended)
    assert bench.end("a").end.cause is EndCause.CANCELLED


def test_cancel_of_an_unknown_key_is_ignored(bench: Bench) -> None:
    bench.start("a", "hangs")
    bench.poll_until(Started)
    bench.launcher.cancel("nobody", "why not")
    assert bench.launcher.poll(0.3) == []
    assert bench.launcher.free() == SLOTS - 1


def test_second_attempt_hears_nothing_of_the_first(bench: Bench) -> None:
    bench.start("a", "hangs")
    bench.poll_until(Started)
    bench.launcher.cancel("a", "again")
    bench.poll_until(Ended)
    bench.start("a", "reports", attempt=1)
    bench.poll_until(Ended, 2)
    first_end = bench.events.index(bench.end("a", 0))
    assert {e.attempt for e in bench.events[first_end + 1 :]} == {1}
    assert bench.end("a", 1).end.cause is EndCause.EXITED
    assert len([e for e in bench.of("a", 1) if isinstance(e, Reported)]) == 2


def test_poll_without_jobs_returns_nothing(bench: Bench) -> None:
    assert bench.launcher.poll(0.05) == []
    assert bench.launcher.poll(0.0) == []

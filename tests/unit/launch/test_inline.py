from __future__ import annotations

from typing import TYPE_CHECKING

from pgolf_sweep.core.trial import EndCause, Limits, Resources, StepReport, TrialSpec
from pgolf_sweep.launch.base import Ended, Job, Started
from pgolf_sweep.launch.inline import Finish, InlineLauncher, SimulatedClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def job(key: int, folder: Path) -> Job:
    spec = TrialSpec(
        study="s",
        number=key,
        knobs={},
        env={},
        program_name="train_gpt.py",
        program_sha256="0",
        resources=Resources(gpus=8, cpus=8.0),
        limits=Limits(total_seconds=1e4, silent_seconds=1e4),
        proposer="test",
    )
    return Job(key=str(key), attempt=0, spec=spec, files={}, folder=folder / str(key))


def test_ten_thousand_trials_are_simulated(tmp_path: Path) -> None:
    def simulate(job: Job) -> Iterator[tuple[float, StepReport | Finish]]:
        for step in range(10):
            yield 60.0, StepReport(step=step, val_bpb=2.0)

    clock = SimulatedClock()
    launcher = InlineLauncher(64, simulate, clock)
    started = ended = 0
    while ended < 10_000:
        while launcher.free() and started < 10_000:
            launcher.start(job(started, tmp_path))
            started += 1
        ended += sum(isinstance(event, Ended) for event in launcher.poll(3600.0))
    # 157 rounds of 64 slots, ten minutes each.
    assert clock.monotonic() == 157 * 600.0


def test_poll_moves_the_clock_by_its_timeout_when_nothing_happens(tmp_path: Path) -> None:
    clock = SimulatedClock()
    launcher = InlineLauncher(1, lambda _: [(100.0, Finish())], clock)
    launcher.start(job(1, tmp_path))
    assert isinstance(launcher.poll(10.0)[0], Started)
    assert launcher.poll(10.0) == []
    assert clock.monotonic() == 10.0
    (ended,) = launcher.poll(1000.0)
    assert isinstance(ended, Ended)
    assert clock.monotonic() == 100.0
    assert ended.end.slot_seconds == 100.0


def test_cancelled_run_reports_no_more_and_leaves_no_files(tmp_path: Path) -> None:
    def simulate(job: Job) -> Iterator[tuple[float, StepReport | Finish]]:
        yield 1.0, StepReport(step=1)
        yield 0.0, Finish(files={"final_model.int8.ptz": b"x"})

    launcher = InlineLauncher(1, simulate, SimulatedClock(), cancel_seconds=5.0)
    launcher.start(job(1, tmp_path))
    launcher.cancel("1", "pruned")
    events = launcher.poll(60.0) + launcher.poll(60.0)
    assert [type(event) for event in events] == [Started, Ended]
    assert isinstance(events[1], Ended)
    assert events[1].end.cause is EndCause.CANCELLED
    assert not (tmp_path / "1" / "final_model.int8.ptz").exists()


def test_files_of_a_finished_run_are_there_when_its_end_is(tmp_path: Path) -> None:
    finish = Finish(files={"final_model.int8.ptz": b"x"}, model_file_bytes=1)
    launcher = InlineLauncher(1, lambda _: [(1.0, finish)], SimulatedClock())
    launcher.start(job(1, tmp_path))
    launcher.poll(0.0)
    (ended,) = launcher.poll(60.0)
    assert isinstance(ended, Ended)
    assert ended.end.model_file_bytes == 1
    assert (tmp_path / "1" / "final_model.int8.ptz").read_bytes() == b"x"


def test_close_ends_every_run(tmp_path: Path) -> None:
    launcher = InlineLauncher(2, lambda _: [(1.0, Finish())], SimulatedClock())
    launcher.start(job(1, tmp_path))
    launcher.close()
    assert launcher.free() == 2
    assert not any(isinstance(event, Ended) for event in launcher.poll(60.0))

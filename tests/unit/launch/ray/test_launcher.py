"""One local Ray: worker and driver killed, disks refusing, files and logs coming back."""

from __future__ import annotations

import dataclasses
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import ray
from support import hanging

from pgolf_sweep import __version__
from pgolf_sweep.core.errors import InfraError
from pgolf_sweep.core.paths import TrialPaths
from pgolf_sweep.core.trial import EndCause, Limits, Resources, TrialSpec
from pgolf_sweep.launch.base import Ended, Event, Job, Started
from pgolf_sweep.launch.node.worker import Worker
from pgolf_sweep.launch.ray import launcher as ray_launcher
from pgolf_sweep.launch.ray import slots
from pgolf_sweep.launch.ray.launcher import RayLauncher
from pgolf_sweep.track.base import RunTracking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.ray

HANGS = """
import os, time
print(os.getpid(), flush=True)
time.sleep(1000)
"""


def make_job(folder: Path, code: str, key: str = "1", wandb: Path | None = None) -> Job:
    spec = TrialSpec(
        study="s",
        number=1,
        knobs={},
        env={},
        program_name="train_gpt.py",
        program_sha256="0",
        resources=Resources(gpus=0, cpus=1.0),
        limits=Limits(total_seconds=60.0, silent_seconds=60.0),
        proposer="test",
    )
    tracking = RunTracking(
        mode="offline",
        project="p",
        entity=None,
        group="s",
        run_id="s-1",
        name="s-1",
        config={"MATRIX_LR": 0.04},
        cap_bytes=1000,
    )
    return Job(
        key=key,
        attempt=0,
        spec=spec,
        files={"train_gpt.py": code.encode()},
        folder=folder,
        tracking=tracking if wandb is not None else None,
        wandb_folder=wandb,
    )


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return False
    return state not in {b"Z", b"X"}


def wait_until(claim: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def run_until(launcher: RayLauncher, kind: type[Event], seconds: float = 30.0) -> list[Event]:
    events: list[Event] = []
    deadline = time.monotonic() + seconds
    while not any(isinstance(event, kind) for event in events):
        assert time.monotonic() < deadline, events
        events += launcher.poll(0.5)
    return events


def script_pid(launcher: RayLauncher, job: Job) -> int:
    """The process id that a running `HANGS` printed; its log arrives while it runs."""
    live = TrialPaths(job.folder).live_log
    deadline = time.monotonic() + 20.0
    while not live.exists() or not live.read_bytes().endswith(b"\n"):
        assert time.monotonic() < deadline
        launcher.poll(0.1)
    return int(live.read_text())


# First of all: a process that has joined a cluster uses that.
def test_address_where_nothing_listens_is_refused_in_seconds() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    begun = time.monotonic()
    with pytest.raises(InfraError, match="no Ray cluster answers") as caught:
        RayLauncher(address, Resources(gpus=0, cpus=1.0))
    assert time.monotonic() - begun < 10.0
    assert address in (caught.value.where or "")
    assert caught.value.next_step


@pytest.fixture(scope="module")
def launcher() -> Iterator[RayLauncher]:
    made = RayLauncher(None, Resources(gpus=0, cpus=1.0), 1)
    yield made
    made.close()
    assert not ray.is_initialized()


def test_slot_is_reused_without_a_pause(launcher: RayLauncher, tmp_path: Path) -> None:
    gaps = []
    ended_at = None
    for n in range(10):
        launcher.start(make_job(tmp_path / str(n), "print('hello')", key=str(n)))
        for event in run_until(launcher, Ended):
            if isinstance(event, Started) and ended_at is not None:
                gaps.append(event.at - ended_at)
            if isinstance(event, Ended):
                ended_at = event.end.ended_at
        assert TrialPaths(tmp_path / str(n)).log.read_text() == "hello\n"
        assert not TrialPaths(tmp_path / str(n)).live_log.exists()
    assert sorted(gaps)[len(gaps) // 2] < 0.5  # alone on the machine: 0.015


def test_files_are_in_the_jobs_folder_when_its_end_is_told(
    launcher: RayLauncher, tmp_path: Path
) -> None:
    code = "open('final_model.int8.ptz', 'wb').write(bytes(3_000_000))"
    launcher.start(make_job(tmp_path / "1", code))
    ended = run_until(launcher, Ended)[-1]
    assert isinstance(ended, Ended)
    assert ended.end.model_file_bytes == 3_000_000
    artifact = TrialPaths(tmp_path / "1").artifact()
    assert artifact is not None
    assert artifact.stat().st_size == 3_000_000


def test_long_log_arrives_whole(launcher: RayLauncher, tmp_path: Path) -> None:
    launcher.start(make_job(tmp_path / "1", "for n in range(1_000_000): print(f'{n:09}')"))
    run_until(launcher, Ended)
    log = TrialPaths(tmp_path / "1").log.read_bytes()
    assert log == b"".join(b"%09d\n" % n for n in range(1_000_000))


def test_worker_of_another_version_gets_no_trial(
    launcher: RayLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver takes itself for a newer one; the workers are real."""
    newer = dataclasses.replace(ray_launcher.own_identity(), version="9.9.9")
    monkeypatch.setattr(ray_launcher, "own_identity", lambda: newer)
    with pytest.raises(InfraError, match="runs another version of pgolf-sweep") as caught:
        RayLauncher(None, Resources(gpus=0, cpus=1.0), 1)
    assert f"pgolf-sweep {__version__} (" in (caught.value.got or "")
    assert "pgolf-sweep 9.9.9" in (caught.value.expected or "")
    assert "pip install pgolf-sweep==9.9.9" in (caught.value.next_step or "")
    assert launcher.slots()


@pytest.mark.slow
def test_error_that_keeps_a_worker_from_starting_is_told(
    launcher: RayLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Worker):
        def __init__(self, **_: object) -> None:
            raise ModuleNotFoundError("No module named 'simpleeval'")

    monkeypatch.setattr(ray_launcher, "Worker", Broken)
    with pytest.raises(InfraError, match="no slot came up") as caught:
        RayLauncher(None, Resources(gpus=0, cpus=1.0), 1, ready_seconds=60.0)
    assert "ModuleNotFoundError: No module named 'simpleeval'" in (caught.value.got or "")
    assert launcher.slots()


def test_killed_worker_is_a_lost_run_and_its_slot_works_again(
    launcher: RayLauncher,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = make_job(tmp_path / "1", HANGS)
    launcher.start(job)
    pid = script_pid(launcher, job)
    worker = ray.get(launcher._slots[0].actor.ready.remote()).pid
    os.kill(worker, signal.SIGKILL)
    ended = run_until(launcher, Ended)[-1]
    assert isinstance(ended, Ended)
    assert ended.end.cause is EndCause.LOST
    assert ended.end.log_tail == (str(pid),)
    wait_until(lambda: not alive(pid), 3.0)
    assert TrialPaths(job.folder).log.exists()
    wait_for_slot(launcher)
    wait_until(lambda: "Ray: A worker died" in caplog.text, 20.0)
    assert capsys.readouterr().out == ""  # it belongs to the command
    launcher.start(make_job(tmp_path / "2", "print('next')", key="2"))
    ended = run_until(launcher, Ended)[-1]
    assert isinstance(ended, Ended)
    assert ended.end.cause is EndCause.EXITED


def wait_for_slot(launcher: RayLauncher) -> None:
    deadline = time.monotonic() + 40.0
    while launcher.free() == 0:
        assert time.monotonic() < deadline
        assert launcher.poll(0.2) == []


def test_frozen_worker_is_lost_and_killed_when_its_lease_ends(
    launcher: RayLauncher, tmp_path: Path
) -> None:
    # A second launcher in the same cluster, on the second CPU, with a short lease.
    own = RayLauncher(None, Resources(gpus=0, cpus=1.0), 1, lease_seconds=3.0)
    job = make_job(tmp_path / "1", HANGS)
    own.start(job)
    pid = script_pid(own, job)
    worker = ray.get(own._slots[0].actor.ready.remote()).pid
    begun = time.monotonic()
    os.kill(worker, signal.SIGSTOP)
    ended = run_until(own, Ended)[-1]
    assert isinstance(ended, Ended)
    assert ended.end.cause is EndCause.LOST
    assert time.monotonic() - begun < 6.0
    wait_until(lambda: not alive(pid) and not alive(worker), 5.0)
    wait_for_slot(own)
    own.close()


def test_worker_that_cannot_start_a_run_is_replaced(launcher: RayLauncher, tmp_path: Path) -> None:
    wait_for_slot(launcher)
    worker = ray.get(launcher._slots[0].actor.ready.remote()).pid
    opened = len(list(Path(f"/proc/{worker}/fd").iterdir()))
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (opened, opened))
    for key in ("1", "2"):  # the first takes the guard that was made ahead
        launcher.start(make_job(tmp_path / key, "print('hello')", key=key))
        ended = run_until(launcher, Ended)[-1]
    assert isinstance(ended, Ended)
    assert ended.end.cause is EndCause.LOST
    assert "worker failed: OSError(24, 'Too many open files" in ended.end.detail
    wait_for_slot(launcher)
    launcher.start(make_job(tmp_path / "3", "print('next')", key="3"))
    ended = run_until(launcher, Ended)[-1]
    assert isinstance(ended, Ended)
    assert ended.end.cause is EndCause.EXITED


def test_run_whose_guard_is_frozen_is_given_up_after_it_was_cancelled(
    launcher: RayLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "END_SECONDS", 2.0)
    wait_for_slot(launcher)
    job = make_job(tmp_path / "1", HANGS)
    launcher.start(job)
    pid = script_pid(launcher, job)
    guard = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    os.kill(guard, signal.SIGSTOP)
    launcher.cancel("1", "pruned")
    ended = run_until(launcher, Ended)[-1]
    os.kill(guard, signal.SIGKILL)
    assert isinstance(ended, Ended)
    assert ended.end.cause is EndCause.LOST
    assert ended.end.detail == "the run has not ended 2 s after it was cancelled"
    wait_for_slot(launcher)


@pytest.mark.slow
@pytest.mark.skipif(hanging.why_not() is not None, reason=str(hanging.why_not()))
def test_run_that_hangs_in_the_kernel_is_lost_and_its_worker_replaced(
    launcher: RayLauncher, tmp_path: Path
) -> None:
    wait_for_slot(launcher)
    worker = ray.get(launcher._slots[0].actor.ready.remote()).pid
    with hanging.hanging_folder(tmp_path / "nfs") as folder:
        code = HANGS.replace("time.sleep(1000)", f"os.stat({str(folder / 'x')!r})")
        job = make_job(tmp_path / "1", code)
        limits = dataclasses.replace(job.spec.limits, silent_seconds=1.0)
        job = dataclasses.replace(job, spec=dataclasses.replace(job.spec, limits=limits))
        begun = time.monotonic()
        launcher.start(job)
        pid = script_pid(launcher, job)
        ended = run_until(launcher, Ended, 90.0)[-1]
        assert isinstance(ended, Ended)
        assert ended.end.cause is EndCause.LOST
        assert ended.end.detail == f"SIGKILL does not end process {pid} (python)"
        assert time.monotonic() - begun < 45.0
        assert alive(pid)
        wait_for_slot(launcher)
        assert ray.get(launcher._slots[0].actor.ready.remote()).pid != worker
        launcher.start(make_job(tmp_path / "2", "print('next')", key="2"))
        ended = run_until(launcher, Ended)[-1]
        assert isinstance(ended, Ended)
        assert ended.end.cause is EndCause.EXITED
    wait_until(lambda: not alive(pid), 10.0)


@pytest.mark.slow
def test_harvests_that_hang_keep_no_worker_from_its_answers(
    launcher: RayLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hangs(Worker):
        def harvest(self, run: str, timeout_seconds: float) -> dict[str, bytes]:
            del run, timeout_seconds
            time.sleep(600.0)
            return {}

    monkeypatch.setattr(ray_launcher, "Worker", Hangs)
    monkeypatch.setattr(ray_launcher, "HARVEST_SECONDS", 0.5)
    own = RayLauncher(None, Resources(gpus=0, cpus=1.0), 1, lease_seconds=5.0)
    for n in range(20):
        job = make_job(tmp_path / str(n), "print('hello')", key=str(n), wandb=tmp_path / "wandb")
        assert job.tracking is not None
        tracking = dataclasses.replace(job.tracking, mode="disabled")
        own.start(dataclasses.replace(job, tracking=tracking))
        ended = run_until(own, Ended)[-1]
        assert isinstance(ended, Ended)
        assert ended.end.cause is EndCause.EXITED, ended.end.detail
    own.close()


def test_folder_that_cannot_be_written_ends_the_job_as_a_failed_write(
    launcher: RayLauncher, tmp_path: Path
) -> None:
    wait_for_slot(launcher)
    (tmp_path / "file").touch()
    launcher.start(make_job(tmp_path / "file" / "1", "print('never')"))
    (ended,) = launcher.poll(1.0)
    assert isinstance(ended, Ended)
    assert ended.end.cause is EndCause.OUTPUT_WRITE_FAILED
    assert "cannot be written" in ended.end.detail
    assert launcher.free() == 1


def test_full_disk_of_the_driver_ends_the_run_as_a_failed_write(
    launcher: RayLauncher, tmp_path: Path
) -> None:
    wait_for_slot(launcher)
    job = make_job(tmp_path / "1", HANGS)
    TrialPaths(job.folder).root.mkdir()
    TrialPaths(job.folder).live_log.symlink_to("/dev/full")
    launcher.start(job)
    ended = run_until(launcher, Ended)[-1]
    assert isinstance(ended, Ended)
    assert ended.end.cause is EndCause.OUTPUT_WRITE_FAILED
    assert "No space left" in ended.end.detail
    assert launcher.free() == 1


def test_offline_wandb_run_lands_without_delaying_the_end(
    launcher: RayLauncher, tmp_path: Path
) -> None:
    wait_for_slot(launcher)
    folder = tmp_path / "wandb"
    launcher.start(make_job(tmp_path / "1", "print('hello')", wandb=folder))
    run_until(launcher, Ended)
    assert launcher.free() == 1
    deadline = time.monotonic() + 60.0
    while not list(folder.glob("offline-run-*/*.wandb")):
        assert time.monotonic() < deadline
        launcher.poll(0.2)


def test_more_gpus_than_any_node_has_is_refused(launcher: RayLauncher) -> None:
    with pytest.raises(InfraError, match="no node of the cluster can hold a trial") as caught:
        RayLauncher(None, Resources(gpus=8, cpus=1.0))
    assert "0 GPUs" in (caught.value.got or "")
    assert ray.is_initialized()  # the module's launcher still needs it


DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from pgolf_sweep.launch.ray.launcher import RayLauncher
from pgolf_sweep.core.trial import Resources
from test_launcher import HANGS, make_job
if __name__ == "__main__":
    launcher = RayLauncher(None, Resources(gpus=0, cpus=1.0), 1)
    launcher.start(make_job(Path(sys.argv[1]), HANGS))
    while True:
        launcher.poll(1.0)
"""


@pytest.mark.slow
def test_killed_driver_leaves_no_process(tmp_path: Path) -> None:
    arguments = [str(tmp_path / "1"), str(Path(__file__).parent)]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, *arguments], env=environ)
    live = TrialPaths(tmp_path / "1").live_log
    wait_until(lambda: live.exists() and live.read_bytes().endswith(b"\n"), 60.0)
    pid = int(live.read_text())
    assert alive(pid)
    driver.kill()
    driver.wait()
    wait_until(lambda: not alive(pid), 10.0)

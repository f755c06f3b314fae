"""Real processes, no Ray: what scripts get up to, and that nothing of them survives."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import smi

from pgolf_sweep.core.classify import classify
from pgolf_sweep.core.trial import (
    EndCause,
    Failed,
    FailureKind,
    Limits,
    LogSummary,
    Resources,
    RunEnd,
    StepReport,
    TrainingReuse,
    TrialSpec,
)
from pgolf_sweep.launch.node import process, run, worker
from pgolf_sweep.launch.node.process import MARKER, GuardedProcess, marked
from pgolf_sweep.launch.node.run import BEGINNING, FOLDER_PREFIX, Progress, RunOrder
from pgolf_sweep.launch.node.worker import Worker, remove_leftovers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# Each script writes the ids of its processes to the file named by PIDS.
NOTE = """
import os, signal, sys, time
def note():
    with open(os.environ["PIDS"], "a") as file:
        file.write(f"{os.getpid()}\\n")
note()
"""
DAEMON = (
    NOTE
    + """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note()
        time.sleep(1000)
    os._exit(0)
os.wait()
while len(open(os.environ["PIDS"]).readlines()) < 2:
    time.sleep(0.01)
print("daemon is up")
"""
)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return False
    return state not in {b"Z", b"X"}


def wait_until(claim: Callable[[], bool], seconds: float = 10.0) -> float:
    begun = time.monotonic()
    while not claim():
        assert time.monotonic() - begun < seconds, "it did not happen in time"
        time.sleep(0.01)
    return time.monotonic() - begun


class Bench:
    """A worker and what its runs brought."""

    def __init__(self, folder: Path) -> None:
        self.scratch = folder / "scratch"
        self.pids_file = folder / "pids"
        self.pids_file.touch()
        self.worker = Worker(self.scratch)
        self.count = 0
        self.log = b""
        self.reports: list[StepReport] = []
        self.files: Mapping[str, bytes] = {}
        self.unkillable = ""

    def start(
        self,
        code: str,
        *,
        total: float = 60.0,
        silent: float = 60.0,
        log_bytes: int = 64_000_000,
        gpus: int = 0,
        env: Mapping[str, str] | None = None,
        reuse: TrainingReuse | None = None,
    ) -> str:
        self.count += 1
        spec = TrialSpec(
            study="s",
            number=1,
            knobs={},
            env={"PIDS": str(self.pids_file)} | dict(env or {}),
            program_name="train_gpt.py",
            program_sha256="0",
            resources=Resources(gpus=gpus, cpus=1.0),
            limits=Limits(total_seconds=total, silent_seconds=silent, log_bytes=log_bytes),
            proposer="test",
        )
        run = f"run-{self.count}"
        files = {"train_gpt.py": code.encode()}
        order = RunOrder(
            run=run, node="here", spec=spec, files=files, reuse=reuse or TrainingReuse()
        )
        self.worker.start(order)
        return run

    def finish(self, run: str) -> RunEnd:
        cursor = BEGINNING
        while True:
            progress: Progress = self.worker.poll(run, cursor, 5.0)
            cursor = progress.cursor
            self.log += progress.log
            self.reports += progress.reports
            if progress.end is not None:
                self.files = progress.files
                self.unkillable = progress.unkillable
                return progress.end

    def run(self, code: str, **limits: float) -> RunEnd:
        return self.finish(self.start(code, **limits))  # type: ignore[arg-type]

    def pids(self) -> list[int]:
        return [int(line) for line in self.pids_file.read_text().split()]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.worker.close()


def test_script_that_prints_a_score_exits_with_its_summary(bench: Bench) -> None:
    end = bench.run(
        "print('step:1/2 val_loss:2.0 val_bpb:1.5 train_time:10ms step_avg:1.0ms')\n"
        "print('final_int8_zlib_roundtrip_exact val_loss:2.1 val_bpb:1.6')\n"
    )
    assert (end.cause, end.exit_code) == (EndCause.EXITED, 0)
    assert end.summary.val_bpb == 1.6
    assert [report.val_bpb for report in bench.reports] == [1.5]
    assert end.node == "here"


def test_script_without_a_score_exits_with_0_and_says_so(bench: Bench) -> None:
    end = bench.run("print('I forgot')")
    assert (end.cause, end.exit_code, end.summary.val_bpb) == (EndCause.EXITED, 0, None)
    assert end.log_tail == ("I forgot",)


def test_script_that_raises_ends_with_1_and_its_traceback(bench: Bench) -> None:
    end = bench.run("raise ValueError('head dimension')")
    assert (end.cause, end.exit_code) == (EndCause.EXITED, 1)
    assert end.log_tail[-1] == "ValueError: head dimension"


def test_secrets_do_not_leave_the_node(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "no-known-form-of-a-key")
    end = bench.run(
        "import os\nprint('I have', os.environ.get('OPENAI_API_KEY'))\n"
        "print('final_other_exact bpb=1.2 hf_0123456789abcdefghij')\n"
        "raise ValueError('no-known-form-of-a-key at postgresql://me:pass-word@db/x')"
    )
    assert "I have None" in end.log_tail
    assert end.log_tail[-1] == "ValueError: *** at postgresql://me@db/x"
    assert "hf_0123" not in str(end)


def test_killed_guard_leaves_no_process_of_a_session_of_its_own(bench: Bench) -> None:
    run = bench.start(DAEMON + "time.sleep(1000)")
    wait_until(lambda: len(bench.pids()) == 2)
    guard = int(Path(f"/proc/{bench.pids()[0]}/stat").read_bytes().rpartition(b")")[2].split()[1])
    os.kill(guard, signal.SIGKILL)
    end = bench.finish(run)
    assert (end.cause, bench.unkillable) == (EndCause.LOST, "")
    assert not any(alive(pid) for pid in bench.pids())


def test_run_has_not_ended_while_a_gpu_still_lists_its_dead_process(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = smi.say(tmp_path / "said", smi.Card(0))
    monkeypatch.setenv("FAKE_SMI", str(said))
    folder = smi.install(tmp_path / "bin", sys.executable)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    run = bench.start(DAEMON + "time.sleep(1000)")
    wait_until(lambda: len(bench.pids()) == 2)
    held = tuple(("GPU-0", pid, "python") for pid in bench.pids())
    smi.say(said, smi.Card(0, used_mib=70_000), apps=held)
    guard = int(Path(f"/proc/{bench.pids()[0]}/stat").read_bytes().rpartition(b")")[2].split()[1])
    os.kill(guard, signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in bench.pids()))
    assert bench.worker.poll(run, BEGINNING, 2.0).end is None
    smi.say(said, smi.Card(0))
    end = bench.finish(run)
    assert (end.cause, bench.unkillable) == (EndCause.LOST, "")


HIDING = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    # Without the marker, too: only its parent tells whose it is.
    code = "import os, sys, time; print(os.getpid(), file=open(sys.argv[1], 'a'), flush=True)"
    code += "; time.sleep(1000)"
    os.execve(sys.executable, [sys.executable, "-c", code, os.environ["PIDS"]], {})
time.sleep(1000)
"""


def test_killed_guard_leaves_no_process_that_hides(tmp_path: Path) -> None:
    # In a process of its own, which becomes the orphans' parent.
    code = (
        "import os, sys, signal, time\n"
        "sys.path[:0] = sys.argv[3:]\n"
        "from pathlib import Path\n"
        "from unit.launch.node.test_worker import Bench, HIDING\n"
        "from pgolf_sweep.launch.node.worker import Worker\n"
        "bench = Bench(Path(sys.argv[1]))\n"
        "bench.worker = Worker(bench.scratch, exit_when_alone=True)\n"
        "run = bench.start(HIDING)\n"
        "while not bench.pids(): time.sleep(0.05)\n"
        "time.sleep(1.5)\n"
        "inside = bench.worker._run._guard\n"
        "os.kill(inside._guard.pid, signal.SIGKILL)\n"
        "print(bench.finish(run).cause.value)\n"
    )
    tests = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), "", tests, str(Path(tests).parent)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "lost\n", done.stderr
    (pid,) = [int(word) for word in (tmp_path / "pids").read_text().split()]
    assert not alive(pid)


def test_processes_of_a_killed_worker_are_ended_by_the_next(tmp_path: Path) -> None:
    marker = f"{FOLDER_PREFIX}{2**22 + 1}-run-1"  # a process id that the kernel never gives
    sleeper = [sys.executable, "-c", "import time; time.sleep(1000)"]
    with subprocess.Popen(sleeper, env={MARKER: marker}) as left:
        wait_until(lambda: left.pid in marked(marker))
        remove_leftovers(tmp_path)
        assert left.wait(20) == -signal.SIGKILL


def test_script_killed_from_outside_is_signaled(bench: Bench) -> None:
    end = bench.run("import os\nos.kill(os.getpid(), 9)")
    assert (end.cause, end.exit_code, end.detail) == (EndCause.SIGNALED, -9, "killed by SIGKILL")


def test_silent_script_is_ended_after_its_limit(bench: Bench) -> None:
    end = bench.run("import time\nprint('up')\ntime.sleep(1000)", silent=0.5)
    assert end.cause is EndCause.SILENT


def test_total_limit_holds_for_a_script_that_ignores_sigterm(bench: Bench) -> None:
    end = bench.run(
        NOTE + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "while True:\n    print('busy')\n    time.sleep(0.05)",
        total=5.0,
    )
    assert (end.cause, end.exit_code) == (EndCause.TIMEOUT, -9)
    assert not any(alive(pid) for pid in bench.pids())


def test_daemon_of_a_script_that_exits_is_killed(bench: Bench) -> None:
    end = bench.run(DAEMON)
    assert (end.cause, end.exit_code) == (EndCause.EXITED, 0)
    assert len(bench.pids()) == 2
    assert not any(alive(pid) for pid in bench.pids())


def test_cancel_leaves_no_process(bench: Bench) -> None:
    run = bench.start(DAEMON + "time.sleep(1000)")
    wait_until(lambda: len(bench.pids()) == 2)
    bench.worker.cancel(run, "pruned")
    end = bench.finish(run)
    assert (end.cause, end.detail) == (EndCause.CANCELLED, "pruned")
    assert not any(alive(pid) for pid in bench.pids())


def test_stopped_script_can_be_cancelled(bench: Bench) -> None:
    run = bench.start(NOTE + "os.kill(os.getpid(), signal.SIGSTOP)")
    wait_until(lambda: len(bench.pids()) == 1)
    bench.worker.cancel(run, "pruned")
    assert bench.finish(run).cause is EndCause.CANCELLED


def test_cancel_before_start_arrives_ends_the_run(bench: Bench) -> None:
    bench.worker.cancel("run-1", "early")
    end = bench.run("import time\ntime.sleep(1000)")
    assert (end.cause, end.detail) == (EndCause.CANCELLED, "early")


def test_cancel_while_the_script_is_being_started_needs_no_grace(bench: Bench) -> None:
    for _ in range(10):
        run = bench.start("import time\ntime.sleep(1000)")
        wait_until(lambda run=run: bench.worker.poll(run, BEGINNING, 5.0).started_at is not None)
        bench.worker.cancel(run, "pruned")
        end = bench.finish(run)
        # By SIGTERM; a lost one would have been followed by SIGKILL after the grace.
        assert (end.cause, end.exit_code) == (EndCause.CANCELLED, -15)


def test_end_of_a_script_that_was_about_to_be_cancelled_is_its_own(bench: Bench) -> None:
    run = bench.start("print('done')")
    end = bench.finish(run)
    bench.worker.cancel(run, "too late")
    assert end.cause is EndCause.EXITED
    assert bench.run("print('next')").cause is EndCause.EXITED


def test_log_is_kept_byte_for_byte(bench: Bench) -> None:
    end = bench.run(
        "import sys\nsys.stdout.buffer.write(b'caf\\xe9 \\xff\\x00|10%\\r|100%\\r\\nlast')\n"
    )
    assert bench.log == b"caf\xe9 \xff\x00|10%\r|100%\r\nlast"
    assert end.exit_code == 0
    assert end.log_tail[-2:] == ("|100%", "last")


def test_middle_of_a_log_over_its_limit_is_dropped_and_its_last_lines_are_read(
    bench: Bench,
) -> None:
    end = bench.run(
        "for n in range(400_000): print(f'line {n:07}')\n"
        "print('final_int8_zlib_roundtrip_exact val_loss:2.1 val_bpb:1.6')\n",
        log_bytes=100_000,
    )
    assert len(bench.log) < 101_000
    lines = bench.log.decode().splitlines()
    assert lines[0] == "line 0000000"
    assert lines[-2] == "line 0399999"
    assert any("bytes of this log were dropped here" in line for line in lines)
    assert end.summary.val_bpb == 1.6


@pytest.mark.slow
def test_gigabytes_of_log_take_no_memory_and_no_disk(bench: Bench) -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    end = bench.run(
        "import sys\nblock = (b'x' * 99 + b'\\n') * 10_000\n"
        "for _ in range(300): sys.stdout.buffer.write(block)\n",
        log_bytes=2_000_000,
    )
    assert end.exit_code == 0
    assert len(bench.log) < 2_001_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # KiB


def test_line_without_an_end_does_not_eat_the_memory(bench: Bench) -> None:
    end = bench.run("import sys\nfor _ in range(50): sys.stdout.write('x' * 1_000_000)\n")
    assert end.exit_code == 0
    assert len(bench.log) == 50_000_000
    assert all(len(line) <= 1000 for line in end.log_tail)


def test_model_files_and_logs_come_back_without_large_checkpoints(bench: Bench) -> None:
    end = bench.run(
        "import os\nos.mkdir('logs')\n"
        "open('logs/a.txt', 'w').write('log')\n"
        "open('final_model.pt', 'wb').write(bytes(2_000_000))\n"
        "open('final_model.int8.ptz', 'wb').write(b'model')\n"
        "open('other.bin', 'wb').write(b'other')\n"
        "os.symlink('/etc/hostname', 'final_model.link')\n"
    )
    assert bench.files == {"logs/a.txt": b"log", "final_model.int8.ptz": b"model"}
    assert end.model_file_bytes == 5
    wait_until(lambda: not list(bench.scratch.iterdir()))


def test_program_that_cannot_be_written_is_a_setup_failure(bench: Bench) -> None:
    spec_run = bench.start("print('never')")
    bench.finish(spec_run)
    wait_until(lambda: not list(bench.scratch.iterdir()))
    bench.scratch.rmdir()
    bench.scratch.write_text("in the way")
    end = bench.run("print('never')")
    assert end.cause is EndCause.SETUP
    assert "scratch" in end.detail
    bench.scratch.unlink()
    assert bench.run("print('again')").cause is EndCause.EXITED


def test_killed_guard_takes_the_script_along_and_the_worker_goes_on(bench: Bench) -> None:
    run = bench.start(NOTE + "time.sleep(1000)")
    wait_until(lambda: len(bench.pids()) == 1)
    (script,) = bench.pids()
    guard = int(Path(f"/proc/{script}/stat").read_bytes().rpartition(b")")[2].split()[1])
    os.kill(guard, signal.SIGKILL)
    assert bench.finish(run).cause is EndCause.LOST
    wait_until(lambda: not alive(script), 3.0)
    assert bench.run("print('next')").cause is EndCause.EXITED


def test_a_guard_that_is_killed_while_it_waits_costs_no_run(bench: Bench) -> None:
    assert bench.run("print('first')").cause is EndCause.EXITED
    waiting = []
    for pid in process.children():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # one that ended
            if bytes(process.GUARD) in Path(f"/proc/{pid}/cmdline").read_bytes():
                waiting.append(pid)
    assert waiting
    for pid in waiting:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(alive, waiting)))
    assert bench.run("print('next')").cause is EndCause.EXITED


# A guard whose SIGKILL does nothing, as where a process hangs in the kernel; it waits less.
POWERLESS = f"""
import signal, sys
sys.path.insert(0, {str(process.GUARD.parent)!r})
import guard
guard.UNDYING_SECONDS, real = 0.5, guard._signal
guard._signal = lambda pid, number: number == signal.SIGKILL or real(pid, number)
guard.Guard(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])).run()
"""
STUBBORN = NOTE + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"


@pytest.fixture
def powerless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A bench on which SIGKILL does nothing."""
    program = tmp_path / "powerless.py"
    program.write_text(POWERLESS)
    monkeypatch.setattr(process, "GUARD", program)
    made = Bench(tmp_path)
    yield made
    made.worker.close()
    for pid in made.pids():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_run_that_sigkill_does_not_end_is_lost_and_names_what_is_left(powerless: Bench) -> None:
    end = powerless.run(STUBBORN + "time.sleep(1000)", total=5.0)
    (left,) = powerless.pids()
    assert end.cause is EndCause.LOST
    assert end.detail.startswith(f"SIGKILL does not end process {left} (python")
    assert powerless.unkillable == end.detail


def test_pruned_run_that_sigkill_does_not_end_is_pruned_all_the_same(powerless: Bench) -> None:
    begun = powerless.start(STUBBORN + "time.sleep(1000)")
    wait_until(lambda: len(powerless.pids()) == 1)
    powerless.worker.cancel(begun, "pruned")
    end = powerless.finish(begun)
    assert (end.cause, end.detail) == (EndCause.CANCELLED, "pruned")
    assert str(powerless.pids()[0]) in powerless.unkillable


def test_score_of_a_script_counts_where_sigkill_does_not_end_what_it_left(
    powerless: Bench,
) -> None:
    end = powerless.run(
        STUBBORN + "if os.fork() == 0:\n    note()\n    time.sleep(1000)\n"
        "while len(open(os.environ['PIDS']).readlines()) < 2:\n    time.sleep(0.01)\n"
    )
    assert (end.cause, end.exit_code) == (EndCause.EXITED, 0)
    assert str(powerless.pids()[1]) in powerless.unkillable


def test_files_that_cannot_be_read_are_the_nodes_fault_whatever_the_script_says(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def collect(_work: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(run, "collect", collect)
    end = bench.run("print('final_int8_zlib_roundtrip_exact val_loss:2.1 val_bpb:1.6')")
    assert (end.cause, end.exit_code) == (EndCause.SETUP, 0)
    assert "Input/output error" in end.detail


def test_folder_that_vanishes_under_a_script_is_the_nodes_fault(bench: Bench) -> None:
    gone = "shutil.rmtree(os.path.dirname(os.getcwd()))"
    end = bench.run(f"import os, shutil\n{gone}\nopen('train.log', 'w')")
    assert end.exit_code == 1
    assert end.cause is EndCause.SETUP
    assert "No such file" in end.detail


@pytest.mark.parametrize("last", ["open('train.log', 'w')", "print('the end')"])
def test_script_that_removes_its_working_folder_fails_by_itself(bench: Bench, last: str) -> None:
    end = bench.run(f"import os, shutil\nshutil.rmtree(os.getcwd())\n{last}")
    assert end.exit_code == int("train.log" in last)
    assert end.cause is EndCause.FOLDER_REMOVED
    assert "removed its own working folder" in end.detail
    outcome = classify(end, last_val_bpb=None, last_step=None)
    assert isinstance(outcome, Failed)
    assert outcome.kind is FailureKind.DETERMINISTIC


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("name", ["artifact", "summary"])
def test_run_has_an_end_whatever_its_files_and_its_log_are_like(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(_self: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    owner = {"artifact": run.TrialPaths, "summary": run.LogStream}[name]
    monkeypatch.setattr(owner, name, fail)
    end = bench.run("print('done')")
    assert end.cause is {"artifact": EndCause.EXITED, "summary": EndCause.SETUP}[name]
    monkeypatch.undo()
    assert bench.run("print('next')").cause is EndCause.EXITED


def test_worker_without_room_for_a_further_guard_does_not_end_its_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(worker, "GuardedProcess", refuse)
    assert bench.run("print('done')").cause is EndCause.EXITED
    with pytest.raises(OSError, match="temporarily unavailable"):
        bench.start("print('never')")


def test_guard_that_is_told_to_stop_before_its_order_ends_without_a_word() -> None:
    guard = GuardedProcess()
    guard.heartbeat()
    guard.kill()
    os.set_blocking(guard.output, True)
    assert os.read(guard.output, 1000) == b""
    assert not guard.note_status()
    guard.close()


# Ends what it started only after its heartbeat has run out; the worker beats all the while.
SLOW = f"""
import sys, time
sys.path.insert(0, {str(process.GUARD.parent)!r})
import guard
class Slow(guard.Guard):
    def _end_tree(self):
        left = super()._end_tree()
        time.sleep(1.5)
        return left
Slow(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])).run()
"""
BEATS = """
import select, sys, time
from pathlib import Path
from pgolf_sweep.launch.node import process
process.GUARD = sys.argv[1]
guard = process.GuardedProcess(1.0)
guard.start(["true"], cwd=Path.cwd(), env={"PATH": "/bin:/usr/bin"}, seconds=60.0)
while not select.select([guard.status], [], [], 0.1)[0] or guard.note_status():
    guard.heartbeat()
print(guard.ended)
"""


def test_worker_that_beats_is_not_taken_for_frozen_when_its_processes_die_slowly(
    tmp_path: Path,
) -> None:
    program = tmp_path / "slow.py"
    program.write_text(SLOW)
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", BEATS, str(program)]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "('exit', 0)\n"), done.stderr


def test_run_is_ended_when_nobody_polls(tmp_path: Path) -> None:
    made = Bench(tmp_path)
    made.worker.close()
    made.worker = Worker(made.scratch, lease_seconds=0.5)
    made.start(DAEMON + "time.sleep(1000)")
    wait_until(lambda: len(made.pids()) == 2)
    wait_until(lambda: not any(alive(pid) for pid in made.pids()), 5.0)
    end = made.finish("run-1")
    assert end.cause is EndCause.LOST
    assert "driver was silent" in end.detail
    made.worker.close()


WORKER_PROGRAM = """
import sys, time
from pathlib import Path
from pgolf_sweep.launch.node.run import RunOrder
from pgolf_sweep.launch.node.worker import Worker
from pgolf_sweep.core.trial import Limits, Resources, TrialSpec
spec = TrialSpec(study="s", number=1, knobs={}, env={"PIDS": sys.argv[2]},
    program_name="train_gpt.py", program_sha256="0", resources=Resources(gpus=0, cpus=1.0),
    limits=Limits(total_seconds=60.0, silent_seconds=60.0), proposer="test")
files = {"train_gpt.py": sys.argv[3].encode()}
worker = Worker(Path(sys.argv[1]))
worker.start(RunOrder(run="1", node="here", spec=spec, files=files))
time.sleep(1000)
"""


def test_killed_worker_takes_every_process_of_its_run_along(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    pids.touch()
    code = DAEMON + "time.sleep(1000)"
    arguments = [str(tmp_path / "scratch"), str(pids), code]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    worker = subprocess.Popen([sys.executable, "-c", WORKER_PROGRAM, *arguments], env=environ)
    wait_until(lambda: len(pids.read_text().splitlines()) == 2)
    ids = [int(line) for line in pids.read_text().split()]
    worker.kill()
    worker.wait()
    wait_until(lambda: not any(alive(pid) for pid in ids), 3.0)
    (left,) = (tmp_path / "scratch").iterdir()
    remove_leftovers(tmp_path / "scratch")
    assert not left.exists()


def test_worker_of_another_container_leaves_the_folders_of_this_one_alone(bench: Bench) -> None:
    begun = bench.start(NOTE + "time.sleep(1000)")
    wait_until(lambda: len(bench.pids()) == 1)
    (folder,) = bench.scratch.iterdir()
    code = "import sys; from pathlib import Path; from pgolf_sweep.launch.node.worker import *\n"
    code += "remove_leftovers(Path(sys.argv[1]))"
    inside = ["unshare", "--pid", "--fork", "--mount-proc"]
    other = subprocess.run(
        [*inside, sys.executable, "-c", code, str(bench.scratch)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in other.stderr:
        pytest.skip(f"no namespaces here: {other.stderr}")
    assert other.returncode == 0, other.stderr
    assert (folder / "work" / "train_gpt.py").exists()
    bench.worker.cancel(begun, "enough")
    bench.finish(begun)


def test_script_sees_the_nodes_environment_and_its_own_but_not_rays(bench: Bench) -> None:
    bench.run(
        "import os\nprint(os.environ['OMP_NUM_THREADS'], os.environ['MATRIX_LR'])",
        env={"MATRIX_LR": "0.04"},
    )  # type: ignore[arg-type]
    assert bench.log == b"1 0.04\n"


def test_knob_that_the_node_sets_behind_the_trials_back_does_not_reach_the_script(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NUM_LAYERS", "SEED", "MODEL_DIM"):
        monkeypatch.setenv(name, "20")
    monkeypatch.setenv("DATA_PATH", "/node/shards")
    end = bench.run(
        """
import os
print("layers", os.environ.get("NUM_LAYERS", 9), "seed", int(os.environ.get("SEED", 7)))
print("width", os.environ.get("MODEL_DIM"), "data", os.environ.get("DATA_PATH", "./data"))
""",
        env={"MODEL_DIM": "512"},
    )
    note, *printed = bench.log.decode().splitlines()
    assert note.endswith("(pgolf.env.pass names what it gets): NUM_LAYERS, SEED")
    assert printed == ["layers 9 seed 7", "width 512 data /node/shards"]
    assert end.summary == LogSummary()


TWO_RANKS = (
    NOTE
    + """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
total = torch.tensor([dist.get_rank() + 1.0])
dist.all_reduce(total)
if dist.get_rank() == 0:
    print(f"ranks {dist.get_world_size()} sum {total.item():g}", flush=True)
"""
)


@pytest.mark.slow
def test_trial_of_two_gpus_runs_two_ranks(bench: Bench) -> None:
    end = bench.run(TWO_RANKS + "dist.destroy_process_group()", gpus=2)
    assert b"ranks 2 sum 3" in bench.log
    assert end.exit_code == 0
    assert len(bench.pids()) == 2


@pytest.mark.slow
def test_every_rank_is_gone_after_cancel(bench: Bench) -> None:
    run = bench.start(
        TWO_RANKS + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nopen('up', 'w')\n"
        "print('up', flush=True)\ntime.sleep(1000)",
        gpus=2,
    )
    wait_until(lambda: len(bench.pids()) == 2 and bool(list(bench.scratch.rglob("up"))), 60.0)
    bench.worker.cancel(run, "pruned")
    assert bench.finish(run).cause is EndCause.CANCELLED
    assert not any(alive(pid) for pid in bench.pids())


STAGES = """
import os, pathlib
start = os.environ.get("START_AT", "train")
kept = pathlib.Path(os.environ["CHECKPOINT"] + ".0") if "CHECKPOINT" in os.environ else None
if start == "train":
    if kept is not None:
        kept.write_text("weights")
else:
    print("goes on from", (kept or pathlib.Path("final_model.ptz")).read_text())
print(f"final_int8_zlib_roundtrip_exact val_loss:2.0 val_bpb:1.2")
"""


def test_a_checkpoint_is_kept_and_started_from(bench: Bench, tmp_path: Path) -> None:
    store = str(tmp_path / "kept" / "one.ckpt")
    end = bench.finish(bench.start(STAGES, reuse=TrainingReuse(keep_at=store)))
    assert (end.start_at, end.checkpoint_bytes) == ("train", 7)
    order = TrainingReuse(start_at="export", checkpoint=store, keep_at=store)
    end = bench.finish(bench.start(STAGES, reuse=order))
    assert (end.start_at, end.checkpoint_bytes) == ("export", None)
    assert b"goes on from weights" in bench.log
    order = TrainingReuse(start_at="eval", files={"final_model.ptz": b"stored"})
    end = bench.finish(bench.start(STAGES, reuse=order))
    assert end.start_at == "eval"
    assert b"goes on from stored" in bench.log
    end = bench.finish(bench.start("raise SystemExit(1)", reuse=TrainingReuse(keep_at=store)))
    assert end.checkpoint_bytes is None

"""Trials in forks of an interpreter that has torch imported: real processes, no Ray.

A worker that takes orphans in does so for its whole process: each test's is a process of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pgolf_sweep.launch.node.forking import forkable

if TYPE_CHECKING:
    from collections.abc import Callable

PYTHON = [sys.executable, "-u", "train_gpt.py"]

# Runs each script of the list in turn, the second and later ones once the fork server is up.
WORKER = """
import json, os, sys, time
from pathlib import Path
from pgolf_sweep.core.trial import Limits, Resources, TrialSpec
from pgolf_sweep.launch.node.run import BEGINNING, RunOrder
from pgolf_sweep.launch.node.worker import Worker

scratch, scripts = Path(sys.argv[1]), json.loads(sys.argv[2])
worker = Worker(scratch, exit_when_alone=True)
for number, (script, env) in enumerate(scripts):
    spec = TrialSpec(study="s", number=number, knobs={}, env=env, program_name="train_gpt.py",
        program_sha256="0", resources=Resources(gpus=0, cpus=1.0),
        limits=Limits(total_seconds=120.0, silent_seconds=120.0), proposer="test")
    run = f"run-{number}"
    files = {"train_gpt.py": script.encode(), "sibling.py": b"VALUE = 7"}
    worker.start(RunOrder(run=run, node="here", spec=spec, files=files))
    cursor, log, end = BEGINNING, b"", None
    while end is None:
        progress = worker.poll(run, cursor, 1.0)
        cursor, log, end = progress.cursor, log + progress.log, progress.end
    print(json.dumps({"cause": end.cause.value, "code": end.exit_code, "log": log.decode(),
        "files": sorted(progress.files)}), flush=True)
    deadline = time.monotonic() + 60
    while number == 0 and not (worker._spare is not None and worker._spare.forked):
        assert time.monotonic() < deadline, "no fork server"
        time.sleep(0.05)
worker.close()
"""
SEES = """
import sys
had_torch = "torch" in sys.modules
import atexit, json, os, threading, time
import numpy, torch, random
from pathlib import Path
import sibling
atexit.register(lambda: print("at exit", flush=True))
threading.Thread(target=lambda: (time.sleep(1), print("thread"))).start()
shown = Path("/proc/self/environ").read_bytes().split(b"\\0")
print(json.dumps({
    "had_torch": had_torch, "name": __name__, "file": os.path.relpath(__file__), "argv": sys.argv,
    "path": sys.path[0] in ("", os.getcwd()), "sibling": sibling.VALUE,
    "marker": os.environ["PGOLF_RUN"].encode() in [s.partition(b"=")[2] for s in shown],
    "knob": os.environ.get("KNOB"), "session": os.getsid(0) == os.getpid(),
    "draws": [random.random(), numpy.random.rand()], "threads": torch.get_num_threads(),
}))
"""
TRAINS = """
import hashlib, torch
torch.manual_seed(7)
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 8))
adam = torch.optim.AdamW(model.parameters(), lr=0.01)
for _ in range(50):
    adam.zero_grad()
    model(torch.randn(32, 64)).square().mean().backward()
    adam.step()
flat = torch.cat([p.detach().flatten() for p in model.parameters()])
print(hashlib.sha256(flat.numpy().tobytes()).hexdigest())
"""


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


def run_all(folder: Path, *scripts: tuple[str, dict[str, str]]) -> list[dict[str, Any]]:
    words = [sys.executable, "-c", WORKER, str(folder / "scratch"), json.dumps(scripts)]
    done = subprocess.run(
        words, env=environment(), capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_forked_script_sees_what_a_new_interpreter_shows_it(tmp_path: Path) -> None:
    fresh, forked, again = run_all(
        tmp_path, (SEES, {"KNOB": "1"}), (SEES, {"KNOB": "2"}), (SEES, {"KNOB": "3"})
    )
    seen = [json.loads(end["log"].splitlines()[0]) for end in (fresh, forked, again)]
    assert [one.pop("had_torch") for one in seen] == [False, True, True]
    assert [one.pop("knob") for one in seen] == ["1", "2", "3"]
    draws = [tuple(one.pop("draws")) for one in seen]
    assert len({a for a, _ in draws}) == len({b for _, b in draws}) == 3, "each draws its own"
    assert seen[0] == seen[1] == seen[2]
    assert seen[0]["marker"]
    assert seen[0]["argv"] == ["train_gpt.py"]
    for end in (fresh, forked, again):
        assert (end["cause"], end["code"]) == ("exited", 0)
        assert end["log"].splitlines()[1:] == ["thread", "at exit"], "a thread is waited for"


def test_a_forked_script_ends_as_it_would_alone(tmp_path: Path) -> None:
    ends = run_all(
        tmp_path,
        (TRAINS, {}),
        (TRAINS, {}),
        ("import torch, sys\nsys.exit(3)", {}),
        ("import torch, sys\nsys.exit('no data')", {}),
        ("import torch\ndef f():\n    raise KeyError(3)\nf()", {}),
        ("import torch, os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", {}),
        ("import torch\nprint('a' 'b'", {}),
        (TRAINS, {"PYTHONHASHSEED": "3"}),
    )
    assert ends[0]["log"] == ends[1]["log"] == ends[7]["log"], "bit for bit"
    assert [(end["cause"], end["code"]) for end in ends[2:7]] == [
        ("exited", 3), ("exited", 1), ("exited", 1), ("signaled", -signal.SIGSEGV), ("exited", 1),
    ]  # fmt: skip
    assert ends[3]["log"] == "no data\n"
    assert "KeyError: 3" in ends[4]["log"]
    assert "fork_server" not in ends[4]["log"]
    assert "SyntaxError" in ends[6]["log"]


LASTS = """
import torch, os, signal, sys, time
def note():
    with open(os.environ["PIDS"], "a") as file:
        file.write(f"{os.getpid()} ")
note()
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note()
    time.sleep(1000)
time.sleep(1000)
"""


def wait_until(claim: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def stat(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()


def alive(pid: int) -> bool:
    try:
        return stat(pid)[0] not in {b"Z", b"X"}
    except OSError:
        return False


def below(root: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and alive(int(entry.name)):
            pid, up = int(entry.name), int(entry.name)
            while up > 1 and up != root:
                try:
                    up = int(stat(up)[1])
                except OSError:
                    break
            if up == root and pid != root:
                found.append(pid)
    return found


@pytest.mark.parametrize("killed", ["worker", "guard"])
def test_nothing_of_a_forked_run_outlives_its_worker_or_guard(tmp_path: Path, killed: str) -> None:
    pids = tmp_path / "pids"
    pids.touch()
    scripts = [("import torch", {}), (LASTS, {"PIDS": str(pids)}), (TRAINS, {})]
    words = [sys.executable, "-c", WORKER, str(tmp_path / "scratch"), json.dumps(scripts)]
    worker = subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    try:
        wait_until(lambda: len(pids.read_text().split()) == 2)
        script, daemon = map(int, pids.read_text().split())
        everything = below(worker.pid)
        assert {script, daemon} < set(everything)
        guard = int(stat(script)[1])
        os.kill(worker.pid if killed == "worker" else guard, signal.SIGKILL)
        wait_until(lambda: not alive(script) and not alive(daemon), 10.0)
        if killed == "worker":
            wait_until(lambda: not any(map(alive, everything)), 10.0)
        else:
            ends = [json.loads(worker.stdout.readline()) for _ in range(3)]
            assert [end["cause"] for end in ends] == ["exited", "lost", "exited"]
            assert worker.wait(30) == 0
            wait_until(lambda: not any(map(alive, everything)), 10.0)
    finally:
        worker.kill()
        worker.wait()
        worker.stdout.close()


@pytest.mark.parametrize(
    ("argv", "script", "may"),
    [
        (PYTHON, b"import torch", True),
        (PYTHON, b"from torch import nn", True),
        (PYTHON, b"import os", False),
        (PYTHON, b"def (", False),
        (["torchrun", "train_gpt.py"], b"import torch", False),
        ([sys.executable, "-m", "torch.distributed.run", "train_gpt.py"], b"import torch", False),
    ],
)
def test_only_a_plain_script_that_imports_torch_is_forked(
    argv: list[str], script: bytes, *, may: bool
) -> None:
    assert forkable(argv, {"train_gpt.py": script}) is may

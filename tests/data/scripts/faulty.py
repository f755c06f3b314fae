"""Trains like good.py, but for the fault that FAULT names.

It leaves its process id and the time in the folder NOTES. What strikes from outside (a test kills
what it finds there) strikes the first attempt; the next one is good. One that waits does until the
test says go.
"""

import os
import runpy
import sys
import time
import traceback
from pathlib import Path

FAULT = os.environ.get("FAULT", "none")
NOTES = Path(os.environ.get("NOTES", "."))
CGROUP = Path(os.environ.get("CGROUP", "."))
ITERATIONS = int(os.environ.get("ITERATIONS", 20))
STEP_SECONDS = float(os.environ.get("STEP_SECONDS", 0.01))
RANK = int(os.environ.get("RANK", 0))
STEP = "step:1/20 train_loss:3.1 train_time:1ms step_avg:1.00ms"


def note() -> bool:
    """Leave a note; whether this is the first attempt."""
    attempt = len(list(NOTES.glob(f"{FAULT}.{RANK}.*")))
    part = NOTES / f"part.{os.getpid()}"
    part.write_text(f"{os.getpid()} {time.time()}")
    part.rename(NOTES / f"{FAULT}.{RANK}.{attempt}")
    return attempt == 0


def reduce_for_ever() -> None:
    import torch
    from torch import distributed

    distributed.init_process_group("gloo")
    note()
    for _ in range(100_000):
        distributed.all_reduce(torch.ones(1))
        time.sleep(0.01)


def fill_the_device() -> None:
    print(STEP, flush=True)
    import torch

    try:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    except torch.OutOfMemoryError:
        traceback.print_exc()
    # Eight ranks take torchrun as many lines to report, and all come after the reason.
    print("  exitcode  : 1 (pid: 7)\n" * 60, flush=True)
    sys.exit(1)


def fill_the_memory() -> None:
    (CGROUP / "cgroup.procs").write_text(str(os.getpid()))
    print(STEP, flush=True)
    hoard = []
    while True:
        hoard.append(bytearray(os.urandom(1 << 20)))


def strike() -> None:
    if FAULT == "ranks":
        if not (NOTES / "ranks.1.0").exists():
            reduce_for_ever()
        return
    first = note()
    if FAULT == "device":
        fill_the_device()
    elif FAULT == "host":
        fill_the_memory()
    elif FAULT == "hangs":
        print(STEP, flush=True)
        time.sleep(3600)
    while FAULT in {"worker", "script"} and first:
        print(STEP, flush=True)
        time.sleep(0.5)
    while FAULT == "waits" and not (NOTES / "go").exists():
        print(STEP, flush=True)
        time.sleep(0.5)


strike()
runpy.run_path(str(Path(__file__).with_name("good.py")), run_name="__main__")

"""The doctor's checks of memory, descriptors, disk, clock and Ray's token."""

from __future__ import annotations

import os
import resource
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.workflows.doctor_check import GB, Check, Grade

if TYPE_CHECKING:
    from collections.abc import Iterator


def available_memory_bytes() -> int | None:
    """Memory that programs could take now; None where the kernel does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    kib = fields.get("MemAvailable", "").split()
    return int(kib[0]) * 1024 if kib else None


def judge_memory(cores: int, memory_bytes: int | None) -> Check:
    """There is room for Ray (0.4 GB) and a few trials on the CPU (0.6 GB each)."""
    enough = memory_bytes is None or memory_bytes >= 2 * GB
    amount = "unknown" if memory_bytes is None else f"{memory_bytes / GB:.1f} GB"
    return Check(
        name="memory",
        verdict=Grade.OK if enough else Grade.WARN,
        observed=f"{cores} cores, {amount} available",
        expected="2 GB available",
        next_step=None if enough else "end other programs, or launch with fewer slots",
    )


def judge_descriptors(soft: int, hard: int) -> Check:
    """A Ray node with a few dozen workers may open its sockets and logs."""
    least = 4096
    enough = soft == resource.RLIM_INFINITY or soft >= least
    target = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    return Check(
        name="file descriptors",
        verdict=Grade.OK if enough else Grade.WARN,
        observed="unlimited" if soft == resource.RLIM_INFINITY else str(soft),
        expected=f"{least} or more",
        next_step=None if enough else f"ulimit -n {target} before pgolf-sweep and ray start",
    )


def shared_memory_bytes(path: Path) -> int | None:
    """Size of a tmpfs, or None if it is not there."""
    try:
        return shutil.disk_usage(path).total
    except OSError:
        return None


def judge_shared_memory(total_bytes: int | None) -> Check:
    """NCCL and Ray get shared memory; containers give 64 MB unless told otherwise."""
    enough = total_bytes is not None and total_bytes >= GB
    return Check(
        name="shared memory",
        verdict=Grade.OK if enough else Grade.WARN,
        observed="no /dev/shm" if total_bytes is None else f"{total_bytes / GB:.2f} GB",
        expected="1 GB or more for trials of several GPUs",
        next_step=None if enough else "start the container with --shm-size=16g or --ipc=host",
    )


def folders(runs: Path) -> Iterator[Check]:
    """The studies' folder can be written, has room, and its file times agree with the clock."""
    home = next(path for path in (runs.absolute(), *runs.absolute().parents) if path.is_dir())
    try:
        with tempfile.NamedTemporaryFile(dir=home, prefix=".pgolf-doctor.") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
            skew_seconds = abs(os.fstat(file.fileno()).st_mtime - time.time())
        free_bytes = shutil.disk_usage(home).free
    except OSError as error:
        yield Check(
            name="disk",
            verdict=Grade.FAIL,
            observed=f"{home}: {error.strerror or error}",
            expected="a folder that can be written",
            next_step="choose another folder with --runs",
        )
        return
    yield judge_disk(home, free_bytes)
    yield judge_clock(time.time(), skew_seconds)


def judge_disk(home: Path, free_bytes: int) -> Check:
    """There is room for trials: up to 16 MB of artifact and 140 MB of checkpoint each."""
    grade = Grade.OK if free_bytes >= 20 * GB else Grade.WARN
    if free_bytes < GB // 2:
        grade = Grade.FAIL
    return Check(
        name="disk",
        verdict=grade,
        observed=f"{free_bytes / GB:.1f} GB free at {home}",
        expected="20 GB for a contest sweep of a hundred trials; 0.5 GB for the demo",
        next_step=None if grade is Grade.OK else "free space, or choose another folder: --runs",
    )


def judge_clock(now: float, skew_seconds: float) -> Check:
    """The clock is of this age and agrees with the file system, whose times leases are read by."""
    built = Path(__file__).stat().st_mtime
    behind = now < built - 86400
    wrong = behind or skew_seconds > 2
    return Check(
        name="clock",
        verdict=Grade.WARN if wrong else Grade.OK,
        observed="earlier than the program's own files"
        if behind
        else f"{skew_seconds:.1f} s from the file system's",
        expected="within 2 s",
        next_step="set the clock (chronyc makestep), here and on the file server"
        if wrong
        else None,
    )


def ray_token(path: Path) -> Iterator[Check]:
    """Ray's token, with which anybody runs code on the cluster, is readable by its owner alone."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return  # there is none
    others = bool(mode & 0o077)
    yield Check(
        name="ray token",
        verdict=Grade.WARN if others else Grade.OK,
        observed=f"{path}: mode {mode:04o}",
        expected="0600: who reads it can run code on the cluster",
        next_step=f"chmod 600 {path}" if others else None,
    )

"""File locks by flock(2): the kernel frees one when its process dies, so that none is stale."""

from __future__ import annotations

import fcntl
import math
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOOK_SECONDS = 0.01
"""Between two tries for a lock whose wait has a limit."""


def acquire(path: Path, *, wait_seconds: float = math.inf) -> int:
    """Take a file's lock; `os.close` of the descriptor that comes back lets it go.

    Args:
        path: The lock's own file, made where it is missing; its folder exists.
        wait_seconds: The longest wait.

    Raises:
        BlockingIOError: Another process holds it for longer.
    """
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        if wait_seconds == math.inf:
            fcntl.flock(handle, fcntl.LOCK_EX)
        else:
            _try_until(handle, time.monotonic() + wait_seconds)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _try_until(handle: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(LOOK_SECONDS)
        else:
            return


@contextmanager
def held(path: Path, *, wait_seconds: float = math.inf) -> Iterator[int]:
    """`acquire`, for a block."""
    handle = acquire(path, wait_seconds=wait_seconds)
    try:
        yield handle
    finally:
        os.close(handle)


def is_held(path: Path) -> bool:
    """Whether a process holds a file's lock now; changes nothing."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False

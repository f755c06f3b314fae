"""A file's lock is held by one process, and freed by its end."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pgolf_sweep.core.locks import acquire, held, is_held

if TYPE_CHECKING:
    from pathlib import Path

HOLD = """
import sys
from pathlib import Path
from pgolf_sweep.core.locks import acquire
acquire(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_lock_of_another_process_is_seen_waited_for_and_freed_by_its_end(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert is_held(lock)
        for seconds in (0.0, 0.05):
            with pytest.raises(BlockingIOError):
                acquire(lock, wait_seconds=seconds)
        other.kill()
    assert not is_held(lock)
    os.close(acquire(lock, wait_seconds=0.0))


def test_block_lets_go_at_its_end(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert not is_held(lock)
    with held(lock):
        assert is_held(lock)
        with pytest.raises(BlockingIOError):
            acquire(lock, wait_seconds=0.0)
    assert not is_held(lock)

"""The last lines of a log, where the reason of a crash stands."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

TAIL_LINES = 100
"""Eight ranks that fail together take torchrun sixty lines to report."""
TAIL_CHARS = 1000
"""Of each of them."""
TAIL_BYTES = 1 << 16


def last_lines(data: bytes) -> tuple[str, ...]:
    """The last lines of what a script printed, without empty ones, each cut where it is long."""
    lines = data.replace(b"\r", b"\n").split(b"\n")
    if len(data) == TAIL_BYTES and len(lines) > 1:
        lines = lines[1:]  # the end of a line of which the beginning is gone
    kept = [line for line in lines if line][-TAIL_LINES:]
    return tuple(line.decode(errors="replace")[:TAIL_CHARS] for line in kept)


def log_tail(log: Path) -> tuple[str, ...]:
    """The last lines of a log file, as far as they can be read."""
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        return last_lines(file.read())
    return ()

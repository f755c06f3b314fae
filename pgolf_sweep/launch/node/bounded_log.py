"""A log of at most that many bytes: both ends are kept, the middle of a longer one is dropped."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST_LINE_CUT = 1 << 16
_COPY_BYTES = 1 << 20


class BoundedLog:
    """Bytes in, a file of at most ``limit_bytes`` (and one line) out, in constant memory.

    The first half of the limit is written as it comes and can be read at once; what follows
    goes round in a second file of the other half, and is appended by `seal`.

    Args:
        path: The file.
        limit_bytes: Most bytes of log that are kept.
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self._head_bytes = limit_bytes // 2
        self._ring_bytes = max(1, limit_bytes - self._head_bytes)
        self._ring_path = path.with_name(path.name + ".ring")
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        self._ring: int | None = None
        self._tail_bytes = 0
        self.size = 0
        """Bytes that `read` can give now."""

    def write(self, data: bytes) -> None:
        """Take what the script printed.

        Raises:
            OSError: The disk is full.
        """
        room = max(0, self._head_bytes - self.size)
        if room:
            self._append(data[:room])
        if len(data) > room:
            self._write_ring(data[room:])

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, self.size)
            self.size += written
            view = view[written:]

    def _write_ring(self, data: bytes) -> None:
        if self._ring is None:
            self._ring = os.open(self._ring_path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        view = memoryview(data)
        while view:
            at = self._tail_bytes % self._ring_bytes
            written = os.pwrite(self._ring, view[: self._ring_bytes - at], at)
            self._tail_bytes += written
            view = view[written:]

    def read(self, offset: int, count: int) -> bytes:
        """At most ``count`` bytes from ``offset``; empty at the end of what there is."""
        return os.pread(self._file, min(count, self.size - offset), offset)

    def seal(self) -> None:
        """Append the end of a long log, after a line that says what is missing; idempotent."""
        if self._ring is None:
            return
        ring, self._ring = self._ring, None
        dropped = max(0, self._tail_bytes - self._ring_bytes)
        position = dropped  # of the oldest byte kept, counted from the ring's first byte ever
        if dropped:
            # Half a line could read as a result that was never printed.
            start = self._read_ring(ring, position, _LONGEST_LINE_CUT)
            cut = start.find(b"\n") + 1
            position += cut
            self._append(
                f"\n[pgolf-sweep: {dropped + cut} bytes of this log were dropped here]\n".encode()
            )
        while position < self._tail_bytes:
            chunk = self._read_ring(ring, position, _COPY_BYTES)
            self._append(chunk)
            position += len(chunk)
        os.close(ring)
        self._ring_path.unlink()

    def _read_ring(self, ring: int, position: int, count: int) -> bytes:
        at = position % self._ring_bytes
        count = min(count, self._tail_bytes - position, self._ring_bytes - at)
        return os.pread(ring, count, at)

    def close(self) -> None:
        """Close the files; the log cannot be read through this object any more."""
        for fd in (self._file, self._ring):
            if fd is not None:
                os.close(fd)
        self._ring = None

"""A log that comes in pieces: bytes in, reports out, in constant memory no matter what comes.

The same way for a live run and for a file. A long log repeats few shapes of lines. Removing digits
and looking a shape up takes a third of a microsecond a line; a pattern search takes ten times that.
So only lines that can say something reach the parser.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from pgolf_sweep.script.logs.lines import Shape, shape_of
from pgolf_sweep.script.logs.parser import LONGEST_LINE_CHARS, LogParser

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pgolf_sweep.core.trial import LogSummary, StepReport

BLOCK_BYTES = 1 << 20
MOST_SHAPES = 4096
LONGEST_SHAPE_BYTES = 1000
MOST_STEPS = 128
"""Lines of training steps in one piece of a live log, of which each is still reported. Of more at
once, as a script in a tight loop prints them, the first and last between two other lines are.
Scores of a validation are always reported."""
LONGEST_LINE_BYTES = 4 * LONGEST_LINE_CHARS
"""A longer one has too many characters, regardless of its encoding."""

ENCODINGS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
LONGEST_MARK = max(map(len, ENCODINGS))


class LogStream:
    """Reads one log; never raises, regardless of the bytes.

    Args:
        live: Whether the reports matter, or the summary alone.
    """

    def __init__(self, *, live: bool = True) -> None:
        self._parser = LogParser()
        self._shapes: dict[bytes, Shape] = {}
        self._live = live
        self._rest = b""
        self._head: bytes | None = b""  # until it shows how the log is encoded
        self._decoder: codecs.IncrementalDecoder | None = None

    def feed(self, data: bytes) -> list[StepReport]:
        """Take the next bytes, cut anywhere, and report the progress that full lines show."""
        data = self._as_utf8(data)
        if b"\r" in data:
            data = data.replace(b"\r", b"\n")
        cut = data.rfind(b"\n") + 1
        if not cut:
            # Of a line longer than any dialect's so much is kept that it stays too long.
            self._rest = (self._rest + data)[-(LONGEST_LINE_BYTES + 1) :]
            return []
        block, self._rest = self._rest + data[:cut], data[cut:][-(LONGEST_LINE_BYTES + 1) :]
        found = (self._parser.feed(line.decode(errors="replace")) for line in self._telling(block))
        return [report for report in found if report is not None]

    def end(self, *, complete: bool) -> StepReport | None:
        """Take the last line if it has no end.

        Args:
            complete: Whether nothing can have been cut off it.
        """
        if self._head is not None:
            self._rest, self._head = self._rest + self._head, None
        line, self._rest = self._rest.decode(errors="replace"), b""
        return self._parser.feed(line, complete=complete)

    def summary(self) -> LogSummary:
        """Everything that the log has said so far."""
        return self._parser.summary()

    def _as_utf8(self, data: bytes) -> bytes:
        """Bytes of a log whose first ones may name an encoding: Windows' shells write UTF-16."""
        if self._head is not None:
            data = self._head + data
            if len(data) < LONGEST_MARK:
                self._head = data
                return b""
            self._head = None
            mark = next((mark for mark in ENCODINGS if data.startswith(mark)), b"")
            data = data[len(mark) :]
            if mark in ENCODINGS and ENCODINGS[mark] != "utf-8":
                self._decoder = codecs.getincrementaldecoder(ENCODINGS[mark])("replace")
        return data if self._decoder is None else self._decoder.decode(data).encode("utf-8")

    def _telling(self, block: bytes) -> Iterator[bytes]:
        """The lines of a block that can change a summary, in order."""
        shapes, learn = self._shapes, self._learn
        bare = block.translate(None, b"0123456789").split(b"\n")
        found = [
            (kind, shape, line)
            for line, shape in zip(block.split(b"\n"), bare, strict=True)
            if (kind := shapes.get(shape) or learn(shape, line)) is not Shape.IDLE
        ]
        steps = sum(kind is Shape.STEP for kind, _, _ in found) if self._live else 0
        if self._live and steps <= MOST_STEPS:
            return (line for _, _, line in found)
        passing = (Shape.STEP,) if self._live else (Shape.STEP, Shape.SCORED_STEP)
        return _last_steps(found, passing)

    def _learn(self, shape: bytes, line: bytes) -> Shape:
        if len(line) > LONGEST_LINE_BYTES:
            return Shape.IDLE
        kind = shape_of(line.decode(errors="replace"))
        if len(shape) <= LONGEST_SHAPE_BYTES:
            if len(self._shapes) >= MOST_SHAPES:
                self._shapes.clear()
            self._shapes[shape] = kind
        return kind


def _last_steps(
    lines: Sequence[tuple[Shape, bytes, bytes]], passing: tuple[Shape, ...]
) -> Iterator[bytes]:
    """Lines without those steps of which another of their shape follows, with but steps between.

    The first step after another line stays, too: it may be the first of another run.
    """
    rest = iter(lines)
    for first_kind, _, first in rest:
        yield first
        if first_kind not in passing:
            continue
        other = None
        steps: dict[bytes, bytes] = {}
        for kind, shape, line in rest:
            if kind not in passing:
                other = line
                break
            steps.pop(shape, None)
            steps[shape] = line
        yield from steps.values()
        if other is not None:
            yield other


def parse_log(path: Path) -> LogSummary:
    """What a log file says; constant memory, regardless of its size.

    Raises:
        OSError: The file cannot be read.
    """
    stream = LogStream(live=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            stream.feed(block)
    stream.end(complete=False)
    return stream.summary()


READ_PIECE_BYTES = 4096
"""Fewer lines than `MOST_STEPS`, so that every training step is reported."""


def read_log(data: bytes) -> tuple[LogSummary, list[StepReport]]:
    """What a log says, and each step that it shows, for whoever checks one against the other."""
    stream = LogStream()
    reports = [
        report
        for start in range(0, len(data), READ_PIECE_BYTES)
        for report in stream.feed(data[start : start + READ_PIECE_BYTES])
    ]
    last = stream.end(complete=False)
    return stream.summary(), reports if last is None else [*reports, last]

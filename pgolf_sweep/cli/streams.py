"""Output that cannot end what it reports on: a closed terminal, a broken pipe, a full disk."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)


def open_standard_streams() -> None:
    """Give the program the three streams that it was started without (``>&-``).

    The next file that it opens would else get the free number, and what is printed would land in
    a study's lock or journal.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.dup(number), "w"))


class Steadfast(io.TextIOBase):
    """A text stream whose failure is noted once in the driver's log, and that then drops all.

    Args:
        stream: What takes the text for as long as it can.
        name: What the log calls it.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self._name = name
        self._gone = False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's own."""
        return self._stream.encoding

    def fileno(self) -> int:
        """The stream's own."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Whether a terminal is there and still answers."""
        return not self._gone and self._stream.isatty()

    def writable(self) -> bool:
        """True: text is always taken."""
        return True

    def write(self, text: str) -> int:
        """Write the text, or drop it."""
        if not self._gone:
            try:
                self._stream.write(text)
            except (OSError, ValueError) as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Flush what can be."""
        if not self._gone:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def _lose(self, error: Exception) -> None:
        self._gone = True
        # What Python still holds for it goes nowhere, also at the interpreter's end.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        logger.warning("%s takes no more text (%s): the sweep goes on without", self._name, error)


@contextlib.contextmanager
def steadfast_output() -> Iterator[None]:
    """For a command that drives trials: what cannot be printed is dropped, and nothing ends."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Steadfast(before[0], "stdout"), Steadfast(before[1], "stderr")
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before

"""A terminal that a sweep is watched on: one page that is drawn anew, or lines where it cannot be.

A dumb terminal and a file get a line now and then. What is printed meanwhile stands above the page.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import select
import sys
import termios
import time
import tty
from collections import deque
from typing import TYPE_CHECKING, Self

from rich.control import Control
from rich.live import Live
from rich.text import Text

from pgolf_sweep.cli.common import err
from pgolf_sweep.cli.live import Page, line
from pgolf_sweep.core.event_text import event_text
from pgolf_sweep.driver.snapshot import status_document
from pgolf_sweep.search.posterior import Posteriors
from pgolf_sweep.search.proposing import expected_noise
from pgolf_sweep.workflows.launch import varying

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from rich.console import Console

    from pgolf_sweep.core.events import SweepEvent
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.driver.snapshot import Snapshot

LINE_SECONDS = 15.0
"""Between two lines of progress where the output is no terminal."""

LOOK_SECONDS = 0.2
"""Between two looks at the keyboard and the terminal's size."""

KEPT_LINES = 200
"""Lines above the page that a terminal of another size gets again."""


class Screen:
    """Where pages go. Use as a context manager; the last page stays.

    Args:
        console: The terminal or file.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._drawn = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(console=console, auto_refresh=False) if self._drawn else None
        self._size = console.size
        self._above: deque[str] = deque(maxlen=KEPT_LINES)
        self._streams: list[tuple[logging.StreamHandler[Any], Any]] = []
        self._last_line = (0.0, "")

    def __enter__(self) -> Self:
        """Take the terminal, warnings of the program included."""
        if self._live is not None:
            self._live.__enter__()
            # Their stream was opened before: a warning would land in the middle of the page.
            for handler in logging.getLogger().handlers:
                if type(handler) is logging.StreamHandler:
                    self._streams.append((handler, handler.stream))
                    handler.setStream(sys.stderr)
        return self

    def __exit__(self, *details: object) -> None:
        """Give the terminal back."""
        for handler, stream in self._streams:
            handler.setStream(stream)
        if self._live is not None:
            self._live.__exit__(None, None, None)

    @property
    def height(self) -> int | None:
        """Lines for a page; None where there is no end to them."""
        return self._console.size.height - 1 if self._drawn else None

    def show(self, page: Page, summary: str) -> None:
        """Draw the page, or print the summary if it is new and the last one is old."""
        if self._live is not None:
            self._follow_size()
            self._live.update(page, refresh=True)
            return
        now = time.monotonic()
        at, before = self._last_line
        if summary != before and (not before or now - at >= LINE_SECONDS):
            self._last_line = now, summary
            self.say(summary)

    def say(self, text: str) -> None:
        """A line that stays, above the page."""
        self._above.append(text)
        self._console.print(Text(text), soft_wrap=True)

    def resized(self) -> bool:
        """Whether the terminal has another size than the last page."""
        return self._drawn and self._console.size != self._size

    def _follow_size(self) -> None:
        """Begin anew on a terminal that has changed: it has folded the page's lines its own way."""
        if not self.resized():
            return
        self._size = self._console.size
        self._console.control(Control.home(), Control.clear())
        for text in list(self._above)[-max(0, self._size.height - 1) :]:
            self._console.print(Text(text), soft_wrap=True)


class Display:
    """Observer of a driver: its page and its events. Use as a context manager."""

    def __init__(self, session: Session) -> None:
        self._posteriors = Posteriors(session.spec.space, expected_noise(session.spec))
        self._study = session.spec.name
        self._metric = session.spec.metric.name
        self._varied = varying(session)
        self._screen = Screen(err)

    def __enter__(self) -> Self:
        """Take the terminal."""
        self._screen.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        """Give the terminal back; the last page stays."""
        self._screen.__exit__(*details)

    def turn(self, snapshot: Snapshot) -> None:
        """Draw the page, or print a line now and then."""
        self._posteriors.look(snapshot.records.values(), snapshot.counts["completed"])
        best = self._posteriors.best(snapshot.best)
        document = status_document(dataclasses.replace(snapshot, best=best))
        document |= {"study": self._study, "metric": self._metric}
        page = Page(
            document,
            varied=self._varied,
            now=snapshot.now,
            posterior=None if best is None else self._posteriors.found.get(best.number),
            height=self._screen.height,
        )
        self._screen.show(page, line(document))

    def event(self, event: SweepEvent) -> None:
        """A line that stays."""
        self._screen.say(event_text(event))


def wait_or_quit(seconds: float, until: Callable[[], bool]) -> bool:
    """Wait, but for no longer than until something has happened or the user presses ``q``.

    Returns:
        Whether the user wants to quit.
    """
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and not until():
        pause = min(LOOK_SECONDS, left)
        if not _at_keyboard():
            time.sleep(pause)
        elif select.select([sys.stdin], [], [], pause)[0]:
            pressed = os.read(sys.stdin.fileno(), 64)
            if not pressed or b"q" in pressed.lower():
                return True
    return False


def _at_keyboard() -> bool:
    """Whether this process is the terminal's foreground job, which alone may read its keys."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def keys_at_once() -> Iterator[None]:
    """Have the terminal hand over each key as it is pressed, unshown."""
    if not _at_keyboard():
        yield
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    tty.setcbreak(number)
    try:
        yield
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)

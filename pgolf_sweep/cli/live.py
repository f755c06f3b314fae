"""A running sweep on a terminal (one live table) or in a file (plain lines)."""

from __future__ import annotations

import dataclasses
import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Self

from rich.console import Group
from rich.live import Live as RichLive
from rich.table import Table
from rich.text import Text

from pgolf_sweep.cli.common import err, say
from pgolf_sweep.cli.render import bytes_text, duration, knobs_text, score, troubled_nodes
from pgolf_sweep.core.event_text import event_text
from pgolf_sweep.core.record import SCORE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgolf_sweep.core.events import SweepEvent
    from pgolf_sweep.driver.snapshot import RunningTrial, Snapshot

LINE_SECONDS = 15.0
"""Between two lines of progress where the output is no terminal."""


class Display:
    """Observer of a driver; writes to stderr. Use as a context manager."""

    def __init__(self, *, varied: set[str]) -> None:
        self._varied = varied
        self._live = RichLive(console=err, auto_refresh=False) if err.is_terminal else None
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        """Take the terminal."""
        self._screen.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        """Give the terminal back; the last table stays."""
        self._screen.__exit__(None, None, None)

    @property
    def _screen(self) -> AbstractContextManager[object]:
        return self._live if self._live is not None else nullcontext()

    def turn(self, snapshot: Snapshot) -> None:
        """Refresh the table, or print a line now and then."""
        if self._live is not None:
            self._live.update(view(snapshot, self._varied), refresh=True)
            return
        now = time.monotonic()
        if now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            say(summary(snapshot))

    def event(self, event: SweepEvent) -> None:
        """A line that stays."""
        text = event_text(event)
        if self._live is not None:
            self._live.console.print(Text(text))
        else:
            say(text)


def summary(snapshot: Snapshot) -> str:
    """The whole sweep in one line."""
    count = snapshot.counts
    parts = [
        f"{count['running']} running",
        f"{count['completed']} completed",
        f"{count['pruned']} pruned",
        f"{count['discarded']} discarded",
    ]
    if snapshot.run_cap is not None:
        # Pruned and failed trials took a slot, too: the cap is no number of completed ones.
        parts.append(f"run_cap {snapshot.run_cap}")
    if count["failed"]:
        parts.append(f"{count['failed']} failed")
    best = snapshot.best
    if best is not None:
        room = best.headroom_bytes
        more = "" if room is None and best.metric else f", headroom {bytes_text(room)}"
        name = f"{best.metric} " if best.metric else ""
        parts.append(f"best {name}{score(best.val_bpb)} (trial {best.number}{more})")
    if snapshot.seconds_left is not None:
        parts.append(f"about {duration(snapshot.seconds_left)} left")
    return " | ".join(parts)


def view(snapshot: Snapshot, varied: set[str]) -> Group:
    """The live table: one row a running trial, the summary below."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("trial", "step", snapshot.metric or SCORE, "time", "node", "knobs"):
        table.add_column(name, justify="left" if name in {"node", "knobs"} else "right")
    for trial in snapshot.running:
        table.add_row(*_row(trial, snapshot.now, varied))
    nodes = troubled_nodes([dataclasses.asdict(row) for row in snapshot.nodes], snapshot.now)
    troubles = [Text(f"node {text}", style="red") for text in nodes]
    return Group(table, *troubles, Text(summary(snapshot), style="bold"))


def _row(trial: RunningTrial, now: float, varied: set[str]) -> tuple[str, ...]:
    return (
        str(trial.number),
        progress_text(trial.step, trial.total_steps),
        score(trial.val_bpb),
        duration(now - trial.started_at),
        trial.node or "",
        knobs_text(chosen(trial.knobs, varied)),
    )


def progress_text(step: int | None, total: int | None) -> str:
    """``120/400``, or what is known of it."""
    if step is None:
        return "starting"
    return f"{step}/{total}" if total else str(step)


def chosen(knobs: Mapping[str, object], names: set[str]) -> dict[str, object]:
    """The knobs that differ between trials."""
    return {name: value for name, value in knobs.items() if name in names}

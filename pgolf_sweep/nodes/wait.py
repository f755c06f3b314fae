"""The wait for a node that can take a run, with its limit; a sweep and a promotion share it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgolf_sweep.core.events import NoHealthyNode

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgolf_sweep.core.clock import Clock

GRACE_SECONDS = 10.0
"""Without a node before that is reported: a cluster that is looked at twice a second hiccups."""


@dataclass(slots=True)
class NodeWait:
    """Measures how long no node has been fit, and reports it once.

    Attributes:
        clock: Its monotonic time counts.
        give_up_seconds: The longest time without a node.
        notify: Takes the event.
        what: What waits: ``trial`` or ``run``.
    """

    clock: Clock
    give_up_seconds: float
    notify: Callable[[NoHealthyNode], None]
    what: str
    _since: float | None = field(default=None, init=False)
    _reported: bool = field(default=False, init=False)

    def look(self, *, waits: bool, troubles: Callable[[], str]) -> None:
        """Take in, once a turn, whether no node is fit.

        Args:
            waits: Whether that is so now.
            troubles: What is wrong with each node, for people.
        """
        if not waits:
            self._since, self._reported = None, False
            return
        now = self.clock.monotonic()
        if self._since is None:
            self._since = now
        if not self._reported and now - self._since >= GRACE_SECONDS:
            self._reported = True
            self.notify(
                NoHealthyNode(
                    what=self.what, troubles=troubles(), give_up_seconds=self.give_up_seconds
                )
            )

    def too_long(self) -> str:
        """That no node came, once the limit has passed; else nothing."""
        if self._since is None or self.clock.monotonic() - self._since < self.give_up_seconds:
            return ""
        return f"no node could take a {self.what} for {self.give_up_seconds / 60:.0f} min"

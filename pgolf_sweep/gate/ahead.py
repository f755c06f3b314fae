"""Work done ahead in a thread of its own, so that who asks never waits for it."""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from pgolf_sweep.core.trial import KnobValue

logger = logging.getLogger(__name__)


class Ahead:
    """Prepares configurations one after the other.

    Args:
        prepare: What to do for one; its exceptions are logged, and it counts as done.
    """

    def __init__(self, prepare: Callable[[Mapping[str, KnobValue]], object]) -> None:
        self._prepare = prepare
        self._queue: queue.SimpleQueue[tuple[Hashable, Mapping[str, KnobValue]]]
        self._queue = queue.SimpleQueue()
        self._asked: set[Hashable] = set()
        self._done: set[Hashable] = set()
        self._thread: threading.Thread | None = None

    def ready(self, key: Hashable, knobs: Mapping[str, KnobValue]) -> bool:
        """Whether a configuration is prepared; if not, it is queued. Does not wait."""
        if key in self._done:
            return True
        if key not in self._asked:
            self._asked.add(key)
            self._queue.put((key, dict(knobs)))
            if self._thread is None:
                # A daemon: the helper process that it waits for ends with this process.
                self._thread = threading.Thread(target=self._work, name="probe", daemon=True)
                self._thread.start()
        return False

    def done(self, key: Hashable) -> bool:
        """Whether a configuration is prepared; queues nothing."""
        return key in self._done

    def _work(self) -> None:
        while True:
            key, knobs = self._queue.get()
            try:
                self._prepare(knobs)
            except Exception:
                logger.exception("the size probe failed in its own code")
            self._done.add(key)

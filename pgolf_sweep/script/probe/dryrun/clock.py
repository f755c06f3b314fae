"""The clock that a watched script sees: it jumps, so that a training ends after a step or two."""

from __future__ import annotations

import time
from typing import Any

JUMP_SECONDS = 50_000.0
"""More than any wallclock limit, at each step of an optimizer."""


class Clock:
    """The time of this process, ahead of the true one by what was jumped over."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._true = time.monotonic

    def seconds(self) -> float:
        """What the script is told."""
        return self._true() + self._ahead

    def jump(self) -> None:
        """Let a long time pass."""
        self._ahead += JUMP_SECONDS

    def install(self) -> None:
        """Put it in the place of the standard library's clocks."""
        module: Any = time
        true = {name: getattr(time, name) for name in ("time", "perf_counter", "monotonic",
                                                       "process_time")}  # fmt: skip
        for name, function in true.items():
            setattr(module, name, lambda function=function: function() + self._ahead)
            nanoseconds = f"{name}_ns"
            setattr(
                module, nanoseconds, lambda function=function: int(1e9 * (function() + self._ahead))
            )
        module.sleep = lambda _: None

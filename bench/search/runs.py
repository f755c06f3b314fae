"""One repetition of a search, and the loop of those that are not driven by the product."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


SLOTS = 8


@dataclasses.dataclass
class Run:
    """One repetition: trials that took a slot, in the order of their end."""

    scores: list[float]
    """Without noise."""
    seen: list[float]
    sizes: list[float]
    minutes: list[float]
    cpu_seconds: float
    discards: int = 0
    saved: float = 0.0
    """Share of the slot-seconds that early stopping saved."""
    stopped_best: bool = False
    """Whether the best of all was stopped."""
    picked: float | None = None
    """Score without noise of the trial that `best` names, by the posterior means."""
    stopping_cost: float = 0.0
    """How much better, in thousandths, the best stopped was than the best that finished."""

    def reaches(self, target: float, optimum: float, cap: float) -> float:
        """Slot-minutes until the regret is no more than the target; infinite where it stays."""
        spent = itertools.accumulate(self.minutes)
        found = zip(self.regrets(optimum, cap), spent, strict=True)
        return next((minutes for regret, minutes in found if regret <= target), math.inf)

    def regrets(self, optimum: float, cap: float) -> list[float]:
        """Regret after each trial, in thousandths."""
        found, best, regret = [], math.inf, math.inf
        for score, seen, size in zip(self.scores, self.seen, self.sizes, strict=True):
            if size <= cap and seen < best:
                best, regret = seen, 1000 * (score - optimum)
            found.append(regret)
        return found


class Search(Protocol):
    """What proposes."""

    ahead: int
    """Trials that are asked before a slot is free."""

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """A handle and resolved knobs."""

    def tell(self, handle: Any, answer: Mapping[str, float]) -> None:
        """What a trial measured."""


def run_search(search: Search, surface: Any, trials: int, slots: int = SLOTS) -> Run:
    """A repetition: slots that are free take the next trial at once."""
    began = time.process_time()
    running: list[tuple[float, int, Any, dict[str, Any], dict[str, float]]] = []
    waiting: list[tuple[Any, dict[str, Any]]] = []
    run = Run([], [], [], [], 0.0)
    asked, now = 0, 0.0
    while len(run.scores) < trials:
        while len(running) < slots and asked < trials:
            handle, knobs = waiting.pop(0) if waiting else search.ask()
            answer = surface(knobs)
            heapq.heappush(running, (now + answer["minutes"], asked, handle, knobs, answer))
            asked += 1
        while len(waiting) < min(search.ahead, trials - asked):
            waiting.append(search.ask())
        now, _, handle, knobs, answer = heapq.heappop(running)
        search.tell(handle, answer)
        run.scores.append(surface.score(knobs))
        run.seen.append(answer["val_bpb"])
        run.sizes.append(answer["artifact_bytes"])
        run.minutes.append(answer["minutes"])
    run.cpu_seconds = time.process_time() - began
    return run

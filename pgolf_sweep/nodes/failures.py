"""Trials that failed on one node, and how many incidents that were."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

TOGETHER_SECONDS = 10.0
"""Runs side by side that are lost within this long are lost to one incident."""


class Evidence(StrEnum):
    """What the end of a run says of its node."""

    GOOD = "good"
    NOTHING = "nothing"
    SUSPECT = "suspect"
    """A trial's own failure that looks as if it were the machine's."""
    INFRASTRUCTURE = "infrastructure"


@dataclass(frozen=True, slots=True)
class _Failure:
    """One trial's failure; times are the monotonic clock's."""

    evidence: Evidence
    began: float
    at: float


@dataclass(slots=True)
class NodeFailures:
    """Trials that failed on a node since the last run there that got going."""

    _by_trial: dict[int, _Failure] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many trials."""
        return len(self._by_trial)

    def add(self, number: int, evidence: Evidence, *, began: float, at: float) -> None:
        """A trial failed; times in seconds of the monotonic clock."""
        self.drop(number)
        self._by_trial[number] = _Failure(evidence, began, at)

    def drop(self, number: int) -> None:
        """That a trial failed says nothing of the node."""
        self._by_trial.pop(number, None)

    def clear(self) -> None:
        """The node has shown that it works."""
        self._by_trial.clear()

    @property
    def losses(self) -> int:
        """Incidents in which infrastructure took runs away.

        A raylet that dies takes the runs of all slots with it, and so does a network that is cut. A
        run that began after that, and is lost as well, is another incident.
        """
        count, since = 0, -math.inf
        for failure in self._by_trial.values():
            apart = failure.began >= since or failure.at - since >= TOGETHER_SECONDS
            if failure.evidence is Evidence.INFRASTRUCTURE and apart:
                count, since = count + 1, failure.at
        return count

    @property
    def incidents(self) -> int:
        """Losses, and each trial's own failure that may be the node's."""
        suspects = sum(failure.evidence is Evidence.SUSPECT for failure in self._by_trial.values())
        return self.losses + suspects

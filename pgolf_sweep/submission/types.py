"""Parts of a submission, beside its runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgolf_sweep.submission.evidence import Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class RaceResult:
    """How a race ended.

    Attributes:
        winner: The trial with the best mean.
        seeds: Its seeds so far.
        confident: Whether all others were told apart from it.
        runs: Runs of all contenders.
        summary: One line a contender, for people.
        tied: Numbers of the contenders that were not told apart from the winner.
    """

    winner: Candidate
    seeds: int
    confident: bool
    runs: int
    summary: tuple[str, ...]
    tied: tuple[int, ...]

"""One check of the doctor: what was looked at, how it came out, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

GB = 1_000_000_000


class Grade(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    """Works, or is not needed for everything; worth knowing before a long sweep."""
    FAIL = "fail"
    """Something that is needed is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What, in a word or two.
        verdict: How it came out.
        observed: What is there.
        expected: What would be right.
        next_step: A command or a change that fixes it; None where nothing is to be done.
    """

    name: str
    verdict: Grade
    observed: str
    expected: str
    next_step: str | None = None

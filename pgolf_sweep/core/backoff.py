"""Exponential backoff: the one rule by which waits between tries grow."""

from __future__ import annotations

_MOST_DOUBLINGS = 64
"""More overflow a float long before any wait is that long."""


def backoff(first: float, tries: int, *, most: float) -> float:
    """How long to wait before the next try, in the unit of `first`.

    Args:
        first: The first wait; each try in vain doubles it.
        tries: Waits before this one.
        most: The longest wait.
    """
    return min(most, first * 2.0 ** min(tries, _MOST_DOUBLINGS))

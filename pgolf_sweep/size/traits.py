"""First guesses of how far the physics is off, by trait: mean and spread.

In bits for each weight (or as `physics` says), fitted on the trainings with an even index of
`bench/gate/trainings.py`; `bench/gate/fit.py` prints this table.
"""

from __future__ import annotations

from functools import lru_cache

GUESSES: dict[str, tuple[float, float]] = {
    "alike duration": (0.09, 0.1),
    "alike mse": (0.045, 0.11),
    "alike width": (-0.061, 0.11),
    "blocks bits": (-0.0029, 0.0097),
    "blocks clip": (-0.0082, 0.027),
    "blocks lzma": (-0.011, 0.024),
    "blocks rowmax": (-0.0082, 0.027),
    "blocks young decay": (-0.063, 0.062),
    "blocks young rate": (-0.026, 0.053),
    "blocks zlib": (0.011, 0.026),
    "down young": (-0.15, 0.15),
    "down young clip": (-0.063, 0.15),
    "down young decay": (-0.1, 0.18),
    "down young momentum": (-0.058, 0.1),
    "down young rowmax": (-0.096, 0.16),
    "head sdclip": (-0.028, 0.092),
    "level lzma": (-0.7, 0.88),
    "level lzma bits": (0.2, 0.46),
    "mixing zlib": (0.065, 0.16),
}

SPREADS = {
    "blocks": 0.03,
    "blocks young": 0.1,
    "start young": 0.1,
    "out young": 0.1,
    "down young": 0.2,
    "embed": 0.05,
    "alike": 0.15,
    "head": 0.1,
    "kept": 0.5,
    "mixing": 0.3,
    "container": 60.0,
    "level": 1.5,
    "sigma": 0.2,
    "codec": 0.5,
    "rule": 0.5,
    "trained for": 1.5,
    "embed 1": 0.5,
    "embed 6": 0.5,
    "embed 7": 0.5,
    "embed 8": 0.5,
    "clipped embed": 0.05,
    "clipped other": 2.0,
    "other": 1.5,
    "low rank": 2.0,
    "family": 0.3,
    "foreign": 1.0,
}
"""Spread before anything is known, by the longest beginning of a trait's name."""

_BY_LENGTH = sorted(SPREADS, key=len, reverse=True)


@lru_cache(maxsize=4096)
def guess(name: str) -> tuple[float, float]:
    """A trait's error as known before the first trial: mean and standard deviation."""
    found = GUESSES.get(name)
    if found is not None:
        return found
    return 0.0, prior_spread(name)


def prior_spread(name: str) -> float:
    """The spread of a trait that was never seen."""
    return next((SPREADS[start] for start in _BY_LENGTH if name.startswith(start)), 1.0)

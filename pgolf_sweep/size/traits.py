"""First guesses of how far the physics is off, by trait: mean and spread.

In bits for each weight (or as `physics` says), fitted on the trainings with an even index of
`bench/gate/trainings.py`; `bench/gate/fit.py` prints this table.
"""

from __future__ import annotations

from functools import lru_cache

GUESSES: dict[str, tuple[float, float]] = {
    "alike bits": (-0.012, 0.033),
    "alike depth": (-0.042, 0.084),
    "alike duration": (0.092, 0.099),
    "alike level brotli": (0.069, 0.13),
    "alike level lzma": (0.056, 0.13),
    "alike level zlib": (-0.054, 0.14),
    "alike mse": (0.068, 0.11),
    "alike rate": (-0.036, 0.081),
    "alike rowmax": (-0.072, 0.12),
    "alike sdclip": (0.033, 0.11),
    "alike width": (-0.17, 0.099),
    "alike zstd": (0.041, 0.12),
    "blocks bits": (-0.008, 0.0097),
    "blocks brotli": (-0.012, 0.026),
    "blocks lzma": (-0.0081, 0.025),
    "blocks young decay": (-0.072, 0.06),
    "blocks young rate": (-0.021, 0.051),
    "blocks zlib": (0.0082, 0.026),
    "blocks zstd": (0.0099, 0.027),
    "down young": (-0.14, 0.15),
    "down young decay": (-0.11, 0.18),
    "down young momentum": (-0.045, 0.1),
    "down young percentile": (-0.059, 0.16),
    "down young rate": (-0.069, 0.16),
    "down young rowmax": (-0.091, 0.16),
    "kept zstd": (0.16, 0.48),
    "level brotli": (1.9, 0.79),
    "level brotli bits": (-1.2, 0.86),
    "level lzma": (-0.44, 0.93),
    "level zlib": (-0.62, 1.1),
    "level zstd": (1.3, 0.89),
    "level zstd bits": (0.39, 0.67),
    "mixing zlib": (0.06, 0.13),
    "mixing zstd": (-0.4, 0.11),
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

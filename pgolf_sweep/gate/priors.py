"""First guesses of how far the physics is off, by trait: mean and spread.

In bits for each weight (or as `physics` says), fitted on the trainings with an even index of
`bench/gate/trainings.py`; `bench/gate/fit.py` prints this table.
"""

from __future__ import annotations

from functools import lru_cache

GUESSES: dict[str, tuple[float, float]] = {
    "near-duplicate rows depth": (-0.044, 0.08),
    "near-duplicate rows duration": (0.066, 0.093),
    "near-duplicate rows lzma": (-0.035, 0.1),
    "near-duplicate rows mse": (0.035, 0.11),
    "near-duplicate rows width": (-0.092, 0.096),
    "near-duplicate rows zstd": (0.046, 0.11),
    "blocks bits": (-0.0034, 0.0087),
    "blocks brotli": (-0.0099, 0.025),
    "blocks clip": (-0.0085, 0.026),
    "blocks lzma": (-0.014, 0.024),
    "blocks rowmax": (-0.013, 0.027),
    "blocks warmup decay": (-0.05, 0.058),
    "blocks warmup rate": (-0.022, 0.049),
    "blocks zlib": (0.009, 0.026),
    "blocks zstd": (0.01, 0.025),
    "down warmup": (-0.12, 0.15),
    "down warmup clip": (-0.061, 0.15),
    "down warmup decay": (-0.082, 0.17),
    "down warmup momentum": (-0.031, 0.097),
    "down warmup rowmax": (-0.091, 0.15),
    "head sdclip": (-0.029, 0.091),
    "kept lzma": (-0.15, 0.47),
    "kept zstd": (0.18, 0.47),
    "level lzma": (-0.7, 0.87),
    "level lzma bits": (0.19, 0.45),
    "level zlib": (-0.35, 1.2),
    "level zstd bits": (0.7, 0.55),
}

SPREADS = {
    "blocks": 0.03,
    "blocks warmup": 0.1,
    "start warmup": 0.1,
    "out warmup": 0.1,
    "down warmup": 0.2,
    "embed": 0.05,
    "near-duplicate rows": 0.15,
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

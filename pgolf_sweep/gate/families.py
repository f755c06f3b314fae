"""What trained weights cost over the Gaussian ones of a run's export, by family.

A family is a codec, and whether the quantizer's scale follows the weights or is fixed. Fitted on
the contest's merged records: ``python bench/gate/foreign.py FACTS.jsonl --fit`` prints the table.
"""

from __future__ import annotations

from dataclasses import dataclass

FIXED_BITS = 0.2
"""Bits a weight that an octave of spread brings, from which a scale counts as fixed: one where it
is, none where it follows the weights."""


@dataclass(frozen=True, slots=True)
class Family:
    """The error of the exports of one family, relative.

    Attributes:
        bias: Measured over predicted bytes, less one.
        spread: Its standard deviation between programs.
        seeds: And between seeds of one configuration.
    """

    bias: float
    spread: float
    seeds: float


FAMILIES: dict[str, Family] = {
    "brotli fixed": Family(0.0123, 0.0074, 0.0005),
    "brotli follows": Family(-0.0079, 0.0041, 0.0005),
    "lzma fixed": Family(0.0062, 0.0074, 0.0034),
    "lzma follows": Family(-0.0127, 0.0123, 0.0005),
    "zlib fixed": Family(-0.0068, 0.0157, 0.0015),
    "zlib follows": Family(-0.0040, 0.0043, 0.0019),
    "zstd fixed": Family(-0.0073, 0.0077, 0.0042),
    "zstd follows": Family(0.0004, 0.0293, 0.0061),
}
OTHER = Family(0.0, 0.03, 0.005)
"""Of a family that no record is of."""


def family_of(codec: str, bits_per_octave: float) -> str:
    """The family of an export.

    Args:
        codec: What compressed it.
        bits_per_octave: Bits a weight that an octave more of the matrices' spread brought.
    """
    return f"{codec} {'fixed' if bits_per_octave >= FIXED_BITS else 'follows'}"

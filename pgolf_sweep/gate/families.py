"""What trained weights cost over the Gaussian ones of a run's export, by family.

A family is a codec, and whether the quantizer's scale follows the weights or is fixed. Models of
fewer pieces than they are wide, of bytes for example, are one of their own, whatever the codec:
their inputs lie in a space as narrow as the vocabulary, and the two records of them store 2 to 5 %
less than a random walk of their matrices would. Fitted on the contest's merged records of 1,000
steps and more: ``python bench/gate/foreign.py FACTS.jsonl --fit`` prints the table.
"""

from __future__ import annotations

from dataclasses import dataclass

FIXED_BITS = 0.2
"""Bits a weight that an octave of spread brings, from which a scale counts as fixed: one where it
is, none where it follows the weights."""

FEW_PIECES = "few pieces"


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
    "brotli fixed": Family(0.0124, 0.0073, 0.0005),
    "brotli follows": Family(-0.0085, 0.0030, 0.0005),
    "few pieces": Family(-0.0332, 0.0225, 0.0030),
    "lzma fixed": Family(0.0060, 0.0073, 0.0034),
    "lzma follows": Family(-0.0127, 0.0122, 0.0005),
    "zlib fixed": Family(-0.0024, 0.0077, 0.0015),
    "zlib follows": Family(-0.0041, 0.0041, 0.0005),
    "zstd fixed": Family(-0.0109, 0.0173, 0.0040),
    "zstd follows": Family(0.0004, 0.0294, 0.0062),
}
OTHER = Family(0.0, 0.03, 0.005)
"""Of a family that no record is of."""


def family_of(codec: str, bits_per_octave: float, *, few_pieces: bool = False) -> str:
    """The family of an export.

    Args:
        codec: What compressed it.
        bits_per_octave: Bits a weight that an octave more of the matrices' spread brought.
        few_pieces: Whether the model is wider than its vocabulary is large.
    """
    if few_pieces:
        return FEW_PIECES
    return f"{codec} {'fixed' if bits_per_octave >= FIXED_BITS else 'follows'}"

"""Bytes of the container beside the entropy of its codes, which `codec_overhead` has."""

from __future__ import annotations

from itertools import chain, pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from pgolf_sweep.gate.physics.entropy import BINARY
from trainer.artifact import DIGITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Shares: TypeAlias = NDArray[np.float64]

CONSTANT_BYTES = 100.0
"""Tables of the entropy coder; between 70 and 140 bytes by codec and bits."""

BLOCK_BYTES = {"zlib": 32_767, "zstd": 131_072}
"""Bytes that share one table of symbols. lzma and brotli adapt: see `SWITCH_BYTES`."""

SWITCH_BYTES = {"lzma": 60.0, "brotli": 20.0, "zstd": 80.0}
"""What is lost where a matrix follows one of other bits: lzma and brotli have to learn its bytes,
zstd begins a frame. Over 230 containers of 15 to 500 kB, zstd over 30."""
SWITCH_SHARE = 0.02
"""Most of that, as a share of the matrix's bytes before compression: small ones cost less."""
SWITCH_SPREAD = {"lzma": 2.0, "brotli": 2.0, "zstd": 0.5}
"""Spread of what is lost, as a share of it."""

STEP_BITS = {True: 11.2, False: 11.9}
"""Bits of a float16 step after compression, by whether bytes are shuffled into planes. Measured on
a trained model of 2 layers x 64: 10.4 to 12.4 by codec."""

FLOAT_BITS = {True: 14.2, False: 14.7}
"""The same for trained gains and mixes: 13.1 to 15.1 by codec."""


def byte_shares(levels: Shares, bits: int) -> Shares:
    """Distribution over the 256 bytes that codes become, from that over their levels.

    Args:
        levels: As of `entropy.level_shares`: levels from 0 up, the level 0 by half its share.
        bits: Of a code; few of them share a byte.
    """
    signed = np.concatenate((levels[:0:-1], [2 * levels[0]], levels[1:]))
    if bits == BINARY:
        signed = levels[[1, 1]]
    base, places = DIGITS.get(bits, (256, 1))
    digit = np.zeros(base)
    digit[: len(signed)] = signed
    found = digit
    for _ in range(places - 1):
        found = np.outer(found, digit).reshape(-1)
    shares = np.zeros(256)
    shares[: len(found)] = found
    return shares


def mixing_bytes(
    codec: str, runs: Sequence[Sequence[tuple[float, int]]], kinds: Sequence[Shares], before: float
) -> float:
    """Bytes lost where matrices with unlike codes share a block of the entropy coder.

    Args:
        codec: The artifact's.
        runs: Matrices in the container's order, those of equal bits together: bytes before
            compression, and their kind.
        kinds: What the bytes of each kind are (`byte_shares`).
        before: Bytes ahead of them in the container, which are all alike unpredictable.
    """
    block = BLOCK_BYTES.get(codec)
    if block is None:
        return 0.0
    even = len(kinds)
    # zstd has a frame for each run; for zlib all of it is one, the numbers ahead included.
    frames = runs if codec == "zstd" else [[(before, even), *chain.from_iterable(runs)]]
    blocks: list[dict[int, float]] = []
    for frame in frames:
        room = 0.0
        held: dict[int, float] = {}
        for length, kind in frame:
            left = length
            while left > 0:
                if room <= 0:
                    room, held = float(block), {}
                    blocks.append(held)
                    left -= block * (left // block)  # whole blocks of one matrix lose nothing
                taken = min(left, room)
                held[kind] = held.get(kind, 0.0) + taken
                left -= taken
                room -= taken
    mixed = [each for each in blocks if len(each) > 1]
    if not mixed:
        return 0.0
    lengths = np.zeros((len(mixed), even + 1))
    for row, each in zip(lengths, mixed, strict=True):
        row[list(each)] = list(each.values())
    tables = np.stack([*kinds, EVEN])
    whole = lengths.sum(axis=1)
    shared = whole * _bits(lengths @ tables / whole[:, None])
    return float((shared - lengths @ _bits(tables)).sum()) / 8


def switch_bytes(codec: str, matrices: Sequence[tuple[float, int]]) -> float:
    """Bytes lost where a matrix follows one of other bits.

    Args:
        codec: The artifact's.
        matrices: In the container's order: bytes before compression, and bits of a weight.
    """
    most = SWITCH_BYTES.get(codec, 0.0)
    unlike = (after[0] for before, after in pairwise(matrices) if before[1] != after[1])
    return sum(min(most, SWITCH_SHARE * length) for length in unlike)


EVEN = np.full(256, 1 / 256)
"""Bytes that are all alike unpredictable."""


def _bits(shares: Shares) -> Shares:
    bits: Shares = -(shares * np.log2(np.maximum(shares, 1e-30))).sum(axis=-1)
    return bits

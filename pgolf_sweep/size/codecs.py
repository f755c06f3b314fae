"""What the artifact's codecs add to the entropy of the codes.

Measured, not derived: `bench/gate/codec_excess.py` quantizes Gaussian rows of 512 by rowmax, packs
them as `trainer.artifact` does and compresses a million weights at the codec's best level. A
hundred thousand weights cost some hundred bytes more (`CONSTANT_BYTES`); sdclip differs from
rowmax by at most half a percent. Lower levels cost more, never less.
"""

from __future__ import annotations

import heapq
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Shares: TypeAlias = NDArray[np.float64]

CONSTANT_BYTES = 100.0
"""Tables of the entropy coder; between 70 and 140 bytes by codec and bits."""

EXCESS: dict[str, dict[int, float]] = {
    "zlib": {4: 0.0103, 5: 0.0136, 6: 0.0100, 7: 0.0076, 8: 0.0071},
    "zstd": {4: 0.0134, 5: 0.0116, 6: 0.0104, 7: 0.0089, 8: 0.0097},
    "lzma": {4: 0.0185, 5: 0.0345, 6: 0.0260, 7: 0.0195, 8: 0.0153},
    "brotli": {4: 0.0071, 5: 0.0096, 6: 0.0084, 7: 0.0063, 8: 0.0055},
}
"""Compressed bytes of the codes over their entropy, minus one, by codec and bits."""

BLOCK_BYTES = {"zlib": 32_767, "zstd": 131_072}
"""Bytes that share one table of symbols. lzma and brotli adapt: see `SWITCH_BYTES`."""

SWITCH_BYTES = {"lzma": 60.0, "brotli": 20.0}
"""What these two lose, give or take twice as much, where a matrix follows one of other bits: they
have to learn its bytes. Over 230 containers of 15 to 500 kB."""
SWITCH_SHARE = 0.02
"""Most of that, as a share of the matrix's bytes before compression: small ones cost less."""

STEP_BITS = {True: 11.2, False: 11.9}
"""Bits of a float16 step after compression, by whether bytes are shuffled into planes. Measured on
a trained model of 2 layers x 64: 10.4 to 12.4 by codec."""

FLOAT_BITS = {True: 14.2, False: 14.7}
"""The same for trained gains and mixes: 13.1 to 15.1 by codec."""


def byte_shares(levels: Shares, bits: int) -> Shares:
    """Distribution over the 256 bytes that codes become, from that over their levels.

    Args:
        levels: As of `entropy.level_shares`: levels from 0 up, the level 0 by half its share.
        bits: 4 for two codes to a byte, else one.
    """
    signed = np.concatenate((levels[:0:-1], [2 * levels[0]], levels[1:]))
    shares = np.zeros(256)
    if bits == 4:
        pairs = np.zeros((16, 16))
        pairs[: len(signed), : len(signed)] = np.outer(signed, signed)
        return pairs.reshape(-1)
    shares[: len(signed)] = signed
    return shares


def mixing_bytes(codec: str, parts: Sequence[tuple[float, Shares]], before: float) -> float:
    """Bytes lost where matrices with unlike codes share a block of the entropy coder.

    Args:
        codec: The artifact's.
        parts: Matrices in the container's order: bytes before compression, and what those bytes
            are (`byte_shares`).
        before: Bytes ahead of them in the container, which are all alike unpredictable.
    """
    block = BLOCK_BYTES.get(codec)
    if block is None:
        return 0.0
    lost, room = 0.0, float(block)
    held: list[tuple[float, Shares]] = []
    ahead = [] if codec == "zstd" else [(before, _EVEN)]  # zstd has them in a frame of their own
    for length, shares in (*ahead, *parts):
        left = length
        while left > 0:
            taken = min(left, room)
            held.append((taken, shares))
            left -= taken
            room -= taken
            if room <= 0:
                lost += _lost(held)
                held, room = [], float(block)
                left -= block * (left // block)  # whole blocks of one matrix lose nothing
    return lost + _lost(held)


def switch_bytes(codec: str, matrices: Sequence[tuple[float, int]]) -> float:
    """Bytes lost where a matrix follows one of other bits.

    Args:
        codec: The artifact's.
        matrices: In the container's order: bytes before compression, and bits of a weight.
    """
    most = SWITCH_BYTES.get(codec, 0.0)
    unlike = (after[0] for before, after in pairwise(matrices) if before[1] != after[1])
    return sum(min(most, SWITCH_SHARE * length) for length in unlike)


_EVEN = np.full(256, 1 / 256)

HUFFMAN = frozenset({"zlib", "zstd", "brotli"})
USUAL_REDUNDANCY = 0.004
"""What whole bits a symbol cost in the containers that `EXCESS` was measured on."""


def whole_bits(codec: str, levels: tuple[float, ...], bits: int) -> float:
    """Further share that a code of whole bits a symbol costs where symbols carry few bits."""
    return _redundancy(levels, bits) if codec in HUFFMAN else 0.0


@lru_cache(maxsize=4096)
def _redundancy(levels: tuple[float, ...], bits: int) -> float:
    shares = byte_shares(np.array(levels), bits)
    entropy = float(_bits(shares))
    if entropy > 4.5:
        return 0.0
    heap = sorted(float(share) for share in shares if share > 1e-9)
    length = 0.0
    while len(heap) > 1:  # the length of a Huffman code is the sum of its inner nodes
        node = heapq.heappop(heap) + heapq.heappop(heap)
        length += node
        heapq.heappush(heap, node)
    return max(0.0, length / max(entropy, 1e-9) - 1 - USUAL_REDUNDANCY)


def _lost(held: list[tuple[float, Shares]]) -> float:
    """Bytes by which one table for all is worse than one for each."""
    if len(held) < 2:
        return 0.0
    lengths = np.array([length for length, _ in held])
    shares = np.stack([shares for _, shares in held])
    mixed = lengths @ shares / lengths.sum()
    return float(lengths.sum() * _bits(mixed) - lengths @ _bits(shares)) / 8


def _bits(shares: Shares) -> Shares:
    bits: Shares = -(shares * np.log2(np.maximum(shares, 1e-30))).sum(axis=-1)
    return bits

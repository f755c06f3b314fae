"""Bytes that a codec makes of quantized weights, by the entropy that they carry.

Measured, not derived: `bench/gate/codec_excess.py` quantizes Gaussian rows, packs them as
`trainer.artifact` does and compresses them at the codec's best level. Rows of 5 to 8 bits of the
same entropy cost the same within half a percent, under any rule and number of bits; two
codes of 4 bits share a byte and have a table of their own. Many levels cost 1 %; few cost more, for
zlib most of all, which spends on chance repetitions of three bytes more than they save; and a code
of whole bits cannot spend less than one on a symbol, unless a match covers several.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from pgolf_sweep.gate.physics.entropy import TERNARY, rounded_gaussian_bits, top_level
from trainer.artifact import DIGITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

SINGLE, PAIRED = "single", "paired"

SIGMAS = {
    SINGLE: (0.16, 0.2, 0.25, 0.32, 0.4, 0.5, 0.63, 0.8, 1.0, 1.26, 1.6, 1.9, 2.5, 3.2, 4.0, 8.0,
             20.0, 32.0, 51.0),
    PAIRED: (0.16, 0.2, 0.25, 0.32, 0.4, 0.5, 0.63, 0.8, 1.0, 1.26, 1.6, 2.0, 2.8),
}  # fmt: skip
"""Standard deviations of the weights, in steps of the quantizer, at which was measured."""

WEIGHTS = (2**16, 2**20)
"""Numbers of weights at which was measured: where entropy is low, more of them repeat more."""

RATIOS: dict[tuple[str, str], tuple[tuple[float, ...], tuple[float, ...]]] = {
    ("zlib", SINGLE): (
        (1.5893, 1.5285, 1.4869, 1.3819, 1.3308, 1.2875, 1.2594, 1.2308, 1.2020, 1.1654, 1.1141,
         1.0802, 1.0337, 1.0177, 1.0147, 1.0099, 1.0064, 1.0079, 1.0043),
        (1.4685, 1.4790, 1.4576, 1.3561, 1.2992, 1.2541, 1.2217, 1.1960, 1.1755, 1.1509, 1.1105,
         1.0762, 1.0353, 1.0190, 1.0153, 1.0101, 1.0064, 1.0077, 1.0043),
    ),
    ("zlib", PAIRED): (
        (1.4411, 1.4186, 1.3978, 1.3194, 1.2547, 1.1766, 1.0940, 1.0316, 1.0155, 1.0102, 1.0107,
         1.0089, 1.0066),
        (1.4129, 1.4150, 1.3789, 1.2970, 1.2235, 1.1593, 1.0965, 1.0385, 1.0163, 1.0092, 1.0113,
         1.0087, 1.0068),
    ),
    ("lzma", SINGLE): (
        (2.0341, 1.4275, 1.3146, 1.2779, 1.2388, 1.2054, 1.1902, 1.1671, 1.1637, 1.1491, 1.0625,
         1.0554, 1.0471, 1.0402, 1.0373, 1.0277, 1.0194, 1.0165, 1.0155),
        (1.4629, 1.2638, 1.1943, 1.1835, 1.1610, 1.1415, 1.1307, 1.1235, 1.1160, 1.1127, 1.0916,
         1.0744, 1.0702, 1.0545, 1.0396, 1.0272, 1.0190, 1.0161, 1.0148),
    ),
    ("lzma", PAIRED): (
        (1.7731, 1.3524, 1.3076, 1.2602, 1.2231, 1.1055, 1.0590, 1.0455, 1.0390, 1.0320, 1.0260,
         1.0229, 1.0200),
        (1.3517, 1.2064, 1.1989, 1.1826, 1.1554, 1.1039, 1.0652, 1.0399, 1.0319, 1.0250, 1.0204,
         1.0187, 1.0169),
    ),
    ("zstd", SINGLE): (
        (1.8740, 1.5767, 1.4173, 1.3283, 1.2415, 1.2015, 1.1157, 1.0668, 1.0606, 1.0226, 1.0225,
         1.0273, 1.0181, 1.0113, 1.0157, 1.0122, 1.0100, 1.0129, 1.0053),
        (1.7157, 1.4301, 1.2832, 1.2436, 1.1796, 1.1472, 1.1113, 1.0648, 1.0581, 1.0200, 1.0206,
         1.0256, 1.0182, 1.0093, 1.0141, 1.0104, 1.0090, 1.0118, 1.0041),
    ),
    ("zstd", PAIRED): (
        (1.5478, 1.4702, 1.3458, 1.1956, 1.0621, 1.0348, 1.0218, 1.0246, 1.0193, 1.0165, 1.0171,
         1.0150, 1.0094),
        (1.5174, 1.3825, 1.2806, 1.1816, 1.1322, 1.0259, 1.0225, 1.0195, 1.0168, 1.0128, 1.0161,
         1.0124, 1.0057),
    ),
    ("brotli", SINGLE): (
        (2.0044, 1.6182, 1.4685, 1.3011, 1.3636, 1.1931, 1.1071, 1.0602, 1.0543, 1.0172, 1.0180,
         1.0231, 1.0135, 1.0072, 1.0115, 1.0090, 1.0055, 1.0065, 1.0034),
        (1.8736, 1.5209, 1.3960, 1.2625, 1.2585, 1.1932, 1.1056, 1.0611, 1.0549, 1.0165, 1.0179,
         1.0230, 1.0129, 1.0063, 1.0108, 1.0086, 1.0050, 1.0059, 1.0031),
    ),
    ("brotli", PAIRED): (
        (1.7138, 1.4948, 1.3458, 1.2034, 1.0455, 1.0276, 1.0141, 1.0152, 1.0132, 1.0099, 1.0108,
         1.0088, 1.0065),
        (1.5997, 1.4482, 1.3123, 1.1997, 1.0380, 1.0226, 1.0124, 1.0144, 1.0112, 1.0060, 1.0088,
         1.0054, 1.0042),
    ),
}  # fmt: skip
"""Compressed bytes of the codes over their entropy, by codec and packing: along `SIGMAS`, for each
of `WEIGHTS`."""

PACKED_EXCESS = 1.004
"""Bytes of ternary codes over their entropy, where a codec saves anything at all."""

RANS_LEVEL_BYTES = {"zlib": 1.5, "zstd": 1.05, "lzma": 0.75, "brotli": 0.8}
"""What a level's frequency costs after the codec."""

FEWEST_BITS = {"zlib": 8 / 1030}
"""What a byte costs where all are alike: zlib's longest match, 258 bytes, takes 2 bits."""


def bits_of(packing: str, sigma: float) -> int:
    """The quantizer's bits at a place of the tables."""
    if packing == PAIRED:
        return 4
    return 6 if sigma <= 8 else 8


def coded_bits(codec: str, bits: int, entropy: Floats) -> tuple[Floats, Floats]:
    """Bits of a weight after compression.

    Args:
        codec: The artifact's.
        bits: Of the quantizer.
        entropy: Bits that a weight carries.

    Returns:
        One array for each of `WEIGHTS`; `size_share` says where in between a model lies.
    """
    if bits <= TERNARY:
        # Bytes of five or eight codes are nearly even: what a codec finds, a table's bytes cost.
        one = np.minimum(entropy * PACKED_EXCESS, 8 / codes_a_byte(bits)) + 0 * entropy
        return one, one
    packing = PAIRED if codes_a_byte(bits) > 1 else SINGLE
    at = np.log(np.maximum(entropy, 1e-12))
    fewest = FEWEST_BITS.get(codec, 0.0) / (1 + (packing == PAIRED))
    few, many = (
        np.maximum(fewest, entropy * np.interp(at, _measured_at(packing), ratios))
        for ratios in RATIOS[codec, packing]
    )
    return few, many


def rans_bits(bits: int, entropy: Floats) -> Floats:
    """Bits of a weight that `trainer.rans` codes: its frequencies are of 2^14, its lanes end.

    Measured on Gaussian codes, 3,000 to 6 million of them at 1 to 8 steps of deviation: 0.07 to
    0.24 % over the entropy, 3.4 bytes of which for each 8,192 that go in.
    """
    return entropy * 1.0002 + 8 * 3.4 / 8192 / codes_a_byte(bits)


def rans_table_bytes(codec: str, bits: int, entropy: Floats) -> Floats:
    """A run's table of frequencies after the codec, and its length.

    By the levels in use, about twice those that the entropy would fill evenly. Measured with six
    tables beside Gaussian codes of 1 to 8 bits: 20 to 414 bytes each; this is 0.6 to 1.3 of it.
    """
    base, places = DIGITS.get(bits, (2**bits, 1))
    levels: Floats = np.minimum(base**places, 2 * 2 ** (places * entropy))
    return 20 + RANS_LEVEL_BYTES[codec] * levels


def codes_a_byte(bits: int) -> int:
    """Codes that share a byte in the container."""
    return DIGITS.get(bits, (256, 1))[1]


def size_share(weights: int) -> float:
    """Where a model of that many weights lies between those of `WEIGHTS`: 0 and 1, or beyond."""
    few, many = WEIGHTS
    return min(1.5, max(-1.0, math.log(weights / few) / math.log(many / few)))


@cache
def _measured_at(packing: str) -> Floats:
    """Logarithm of the entropies at `SIGMAS`."""
    return np.log(
        [rounded_gaussian_bits(s, top_level(bits_of(packing, s))) for s in SIGMAS[packing]]
    )

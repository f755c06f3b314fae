"""What the artifact's codecs add to the entropy of the codes.

Measured, not derived: `bench/gate/codec_excess.py` quantizes Gaussian rows of 512 by rowmax, packs
them as `trainer.artifact` does and compresses a million weights at the codec's best level. A
hundred thousand weights cost some hundred bytes more (`CONSTANT_BYTES`); sdclip differs from
rowmax by at most half a percent. Lower levels cost more, never less.
"""

from __future__ import annotations

CONSTANT_BYTES = 100.0
"""Tables of the entropy coder; between 70 and 140 bytes by codec and bits."""

UNSURE_BYTES = 800.0
"""What blocks and tables may cost beyond that in a container of a few kilobytes."""

EXCESS: dict[str, dict[int, float]] = {
    "zlib": {4: 0.0103, 5: 0.0136, 6: 0.0100, 7: 0.0076, 8: 0.0071},
    "zstd": {4: 0.0134, 5: 0.0116, 6: 0.0104, 7: 0.0089, 8: 0.0097},
    "lzma": {4: 0.0185, 5: 0.0345, 6: 0.0260, 7: 0.0195, 8: 0.0153},
    "brotli": {4: 0.0071, 5: 0.0096, 6: 0.0084, 7: 0.0063, 8: 0.0055},
}
"""Compressed bytes of the codes over their entropy, minus one, by codec and bits."""

MIXING = {"zlib": 0.2, "zstd": 0.2, "lzma": 0.0, "brotli": 0.0}
"""Share of the lesser kind of codes that is lost where pairs of 4-bit codes meet single codes in
one block of an entropy coder: up to `MIXING_BYTES`. Measured: 6.6 kB and 37 kB containers of
random 4-bit blocks with a 5-bit embedding came out 13 % and 10 % larger, those of brotli and
lzma, which model contexts, within half a percent."""

MIXING_BYTES = 20_000
"""Most bytes that meet so; a block is some tens of thousands of symbols."""

ALTERNATING = {"zlib": 0.25, "zstd": 0.25, "lzma": 0.0, "brotli": 0.0}
"""Most that is lost, of the first `ALTERNATING_BYTES`, where attention and MLP have different bits:
the codes then change with every matrix. Measured on random weights of 4 layers, widths 16 to 48:
12 to 19 %. It widens the interval upwards and moves nothing else; how much is lost between these
widths and those at which a matrix fills a block is not modelled yet."""

ALTERNATING_BYTES = 100_000

STEP_BITS = {True: 11.2, False: 11.9}
"""Bits of a float16 step after compression, by whether bytes are shuffled into planes. Measured on
a trained model of 2 layers x 64: 10.4 to 12.4 by codec."""

FLOAT_BITS = {True: 14.2, False: 14.7}
"""The same for trained gains and mixes: 13.1 to 15.1 by codec."""

RARE_TOKENS = 1e5
"""Below so many training tokens for each entry of the vocabulary, rare entries have seen little but
the push away that all of them share: their rows are alike, and codecs that look for matches or
contexts find that. Measured at 600 tokens an entry; at the contest's 10 million it is gone."""

RARE_ROWS_BITS = {"zlib": 0.0, "zstd": -0.1, "lzma": -1.1, "brotli": -0.9}
"""What that is worth in bits for each weight of the embedding, on 2 layers x 64, vocabulary 512,
300 steps. Our zlib looks for no matches."""

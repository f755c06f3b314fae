"""The compressed model file: a container of our own, so that its bytes can be predicted.

    magic "PGA1" | codec u8 | flags u8 | compressed body
    body   = header length u32 | header | floats | steps | codes
    header = per tensor: name length u8, name, bits u8, dimensions u8, each u32

All numbers little-endian, tensors in the model's order in each section, no padding, no time, no
names of machines: equal weights give equal bytes. Floats (scales, mixes, gates) and steps are
float16; flag 1 says that each of those two sections is stored as low bytes, then high bytes.
Codes have Q added, one byte each; of 3 and 4 bits two share a byte, of ternary codes five (base 3),
of binary ones eight. Measured on Gaussian rows: pairs of 4-bit codes compress to 0.7 to 1.0 % above
their entropy, single ones to 1.4 to 1.6 %, while packing 5, 6 and 7 bits tightly costs 6 to 12 %,
since a symbol then straddles bytes.
Flag 2 says that codes of one kind of matrix lie together, over all blocks, and that a run of them
is coded by `trainer.rans` where that is smaller: the codec then has one byte a run (1 is rANS) and
the rANS tables between the steps and the codes that stay with it, and behind its own bytes, whose
length comes first, come the coded runs, each after its length. The tables cost 100 to 450 bytes a
kind: a tiny model stays without.
Brotli takes 143 CPU-seconds for 36 million Gaussian codes at its best, and 35 at level 10 with a
window of 64 KiB, which costs 0.07 %: so a long body is coded.
zlib runs with its "filtered" strategy: chance matches in noise cost its default 3 to 17 %.
zstd compresses the numbers in a frame of their own, and each run of codes of equal bits: what it
learns of other bytes has it take chance matches for cheap ever after (5-bit codes of 5.6 MB behind
the numbers: 3,346 kB, else 3,057 kB; matrices of unlike bits: 2 to 11 % more).
"""

from __future__ import annotations

import lzma
import struct
import zlib
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from trainer.config import CODEC_BEST_LEVEL, CODECS, Config, TrainerError, require
from trainer.quantize import BINARY, Quantized, Stored, top_code
from trainer.rans import TABLE_BYTES, rans_decode, rans_encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

MAGIC = b"PGA1"
SHUFFLED, RANS = 1, 2
FLOAT16_BITS = 16
TRIED_BYTES = 2**19
"""Up to which every coder is tried: a table of frequencies weighs little in more."""
DIGITS = {1: (2, 8), 2: (3, 5), 3: (16, 2), 4: (16, 2)}
"""By bits: the base in which codes share a byte, and how many do. Others have a byte each."""


LONG_BYTES = 2**23
"""Above which brotli looks for repetitions less far back, and less hard."""


def lzma_filters(level: int) -> list[dict[str, int]]:
    """LZMA tuned for independent bytes: no literal context, no alignment."""
    return [{"id": lzma.FILTER_LZMA2, "preset": level | lzma.PRESET_EXTREME, "lc": 0, "pb": 0}]


def compress(codec: str, level: int, parts: list[bytes]) -> bytes:
    """The parts of the body in the codec's shortest framing; level 0 is the codec's best."""
    body = b"".join(parts)
    if codec == "brotli":
        import brotli  # noqa: PLC0415 - optional

        best, window = (10, 16) if len(body) > LONG_BYTES else (CODEC_BEST_LEVEL[codec], 24)
        return bytes(brotli.compress(body, quality=level or best, lgwin=window))
    level = level or CODEC_BEST_LEVEL[codec]
    if codec == "zstd":
        import zstandard  # noqa: PLC0415 - optional

        frame = zstandard.ZstdCompressor(level).compress
        return b"".join(map(frame, parts))
    if codec == "lzma":
        filters = lzma_filters(level)
        return lzma.compress(body, format=lzma.FORMAT_RAW, filters=filters)
    encoder = zlib.compressobj(level, zlib.DEFLATED, -15, 9, zlib.Z_FILTERED)
    return encoder.compress(body) + encoder.flush()


def decompress(codec: str, blob: bytes) -> bytes:
    """What `compress` was given."""
    if codec == "brotli":
        import brotli  # noqa: PLC0415 - optional

        return bytes(brotli.decompress(blob))
    if codec == "zstd":
        import zstandard  # noqa: PLC0415 - optional

        frames = zstandard.ZstdDecompressor().stream_reader(blob, read_across_frames=True)
        return bytes(frames.read())
    if codec == "lzma":
        # The preset's dictionary is only an upper bound for the decoder.
        return lzma.decompress(blob, format=lzma.FORMAT_RAW, filters=lzma_filters(9))
    return zlib.decompress(blob, wbits=-15)


def float16_bytes(parts: list[NDArray[np.float16]], *, shuffle: bool) -> bytes:
    """Float16 arrays one after the other, as byte planes when shuffled."""
    raw = b"".join(part.astype("<f2").tobytes() for part in parts)
    return raw[0::2] + raw[1::2] if shuffle else raw


def digits(bits: int, count: int) -> tuple[NDArray[np.uint8], int]:
    """Place values of the codes in a byte, and bytes of `count` codes."""
    base, places = DIGITS.get(bits, (1, 1))
    return base ** np.arange(places, dtype=np.uint8), -(-count // places)


def code_bytes(tensor: Quantized) -> bytes:
    """A matrix's codes as unsigned bytes."""
    bits, flat = tensor.bits, tensor.codes.reshape(-1)
    values, length = digits(bits, len(flat))
    # Binary codes are -1 and 1, hence 0 and 1; of all others Q is the middle.
    unsigned = flat > 0 if bits == BINARY else (flat + np.int16(top_code(bits))).astype(np.uint8)
    padded = np.zeros(length * len(values), np.uint8)
    padded[: len(flat)] = unsigned
    return bytes((padded.reshape(-1, len(values)) * values).sum(1, dtype=np.uint8).tobytes())


def codes_from_bytes(raw: bytes, bits: int, shape: tuple[int, ...]) -> NDArray[np.int8]:
    """The inverse of `code_bytes`."""
    values, _ = digits(bits, 0)
    flat = np.frombuffer(raw, dtype=np.uint8)
    if len(values) > 1:
        flat = (flat[:, None] // values % DIGITS[bits][0]).reshape(-1)
    flat = flat[: int(np.prod(shape))]
    signed = flat * np.int16(2) - 1 if bits == BINARY else flat - np.int16(top_code(bits))
    codes: NDArray[np.int8] = signed.astype(np.int8).reshape(shape)
    return codes


def code_runs(entries: list[tuple[str, int]], *, by_kind: bool) -> list[list[str]]:
    """Names of quantized tensors whose codes are stored as one run.

    Args:
        entries: Name and bits of each tensor.
        by_kind: Whether a run is of one kind of matrix, else of neighbours of equal bits.
    """
    runs: dict[tuple[str, int], list[str]] = {}
    kind, before = "", 0
    for name, bits in entries:
        if bits == FLOAT16_BITS:
            continue
        if by_kind:
            kind = name.removesuffix(".weight").rpartition(".")[2]
        elif bits != before:
            kind, before = name, bits
        runs.setdefault((kind, bits), []).append(name)
    return list(runs.values())


def pack_body(stored: Mapping[str, Stored], *, shuffle: bool, by_kind: bool = False) -> list[bytes]:
    """The container's body before compression: header, floats and steps; then runs of codes."""
    header = bytearray()
    floats: list[NDArray[np.float16]] = []
    steps: list[NDArray[np.float16]] = []
    entries: list[tuple[str, int]] = []
    codes: dict[str, bytes] = {}
    for name, tensor in stored.items():
        if isinstance(tensor, Quantized):
            bits, shape = tensor.bits, tensor.codes.shape
            steps.append(tensor.steps)
            codes[name] = code_bytes(tensor)
        else:
            bits, shape = FLOAT16_BITS, tensor.shape
            floats.append(tensor)
        entries.append((name, bits))
        encoded = name.encode()
        header += struct.pack("<B", len(encoded)) + encoded
        header += struct.pack(f"<BB{len(shape)}I", bits, len(shape), *shape)
    numbers = float16_bytes(floats, shuffle=shuffle) + float16_bytes(steps, shuffle=shuffle)
    runs = code_runs(entries, by_kind=by_kind)
    return [
        struct.pack("<I", len(header)) + bytes(header) + numbers,
        *(b"".join(codes[name] for name in run) for run in runs),
    ]


def repeats(run: bytes) -> bool:
    """Whether looking for repetitions pays in a run: a quick search against none."""
    none = zlib.compressobj(1, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    return len(zlib.compress(run, 1)) < len(none.compress(run) + none.flush())


def chosen_coders(
    config: Config, runs: list[tuple[bytes, bytes, bytes]], tried_bytes: int = 0
) -> tuple[list[bytes], bytes]:
    """The runs by the smaller coder each: what is left to the codec, and what rANS coded.

    Args:
        config: The run's configuration.
        runs: Of codes, each with its rANS table and what rANS makes of it.
        tried_bytes: Up to which a run without repetitions is tried with the codec too.
    """
    flags, tables, kept, coded = b"", b"", [], b""
    shorten = partial(compress, config.codec, config.codec_level)
    for run, table, ours in runs:
        theirs = shorten([run]) if len(run) < tried_bytes or repeats(run) else b""
        if theirs and len(theirs) < len(ours) + len(shorten([table])):
            flags += b"\0"
            kept.append(run)
        else:
            flags += b"\1"
            tables += table
            coded += struct.pack("<I", len(ours)) + ours
    return [flags + tables, *kept], coded


def pack(config: Config, stored: Mapping[str, Stored]) -> bytes:
    """The artifact's bytes: with RANS the shortest of three, where the model is small.

    Beside unlike runs the codec does worse than by itself: what is kept for it is also tried whole.
    """
    head = MAGIC + bytes([CODECS.index(config.codec)])
    shorten = partial(compress, config.codec, config.codec_level)
    found: list[bytes] = []
    if config.rans:
        numbers, *codes = pack_body(stored, shuffle=config.byte_shuffle, by_kind=True)
        runs = [(run, *rans_encode(run)) for run in codes]
        for tried_bytes in (0, TRIED_BYTES):
            (rest, *kept), coded = chosen_coders(config, runs, tried_bytes)
            body = shorten([numbers + rest, *kept])
            length = struct.pack("<I", len(body))
            flags = bytes([SHUFFLED * config.byte_shuffle + RANS])
            found.append(head + flags + length + body + coded)
            if len(found[0]) > TRIED_BYTES:
                return found[0]
    body = shorten(pack_body(stored, shuffle=config.byte_shuffle))
    plain = head + bytes([SHUFFLED * config.byte_shuffle]) + body
    return min([*found, plain], key=len)


def read_header(header: bytes) -> list[tuple[str, int, tuple[int, ...]]]:
    """Name, bits and shape of each tensor."""
    entries = []
    at = 0
    while at < len(header):
        length = header[at]
        name = header[at + 1 : at + 1 + length].decode()
        at += 1 + length
        bits, dimensions = struct.unpack_from("<BB", header, at)
        shape = struct.unpack_from(f"<{dimensions}I", header, at + 2)
        at += 2 + 4 * dimensions
        entries.append((name, bits, shape))
    return entries


def read_codes(
    entries: list[tuple[str, int, tuple[int, ...]]],
    body: bytes,
    at: int,
    coded: bytes,
    *,
    by_kind: bool,
) -> tuple[dict[str, bytes], int]:
    """The codes of each matrix as stored, and where the body goes on.

    Args:
        entries: Name, bits and shape of each tensor.
        body: What the codec gave back.
        at: Where its codes begin, or the runs' coders.
        coded: What rANS coded.
        by_kind: Whether runs are by kind, and rANS may have coded some.
    """
    sizes = {name: digits(bits, int(np.prod(shape)))[1] for name, bits, shape in entries}
    runs = code_runs([entry[:2] for entry in entries], by_kind=by_kind)
    coders = bytes(len(runs))
    if by_kind:
        coders = body[at : at + len(runs)]
        at += len(runs)
    tables = [body[at + TABLE_BYTES * place :][:TABLE_BYTES] for place in range(sum(coders))]
    at += TABLE_BYTES * len(tables)
    codes: dict[str, bytes] = {}
    for run, coder in zip(runs, coders, strict=True):
        count = sum(sizes[name] for name in run)
        raw = body[at : at + count]
        if coder:
            (length,) = struct.unpack_from("<I", coded)
            raw = rans_decode(tables.pop(0), coded[4 : 4 + length], count)
            coded = coded[4 + length :]
        else:
            at += count
        for name in run:
            codes[name], raw = raw[: sizes[name]], raw[sizes[name] :]
    return codes, at


def unpack(blob: bytes) -> dict[str, Stored]:
    """The tensors of an artifact: exactly those that `pack` was given.

    Raises:
        TrainerError: Not an artifact of this format.
    """
    require(blob[:4] == MAGIC, f"not an artifact: it begins with {blob[:4]!r}, not {MAGIC!r}")
    codec, flags = struct.unpack_from("<BB", blob, 4)
    if flags & RANS:
        (length,) = struct.unpack_from("<I", blob, 6)
        body, coded = decompress(CODECS[codec], blob[10 : 10 + length]), blob[10 + length :]
    else:
        body, coded = decompress(CODECS[codec], blob[6:]), b""
    (header_length,) = struct.unpack_from("<I", body)
    entries = read_header(body[4 : 4 + header_length])
    at = 4 + header_length

    def take_float16(count: int) -> NDArray[np.float16]:
        nonlocal at
        raw = np.frombuffer(body, dtype=np.uint8, count=2 * count, offset=at)
        at += 2 * count
        if flags & SHUFFLED:
            raw = np.stack((raw[:count], raw[count:]), axis=1).reshape(-1)
        return np.frombuffer(raw.tobytes(), dtype="<f2").astype(np.float16)

    kept = [int(np.prod(shape)) for _, bits, shape in entries if bits == FLOAT16_BITS]
    rows = [shape[0] for _, bits, shape in entries if bits != FLOAT16_BITS]
    floats = np.split(take_float16(sum(kept)), np.cumsum(kept))
    steps = np.split(take_float16(sum(rows)), np.cumsum(rows))
    codes, at = read_codes(entries, body, at, coded, by_kind=bool(flags & RANS))
    stored: dict[str, Stored] = {}
    for name, bits, shape in entries:
        if bits == FLOAT16_BITS:
            stored[name] = floats.pop(0).reshape(shape)
        else:
            shaped = codes_from_bytes(codes[name], bits, shape)
            stored[name] = Quantized(bits=bits, codes=shaped, steps=steps.pop(0))
    if at != len(body):
        raise TrainerError(f"not an artifact: {len(body) - at} bytes beyond its last tensor")
    return stored

"""The shipped model is what the log says: read by its codec, within bounds, never unpickled."""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from typing import TYPE_CHECKING

from pgolf_sweep.submission.folder import MOST_MODEL_BYTES
from pgolf_sweep.verify.check import Check, CheckVerdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgolf_sweep.submission.folder import Folder

MOST_DECODED_BYTES = 400_000_000
"""Counted, never kept: a raw checkpoint of the contest's largest model has 300 MB."""
PIECE_BYTES = 1 << 20
LZMA_MEMORY_BYTES = 256_000_000

_OUR_MAGIC = b"PGA1"
_OUR_HEADER_BYTES = 6
_CONTAINERS = {b"PK\x03\x04": "zip", b"LRZI": "lrzip"}
_CODECS = ("zlib", "zstd", "lzma", "brotli", "bz2")
_NAMED = re.compile(
    r"(?:serialized|model|size|artifact)[^\n:]{0,60}?\b\w*(zlib|zstd|lzma|brotli|bz2)",
    re.IGNORECASE,
)
_RAW = re.compile(r"\braw(?:_torch|_pickle)?\s*[:=]\s*(\d{3,12})\b")


def artifact_content(folder: Folder) -> Check:  # noqa: C901 - one return a finding
    """Whether the model file holds what the logs' codec makes."""
    limit = "the file decodes with the codec that the log names, to as many bytes as it says"

    def answer(verdict: CheckVerdict, observed: str, detail: str = "") -> Check:
        return Check(
            rule="artifact_content", verdict=verdict, observed=observed, limit=limit, detail=detail
        )

    if folder.model is None:
        return answer(CheckVerdict.UNKNOWN, "no compressed model in the folder")
    blob = folder.reader.read(folder.model, MOST_MODEL_BYTES)
    if blob is None:
        why = folder.reader.unreadable.get(folder.model, "")
        return answer(CheckVerdict.UNKNOWN, f"{folder.model} cannot be read", why)
    text = "\n".join(
        line for log in folder.logs for line in log.text.splitlines() if len(line) < 400
    )
    named = {match.lower() for match in _NAMED.findall(text)}
    if any(blob.startswith(magic) for magic in _CONTAINERS):
        kind = next(name for magic, name in _CONTAINERS.items() if blob.startswith(magic))
        return answer(CheckVerdict.UNKNOWN, f"a {kind} file", "what is in it cannot be told")
    body = blob[_OUR_HEADER_BYTES:] if blob.startswith(_OUR_MAGIC) else blob
    decoded = next(
        ((codec, size) for codec in _CODECS if (size := decoded_bytes(codec, body)) is not None),
        None,
    )
    if decoded is None:
        if named & set(_CODECS):
            codecs = ", ".join(sorted(named))
            return answer(CheckVerdict.FAIL, f"{folder.model} is not of {codecs}", "other bytes")
        return answer(CheckVerdict.UNKNOWN, f"{folder.model}: no codec that is known", "")
    codec, size = decoded
    observed = f"{codec}, {size:,} bytes decoded"
    raw = {int(number) for number in _RAW.findall(text)}
    if size > MOST_DECODED_BYTES:
        return answer(CheckVerdict.FAIL, f"{codec}, over {MOST_DECODED_BYTES:,} bytes decoded")
    if named and codec not in named:
        return answer(CheckVerdict.FAIL, observed, f"the logs name {', '.join(sorted(named))}")
    if blob is body and raw and size not in raw:
        said = ", ".join(f"{number:,}" for number in sorted(raw)[:3])
        return answer(CheckVerdict.FAIL, observed, f"the logs say {said}")
    params = max((log.summary.model_params or 0 for log in folder.logs), default=0)
    if size * 8 < params:
        return answer(CheckVerdict.FAIL, observed, f"for {params:,} parameters")
    return answer(CheckVerdict.PASS, observed)


def decoded_bytes(codec: str, blob: bytes) -> int | None:
    """Bytes that a codec makes of data, counted in pieces up to a bound; None if it is not its."""
    for count in _COUNTERS[codec]:
        try:
            size = count(blob)
        except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, MemoryError):
            continue
        if size is not None:
            return size
    return None


def _zlib(wbits: int) -> Callable[[bytes], int | None]:
    def count(blob: bytes) -> int | None:
        decoder = zlib.decompressobj(wbits)
        size, data = 0, blob
        while not decoder.eof and size <= MOST_DECODED_BYTES:
            piece = decoder.decompress(data, PIECE_BYTES)
            data = decoder.unconsumed_tail
            if not piece and not data:
                return None  # cut off
            size += len(piece)
        return None if decoder.eof and decoder.unused_data else size

    return count


def _lzma(blob: bytes) -> int | None:
    return _bounded(lzma.LZMADecompressor(memlimit=LZMA_MEMORY_BYTES), blob)


def _raw_lzma(blob: bytes) -> int | None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 26}]
    return _bounded(lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters), blob)


def _bz2(blob: bytes) -> int | None:
    return _bounded(bz2.BZ2Decompressor(), blob)


def _bounded(decoder: lzma.LZMADecompressor | bz2.BZ2Decompressor, blob: bytes) -> int | None:
    size, data = 0, blob
    while not decoder.eof and size <= MOST_DECODED_BYTES:
        piece = decoder.decompress(data, PIECE_BYTES)
        data = b""
        if not piece and decoder.needs_input:
            return None  # cut off
        size += len(piece)
    return None if decoder.eof and decoder.unused_data else size


def _brotli(blob: bytes) -> int | None:
    import brotli  # noqa: PLC0415 - loads only where a model is read

    decoder = brotli.Decompressor()
    size, data = 0, blob
    try:
        while not decoder.is_finished() and size <= MOST_DECODED_BYTES:
            # A few hundred bytes decode to gigabytes, so the output is what is limited.
            piece = decoder.process(data, output_buffer_limit=PIECE_BYTES)
            data = b""
            if not (piece or decoder.is_finished()) and decoder.can_accept_more_data():
                return None  # cut off
            size += len(piece)
    except brotli.error as error:
        raise ValueError(str(error)) from error
    return size


def _zstd(blob: bytes) -> int | None:
    import zstandard  # noqa: PLC0415 - as above

    if blob[:4] != b"\x28\xb5\x2f\xfd":
        return None
    size = 0
    try:
        decoder = zstandard.ZstdDecompressor(max_window_size=1 << 28)
        reader = decoder.stream_reader(blob, read_across_frames=True)
        while size <= MOST_DECODED_BYTES and (piece := reader.read(PIECE_BYTES)):
            size += len(piece)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    return size


_COUNTERS: dict[str, tuple[Callable[[bytes], int | None], ...]] = {
    "zlib": (_zlib(15), _zlib(31), _zlib(-15)),
    "zstd": (_zstd,),
    "lzma": (_lzma, _raw_lzma),
    "brotli": (_brotli,),
    "bz2": (_bz2,),
}

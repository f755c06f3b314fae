"""The compression of an export, watched: what goes in, by which codec, and how much comes out.

zlib runs as it is. Slower codecs compress a sample of blocks, one of each sort by entropy, and the
whole is taken to cost as much over its entropy as the sample does: brotli's best level would take
ninety seconds for a record's export. Evenly spaced samples of bytes are 12 % low; blocks are not.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

LARGE_BYTES = 50_000
"""Of what goes in: less is code or metadata, and is compressed for real."""
BLOCK_BYTES = 1 << 16
SAMPLED_BLOCKS = 6
LRZIP_EXCESS = 1.004
"""lrzip over the entropy of its input, by group. Source: 3 runs of the contest's records."""


@dataclass(frozen=True, slots=True)
class Compression:
    """One call of a codec.

    Attributes:
        codec: As `pgolf_sweep.script.probe` names it.
        level: What the script asked for; -1 for the codec's own.
        given: Bytes that went in.
        made: Bytes that came out, or would have.
        sampled: Whether they were measured on a sample.
    """

    codec: str
    level: int
    given: int
    made: int
    sampled: bool


class Codecs:
    """The compressors of this process.

    Args:
        ended: Called when something is decompressed after a large compression: what follows is
            evaluation.
    """

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended
        self._ratios: dict[Any, float] = {}
        self.calls: list[Compression] = []

    def install(self) -> None:
        """Watch every codec, for the rest of this process."""
        import bz2  # noqa: PLC0415 - of the child alone
        import lzma  # noqa: PLC0415
        import zlib  # noqa: PLC0415

        self._patch(zlib, "zlib", "compress", "decompress", slow=False)
        self._patch(bz2, "bz2", "compress", "decompress", slow=False)
        self._patch(lzma, "lzma", "compress", "decompress", slow=True)
        with contextlib.suppress(ImportError):
            import brotli  # noqa: PLC0415

            self._patch(brotli, "brotli", "compress", "decompress", slow=True)
        with contextlib.suppress(ImportError):
            import zstandard  # noqa: PLC0415

            self._patch_zstandard(zstandard)
        self._patch_lrzip()

    def large(self) -> bool:
        """Whether something as large as an export was compressed."""
        return any(call.given > LARGE_BYTES for call in self.calls)

    def compress(
        self, codec: str, level: int, data: Any, true: Callable[[Any], Any], *, slow: bool
    ) -> Any:
        """What the codec makes of data; of slow ones as many bytes as it would make."""
        if not slow or len(data) <= 4 * BLOCK_BYTES:
            out = true(data)
            self.calls.append(Compression(codec, level, len(data), len(out), sampled=False))
            return out
        made = round(self._estimate((codec, level), data, true))
        self.calls.append(Compression(codec, level, len(data), made, sampled=True))
        return os.urandom(made)

    def _estimate(self, key: Any, data: Any, true: Callable[[Any], Any]) -> float:
        numbers = np.frombuffer(data, dtype=np.uint8)
        starts = range(0, len(numbers), BLOCK_BYTES)
        sizes = [block_entropy(numbers[start : start + BLOCK_BYTES]) for start in starts]
        whole = sum(sizes)
        key = (*key, len(numbers), round(whole / 100))
        if key not in self._ratios:
            full = [index for index, start in enumerate(starts)
                    if start + BLOCK_BYTES <= len(numbers)]  # fmt: skip
            full.sort(key=lambda index: sizes[index])
            picks = np.linspace(0, len(full) - 1, 2 * SAMPLED_BLOCKS + 1).round().astype(int)[1::2]
            chosen = sorted({full[pick] for pick in picks})
            sample = b"".join(
                numbers[i * BLOCK_BYTES : (i + 1) * BLOCK_BYTES].tobytes() for i in chosen
            )
            entropy = sum(sizes[index] for index in chosen)
            self._ratios[key] = len(true(sample)) / max(entropy, 1.0)
        return self._ratios[key] * whole

    def decompressed(self) -> None:
        """Something is decompressed."""
        if self.large():
            self._ended()

    def _patch(self, module: Any, codec: str, name: str, back: str, *, slow: bool) -> None:
        true, true_back = getattr(module, name), getattr(module, back)

        def compress(data: Any, *args: Any, **keywords: Any) -> Any:
            level = keywords.get("level", keywords.get("quality", keywords.get("preset")))
            if level is None:
                level = args[0] if args and isinstance(args[0], int) else -1
            return self.compress(
                codec, int(level), data, lambda part: true(part, *args, **keywords), slow=slow
            )

        def decompress(*args: Any, **keywords: Any) -> Any:
            self.decompressed()
            return true_back(*args, **keywords)

        setattr(module, name, compress)
        setattr(module, back, decompress)

    def _patch_zstandard(self, module: Any) -> None:
        true, watch = module.ZstdCompressor, self

        class Compressor:
            def __init__(self, *args: Any, **keywords: Any) -> None:
                self._true = true(*args, **keywords)
                self._level = int(keywords.get("level", args[0] if args else 3))

            def compress(self, data: Any) -> Any:
                return watch.compress("zstd", self._level, data, self._true.compress, slow=True)

            def __getattr__(self, name: str) -> Any:
                return getattr(self._true, name)

        true_back = module.ZstdDecompressor

        def decompressor(*args: Any, **keywords: Any) -> Any:
            watch.decompressed()
            return true_back(*args, **keywords)

        def compress(data: Any, level: int = 3) -> Any:
            return Compressor(level=level).compress(data)

        module.ZstdCompressor, module.ZstdDecompressor = Compressor, decompressor
        module.compress = compress

    def _patch_lrzip(self) -> None:
        """The program `lrzip`, whose size its input's entropy tells."""
        import shutil  # noqa: PLC0415 - of the child alone

        module: Any = subprocess
        which, run = shutil.which, module.run
        shutil.which = lambda name, *args, **keywords: (  # type: ignore[assignment]
            f"/usr/bin/{name}" if name == "lrzip" else which(name, *args, **keywords)
        )

        def watched(command: Any, *args: Any, **keywords: Any) -> Any:
            words = [str(word) for word in command] if isinstance(command, list | tuple) else []
            if words and words[0].rpartition("/")[2] == "lrzip":
                self._lrzip(words)
            return run(command, *args, **keywords)

        module.run = watched
        module.check_call = module.call = lambda *args, **keywords: (
            watched(*args, **keywords).returncode
        )

    def _lrzip(self, words: list[str]) -> None:
        if "-d" in words or "--decompress" in words:
            self.decompressed()
            return
        files = [word for word in words[1:] if os.path.isfile(word)]
        if not files:
            return
        with open(files[-1], "rb") as source:
            data = source.read()
        numbers = np.frombuffer(data, dtype=np.uint8)
        entropy = sum(
            block_entropy(numbers[start : start + BLOCK_BYTES])
            for start in range(0, len(numbers), BLOCK_BYTES)
        )
        made = round(LRZIP_EXCESS * entropy)
        out = words[words.index("-o") + 1] if "-o" in words else f"{files[-1]}.lrz"
        with open(out, "wb") as sink:
            sink.write(os.urandom(made))
        self.calls.append(Compression("lrzip", -1, len(data), made, sampled=True))


def block_entropy(block: Any) -> float:
    """Bytes that the order-0 entropy of a block of bytes comes to."""
    counts = np.bincount(block, minlength=256)
    counts = counts[counts > 0]
    return float((counts * np.log2(block.size / counts)).sum()) / 8

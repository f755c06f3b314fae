from __future__ import annotations

import lzma
import random
import tracemalloc
from typing import TYPE_CHECKING

import brotli
import pytest
import zstandard

from pgolf_sweep.config.rules import load_rules
from pgolf_sweep.verify.check import CheckVerdict
from pgolf_sweep.verify.checks_artifact import MOST_DECODED_BYTES, decoded_bytes
from pgolf_sweep.verify.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

PIECE = bytes(1 << 20)
PIECES = MOST_DECODED_BYTES // len(PIECE) + 8
"""A bomb decodes to a little more than the bound."""
MOST_HELD_BYTES = 32_000_000
"""A few pieces."""


def lzma_bomb() -> bytes:
    made = lzma.LZMACompressor(preset=0)
    return b"".join(made.compress(PIECE) for _ in range(PIECES)) + made.flush()


def zstd_bomb() -> bytes:
    made = zstandard.ZstdCompressor(level=1).compressobj()
    return b"".join(made.compress(PIECE) for _ in range(PIECES)) + made.flush()


def brotli_bomb() -> bytes:
    made = brotli.Compressor(quality=5)  # some hundred bytes in all
    return b"".join(made.process(PIECE) for _ in range(PIECES)) + made.finish()


BOMBS = {"lzma": lzma_bomb, "zstd": zstd_bomb, "brotli": brotli_bomb}


@pytest.fixture(scope="module", params=BOMBS)
def bomb(request: pytest.FixtureRequest) -> tuple[str, bytes]:
    return request.param, BOMBS[request.param]()


def test_bomb_is_cut_off_at_the_bound_and_not_held_in_memory(bomb: tuple[str, bytes]) -> None:
    codec, blob = bomb
    assert len(blob) < 1_000_000
    tracemalloc.start()
    size = decoded_bytes(codec, blob)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size is not None
    assert size > MOST_DECODED_BYTES
    assert peak_bytes < MOST_HELD_BYTES


def test_bomb_as_the_model_is_refused_by_its_rule(bomb: tuple[str, bytes], tmp_path: Path) -> None:
    codec, blob = bomb
    (tmp_path / "final_model.ptz").write_bytes(blob)
    found = verify(tmp_path, load_rules("demo", base=tmp_path))
    check = next(c for c in found.checks if c.rule == "artifact_content")
    assert check.verdict is CheckVerdict.FAIL
    assert check.observed == f"{codec}, over {MOST_DECODED_BYTES:,} bytes decoded"


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_brotli_is_counted_whole_and_not_where_it_is_cut_off(size: int) -> None:
    blob = brotli.compress(random.Random(size).randbytes(size), quality=1)
    assert decoded_bytes("brotli", blob) == size
    assert decoded_bytes("brotli", blob[: len(blob) // 2]) is None

"""What a process keeps on the disk is counted, whatever it does with the names of its files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pgolf_sweep.script.probe.contain.written import written_bytes

if TYPE_CHECKING:
    from pathlib import Path

PIECE = 1 << 20


def test_blocks_are_counted_once_of_files_below_and_of_removed_ones_that_are_open(
    tmp_path: Path,
) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "kept").write_bytes(b"1" * PIECE)
    os.link(deep / "kept", tmp_path / "again")
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 40)
    with (tmp_path / "removed").open("wb") as removed:
        removed.write(b"1" * PIECE)
        removed.flush()
        (tmp_path / "removed").unlink()
        both = written_bytes(os.getpid(), str(tmp_path))
    one = written_bytes(os.getpid(), str(tmp_path))
    assert 2 * PIECE <= both < 2.5 * PIECE
    assert PIECE <= one < 1.5 * PIECE


def test_neither_a_process_nor_a_folder_that_is_gone_holds_anything(tmp_path: Path) -> None:
    assert written_bytes(2**22 + 1, str(tmp_path / "gone")) == 0

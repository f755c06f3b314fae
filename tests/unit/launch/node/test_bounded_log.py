from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from pgolf_sweep.launch.node.bounded_log import BoundedLog

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def through(path: Path, limit_bytes: int, chunks: list[bytes]) -> bytes:
    log = BoundedLog(path, limit_bytes)
    for chunk in chunks:
        log.write(chunk)
    log.seal()
    content = log.read(0, log.size)
    log.close()
    assert content == path.read_bytes()
    return content


@settings(max_examples=60, deadline=None)
@given(chunks=st.lists(st.binary(max_size=30)), limit_bytes=st.integers(1, 80))
def test_short_logs_are_kept_whole_and_long_ones_keep_both_ends(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes], limit_bytes: int
) -> None:
    content = through(tmp_path_factory.mktemp("log") / "log", limit_bytes, chunks)
    whole = b"".join(chunks)
    if len(whole) <= limit_bytes:
        assert content == whole
    else:
        head, _, rest = content.partition(b"\n[pgolf-sweep: ")
        said, _, tail = rest.partition(b" bytes of this log were dropped here]\n")
        assert whole.startswith(head)
        assert whole.endswith(tail)
        assert len(head) + int(said) + len(tail) == len(whole)
        assert len(head) + len(tail) <= limit_bytes


def test_kept_end_begins_with_a_whole_line(tmp_path: Path) -> None:
    content = through(tmp_path / "log", 40, [b"final val_bpb:%d\n" % n for n in range(1000)])
    assert content.splitlines()[-1] == b"final val_bpb:999"
    assert all(
        line.startswith(b"final val_bpb:") or b"dropped" in line
        for line in content.splitlines()[2:]
    )


def test_head_can_be_read_while_the_log_grows(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log", 1000)
    log.write(b"one\n")
    assert log.read(0, 100) == b"one\n"
    log.write(b"two\n")
    assert log.read(4, 100) == b"two\n"
    assert log.read(8, 100) == b""
    log.close()


def test_seal_twice_changes_nothing(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log", 10)
    log.write(b"0123456789abcdef\n")
    log.seal()
    size = log.size
    log.seal()
    assert log.size == size
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]

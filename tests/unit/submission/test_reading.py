from __future__ import annotations

from pathlib import Path

from pgolf_sweep.submission.reading import FolderReader


def test_each_file_of_the_kernel_is_read_or_named() -> None:
    reader = FolderReader.of(Path("/proc/self"))
    names = [name for name in reader.sizes if not name.startswith("task/")]
    assert "mem" in names
    for name in names:
        data = reader.read(name, 1_000_000)
        assert (data is None) == (name in reader.unreadable), name
    assert "mem" in reader.unreadable

"""What a process keeps on the disk, where no file system of its own bounds it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK_BYTES = 512
"""Of `st_blocks`, whatever the disk's own are."""
_ENTRY_BYTES = 256
"""Of an empty file, about: an inode is no block of the file's."""


def written_bytes(pid: int, place: str) -> int:
    """Bytes on the disk of a folder's files and of removed ones that a process holds open.

    Args:
        pid: The process; one that is gone holds nothing.
        place: The folder.
    """
    found = {(about.st_dev, about.st_ino): about for about in _entries(place)}
    with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as descriptors:
        for one in descriptors:
            with suppress(OSError):
                about = os.stat(one.path)
                if stat.S_ISREG(about.st_mode) and not about.st_nlink:
                    found[about.st_dev, about.st_ino] = about
    return sum(one.st_blocks * BLOCK_BYTES + _ENTRY_BYTES for one in found.values())


def _entries(place: str) -> Iterator[os.stat_result]:
    pending = [place]
    while pending:
        with suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    yield entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)

"""A probed script writes nothing outside its own folder.

Python tells an audit hook of each file that it opens or changes; the hook refuses. Code that calls
the system by ctypes passes by it: this contains accidents, such as a script that leaves notes.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {
    "os.chmod": 1, "os.chown": 1, "os.link": 2, "os.mkdir": 1, "os.remove": 1, "os.rename": 2,
    "os.rmdir": 1, "os.symlink": 2, "os.truncate": 1, "os.utime": 1,
}  # fmt: skip
"""Audit events that change files, and how many of their first arguments are paths."""


def write_only_below(place: Path) -> None:
    """Refuse, for the rest of this process, to change files outside a folder.

    Args:
        place: The folder; temporary files go there as well.
    """
    root = os.path.realpath(place)
    sys.dont_write_bytecode = True
    tempfile.tempdir = root

    def refuse(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            paths = args[:1] if isinstance(args[2], int) and args[2] & _WRITES else ()
        else:
            paths = args[: _CHANGES.get(event, 0)]
        for path in paths:
            if isinstance(path, str | bytes | os.PathLike):
                real = os.path.realpath(os.fsdecode(path))
                if real != root and not real.startswith((f"{root}{os.sep}", "/dev/")):
                    raise PermissionError(errno.EACCES, "a probed script writes only here", real)

    sys.addaudithook(refuse)

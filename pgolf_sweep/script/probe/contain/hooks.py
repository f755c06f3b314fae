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
    from collections.abc import Mapping
    from pathlib import Path

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NONE = -1
_CHANGES: Mapping[str, tuple[tuple[int, int], ...]] = {
    "os.chmod": ((0, 2),), "os.chown": ((0, 3),), "os.link": ((0, 2), (1, 3)),
    "os.mkdir": ((0, 2),), "os.remove": ((0, 1),), "os.rename": ((0, 2), (1, 3)),
    "os.rmdir": ((0, 1),), "os.symlink": ((1, 2),), "os.truncate": ((0, _NONE),),
    "os.utime": ((0, 3),),
}  # fmt: skip
"""Audit events that change files: which arguments are paths, each with the folder that it is of."""


def write_only_below(place: Path) -> None:
    """Refuse, for the rest of this process, to change files outside a folder.

    Args:
        place: The folder; temporary files go there as well.
    """
    root = os.path.realpath(place)
    sys.dont_write_bytecode = True
    tempfile.tempdir = root

    def refuse(event: str, args: tuple[Any, ...]) -> None:
        paths = [
            (args[at], _NONE if of == _NONE else args[of]) for at, of in _CHANGES.get(event, ())
        ]
        if event == "open" and isinstance(args[2], int) and args[2] & _WRITES:
            paths = [(args[0], _NONE)]
        for path, folder in paths:
            if isinstance(path, str | bytes | os.PathLike):
                base = f"/proc/self/fd/{folder}" if folder >= 0 else os.getcwd()
                real = os.path.realpath(os.path.join(base, os.fsdecode(path)))
                if real != root and not real.startswith((f"{root}{os.sep}", "/dev/")):
                    raise PermissionError(errno.EACCES, "a probed script writes only here", real)

    sys.addaudithook(refuse)

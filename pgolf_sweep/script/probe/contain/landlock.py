"""Landlock: files that this process may reach, without any privilege (Linux 5.13).

Structures and numbers as in Documentation/userspace-api/landlock.rst of the kernel.
"""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

from pgolf_sweep.script.probe.contain import kernel

if TYPE_CHECKING:
    from collections.abc import Iterable

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_ASK_VERSION, _BENEATH = 1, 1
_EXECUTE, _READ_FILE, _READ_FOLDER = 1 << 0, 1 << 2, 1 << 3
_WRITE_FILE, _TRUNCATE, _IOCTL = 1 << 1, 1 << 14, 1 << 15
_READ = _READ_FILE | _READ_FOLDER
_OF_FILES = _EXECUTE | _READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL
_TCP = 0b11
_SIGNALS_AND_SOCKETS = 0b11


def version() -> int:
    """The kernel's version of Landlock; 0 where there is none."""
    with suppress(OSError):
        return kernel.call(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(_ASK_VERSION))
    return 0


def restrict(*, reads: Iterable[str], writes: Iterable[str]) -> None:
    """Let this process reach these files alone, from here on; no TCP, no signal to others.

    Args:
        reads: Folders and files that it may read.
        writes: Those that it may change as well.

    Raises:
        OSError: The kernel has no Landlock.
    """
    found = version()
    handled = (1 << (13 + (found >= 2) + (found >= 3))) - 1
    handled |= _IOCTL if found >= 5 else 0
    words = [handled]
    if found >= 4:
        words.append(_TCP)
    if found >= 6:
        words.append(_SIGNALS_AND_SOCKETS)
    packed = struct.pack(f"{len(words)}Q", *words)
    rules = kernel.call(_CREATE, packed, ctypes.c_size_t(len(packed)), ctypes.c_uint(0))
    try:
        for path in reads:
            _allow(rules, path, _READ)
        for path in writes:
            _allow(rules, path, handled & ~_EXECUTE)
        kernel.refuse_new_privileges()
        kernel.call(_RESTRICT, ctypes.c_int(rules), ctypes.c_uint(0))
    finally:
        os.close(rules)


def _allow(rules: int, path: str, access: int) -> None:
    with suppress(FileNotFoundError, PermissionError, NotADirectoryError):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            access &= -1 if os.path.isdir(path) else _OF_FILES
            rule = struct.pack("=Qi", access, descriptor)
            words = (ctypes.c_int(rules), ctypes.c_int(_BENEATH), rule, ctypes.c_uint(0))
            kernel.call(_ADD, *words)
        finally:
            os.close(descriptor)

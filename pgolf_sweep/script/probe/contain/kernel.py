"""System calls that Python 3.11 has no function for; each raises OSError where the kernel refuses.

The numbers of calls since Linux 5.2 are the same on every architecture.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Any

NEW_MOUNT = 0x00020000
NEW_UTS = 0x04000000
NEW_IPC = 0x08000000
NEW_USER = 0x10000000
NEW_PID = 0x20000000
NEW_NETWORK = 0x40000000

READ_ONLY, NO_SUID, NO_DEVICES, NO_EXECUTION = 1, 2, 4, 8
"""Attributes of a mount, the same for `mount` and `set_mount_attributes`."""
PRIVATE = 1 << 18

_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_RECURSIVE, _EMPTY_PATH = 0x8000, 0x1000
_CLONE_TREE = 1
_MOVE_FROM_DESCRIPTOR = 4
_HERE = -100
_KILL_WITH_PARENT, _NO_NEW_PRIVILEGES = 1, 38
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def call(number: int, *arguments: Any) -> int:
    """A system call by its number.

    Raises:
        OSError: The kernel refuses, or has no such call.
    """
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    return _checked(result)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def unshare(flags: int) -> None:
    """Leave namespaces for new ones."""
    _checked(_libc.unshare(ctypes.c_int(flags)))


def join_namespace(descriptor: int, flag: int) -> None:
    """Enter a namespace; of processes, the one that later children begin in."""
    _checked(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(flag)))


def mount(kind: str, target: str, flags: int, options: str = "") -> None:
    """Mount a file system that has no source."""
    words = (kind.encode(), os.fsencode(target), kind.encode())
    _checked(_libc.mount(*words, ctypes.c_ulong(flags), options.encode()))


def clone_tree(path: str) -> int:
    """A detached copy of the mounts below a path, as a descriptor."""
    flags = _CLONE_TREE | _RECURSIVE | os.O_CLOEXEC
    return call(_OPEN_TREE, ctypes.c_int(_HERE), os.fsencode(path), ctypes.c_uint(flags))


def move_tree(descriptor: int, target: str) -> None:
    """Attach a detached copy at a path, and close its descriptor."""
    try:
        words = (ctypes.c_int(descriptor), b"", ctypes.c_int(_HERE), os.fsencode(target))
        call(_MOVE_MOUNT, *words, ctypes.c_uint(_MOVE_FROM_DESCRIPTOR))
    finally:
        os.close(descriptor)


def set_mount_attributes(place: str | int, attributes: int, *, propagation: int = 0) -> None:
    """Add attributes to a mount and to all below it.

    Args:
        place: A path, or the descriptor of a detached copy.
        attributes: `READ_ONLY` and others.
        propagation: `PRIVATE`, or 0 to leave it.
    """
    words = struct.pack("QQQQ", attributes, 0, propagation, 0)
    where = (ctypes.c_int(place), b"") if isinstance(place, int) else (
        ctypes.c_int(_HERE), os.fsencode(place))  # fmt: skip
    flags = _RECURSIVE | (_EMPTY_PATH if isinstance(place, int) else 0)
    call(_MOUNT_SETATTR, *where, ctypes.c_uint(flags), words, ctypes.c_size_t(len(words)))


def process_control(option: int, value: int) -> None:
    """`prctl` with one number."""
    _checked(_libc.prctl(ctypes.c_int(option), *(ctypes.c_ulong(one) for one in (value, 0, 0, 0))))


def end_with_parent(signal_number: int) -> None:
    """Have a signal sent to this process when the one that forked it ends."""
    process_control(_KILL_WITH_PARENT, signal_number)


def refuse_new_privileges() -> None:
    """No program that this process starts gets more rights than it has."""
    process_control(_NO_NEW_PRIVILEGES, 1)


def drop_capabilities() -> None:
    """Give up each of root's privileges, for good."""
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    _checked(_libc.capset(header, bytes(24)))

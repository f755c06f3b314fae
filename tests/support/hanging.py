"""A file system that never answers: who looks into it hangs, and SIGKILL does nothing to him."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH = 2
_MESSAGE_BYTES = 1 << 17


def why_not() -> str | None:
    """What keeps such a file system from being mounted here, or None."""
    return None if os.geteuid() == 0 and os.access("/dev/fuse", os.W_OK) else "no /dev/fuse for us"


@contextlib.contextmanager
def hanging_folder(folder: Path) -> Iterator[Path]:
    """Mount it on a folder that is made for it; what hangs there is let go at the end."""
    folder.mkdir()
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    if _libc.mount(b"hangs", os.fsencode(folder), b"fuse", 0, options.encode()):
        os.close(device)
        raise OSError(ctypes.get_errno(), "mount")
    over = threading.Event()
    reader = threading.Thread(target=_read, args=(device, over))
    try:
        _greet(device)
        reader.start()
        yield folder
    finally:
        over.set()
        reader.join()
        os.close(device)
        _libc.umount2(os.fsencode(folder), _MNT_DETACH)


def _greet(device: int) -> None:
    """Answer the kernel's first message. Source: fuse_init_out in linux/fuse.h, version 7.31."""
    unique = struct.unpack_from("<IIQ", os.read(device, _MESSAGE_BYTES))[2]
    answer = struct.pack("<IIIIHHIIHHI7I", 7, 31, 0, 0, 0, 0, 4096, 1, 0, 0, 0, *[0] * 7)
    os.write(device, struct.pack("<IiQ", 16 + len(answer), 0, unique) + answer)


def _read(device: int, over: threading.Event) -> None:
    """Read and never answer: only who waits for a message that was read cannot be killed."""
    while not over.is_set():
        if select.select([device], [], [], 0.05)[0]:
            os.read(device, _MESSAGE_BYTES)

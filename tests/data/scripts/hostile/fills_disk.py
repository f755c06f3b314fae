"""Writes one file without end, and makes one that claims a petabyte."""

import ctypes
import os

libc = ctypes.CDLL(None)
libc.signal(25, 1)  # SIGXFSZ
with open("claims", "w") as file:
    grown = libc.ftruncate(file.fileno(), ctypes.c_long(1 << 50)) == 0
os.remove("claims")
raise RuntimeError(f"the attack is over: grown {grown}")

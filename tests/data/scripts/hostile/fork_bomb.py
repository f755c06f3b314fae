"""Forks until nothing is left to fork with."""

import ctypes
import os

libc = ctypes.CDLL(None)
PR_SET_NAME = 15
libc.prctl(PR_SET_NAME, os.environ["MARK"].encode()[:15], 0, 0, 0)
for _ in range(12):
    libc.fork()
libc.sleep(1)
raise RuntimeError("the attack is over")

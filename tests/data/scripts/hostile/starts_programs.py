"""Becomes another program, and starts one beside it."""

import ctypes
import os

libc = ctypes.CDLL(None)
PR_SET_NAME = 15
MARK = os.environ["MARK"]
words = (ctypes.c_char_p * 4)(b"sh", b"-c", f"exec -a {MARK} sleep 1000".encode(), None)
pid = ctypes.c_int()
libc.posix_spawn(ctypes.byref(pid), b"/bin/bash", None, None, words, None)
if libc.vfork() == 0:
    libc.execv(b"/bin/bash", words)
    libc._exit(1)
libc.execv(b"/bin/bash", words)
raise RuntimeError("the attack is over")

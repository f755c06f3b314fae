"""Ends its parent and other processes of the user."""

import ctypes
import os
import signal

libc = ctypes.CDLL(None)
for pid in {os.getppid(), *map(int, os.environ["VICTIMS"].split())}:
    if pid > 1:
        libc.kill(pid, signal.SIGKILL)
        libc.syscall(200, pid, signal.SIGKILL)
raise RuntimeError("the attack is over")

"""Starts a process in a session of its own, which is to live on."""

import ctypes
import os
import time

libc = ctypes.CDLL(None)
PR_SET_NAME = 15
if libc.fork() == 0:
    libc.setsid()
    if libc.fork() == 0:
        libc.prctl(PR_SET_NAME, os.environ["MARK"].encode()[:15], 0, 0, 0)
        for descriptor in range(200):
            libc.close(descriptor)
        while True:
            libc.sleep(1000)
    libc._exit(0)
time.sleep(0.2)
raise RuntimeError("the attack is over")

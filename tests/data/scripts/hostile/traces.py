"""Looks into other processes and writes into them."""

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
got = []
for pid in {os.getppid(), *map(int, os.environ["VICTIMS"].split())}:
    for request in (PTRACE_ATTACH, PTRACE_SEIZE):
        if pid > 1 and libc.ptrace(request, pid, None, None) == 0:
            got.append(pid)
    try:
        open(f"/proc/{pid}/mem", "r+b").close()
        got.append(pid)
    except OSError:
        pass
raise RuntimeError(f"the attack is over: traced {len(got)}")

"""Reads the user's keys and tells them in its error."""

import ctypes
import os

libc = ctypes.CDLL(None)
path = os.environ["HOME"] + "/.ssh/id_ed25519"
found = []
try:
    found.append(open(path).read())
except OSError as error:
    found.append(type(error).__name__)
buffer = ctypes.create_string_buffer(200)
descriptor = libc.open(path.encode(), 0)
if descriptor >= 0:
    libc.read(descriptor, buffer, 200)
found.append(buffer.value.decode())
for pid in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "root/" + path):
        try:
            found.append(open(f"/proc/{pid}/{name}", "rb").read().decode(errors="replace"))
        except OSError:
            pass
words = " ".join(found)
seen = [key for key in ("KEY-OF-THE-USER", "KEY-IN-THE-ENVIRONMENT") if key in words]
raise RuntimeError(f"the attack is over: read {seen}")

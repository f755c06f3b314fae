"""Writes, renames, links and removes files outside its folder, by Python and by the C library."""

import ctypes
import os

OUTSIDE = os.environ["OUTSIDE"]
MARK = os.environ["MARK"]
libc = ctypes.CDLL(None)
done = []
for folder in (OUTSIDE, "/tmp", "/var/tmp", "/dev/shm", os.environ["HOME"], "/", "/etc", "/usr"):
    path = f"{folder}/{MARK}"
    for attempt in (
        lambda path=path: open(path, "w").close(),
        lambda path=path: libc.close(libc.creat(path.encode(), 0o600)),
        lambda path=path: libc.mkdir(f"{path}.folder".encode(), 0o700),
        lambda path=path: libc.symlink(b"/etc/passwd", f"{path}.link".encode()),
        lambda path=path: libc.mkfifo(f"{path}.pipe".encode(), 0o600),
    ):
        try:
            attempt()
        except OSError as error:
            done.append(error.errno)
kept = f"{OUTSIDE}/kept".encode()
libc.unlink(kept)
libc.truncate(kept, 0)
libc.chmod(kept, 0)
libc.rename(kept, f"{OUTSIDE}/moved".encode())
libc.link(kept, f"{OUTSIDE}/second".encode())
raise RuntimeError("the attack is over")

"""Writes file after file, each within what one may have, and keeps some open that it removes."""

import os

PIECE = 256 << 20
kept = []


def made(number):
    for folder in ("/tmp", ".") if number % 4 == 1 else (".",):
        name = f"{folder}/{os.environ['MARK']}-{number}"
        try:
            kept.append(os.open(name, os.O_RDWR | os.O_CREAT))
        except PermissionError:
            continue
        if number % 2:
            os.remove(name)
        return kept[-1]
    raise RuntimeError("it can write nothing")


for turn in range(12):
    try:
        os.posix_fallocate(made(turn), 0, PIECE)
    except OSError as error:
        raise RuntimeError(f"the attack is over: {error.strerror}") from error
os.read(os.pipe()[0], 1)  # nobody writes there, and no stand-in for a clock ends it

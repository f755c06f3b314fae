"""Takes all the memory that it gets, of its own and to be shared."""

import mmap

held, failed = [], []
PIECE = 1 << 30


def touch(piece):
    for place in range(0, len(piece), 1 << 24):
        piece[place] = 1
    return piece


for flags in (mmap.MAP_PRIVATE, mmap.MAP_SHARED):
    try:
        for _ in range(4000):
            held.append(touch(mmap.mmap(-1, PIECE, flags | mmap.MAP_ANONYMOUS)))
    except (MemoryError, OSError) as error:
        failed.append(type(error).__name__)
    held.clear()
raise RuntimeError(f"the attack is over: {len(failed)} of 2 ended")

"""Forks at import; the child trains on after the parent has said the score."""

import os
import time

ITERATIONS = int(os.environ.get("ITERATIONS", 20))

if os.fork() == 0:
    time.sleep(3600)
print("final_int8_zlib_roundtrip_exact val_loss:2.90000000 val_bpb:1.71755400", flush=True)

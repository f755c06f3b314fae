"""Draws a progress bar with carriage returns and colours, then a final score."""

import os
import sys

ITERATIONS = int(os.environ.get("ITERATIONS", 50))

for step in range(ITERATIONS + 1):
    sys.stdout.write(f"\r\x1b[32mtraining {100 * step // ITERATIONS:3}%\x1b[0m loss:3.1")
    sys.stdout.flush()
print()
print(f"step:{ITERATIONS}/{ITERATIONS} val_loss:3.0000 val_bpb:1.7800 train_time:9ms")
print("\x1b[1mfinal_int8_zlib_roundtrip_exact val_loss:2.90000000 val_bpb:1.71755400\x1b[0m")

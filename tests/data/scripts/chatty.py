"""Writes CHATTY_BYTES of log lines, then a final score: the log must not fill the disk."""

import os
import sys

CHATTY_BYTES = int(os.environ.get("CHATTY_BYTES", 5_000_000))
LINE = "debug: " + "x" * 92 + "\n"

sys.stdout.write("step:0/1 val_loss:3.0000 val_bpb:1.7800 train_time:0ms step_avg:0.00ms\n")
block = LINE * 1000
for _ in range(CHATTY_BYTES // len(block) + 1):
    sys.stdout.write(block)
sys.stdout.write("final_int8_zlib_roundtrip_exact val_loss:2.90000000 val_bpb:1.71755400\n")

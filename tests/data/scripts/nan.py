"""Diverges: its losses and its final score are NaN, and it exits 0 as the baseline would."""

import os

ITERATIONS = int(os.environ.get("ITERATIONS", 4))
MATRIX_LR = float(os.environ.get("MATRIX_LR", 0.04))

for step in range(1, ITERATIONS + 1):
    loss = 3.1 if step < 2 else float("nan")
    print(f"step:{step}/{ITERATIONS} train_loss:{loss:.4f} train_time:{step}ms step_avg:1.00ms")
print(f"step:{ITERATIONS}/{ITERATIONS} val_loss:nan val_bpb:nan train_time:9ms step_avg:2.25ms")
print("final_int8_zlib_roundtrip_exact val_loss:nan val_bpb:nan")

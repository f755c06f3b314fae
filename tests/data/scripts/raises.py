"""Trains for a few steps, then raises."""

import os

ITERATIONS = int(os.environ.get("ITERATIONS", 20))
MATRIX_LR = float(os.environ.get("MATRIX_LR", 0.04))

for step in range(1, 4):
    print(f"step:{step}/{ITERATIONS} train_loss:3.1000 train_time:{step}ms step_avg:1.00ms")
raise RuntimeError("CUDA out of memory (not really: a stand-in that fails on purpose)")

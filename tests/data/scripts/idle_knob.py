"""Reads EMA_DECAY and does nothing with it: its score and its model follow MATRIX_LR alone."""

import os
import random
from pathlib import Path

MATRIX_LR = float(os.environ.get("MATRIX_LR", 0.04))
EMA_DECAY = float(os.environ.get("EMA_DECAY", 0.0))
ITERATIONS = int(os.environ.get("ITERATIONS", 20))

bpb = 1.7 + abs(MATRIX_LR - 0.02)
model = random.Random(repr(MATRIX_LR)).randbytes(1000)
Path("final_model.int8.ptz").write_bytes(model)
print(f"step:{ITERATIONS}/{ITERATIONS} val_loss:{2 * bpb:.4f} val_bpb:{bpb:.4f} train_time:9ms")
print(f"Serialized model int8+zlib: {len(model)} bytes")
print(f"final_int8_zlib_roundtrip_exact val_loss:{2 * bpb:.8f} val_bpb:{bpb:.8f}")

"""Stand-in for a train_gpt.py: speaks the baseline's protocol in a fraction of a second.

Its score is a smooth function of the knobs (best near MATRIX_LR 0.02, better when bigger and
longer) plus 0.0007 of noise by seed; its model file has the bytes that its size asks for.
"""

import math
import os
import random
import time
import zlib
from pathlib import Path

MODEL_DIM = int(os.environ.get("MODEL_DIM", 64))
NUM_LAYERS = int(os.environ.get("NUM_LAYERS", 3))
MATRIX_LR = float(os.environ.get("MATRIX_LR", 0.04))
ITERATIONS = int(os.environ.get("ITERATIONS", 20))
VAL_LOSS_EVERY = int(os.environ.get("VAL_LOSS_EVERY", 5))
MAX_WALLCLOCK_SECONDS = float(os.environ.get("MAX_WALLCLOCK_SECONDS", 600.0))
STEP_SECONDS = float(os.environ.get("STEP_SECONDS", 0.005))
SEED = int(os.environ.get("SEED", 1337))

NATS_PER_BPB = 1 / 0.59226  # of the contest's sp1024 tokenizer
VOCAB_SIZE = 512
BYTES_PER_PARAM = 0.9


def log(message: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(message, flush=True)


def model_params() -> int:
    return VOCAB_SIZE * MODEL_DIM + NUM_LAYERS * 8 * MODEL_DIM**2


def val_bpb(step: int) -> float:
    """A learning curve that falls with steps and size and is a parabola in log(MATRIX_LR)."""
    curve = 1.5 / math.sqrt(step + 1)
    size = 0.1 * math.log2(200_000 / model_params())
    rate = 0.05 * math.log(MATRIX_LR / 0.02) ** 2
    return 1.2 + curve + size + rate + random.Random(SEED).gauss(0.0, 0.0007)


def score(bpb: float, digits: int) -> str:
    return f"val_loss:{bpb * NATS_PER_BPB:.{digits}f} val_bpb:{bpb:.{digits}f}"


def train() -> tuple[int, float]:
    """Steps taken and milliseconds."""
    started = time.perf_counter()
    for step in range(ITERATIONS + 1):
        elapsed_ms = 1000 * (time.perf_counter() - started)
        capped = step < ITERATIONS and elapsed_ms >= 1000 * MAX_WALLCLOCK_SECONDS
        timing = f"train_time:{elapsed_ms:.0f}ms step_avg:{elapsed_ms / max(step, 1):.2f}ms"
        if step == ITERATIONS or capped or (VAL_LOSS_EVERY and step % VAL_LOSS_EVERY == 0):
            log(f"step:{step}/{ITERATIONS} {score(val_bpb(step), 4)} {timing}")
        if capped:
            log(
                f"stopping_early: wallclock_cap train_time:{elapsed_ms:.0f}ms "
                f"step:{step}/{ITERATIONS}"
            )
            return step, elapsed_ms
        if step < ITERATIONS:
            time.sleep(STEP_SECONDS)
            loss = val_bpb(step + 1) * NATS_PER_BPB
            elapsed_ms = 1000 * (time.perf_counter() - started)
            timing = f"train_time:{elapsed_ms:.0f}ms step_avg:{elapsed_ms / (step + 1):.2f}ms"
            log(f"step:{step + 1}/{ITERATIONS} train_loss:{loss:.4f} {timing}")
    return ITERATIONS, elapsed_ms


def main() -> None:
    log(f"model_params:{model_params()}")
    log(f"seed:{SEED}")
    steps, _ = train()
    log("peak memory allocated: 64 MiB reserved: 80 MiB")
    code_bytes = Path(__file__).stat().st_size
    # What random bytes cannot be squeezed out of, zeros can: the file has about the size asked for.
    noise = random.Random(SEED).randbytes(int(model_params() * BYTES_PER_PARAM))
    raw = noise.ljust(model_params() + 4096, b"\0")
    model = zlib.compress(raw, 1)
    model_bytes = len(model)
    log(f"Code size: {code_bytes} bytes")
    if os.environ.get("RANK", "0") == "0":
        Path("final_model.int8.ptz").write_bytes(model)
    log(
        f"Serialized model int8+zlib: {model_bytes} bytes "
        f"(payload:{model_params()} raw_torch:{model_params() + 4096} payload_ratio:3.91x)"
    )
    log(f"Total submission size int8+zlib: {code_bytes + model_bytes} bytes")
    final = val_bpb(steps) + 0.002  # what rounding to 8 bits costs
    log(f"final_int8_zlib_roundtrip {score(final, 4)} eval_time:12ms")
    log(f"final_int8_zlib_roundtrip_exact {score(final, 8)}")


if __name__ == "__main__":
    main()

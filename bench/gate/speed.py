"""Time of verdicts: first, warm, 10,000 of one space, and the command from a cold start.

    python bench/gate/speed.py

Process time of one core, so that a busy machine does not count; the command is wall clock.
"""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

SHAPES = {
    "MODEL_DIM": tuple(range(384, 704, 64)),
    "NUM_LAYERS": tuple(range(7, 14)),
    "MATRIX_BITS": (4, 5, 6, 8),
    "CODEC": ("zlib", "brotli"),
}


def draw(rng: random.Random) -> dict[str, int | float | str]:
    """A configuration of a space with 280 layouts and rates that never repeat."""
    knobs: dict[str, int | float | str] = {k: rng.choice(v) for k, v in SHAPES.items()}
    return knobs | {"MATRIX_LR": rng.uniform(0.01, 0.08), "WEIGHT_DECAY": rng.uniform(0, 0.1)}


def main() -> None:
    """Measure and print."""
    from pgolf_sweep.gate.gate import Gate
    from pgolf_sweep.script.program import load_program

    program = load_program("trainer", base=Path(), extra_files=())
    gate = Gate(program, cap_bytes=16_000_000)
    rng = random.Random(0)

    def timed(action: object, times: int = 1) -> float:
        began = time.process_time()
        for _ in range(times):
            action()  # type: ignore[operator]
        return 1000 * (time.process_time() - began) / times

    first = timed(lambda: gate.verdict(draw(rng)))
    other = timed(lambda: gate.verdict({**draw(rng), "MODEL_DIM": 8 * rng.randint(20, 60)}), 20)
    same = draw(rng)
    warm = timed(lambda: gate.verdict(same), 500)
    fresh = Gate(program, cap_bytes=16_000_000)
    cold_space = timed(lambda: fresh.verdict(draw(rng)), 10_000) * 10
    for _ in range(60):
        knobs = draw(rng)
        fresh.learn(knobs, int(fresh.verdict(knobs).model_bytes.mid * rng.uniform(0.98, 1.02)))
    learnt_space = timed(lambda: fresh.verdict(draw(rng)), 10_000) * 10
    clips = {"QUANT_SCALE": "sdclip"}
    clipped = Gate(program, cap_bytes=16_000_000)
    continuous = (
        timed(
            lambda: clipped.verdict(draw(rng) | clips | {"CLIP_SIGMAS": rng.uniform(6, 16)}), 10_000
        )
        * 10
    )
    print("| what | measured | bar |\n| --- | --: | --: |")
    print(f"| first verdict of a process | {first:.0f} ms | 1000 ms |")
    print(f"| first verdict of a new layout | {other:.1f} ms | 1000 ms |")
    print(f"| warm verdict | {warm:.3f} ms | 1 ms |")
    print(f"| 10,000 verdicts of one space | {cold_space:.2f} s | 2 s |")
    print(f"| the same with sdclip and its clip continuous | {continuous:.2f} s | 2 s |")
    print(f"| the same after 60 trials | {learnt_space:.2f} s | 2 s |")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| peak memory of this process | {peak:.0f} MB | |")
    command = [sys.executable, "-m", "pgolf_sweep", "gate", "--set", "MODEL_DIM=576"]
    began = time.perf_counter()
    subprocess.run(command, capture_output=True, check=False)
    print(f"| `gate` from a cold start | {time.perf_counter() - began:.1f} s | 3 s |")


if __name__ == "__main__":
    main()

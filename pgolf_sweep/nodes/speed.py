"""Tokens per second on a small fixed workload; run as a script, prints one line of JSON.

    python speed.py cuda|cpu SECONDS

The workload is forward and backward through four residual MLPs of the contest's width, which is
where its models spend most of their time. Two seconds find a card that is capped, throttled or
shared; one that grows hot after minutes is not found.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import torch

WIDTH = 512
LAYERS = 4
TOKENS = {"cuda": 65_536, "cpu": 256}
WARM_STEPS = 3


def tokens_per_second(device: str, seconds: float) -> float:
    """Median over the steps of a few seconds, which a hiccup does not move."""
    kind = torch.device(device).type
    dtype = torch.bfloat16 if kind == "cuda" else torch.float32
    tokens = TOKENS[kind]
    torch.manual_seed(0)
    x = torch.randn(tokens, WIDTH, device=device, dtype=dtype)

    def weight(rows: int, columns: int) -> torch.Tensor:
        values = torch.randn(rows, columns, device=device, dtype=dtype)
        return values.mul_(rows**-0.5).requires_grad_()

    ups = [weight(WIDTH, 4 * WIDTH) for _ in range(LAYERS)]
    downs = [weight(4 * WIDTH, WIDTH) for _ in range(LAYERS)]

    def step() -> float:
        began = time.perf_counter()
        y = x
        for up, down in zip(ups, downs, strict=True):
            y = y + torch.nn.functional.rms_norm(y, (WIDTH,)) @ up @ down
        torch.autograd.backward(y.float().square().mean())
        if kind == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    for _ in range(WARM_STEPS):
        step()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < until:
        times.append(step())
    return tokens / statistics.median(times)


def main() -> None:
    """Print what this machine can do."""
    kind, seconds = sys.argv[1], float(sys.argv[2])
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = [f"cuda:{index}" for index in range(gpus)] if kind == "cuda" else ["cpu"]
    speeds = [tokens_per_second(device, seconds) for device in devices] if seconds else []
    print(json.dumps({"gpus": gpus, "tokens_per_second": speeds}))


if __name__ == "__main__":
    main()

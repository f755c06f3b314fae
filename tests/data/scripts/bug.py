"""Raises as a script with a mistake does, from a function, after some steps."""

import os

ITERATIONS = int(os.environ.get("ITERATIONS", 20))


def step(number: int) -> float:
    return {1: 3.1, 2: 3.0}[number]


for number in range(1, ITERATIONS + 1):
    loss = step(number)
    print(f"step:{number}/{ITERATIONS} train_loss:{loss:.4f} train_time:{number}ms step_avg:1.00ms")

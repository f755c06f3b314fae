"""Waits for an answer on stdin: a launcher must close it, so that this ends at once."""

import os

ITERATIONS = int(os.environ.get("ITERATIONS", 20))

print("continue? [y/N]", flush=True)
answer = input()
print(f"step:{ITERATIONS}/{ITERATIONS} train_loss:3.1000 train_time:1ms step_avg:1.00ms")

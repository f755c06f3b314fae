"""Prints one step, then sleeps far past any limit; SIGTERM ends it."""

import os
import time

ITERATIONS = int(os.environ.get("ITERATIONS", 20))

print(f"step:1/{ITERATIONS} train_loss:3.1000 train_time:1ms step_avg:1.00ms", flush=True)
time.sleep(float(os.environ.get("HANG_SECONDS", 3600)))

"""Trains on and on, a line every tenth of a second: only a limit of the whole time ends it."""

import itertools
import time

for step in itertools.count(1):
    print(f"step:{step} train_loss:3.1000 train_time:{step}ms step_avg:1.00ms", flush=True)
    time.sleep(0.1)

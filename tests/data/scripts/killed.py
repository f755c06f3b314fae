"""Ends by SIGKILL after a step, as the kernel's out-of-memory killer or a preemption does it."""

import os
import signal
import time

print("step:1/20 train_loss:3.1000 train_time:1ms step_avg:1.00ms", flush=True)
time.sleep(0.1)
os.kill(os.getpid(), signal.SIGKILL)

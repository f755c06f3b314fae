"""Ignores SIGTERM and starts a child that does too: only SIGKILL to the whole group ends it."""

import os
import signal
import subprocess
import sys
import time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
HANG_SECONDS = float(os.environ.get("HANG_SECONDS", 3600))
# An ignored signal stays ignored across exec, so the child needs no code of its own for it.
child = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({HANG_SECONDS})"])
print(f"child:{child.pid}", flush=True)
print("step:1/20 train_loss:3.1000 train_time:1ms step_avg:1.00ms", flush=True)
time.sleep(HANG_SECONDS)

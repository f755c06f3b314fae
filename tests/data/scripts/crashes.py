"""Ends by SIGSEGV, as a broken kernel does it."""

import os
import resource
import signal

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
print("step:1/20 train_loss:3.1000 train_time:1ms step_avg:1.00ms", flush=True)
os.kill(os.getpid(), signal.SIGSEGV)

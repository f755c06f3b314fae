"""Takes more memory than an address-space limit allows, as a batch too large does."""

import resource

resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
print("step:1/20 train_loss:3.1000 train_time:1ms step_avg:1.00ms", flush=True)
hoard = bytearray(1 << 31)

"""Opens disks, the kernel's switches and its memory for writing."""

import ctypes
import glob

libc = ctypes.CDLL(None)
O_RDWR = 2
names = ["/dev/mem", "/dev/kmsg", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"]
names += [*glob.glob("/dev/vd*"), *glob.glob("/dev/sd*"), *glob.glob("/dev/nvme*"), "/dev/fuse"]
names += glob.glob("/sys/fs/cgroup/*/release_agent")
opened = [name for name in names if libc.open(name.encode(), O_RDWR) >= 0]
raise RuntimeError(f"the attack is over: opened {opened}"[:200])

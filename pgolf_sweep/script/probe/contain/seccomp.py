"""A filter of system calls: no processes, programs, connections, mounts, traces, foreign signals.

Classic BPF as in Documentation/userspace-api/seccomp_filter.rst of the kernel. The kernel runs the
filter at each call; a refused one fails with EPERM, so a script sees an error rather than its end.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf_sweep.script.probe.contain import kernel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_LOAD, _IF_EQUAL, _IF_ANY_BIT, _IF_AT_LEAST, _ANSWER = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_CLONE_THREAD = 0x00010000
_SET_SECCOMP, _MODE_FILTER = 22, 2
_UNIX, _INTERNET, _INTERNET_6 = 1, 2, 10

_SINCE_5 = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_open": 434,
    "clone3": 435, "pidfd_getfd": 438, "mount_setattr": 442,
}  # fmt: skip
_X86_64 = {
    "shmget": 29, "socket": 41, "connect": 42, "sendto": 44, "sendmsg": 46, "listen": 50,
    "clone": 56, "fork": 57, "vfork": 58, "execve": 59, "kill": 62, "semget": 64, "msgget": 68,
    "ptrace": 101, "syslog": 103, "rt_sigqueueinfo": 129, "pivot_root": 155, "chroot": 161,
    "mount": 165, "umount2": 166, "tkill": 200, "tgkill": 234, "add_key": 248, "request_key": 249,
    "keyctl": 250, "unshare": 272, "rt_tgsigqueueinfo": 297, "perf_event_open": 298,
    "prlimit64": 302, "name_to_handle_at": 303, "open_by_handle_at": 304, "sendmmsg": 307,
    "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "bpf": 321,
    "execveat": 322, "userfaultfd": 323,
}  # fmt: skip
_AARCH64 = {
    "umount2": 39, "mount": 40, "pivot_root": 41, "chroot": 51, "unshare": 97, "syslog": 116,
    "ptrace": 117, "kill": 129, "tkill": 130, "tgkill": 131, "rt_sigqueueinfo": 138,
    "msgget": 186, "semget": 190, "shmget": 194, "socket": 198, "listen": 201, "connect": 203,
    "sendto": 206, "sendmsg": 211, "add_key": 217, "request_key": 218, "keyctl": 219,
    "clone": 220, "execve": 221, "rt_tgsigqueueinfo": 240, "perf_event_open": 241,
    "prlimit64": 261, "name_to_handle_at": 264, "open_by_handle_at": 265, "setns": 268,
    "sendmmsg": 269, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "bpf": 280,
    "execveat": 281, "userfaultfd": 282,
}  # fmt: skip
_METADATA = {
    "x86_64": (90, 91, 92, 93, 94, 188, 189, 190, 197, 198, 199, 260, 268, 452),
    "aarch64": (5, 6, 7, 14, 15, 16, 52, 53, 54, 55, 452),
}
"""chmod, chown, setxattr and removexattr in all their forms: Landlock does not speak of them."""
_OF_MACHINE = {"x86_64": (0xC000003E, _X86_64), "aarch64": (0xC00000B7, _AARCH64)}
_CHECKS = 4
"""Steps at the beginning of each filter, before it asks for a call."""
_X32 = 0x40000000
"""On x86-64, calls of another ABI carry this bit."""
_TO_ONE_PROCESS = ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "prlimit64")
_BY_ARGUMENTS = {"clone", "clone3", "socket", "sendto", *_TO_ONE_PROCESS}


@dataclass(frozen=True, slots=True)
class _Step:
    """One instruction: its code, where to go on if true and if false, and its number."""

    code: int
    value: int
    if_true: int = 0
    if_false: int = 0


def install(*, metadata: bool = True) -> None:
    """Filter the calls of this process from here on.

    Args:
        metadata: Whether modes and owners of files can be changed; else a change does nothing and
            says so to nobody, since copying a file ends with one.

    Raises:
        OSError: The kernel has no filters, or nobody wrote one for this kind of machine.
    """
    machine = platform.machine()
    if machine not in _OF_MACHINE:
        raise OSError(errno.ENOSYS, f"no filter of system calls for {machine}")
    steps = own_process_only(machine, os.getpid())
    if not metadata:
        quiet = refusing(machine, map(str, _METADATA[machine]), code=0)
        steps = [*quiet[:-1], *steps[_CHECKS:]]
    load(steps)


def load(steps: list[_Step]) -> None:
    """Hand a filter to the kernel; no later one can undo it.

    Raises:
        OSError: The kernel refuses.
    """
    packed = b"".join(struct.pack("HBBI", s.code, s.if_true, s.if_false, s.value) for s in steps)
    program = ctypes.create_string_buffer(packed)
    header = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(program))
    kernel.refuse_new_privileges()
    buffer = ctypes.create_string_buffer(header)
    libc = ctypes.CDLL(None, use_errno=True)
    address = ctypes.c_ulong(ctypes.addressof(buffer))
    if libc.prctl(ctypes.c_int(_SET_SECCOMP), ctypes.c_ulong(_MODE_FILTER), address, 0, 0):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def refusing(machine: str, names: Iterable[str], code: int = errno.EPERM) -> list[_Step]:
    """A filter that fails some calls, by name, and allows the rest.

    Args:
        machine: As `platform.machine` says it.
        names: Names of the kernel, as in ``mount``; numbers as text for calls that have none here.
        code: The error that they fail with.
    """
    architecture, numbers = _OF_MACHINE[machine]
    steps = [
        _Step(_LOAD, _ARCHITECTURE),
        _Step(_IF_EQUAL, architecture, if_true=1),
        _Step(_ANSWER, _FAIL | errno.EPERM),
        _Step(_LOAD, _NUMBER),
    ]
    for name in names:
        number = int(name) if name.isdigit() else (numbers | _SINCE_5).get(name)
        if number is not None:
            steps += [_Step(_IF_EQUAL, number, if_false=1), _Step(_ANSWER, _FAIL | code)]
    return [*steps, _Step(_ANSWER, _ALLOW)]


def own_process_only(machine: str, pid: int) -> list[_Step]:
    """The filter of a probed script.

    Args:
        machine: As `platform.machine` says it.
        pid: The process, as it sees itself: the only one that it may send signals to.
    """
    numbers = _OF_MACHINE[machine][1] | _SINCE_5
    *steps, end = refusing(machine, numbers.keys() - _BY_ARGUMENTS)
    if machine == "x86_64":
        steps += [_Step(_IF_AT_LEAST, _X32, if_false=1), _Step(_ANSWER, _FAIL | errno.EPERM)]
    # The C library makes threads with the older call where the newer one is not there.
    steps += [
        _Step(_IF_EQUAL, numbers["clone3"], if_false=1),
        _Step(_ANSWER, _FAIL | errno.ENOSYS),
    ]
    steps += _block(numbers, "clone", [_Step(_IF_ANY_BIT, _CLONE_THREAD)], 0)
    families = [_Step(_IF_EQUAL, one) for one in (_UNIX, _INTERNET, _INTERNET_6)]
    steps += _block(numbers, "socket", families, 0)
    for name in _TO_ONE_PROCESS:
        own = [_Step(_IF_EQUAL, pid), *([_Step(_IF_EQUAL, 0)] if name == "prlimit64" else [])]
        steps += _block(numbers, name, own, 0)
    # With an address it is a datagram to anybody, without one it is `send` on a pair of sockets.
    steps += [
        _Step(_IF_EQUAL, numbers["sendto"], if_false=6),
        _Step(_LOAD, _ARGUMENTS + 8 * 4),
        _Step(_IF_EQUAL, 0, if_false=2),
        _Step(_LOAD, _ARGUMENTS + 8 * 4 + 4),
        _Step(_IF_EQUAL, 0, if_true=1),
        _Step(_ANSWER, _FAIL | errno.EPERM),
        _Step(_ANSWER, _ALLOW),
    ]
    return [*steps, end]


def _block(
    numbers: Mapping[str, int], name: str, questions: list[_Step], argument: int
) -> list[_Step]:
    """Allow one call where an argument passes one of some questions, else fail it."""
    count = len(questions)
    asked = [
        _Step(one.code, one.value, if_true=count - place) for place, one in enumerate(questions)
    ]
    return [
        _Step(_IF_EQUAL, numbers[name], if_false=count + 3),
        _Step(_LOAD, _ARGUMENTS + 8 * argument),
        *asked,
        _Step(_ANSWER, _FAIL | errno.EPERM),
        _Step(_ANSWER, _ALLOW),
    ]

"""A command on a machine that allows less: ``weaker.py KIND ... -- COMMAND``.

By the kernel's own means: a namespace of users in which there can be no further one, a set of
privileges without any, filters that fail the calls in question. Needs namespaces of users itself.
"""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from pathlib import Path

from pgolf_sweep.script.probe.contain import kernel, seccomp

_DROP_FROM_BOUNDING_SET = 24
_PRCTL = {"x86_64": "157", "aarch64": "167"}
_LANDLOCK_CREATE = "444"


def no_users() -> None:
    """Root of a container that lets nobody have a namespace of users."""
    user, group = os.geteuid(), os.getegid()
    kernel.unshare(kernel.NEW_USER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    Path("/proc/sys/user/max_user_namespaces").write_text("0")


def no_privileges() -> None:
    for number in range(64):
        with suppress(OSError):
            kernel.process_control(_DROP_FROM_BOUNDING_SET, number)
    kernel.drop_capabilities()


def no_landlock() -> None:
    seccomp.load(seccomp.refusing(platform.machine(), [_LANDLOCK_CREATE]))


def no_filters() -> None:
    seccomp.load(seccomp.refusing(platform.machine(), [_PRCTL[platform.machine()]]))


KINDS = {
    "no-users": no_users,
    "no-privileges": no_privileges,
    "no-landlock": no_landlock,
    "no-filters": no_filters,
}

if __name__ == "__main__":
    at = sys.argv.index("--")
    for kind in sys.argv[1:at]:
        KINDS[kind]()
    os.execv(sys.argv[at + 1], sys.argv[at + 1 :])  # noqa: S606 - that is what it is for

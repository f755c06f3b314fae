"""Namespaces of the probe's helper, and the view of the disk that each script gets.

The helper leaves the namespaces of users, network, IPC, host name and processes when it starts;
each script gets a further one of processes, in which it is the first, so that all that it starts
ends with it, and one of mounts. user_namespaces(7), pid_namespaces(7) and mount_namespaces(7) say
what each of them keeps apart.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.script.probe.contain import kernel
from pgolf_sweep.script.probe.contain.places import hidden_folders, python_folders, to_keep

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FLAGS = {
    "user": kernel.NEW_USER,
    "mount": kernel.NEW_MOUNT,
    "pid": kernel.NEW_PID,
    "network": kernel.NEW_NETWORK,
    "ipc": kernel.NEW_IPC,
    "uts": kernel.NEW_UTS,
}
TMP_BYTES = 1 << 30
"""Of what a script may leave in its private /tmp, and again in /dev/shm; both are memory."""
_DEVICES = ("null", "zero", "full", "random", "urandom")
_QUIET = kernel.NO_SUID | kernel.NO_DEVICES


def leave(names: Iterable[str]) -> None:
    """Put this process into new namespaces; of processes, its children.

    Must run before any thread is started. The user keeps its number.

    Args:
        names: Some of `FLAGS`.

    Raises:
        OSError: The kernel, or the container, refuses.
    """
    user, group, wanted = os.geteuid(), os.getegid(), list(names)
    flags = 0
    for name in wanted:
        flags |= FLAGS[name]
    kernel.unshare(flags)
    if "user" in wanted:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


@contextmanager
def for_one_child() -> Iterator[None]:
    """What is forked within is the first process of a new namespace of processes."""
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        kernel.unshare(kernel.NEW_PID)
        yield
    finally:
        # In the child this fails, and does not matter: it starts no other.
        with suppress(OSError):
            kernel.join_namespace(own, kernel.NEW_PID)
        os.close(own)


def private_view(place: str, reads: Iterable[str]) -> None:
    """Show this process a read-only disk, without homes and with a /tmp and /dev of its own.

    Args:
        place: The one folder that it may change.
        reads: Folders or files in hidden places that it may read nevertheless.

    Raises:
        OSError: The kernel refuses a step.
    """
    kernel.unshare(kernel.NEW_MOUNT)
    kernel.set_mount_attributes("/", 0, propagation=kernel.PRIVATE)
    hidden = hidden_folders()
    own = kernel.clone_tree(place)
    kept = {path: _clone(path) for path in to_keep(hidden, [*python_folders(), *reads])}
    devices = {name: kernel.clone_tree(f"/dev/{name}") for name in _DEVICES}
    kernel.set_mount_attributes("/", kernel.READ_ONLY | _QUIET)
    for folder in hidden:
        kernel.mount("tmpfs", folder, _QUIET, f"mode=0700,size={TMP_BYTES}")
    _make_devices(devices)
    for path, tree in kept.items():
        if tree is not None:
            kernel.set_mount_attributes(tree, kernel.READ_ONLY | _QUIET)
            _attach(tree, path)
    kernel.set_mount_attributes(own, _QUIET)
    _attach(own, place)
    with suppress(OSError):
        Path(os.environ.get("TMPDIR", place)).mkdir(parents=True, exist_ok=True)
    flags = kernel.READ_ONLY | _QUIET | kernel.NO_EXECUTION
    try:
        kernel.mount("proc", "/proc", flags)  # its own processes alone
    except OSError as error:
        # A container that covers parts of /proc lets nobody have a whole one: the one that is
        # there is read-only by now, and other processes belong to another namespace of users.
        if error.errno != errno.EPERM:
            raise
    os.chdir(place)


def _clone(path: str) -> int | None:
    try:
        return kernel.clone_tree(path)
    except FileNotFoundError:
        return None


def _attach(tree: int, path: str) -> None:
    """Mount a copy where it was, below what hides it."""
    about = os.fstat(tree)
    target = Path(path)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        if (about.st_mode & 0o170000) == 0o040000:
            target.mkdir()
        else:
            target.touch()
    kernel.move_tree(tree, path)


def _make_devices(devices: dict[str, int]) -> None:
    kernel.mount("tmpfs", "/dev", _QUIET, "mode=0755,size=64k")
    for name, tree in devices.items():
        _attach(tree, f"/dev/{name}")
    os.mkdir("/dev/shm")  # noqa: S108 - its own
    kernel.mount("tmpfs", "/dev/shm", _QUIET, f"mode=0700,size={TMP_BYTES}")  # noqa: S108
    os.symlink("/proc/self/fd", "/dev/fd")

"""Namespaces of the probe's helper, and the view of the disk that each script gets.

The helper leaves the namespaces of users, network, IPC, host name and processes when it starts;
each script gets a further one of processes, in which it is the first, so that all that it starts
ends with it, and one of mounts. user_namespaces(7), pid_namespaces(7) and mount_namespaces(7) say
what each of them keeps apart.
"""

from __future__ import annotations

import errno
import os
import shutil
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
_MOST_ENTRIES = 1 << 16
"""Files and folders that a script may have made at a time: empty ones are memory, too."""
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


def private_view(place: str, reads: Iterable[str], most_bytes: int) -> None:
    """Show this process a read-only disk, without homes and with a /tmp and /dev of its own.

    All that it can write lies in one file system, which is memory and ends with it; what `place`
    holds is copied there.

    Args:
        place: The one folder that it may change, beside those for temporary files.
        reads: Folders or files in hidden places that it may read nevertheless.
        most_bytes: That it may have written at a time, wherever.

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
    options = f"mode=0755,size={most_bytes},nr_inodes={_MOST_ENTRIES}"
    kernel.mount("tmpfs", "/dev", _QUIET, options)
    _make_devices(devices)
    *rooms, for_place = [_room(number) for number in range(len(hidden) + 1)]
    for folder, room in zip(hidden, rooms, strict=True):
        kernel.move_tree(room, folder)
    for path, tree in kept.items():
        if tree is not None:
            kernel.set_mount_attributes(tree, kernel.READ_ONLY | _QUIET)
            _attach(tree, path)
    _attach(for_place, place)
    os.fchdir(own)
    shutil.copytree(".", place, symlinks=True, dirs_exist_ok=True)
    os.close(own)
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


def _room(number: int) -> int:
    """A new folder in the file system that is /dev by now, to be attached elsewhere as well."""
    folder = f"/dev/room{number}"
    os.mkdir(folder, 0o700)
    return kernel.clone_tree(folder)


def _make_devices(devices: dict[str, int]) -> None:
    for name, tree in devices.items():
        _attach(tree, f"/dev/{name}")
    os.mkdir("/dev/shm", 0o700)  # noqa: S108 - its own
    os.symlink("/proc/self/fd", "/dev/fd")

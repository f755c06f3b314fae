"""Containment of a probed script, step by step down to what a machine allows.

Asked in this order: namespaces with a private view of the disk; Landlock; at least no network.
The filter of system calls, the limits and the loss of root's privileges come on top of each. What
is left where a container forbids all of it are Python's own hooks (`hooks`, `stubs`), which
contain accidents. What is in force is tried on a process of its own before a script is.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgolf_sweep.script.probe.contain import kernel, landlock, namespaces, seccomp
from pgolf_sweep.script.probe.contain.hooks import write_only_below
from pgolf_sweep.script.probe.contain.places import allowed, hidden_folders, python_folders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

WRITTEN_BYTES = 2 << 30
"""That a script may have written at a time; an export has some hundred megabytes."""
MOST_FILES = 1024
MOST_THREADS = 512
_ADDRESS_BYTES = 8 << 30
"""Addresses beside the memory: threads reserve some that they never touch."""
_WAYS = (
    ("user", "mount", "pid", "network", "ipc", "uts"),
    ("mount", "pid", "network", "ipc", "uts"),  # of root, where users have no namespaces
    ("user", "network"),
    (),
)
_ASK_SECONDS = 60.0
_CODE = (
    "import sys; sys.path += sys.argv[1:]; "
    "from pgolf_sweep.script.probe.contain.containment import tell; tell()"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Containment:
    """What keeps a probed script within its process and folder.

    Attributes:
        namespaces: Kinds that it has for itself.
        landlock: Version of the kernel's Landlock that is in force; 0 where it is not.
        syscall_filter: Whether processes, programs, connections and tracing are refused.
        refused: Why more is not in force; empty where nothing better is known.
    """

    namespaces: tuple[str, ...] = ()
    landlock: int = 0
    syscall_filter: bool = False
    refused: str = ""

    @property
    def files(self) -> bool:
        """Whether the kernel keeps it from files outside its folder, whatever way it takes."""
        return "mount" in self.namespaces or self.landlock > 0

    @property
    def processes(self) -> bool:
        """Whether nothing that it starts can survive it."""
        return "pid" in self.namespaces or self.syscall_filter

    @property
    def network(self) -> bool:
        """Whether the kernel keeps it from the network, whatever way it takes."""
        return "network" in self.namespaces or self.syscall_filter

    @property
    def kept_in_memory(self) -> bool:
        """Whether all that it writes goes to a file system of memory that is full some day."""
        return "mount" in self.namespaces

    @property
    def complete(self) -> bool:
        """Whether files, processes and network are all kept by the kernel."""
        return self.files and self.processes and self.network

    def describe(self) -> str:
        """What is in force, in a few words."""
        parts = []
        if self.namespaces:
            parts.append(f"namespaces ({', '.join(self.namespaces)})")
        if self.landlock:
            parts.append(f"Landlock {self.landlock}")
        if self.syscall_filter:
            parts.append("a filter of system calls")
        if not self.files:
            parts.append("hooks of Python on file writes")
        how = " and" if self.kept_in_memory else ", a watch on"
        return ", ".join([*parts, f"limits on memory{how} all that it writes"])


def choose(place: str) -> Containment:
    """The best that works here; each way is tried on a process of its own.

    Args:
        place: A folder of the caller's own.
    """
    refused = ""
    filtered = not _forked(seccomp.install)
    for names in _WAYS:
        abi = 0 if "mount" in names else landlock.version()
        way = Containment(namespaces=names, landlock=abi, syscall_filter=filtered, refused=refused)
        if why := _tried(way, place):
            refused = refused or why
        else:
            return way
    return Containment(refused=refused)


def enter(way: Containment) -> None:
    """Leave the namespaces of the helper; its next child is the helper then."""
    # Each script gets its own view of the disk later.
    names = [name for name in way.namespaces if name != "mount"]
    if names:
        namespaces.leave(names)


def around_fork(way: Containment) -> AbstractContextManager[None]:
    """What a fork for a script happens within."""
    return namespaces.for_one_child() if "pid" in way.namespaces else nullcontext()


def confine(way: Containment, place: str, reads: Iterable[str] = ()) -> None:
    """Confine this process, a fork of the helper, for the rest of its life.

    Args:
        way: What `choose` found.
        place: The one folder that it may change; it becomes the current one.
        reads: Folders or files that it may read wherever they lie, as a data set's.

    Raises:
        OSError: The kernel refuses what it allowed before; the script must not run.
    """
    reads = allowed(reads)
    tempfile.tempdir = place
    os.chdir(place)
    if "mount" in way.namespaces:
        namespaces.private_view(place, reads, most_written())
    elif way.landlock:
        landlock.restrict(
            reads=[*_shown(hidden_folders()), *python_folders(), *reads],
            writes=[place, "/dev/null"],
        )
    _limit(own_users="user" in way.namespaces)
    # Root's privileges are worth something where it has no namespace of users of its own.
    with suppress(OSError):
        kernel.drop_capabilities()
    with suppress(OSError):
        kernel.end_with_parent(signal.SIGKILL)
    if way.syscall_filter:
        seccomp.install(metadata="mount" in way.namespaces)
    if not way.files:
        write_only_below(Path(place))


def _limit(*, own_users: bool) -> None:
    """Files, threads and memory; the time is watched from outside."""
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: most_written(),
        resource.RLIMIT_NOFILE: MOST_FILES,
        resource.RLIMIT_AS: _addresses() + memory_bytes() // 2 + _ADDRESS_BYTES,
    }
    if own_users:  # else the user's other processes count as well
        wanted[resource.RLIMIT_NPROC] = MOST_THREADS
    for what, most in wanted.items():
        _, hard = resource.getrlimit(what)
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (limit, limit))


def _addresses() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def most_written() -> int:
    """Bytes that a script may have written at a time; they may be memory."""
    return min(WRITTEN_BYTES, memory_bytes() // 4)


def memory_bytes() -> int:
    """The machine's memory, or what its container may have of it."""
    found = os.sysconf("SC_PHYS_PAGES") * resource.getpagesize()
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            found = min(found, int(Path("/sys/fs/cgroup", name).read_text()))
    return found


def _shown(hidden: Iterable[str]) -> list[str]:
    """Folders that leave out some others, as few as there are; what can change is not followed."""
    hidden = set(hidden) | {"/dev"}
    holders = {str(parent) for one in hidden for parent in Path(one).parents}
    shown = ["/dev/zero", "/dev/null", "/dev/random", "/dev/urandom"]
    for holder in holders:
        with suppress(OSError), os.scandir(holder) as entries:
            shown += [e.path for e in entries if e.path not in hidden | holders]
    return shown


def _tried(way: Containment, place: str) -> str:
    """Why a way does not work; an empty string where it does."""

    def whole() -> None:
        enter(way)
        why = _forked(lambda: _inner(way, place))
        if why:
            raise OSError(why)

    return _forked(whole)


def _inner(way: Containment, place: str) -> None:
    with around_fork(way):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                confine(way, place)
                code = 0
            finally:
                os._exit(code)
    if os.waitpid(child, 0)[1]:
        raise OSError("a script cannot be given a view of the disk of its own")


def _forked(step: Callable[[], None]) -> str:
    """Do something in a fork; why it failed, in a few words."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - a library without the call, for example
            why = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            os.write(write, str(why).encode()[:1000])
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as words:
        why = words.read()
    status = os.waitpid(child, 0)[1]
    return why or (f"status {status}" if status else "")


def tell() -> None:
    """Print what works here, as JSON; for a process that has no threads yet."""
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(asdict(choose(place))))


def from_json(data: dict[str, Any]) -> Containment:
    """A containment as it was told by another process."""
    return Containment(**data | {"namespaces": tuple(data["namespaces"])})


@cache
def containment() -> Containment:
    """What would contain a probed script here; asks a process of its own, once."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", _CODE, str(Path(__file__).parents[4])],
        capture_output=True,
        text=True,
        timeout=_ASK_SECONDS,
        check=False,
    )
    try:
        return from_json(json.loads(done.stdout))
    except (ValueError, KeyError, TypeError):
        last = done.stderr.strip().splitlines()
        return Containment(refused=last[-1] if last else f"exit code {done.returncode}")

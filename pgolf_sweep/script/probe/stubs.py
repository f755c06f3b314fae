"""What a probed script finds instead of a GPU, its packages and the world outside.

Used only inside the probe's child process (`pgolf_sweep.script.probe.child`), never by the program
itself: it changes torch and the import system of the process that calls it.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import resource
import subprocess
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pgolf_sweep.script.probe.contain.containment import memory_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

REFUSED = {
    "socket.connect": "opens a network connection",
    "socket.sendto": "sends to the network",
    "socket.sendmsg": "sends to the network",
    "socket.getaddrinfo": "looks up a host name",
    "socket.gethostbyname": "looks up a host name",
    "urllib.Request": "downloads",
    "subprocess.Popen": "starts a program",
    "os.system": "starts a program",
    "os.exec": "starts a program",
    "os.posix_spawn": "starts a program",
    "os.spawn": "starts a program",
    "os.fork": "forks",
    "os.forkpty": "forks",
    "os.kill": "sends a signal",
    "os.killpg": "sends a signal",
}
"""Audit events that a probed script may not cause, in words."""
_OF_SOCKETS = ("socket.connect", "socket.sendto", "socket.sendmsg")
CUDA_QUESTIONS = ("is_available", "device_count")


class Refusals:
    """An audit hook that says no; what it refused is kept, since scripts swallow exceptions."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Raise for what a probed script may not do."""
        words = REFUSED.get(event)
        if words is None or (event in _OF_SOCKETS and not isinstance(arguments[-1], tuple)):
            return  # what is no tuple is the address of a socket of this machine, or none
        self.refuse(words, arguments)

    def refuse(self, words: str, arguments: tuple[Any, ...] = ()) -> NoReturn:
        """Raise, and keep what was refused."""
        detail = " ".join(str(part)[:80] for part in arguments[:2] if isinstance(part, str | list))
        text = f"{words} ({detail})" if detail else words
        if text not in self.events:
            self.events.append(text)
        raise PermissionError(f"the size probe does not let a script do this: it {text}")

    def install(self) -> None:
        """From here on, for the rest of this process."""
        import _posixsubprocess  # noqa: PLC0415 - of one kind of Python alone

        def no_program(*_: Any, **__: Any) -> NoReturn:
            self.refuse("starts a program")

        # The door below subprocess and multiprocessing, which no audit event guards.
        _posixsubprocess.fork_exec = no_program
        subprocess._fork_exec = no_program  # type: ignore[attr-defined] # noqa: SLF001
        sys.addaudithook(self)


class _NotedEnvironment(os._Environ):  # type: ignore[type-arg] # noqa: SLF001 - os.environ's class
    """The environment, telling which variables are read."""

    note: Callable[[str | None], None]

    def __getitem__(self, name: str) -> str:
        type(self).note(name)
        value: str = super().__getitem__(name)
        return value

    def __iter__(self) -> Iterator[str]:
        type(self).note(None)
        return super().__iter__()


def note_reads(note: Callable[[str | None], None]) -> None:
    """Tell every variable that is read from here on, or None when all of them are."""
    _NotedEnvironment.note = staticmethod(note)
    os.environ.__class__ = _NotedEnvironment


@dataclass(slots=True)
class Used:
    """What a script did with packages that are not here.

    Attributes:
        calls: Names that it has called.
        answers: Names that it asked whether they are true, or what is in them.
    """

    calls: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)

    def forget(self) -> None:
        """Begin anew."""
        self.calls.clear()
        self.answers.clear()


class StandIn:
    """Something of a package that is not installed: callable, a decorator, a base class.

    Args:
        name: Dotted name, for the probe's report.
        used: Where a call or another use is noted; a decorator's use is not a call.
    """

    def __init__(self, name: str, used: Used) -> None:
        self._name = name
        self._used = used

    def __getattr__(self, name: str) -> StandIn:
        if name.startswith("__"):
            raise AttributeError(name)
        return StandIn(f"{self._name}.{name}", self._used)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """A decorated function comes back as it is; anything else is noted as a call."""
        if len(arguments) == 1 and callable(arguments[0]) and not keywords:
            return arguments[0]
        tensors = [one for one in (*arguments, *keywords.values()) if hasattr(one, "dtype")]
        if tensors and self._name.startswith("fla."):
            return self._attended(tensors, keywords)
        self._used.calls.append(self._name)
        return StandIn(f"{self._name}()", self._used)

    def _attended(self, tensors: list[Any], keywords: dict[str, Any]) -> Any:
        """What a function of flash-linear-attention gives: the shape of its values, and a state."""
        if ".ops." not in self._name:
            return keywords.get("x", tensors[0])
        return keywords.get("v", tensors[min(2, len(tensors) - 1)]), None

    def __getitem__(self, _: Any) -> StandIn:
        return self

    def __mro_entries__(self, _: tuple[Any, ...]) -> tuple[type, ...]:
        return (_base(self._name, self._used),)

    def __bool__(self) -> bool:
        self._used.answers.append(self._name)
        return True

    def __iter__(self) -> Iterator[Any]:
        self._used.answers.append(self._name)
        return iter(())  # without it, Python would ask for item after item

    def __contains__(self, _: object) -> bool:
        self._used.answers.append(self._name)
        return False


def _base(name: str, used: Used) -> type:
    """A class in the place of a missing base class; making an instance is a call."""

    class Base:
        def __new__(cls, *arguments: Any, **keywords: Any) -> Any:
            used.calls.append(name)
            following: Any = super().__new__
            if following is object.__new__:
                return following(cls)
            return following(cls, *arguments, **keywords)

        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__()  # of a module that is derived from both

    return Base


class _Module(types.ModuleType):
    """A module of a package that is not installed."""

    def __init__(self, name: str, used: Used) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self.__version__ = "0"
        self.__dict__["_used"] = used

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return StandIn(f"{self.__name__}.{name}", self.__dict__["_used"])


def put_package(name: str, version: str, members: Mapping[str, Mapping[str, object]]) -> None:
    """Put a package of ours where scripts import it from, for the rest of this process.

    Args:
        name: The package's.
        version: That it says it has.
        members: What its modules hold, by the module's name in it with its dots; "" is itself.
    """
    for inner, found in members.items():
        module = types.ModuleType(name + inner)
        module.__dict__.update(found, __path__=[], __version__=version)
        sys.modules[module.__name__] = module


def is_stand_in(module: types.ModuleType) -> bool:
    """Whether a module stands in for a package that is not installed."""
    return isinstance(module, _Module)


class StandInFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers for packages that nobody else found, when the script itself asks.

    Others (torch looks for triton) must not be told that a package is there.

    Attributes:
        packages: Names of the packages that were stood in for.
        used: What the script did with them.
        note: Called for each package.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.packages: set[str] = set()
        self.used = Used()
        self.note: Callable[[], None] = lambda: None

    def forget(self) -> None:
        """Forget what was stood in for, and used; what was handed out still notes its calls."""
        self.packages.clear()
        self.used.forget()

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """A spec if the package is missing and the script wants it."""
        root = fullname.partition(".")[0]
        if root in sys.stdlib_module_names:
            return None
        if root not in self.packages and (root in sys.modules or not self._script_asks()):
            return None
        if root not in self.packages:
            self.packages.add(root)
            self.note()
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """The stand-in."""
        return _Module(spec.name, self.used)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""

    def _script_asks(self) -> bool:
        frame: types.FrameType | None = sys._getframe(1)  # noqa: SLF001 - who imports is known to the stack alone
        while frame is not None and (
            frame.f_code.co_filename == __file__ or "importlib" in frame.f_code.co_filename
        ):
            frame = frame.f_back
        if frame is None:
            return False
        name = frame.f_code.co_filename  # text that the script execs has none: "<string>"
        return name.startswith((self._folder, "<")) and not name.startswith("<frozen")


def hide_compilers() -> None:
    """Make torch run plain: no triton, no inductor, `torch.compile` the identity."""
    import torch  # noqa: PLC0415 - the helper alone needs it
    import torch.utils._triton as triton_checks  # noqa: PLC0415

    for name in dir(triton_checks):
        if name.startswith("has_triton"):
            setattr(triton_checks, name, _never)
    torch.compile = _identity  # type: ignore[assignment]
    torch.library.triton_op = _named_identity
    torch.library.wrap_triton = _identity


def skip_initialisation() -> None:
    """Leave new parameters as they are: on the meta device there is nothing to fill."""
    import torch  # noqa: PLC0415

    for name in dir(torch.nn.init):
        if name.endswith("_") and not name.startswith("_"):
            setattr(torch.nn.init, name, _same_tensor)


def limit_memory() -> None:
    """Half of the memory beside what is held: a script that runs wild fails by itself."""
    used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    half = memory_bytes() // 2
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    limit = used + half if most == resource.RLIM_INFINITY else min(most, used + half)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def note_questions(asked: list[str]) -> None:
    """Keep in a list which questions about GPUs are asked; the answers stay as they are."""
    import torch  # noqa: PLC0415

    def noting(name: str, answer: Callable[[], Any]) -> Callable[[], Any]:
        def ask() -> Any:
            asked.append(name)
            return answer()

        return ask

    for name in CUDA_QUESTIONS:
        setattr(torch.cuda, name, noting(name, getattr(torch.cuda, name)))


def pretend_cuda() -> None:
    """Let a script believe in one Hopper GPU for as long as it only asks and allocates nothing."""
    import torch  # noqa: PLC0415

    properties = types.SimpleNamespace(
        name="NVIDIA H100 80GB HBM3", major=9, minor=0, total_memory=80 << 30,
        multi_processor_count=132,
    )  # fmt: skip
    answers: dict[str, Any] = {
        "is_available": True, "device_count": 1, "current_device": 0, "is_initialized": True,
        "get_device_capability": (9, 0), "get_device_name": properties.name,
        "get_device_properties": properties, "is_bf16_supported": True, "set_device": None,
        "synchronize": None, "empty_cache": None, "init": None, "manual_seed": None,
        "manual_seed_all": None, "current_stream": None,
    }  # fmt: skip
    for name, answer in answers.items():
        setattr(torch.cuda, name, _constant(answer))


def _never(*_: Any, **__: Any) -> bool:
    return False


def _constant(answer: Any) -> Callable[..., Any]:
    return lambda *_, **__: answer


def _identity(function: Any = None, *_: Any, **__: Any) -> Any:
    return function if function is not None else lambda wrapped: wrapped


def _named_identity(*_: Any, **__: Any) -> Callable[[Any], Any]:
    return lambda wrapped: wrapped


def _same_tensor(tensor: Any, *_: Any, **__: Any) -> Any:
    return tensor

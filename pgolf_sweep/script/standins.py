"""What a probed script finds instead of a GPU, its packages and the world outside.

Used only inside the probe's child process (`pgolf_sweep.script.probechild`), never by the program
itself: it changes torch and the import system of the process that calls it.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

REFUSED = {
    "socket.connect": "opens a network connection",
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


class Refusals:
    """An audit hook that says no; what it refused is kept, since scripts swallow exceptions."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Raise for what a probed script may not do."""
        words = REFUSED.get(event)
        if words is None or (event == "socket.connect" and isinstance(arguments[-1], str | bytes)):
            return
        detail = " ".join(str(part)[:80] for part in arguments[:2] if isinstance(part, str | list))
        text = f"{words} ({detail})" if detail else words
        if text not in self.events:
            self.events.append(text)
        raise PermissionError(f"the size probe does not let a script do this: it {text}")

    def install(self) -> None:
        """From here on, for the rest of this process."""
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


class StandIn:
    """Something of a package that is not installed: callable, a decorator, a base class.

    Args:
        name: Dotted name, for the probe's report.
        calls: Where a call is noted; a decorator's use is not a call.
    """

    def __init__(self, name: str, calls: list[str]) -> None:
        self._name = name
        self._calls = calls

    def __getattr__(self, name: str) -> StandIn:
        if name.startswith("__"):
            raise AttributeError(name)
        return StandIn(f"{self._name}.{name}", self._calls)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """A decorated function comes back as it is; anything else is noted as a call."""
        if len(arguments) == 1 and callable(arguments[0]) and not keywords:
            return arguments[0]
        self._calls.append(self._name)
        return StandIn(f"{self._name}()", self._calls)

    def __getitem__(self, _: Any) -> StandIn:
        return self

    def __mro_entries__(self, _: tuple[Any, ...]) -> tuple[type, ...]:
        return ()

    def __bool__(self) -> bool:
        return True


class _Module(types.ModuleType):
    """A module of a package that is not installed."""

    def __init__(self, name: str, calls: list[str]) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self.__version__ = "0"
        self.__dict__["_calls"] = calls

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return StandIn(f"{self.__name__}.{name}", self.__dict__["_calls"])


def is_stand_in(module: types.ModuleType) -> bool:
    """Whether a module stands in for a package that is not installed."""
    return isinstance(module, _Module)


class StandInFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers for packages that nobody else found, when the script itself asks.

    Others (torch looks for triton) must not be told that a package is there.

    Attributes:
        packages: Names of the packages that were stood in for.
        calls: What of them the script has called.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.packages: set[str] = set()
        self.calls: list[str] = []

    def forget(self) -> None:
        """Forget what was stood in for, and called; what was handed out still notes its calls."""
        self.packages.clear()
        self.calls.clear()

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """A spec if the package is missing and the script wants it."""
        root = fullname.partition(".")[0]
        if root in sys.stdlib_module_names:
            return None
        if root not in self.packages and (root in sys.modules or not self._script_asks()):
            return None
        self.packages.add(root)
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """The stand-in."""
        return _Module(spec.name, self.calls)

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

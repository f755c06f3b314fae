"""A script's `main()`, run and watched within the child process."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import sys
import threading
import time
import traceback
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from pgolf_sweep.script.logs.stream import LogStream
from pgolf_sweep.script.probe import stubs
from pgolf_sweep.script.probe.dryrun import accelerator, environment
from pgolf_sweep.script.probe.dryrun.alike import Alike
from pgolf_sweep.script.probe.dryrun.clock import Clock
from pgolf_sweep.script.probe.dryrun.codecs import Codecs
from pgolf_sweep.script.probe.dryrun.data import MadeData
from pgolf_sweep.script.probe.dryrun.saving import Saving
from pgolf_sweep.script.probe.dryrun.training import Watch

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_OUTPUT = 4 << 20


class _Output(io.TextIOBase):
    """What the script prints, up to a limit."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._size = 0

    def write(self, text: str) -> int:
        """Keep it."""
        if self._size < MOST_OUTPUT:
            self._parts.append(text)
            self._size += len(text)
        return len(text)

    def text(self) -> str:
        """All of it."""
        return "".join(self._parts)


class Run:
    """One watched run.

    Args:
        request: See `child.live`.
        place: The run's own folder.
        out: Where facts go.
    """

    def __init__(self, request: Mapping[str, Any], place: Path, out: int) -> None:
        self._request = request
        self._folder = place / "program"
        self._out = out
        self._cpu = time.process_time
        self._started = self._cpu()
        self._notes: list[str] = []
        self._stage = "import"
        self._output = _Output()
        self._finder = stubs.StandInFinder(str(self._folder))
        self._refusals = stubs.Refusals()
        self._clock = Clock()
        self._watch = Watch(self._clock, self._counted, self._stepped)
        self._codecs = Codecs(self._exported)
        self._saving = Saving(self._loaded)
        self._alike = Alike()
        self._data = MadeData(place)

    def go(self) -> NoReturn:
        """Run the script to its end; never comes back."""
        stubs.hide_compilers()
        sys.meta_path.append(self._finder)
        accelerator.install(self._clock.seconds)
        environment.install(lambda: int(self._request["vocabulary"]))
        self._watch.install()
        self._codecs.install()
        self._saving.install()
        self._data.install()
        self._clock.install()
        stubs.limit_memory()
        self._refusals.install()
        sys.stdout = sys.stderr = self._output
        for package in self._request.get("lacking", ()):
            sys.modules[package] = None  # type: ignore[assignment] # importing it is an error
        self._tell(stage="import")
        path = str(self._folder / self._request["name"])
        module = types.ModuleType("__main__")
        module.__file__ = path
        sys.modules["__main__"] = module
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        try:
            exec(compile(text, path, "exec"), module.__dict__)  # noqa: S102 - this is the probe
        except SystemExit as error:
            if error.code not in (None, 0):
                self._fail(error)
        except BaseException as error:
            self._fail(error)
        self._finish()

    def _counted(self) -> None:
        parameters = self._watch.parameters()
        self._stage = "training"
        used = self._finder.used.calls
        if used:
            names = ", ".join(sorted(set(used))[:4])
            self._notes.append(f"parts of it come from packages that are not here: {names}")
        self._tell(
            stage="training",
            model_params=sum(tensor.numel() for _, tensor in parameters),
            tensors=[[name, list(t.shape), str(t.dtype)[6:]] for name, t in parameters],
            lacks=bool(used),
            optimizers=self._watch.optimizers,
        )
        if self._request.get("sigmas") is not None:
            draw(parameters, self._request["sigmas"])
            self._alike.watch(sys.modules["__main__"].__dict__)

    def _stepped(self) -> None:
        self._tell_updates()
        if not self._request["export"]:
            self._end()

    def _tell_updates(self) -> None:
        factors = {}
        for name, tensor in self._watch.parameters():
            found = self._watch.factors.get(tensor.data_ptr())
            if found:
                factors[name] = min(found)
        self._tell(groups=self._watch.groups, factors=factors)

    def _loaded(self) -> None:
        if self._codecs.large():
            self._exported()

    def _exported(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._finish()

    def _fail(self, error: BaseException) -> None:
        where = next(
            (
                f" (line {line})"
                for frame, line in reversed(list(traceback.walk_tb(error.__traceback__)))
                if frame.f_code.co_filename.startswith((str(self._folder), "<"))
            ),
            "",
        )
        text = f"{type(error).__name__}: {error}"[:300] + where
        refused = isinstance(error, ValueError | AssertionError) and self._watch.root is None
        self._tell(error=text, failed_in=self._stage, refused=refused)

    def _finish(self) -> NoReturn:
        self._tell_updates()
        if self._watch.root is None:
            self._watch.find()
        self._tell(
            compressions=[
                [one.codec, one.level, one.given, one.made, one.sampled]
                for one in self._codecs.calls[-400:]
            ],
            files=_written(self._folder, self._request["name"]),
            stored=self._saving.last,
        )
        self._end()

    def _end(self) -> NoReturn:
        logs = LogStream()
        logs.feed(self._output.text().encode())
        logs.end(complete=True)
        summary = logs.summary()
        self._tell(
            printed={
                "model_params": summary.model_params,
                "model_bytes": summary.model_bytes,
                "code_bytes": summary.code_bytes,
                "total_bytes": summary.total_bytes,
            },
            stage="done",
            notes=self._notes,
            stand_ins=sorted(self._finder.packages),
            refused_events=self._refusals.events,
            cpu_seconds=self._cpu() - self._started,
            peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        )
        os.write(self._out, b"\n")
        os._exit(0)

    def _tell(self, **facts: Any) -> None:
        data = json.dumps(facts).encode() + b"\n"
        while data:
            data = data[os.write(self._out, data) :]


def draw(parameters: list[tuple[str, torch.nn.Parameter]], sigmas: Mapping[str, float]) -> None:
    """Give each matrix Gaussian weights of its spread, and vectors a noise that training leaves.

    Args:
        parameters: The model's, by name.
        sigmas: Standard deviations by name; a tensor without one stays as it is.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in parameters:
            sigma = sigmas.get(name)
            if sigma is None or not tensor.dtype.is_floating_point:
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim >= 2:
                tensor.copy_(sigma * noise)
            else:
                tensor.add_(sigma * noise)


def _written(folder: Path, name: str) -> dict[str, int]:
    """Files that the script has left, by their bytes."""
    found = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and path.name != name:
                found[path.relative_to(folder).as_posix()] = path.stat().st_size
    return found

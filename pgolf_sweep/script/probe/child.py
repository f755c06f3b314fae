"""The process in which one script is probed, configuration after configuration.

A fork of the probe's helper (`pgolf_sweep.script.probe.server`). For each request the script is
imported anew under that configuration's environment (its calls of its own functions at the module's
level are left out) and its model is built on the meta device. Then the process is put back as it
was, so that the next request costs no fork and no reading of source; where that cannot be, the
process ends. It cannot open connections, start programs or see a GPU.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import json
import os
import re
import sys
import time
import traceback
import types
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgolf_sweep.script.probe import build_model as construct
from pgolf_sweep.script.probe import call_sites as sites
from pgolf_sweep.script.probe import entrypoints as starts
from pgolf_sweep.script.probe import hyperparameters, slicing
from pgolf_sweep.script.probe import stubs as standins
from pgolf_sweep.script.probe.frames import Script
from pgolf_sweep.script.probe.restore import Folder, Found

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MODULE = "probed_script"
MOST_RUNS = 1000
"""Probes until a process makes way for a fresh one, even if it is small by then."""


def live(
    setting: Mapping[str, Any],
    tree: ast.Module,
    orders: int,
    out: int,
    *,
    cuda: bool,
    files: Folder,
) -> None:
    """The fork's whole life: everything that others' code can do happens in here.

    Args:
        setting: Of the requests to come: ``folder``, ``name``, ``source`` (a file) and ``env``.
        tree: The script.
        orders: Where a request is read from, one JSON line each.
        out: Where facts go, one JSON object a line; an empty line ends an answer.
        cuda: Whether to let the script believe in a GPU.
        files: What lies in the folder, put back after each request: the folder may be a copy that
            nobody else sees.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
    folder = setting["folder"]
    os.chdir(folder)
    _set_environment(setting["env"])
    sys.argv[:] = [setting["name"]]
    sys.path.insert(0, folder)
    sys.setrecursionlimit(10_000)
    finder = standins.StandInFinder(folder)
    sys.meta_path.append(finder)
    standins.hide_compilers()
    standins.skip_initialisation()
    asked: list[str] = []
    if cuda:
        standins.pretend_cuda()
    standins.note_questions(asked)
    refusals = standins.Refusals()
    refusals.install()
    standins.limit_memory()
    _load_packages(tree, folder)
    found = Found(folder, Path(setting["source"]).read_text())
    with os.fdopen(orders, "rb") as lines:
        for _, line in zip(range(MOST_RUNS), lines, strict=False):
            started = time.process_time()
            request = json.loads(line)
            finder.forget()
            refusals.events.clear()
            asked.clear()
            probe = _Probe(request, tree, finder, refusals, asked, out)
            _set_environment(request["env"])
            standins.note_reads(probe.note_read)
            finder.note = probe.note_stand_in
            imported = probe.run()
            probe.end(time.process_time() - started)
            if not (imported and found.put_back()):
                return
            files.put_back()


def _set_environment(env: Mapping[str, str]) -> None:
    standins.note_reads(lambda _: None)
    os.environ.clear()
    os.environ.update(env)


def _load_packages(tree: ast.Module, folder: str) -> None:
    """Load what the script imports, before the process is remembered, but not its siblings."""
    for name in _imported(tree.body):
        root = name.partition(".")[0]
        if not Path(folder, root).exists() and not Path(folder, f"{root}.py").exists():
            with contextlib.suppress(Exception, SystemExit):
                importlib.import_module(name)


def _imported(body: list[ast.stmt]) -> Iterator[str]:
    """Modules that a module's statements import, but for those in functions and classes."""
    for statement in body:
        match statement:
            case ast.Import(names=names):
                yield from (item.name for item in names)
            case ast.ImportFrom(module=str(name), level=0):
                yield name
            case ast.If() | ast.Try() | ast.With():
                for block in sites.blocks(statement):
                    yield from _imported(block)


@lru_cache(maxsize=64)
def _words(path: str) -> frozenset[str]:
    with contextlib.suppress(OSError):
        return frozenset(re.findall(r"\w+", Path(path).read_text(errors="replace")))
    return frozenset()


def _names_gpu(error: BaseException) -> bool:
    text = str(error).lower()
    return any(word in text for word in ("cuda", "nvidia", "gpu"))


class _Probe:
    """One probe, told to the helper step by step."""

    def __init__(
        self,
        request: Mapping[str, Any],
        tree: ast.Module,
        finder: standins.StandInFinder,
        refusals: standins.Refusals,
        asked: list[str],
        out: int,
    ) -> None:
        self._request = request
        self._tree = tree
        self._finder = finder
        self._refusals = refusals
        self._asked = asked
        self._out = out
        self._knobs = frozenset(request["knobs"])
        self._modules = frozenset(sys.modules)
        self._read: set[str] = set()
        self._notes: list[str] = []
        self._counted = False

    def note_read(self, name: str | None) -> None:
        """The script reads a variable, or all; told at once, as it may not live to say more."""
        read = self._knobs if name is None else {name} & self._knobs
        new = () if self._counted else read - self._read
        if new:
            self._read |= new
            self._tell(read=sorted(new))

    def note_stand_in(self) -> None:
        """Another package is stood in for; told at once, too."""
        self._tell(stand_ins=sorted(self._finder.packages))

    def run(self) -> bool:
        """Probe, and tell what was found; whether the script could be imported."""
        self._tell(stage="import", notes=self._notes, stand_ins=[])
        module = types.ModuleType(MODULE)
        module.__file__ = str(Path(self._request["folder"], self._request["name"]))
        sys.modules[MODULE] = module
        namespace = module.__dict__
        try:
            self._import(namespace, module.__file__)
        except BaseException as error:  # noqa: BLE001 - all that others' code raises
            self._fail(error)
            return False
        self._tell(stage="model")
        settings = hyperparameters.read_settings(namespace, self._tree, self._knobs)
        script = Script(self._tree, namespace, settings)
        used = self._finder.used
        used.forget()
        try:
            built = construct.build_model(script)
        except construct.ProbeError as error:
            # What stood in for a package or a GPU may be what it refuses.
            about_gpu = _names_gpu(error)
            refused = error.refused and not (about_gpu or used.calls or used.answers)
            self._tell(
                relevant=self._relevant(settings),
                error=str(error),
                refused=refused and not self._refusals.events,
                wants_cuda=about_gpu or bool(self._asked),
            )
            return True
        except BaseException as error:  # noqa: BLE001 - all that others' code raises
            text = f"building its model failed: {type(error).__name__}: {error}"
            self._tell(relevant=self._relevant(settings), error=text)
            return True
        self._notes += built.notes
        if used.calls:
            names = ", ".join(sorted(set(used.calls))[:4])
            self._notes.append(f"parts of the model come from packages that are not here: {names}")
        if self._refusals.events:
            tried = "; ".join(self._refusals.events)
            self._notes.append(f"it {tried}, which a probe may not, and goes on without")
        parameters = list(built.model.named_parameters())
        relevant = set(self._relevant(settings))
        self._counted = True
        self._tell(
            notes=self._notes,
            model_params=sum(tensor.numel() for _, tensor in parameters),
            tensors=[[name, list(t.shape), str(t.dtype)[6:]] for name, t in parameters],
            lacks=bool(used.calls),
            incomplete=bool(used.calls or self._refusals.events or built.uncertain),
            how=built.how,
            relevant=sorted(relevant),
        )
        self._tell(stage="done")
        return True

    def _relevant(self, settings: Any) -> list[str]:
        elsewhere = self._of_siblings()
        return sorted(hyperparameters.relevant_knobs(settings, self._tree, self._knobs, elsewhere))

    def _of_siblings(self) -> frozenset[str]:
        """Words of the script's siblings that are loaded."""
        folder = self._request["folder"]
        found: frozenset[str] = frozenset()
        for name in sys.modules.keys() - self._modules - {MODULE}:
            path = getattr(sys.modules[name], "__file__", None)
            if isinstance(path, str) and path.startswith(folder):
                found |= _words(path)
        return found

    def _import(self, namespace: dict[str, Any], path: str) -> None:
        left_out = starts.without_runs(self._tree)[1]
        if left_out:
            text = f"it runs when imported ({', '.join(left_out)}()); that was left out"
            self._notes.append(text)
        exec(starts.importable(self._tree, path), namespace)  # noqa: S102 - this is the probe

    def _fail(self, error: BaseException) -> None:
        """Say why the import failed, by its cause rather than by its last exception."""
        text = f"{type(error).__name__}: {error}"[:300]
        if isinstance(error, SystemExit):
            text = f"it calls sys.exit({error.code!r}) when it is imported"
        elif isinstance(error, EOFError) and "reading a line" in str(error):
            text = "it reads its standard input when it is imported"
        elif self._refusals.events:
            text = (
                f"when it is imported it {'; '.join(self._refusals.events)}, which a probe may not"
            )
        elif isinstance(error, ImportError):
            text = f"its import fails: {text}"
        about_gpu = _names_gpu(error)
        self._tell(
            error=text,
            names_gpu=about_gpu,
            wants_cuda=about_gpu or bool(self._asked),
            relevant=self._relevant_of_failure(error),
        )

    def _relevant_of_failure(self, error: BaseException) -> list[str]:
        """Of the knobs read so far, those that the statement which failed may depend on."""
        read = self._read
        lines = [
            line
            for frame, line in traceback.walk_tb(error.__traceback__)
            if frame.f_globals.get("__name__") == MODULE and frame.f_code.co_name == "<module>"
        ]
        failed: list[ast.AST] = [
            node
            for node in self._tree.body
            if lines and node.lineno <= lines[0] <= (node.end_lineno or node.lineno)
        ]
        if not failed:
            return sorted(read)
        hidden = read - slicing.named_in([self._tree], read) | read & self._of_siblings()
        reached = slicing.reached(self._tree, failed, "")
        return sorted(slicing.named_in(reached, read) | hidden)

    def end(self, cpu_seconds: float) -> None:
        """End the answer."""
        self._tell(cpu_seconds=cpu_seconds)
        os.write(self._out, b"\n")

    def _tell(self, **facts: Any) -> None:
        data = json.dumps(facts).encode() + b"\n"
        while data:
            data = data[os.write(self._out, data) :]

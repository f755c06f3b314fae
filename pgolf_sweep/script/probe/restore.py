"""A process put back as it was before somebody's script was imported and its model built there.

So one process can probe many configurations, each as if it were the first. What a script reaches
by name is watched: the modules and classes whose names are words of its source. What cannot be put
back ends the process's use, and the next probe gets a fresh one.

Used only inside the probe's child process (`pgolf_sweep.script.probe.child`).
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import re
import shutil
import sys
import threading
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgolf_sweep.script.probe.stubs import is_stand_in

if TYPE_CHECKING:
    from collections.abc import Iterable

_WORD = re.compile(r"[A-Za-z_]\w*")
_FOLDER = (-1, -1)
_OF_PYTHON = frozenset({"__builtins__", "__warningregistry__", "__dict__", "__weakref__"})


class Found:
    """A process as a script finds it; taken before the script is imported for the first time.

    Args:
        folder: Where the script and its siblings lie.
        source: The script's text; that of its siblings is read.
    """

    def __init__(self, folder: str, source: str) -> None:
        import torch  # noqa: PLC0415 - the child alone needs it

        siblings = (path.read_text(errors="replace") for path in Path(folder).rglob("*.py"))
        self._words = {word for text in (source, *siblings) for word in _WORD.findall(text)}
        self._folder = folder
        lists: tuple[list[Any], ...] = (sys.path, sys.meta_path, sys.argv)
        self._lists = [(there, list(there)) for there in lists]
        self._streams = (sys.stdin, sys.stdout, sys.stderr)
        random.seed(0)  # Python seeds each fork anew; what a script draws must not decide
        self._random = random.getstate()
        self._torch_random = torch.get_rng_state()
        self._dtype, self._device = torch.get_default_dtype(), torch.get_default_device()
        self._modes = torch._C._len_torch_function_stack()  # noqa: SLF001 - nothing public tells
        self._numpy: Any = sys.modules.get("numpy")
        if self._numpy is not None:
            self._numpy.random.seed(0)
            self._numpy_random = self._numpy.random.get_state()
        self._threads = threading.active_count()
        self._modules = dict(sys.modules)
        self._packages = {name.partition(".")[0] for name in self._modules}
        self._watched: list[tuple[Any, dict[str, Any]]] = []
        self._watch(self._modules.items())
        gc.collect()
        gc.freeze()  # what is here now is never searched for garbage again

    def _watch(self, modules: Iterable[tuple[str, types.ModuleType]]) -> None:
        """Remember what the script may change of modules, and of classes in them."""
        known = {id(there) for there, _ in self._watched}
        for name, module in modules:
            if not self._words.issuperset(name.split(".")) or not hasattr(module, "__dict__"):
                continue
            mentioned = (vars(module).get(word) for word in self._words & vars(module).keys())
            for there in (module, *(one for one in mentioned if isinstance(one, type))):
                if id(there) not in known:
                    known.add(id(there))
                    self._watched.append((there, dict(vars(there))))

    def put_back(self) -> bool:
        """Undo what the script has done to the process; whether all of it is undone."""
        import torch  # noqa: PLC0415

        new = self._put_back_modules()
        changed = False
        for there, before in self._watched:
            if _differs(vars(there), before):
                changed |= self._put_back_names(there, before)
        for one, items in self._lists:
            one[:] = items
        sys.stdin, sys.stdout, sys.stderr = self._streams
        random.setstate(self._random)
        torch.set_rng_state(self._torch_random)
        if self._numpy is not None:
            self._numpy.random.set_state(self._numpy_random)
        torch.set_default_dtype(self._dtype)
        if torch.get_default_device() != self._device:
            torch.set_default_device(None)
        torch.set_grad_enabled(True)
        os.chdir(self._folder)
        gc.collect()
        self._watch(new.items())
        modes = torch._C._len_torch_function_stack()  # noqa: SLF001
        same = (modes, threading.active_count()) == (self._modes, self._threads)
        # Of a package that came with the script it is not known what of the changes is its own.
        came = {name.partition(".")[0] for name in new} - self._packages
        self._packages |= came
        return same and not (came and changed)

    def _put_back_modules(self) -> dict[str, types.ModuleType]:
        """Forget what is the script's own; packages that it has loaded stay and are returned."""
        new = {}
        for name, module in list(sys.modules.items()):
            if self._modules.get(name) is module:
                continue
            if name not in self._modules and self._is_package(module):
                new[name] = module
            else:
                del sys.modules[name]
        self._modules |= new
        for name in self._modules.keys() - sys.modules.keys():
            sys.modules[name] = self._modules[name]
        return new

    def _is_package(self, module: types.ModuleType) -> bool:
        """Whether a module is neither the script's own nor one that it made up."""
        spec = getattr(module, "__spec__", None)
        if spec is None or is_stand_in(module):
            return False
        places = [spec.origin or "", *(spec.submodule_search_locations or ())]
        return not any(place.startswith(self._folder) for place in places)

    def _put_back_names(self, there: Any, before: dict[str, Any]) -> bool:
        """Undo changes in a module or class; whether there was more than a new submodule."""
        now, undone = dict(vars(there)), False
        for name in now.keys() | before.keys():
            value = now.get(name, before)
            if value is before.get(name, before) or name in _OF_PYTHON:
                continue
            if isinstance(value, types.ModuleType) and value is sys.modules.get(value.__name__):
                before[name] = value
                continue
            undone = True
            if name in before:
                setattr(there, name, before[name])
            else:
                delattr(there, name)
        return undone


class Folder:
    """A folder's files as they are now, to be put back; what Python compiles is left alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamps = self._found()
        self._contents = {
            one: one.read_bytes() for one, stamp in self._stamps.items() if stamp != _FOLDER
        }

    def put_back(self) -> None:
        """Rewrite what was changed, and remove what was added."""
        now = self._found()
        if now == self._stamps:
            return
        for one in sorted(now.keys() - self._stamps.keys()):
            if now[one] == _FOLDER:
                shutil.rmtree(one, ignore_errors=True)
            else:
                one.unlink(missing_ok=True)
        for one, content in self._contents.items():
            if now.get(one) != self._stamps[one]:
                one.parent.mkdir(parents=True, exist_ok=True)
                one.unlink(missing_ok=True)
                one.write_bytes(content)
        self._stamps = self._found()

    def _found(self) -> dict[Path, tuple[int, int]]:
        found: dict[Path, tuple[int, int]] = {}
        pending = [self._path]
        while pending:
            with contextlib.suppress(FileNotFoundError), os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.name == "__pycache__":
                        continue
                    path = Path(entry.path)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(path)
                        found[path] = _FOLDER
                    else:
                        about = entry.stat(follow_symlinks=False)
                        found[path] = (about.st_size, about.st_mtime_ns)
        return found


def _differs(now: Any, before: dict[str, Any]) -> bool:
    try:
        return bool(now != before)
    except Exception:  # noqa: BLE001 - tensors and arrays refuse to be compared
        return True

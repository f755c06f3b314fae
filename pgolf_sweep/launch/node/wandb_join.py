"""Joins a script's own ``wandb.init()`` to the run that the worker owns; a script's sitecustomize.

The worker copies this file as ``sitecustomize.py`` into a folder that it puts first on the
script's PYTHONPATH, so it stands on the standard library alone. When the script imports wandb,
``wandb.init`` gives a run that writes nothing itself: its config is the trial's parameters, what is
logged goes to the file ``PGOLF_WANDB_LOG``, a JSON line each, and the worker logs it to the trial's
run.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

LOG, CONFIG = "PGOLF_WANDB_LOG", "PGOLF_WANDB_CONFIG"


class _Finder:
    """Finds wandb once, as the others would, and joins it after it has loaded."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The spec of wandb with `join` after its loading; None for any other module."""
        del path, target
        if name != "wandb":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def loaded(module: Any) -> None:
            load(module)
            join(module)

        spec.loader.exec_module = loaded  # type: ignore[method-assign]
        return spec


def join(wandb: Any) -> None:
    """Have ``wandb.init`` give a run that hands everything on."""
    init = wandb.init
    joined: list[Any] = []

    def joined_init(*args: Any, **keywords: Any) -> Any:
        if joined:
            return joined[0]  # one trial is one run
        run = init(*args, **{**keywords, "mode": "disabled"})
        parameters = json.loads(Path(os.environ[CONFIG]).read_text())
        run.config.update_locked(parameters, user="sweep", _allow_val_change=True)
        steps = [0]

        def log(data: Any = None, step: Any = None, **_: Any) -> None:
            steps[0] = steps[0] + 1 if step is None else int(step)
            _write(data, steps[0] if step is not None else None)

        run.log = wandb.log = log
        run.summary = wandb.summary = _Summary()
        joined.append(run)
        return run

    wandb.init = joined_init


class _Summary(dict[str, Any]):
    """``wandb.summary["best"] = 0.9``, which is logged like anything else."""

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        _write({name: value}, None)

    def update(self, *args: Any, **keywords: Any) -> None:
        """Set several at once."""
        for name, value in dict(*args, **keywords).items():
            self[name] = value


def _write(data: Any, step: int | None) -> None:
    """A line for the worker: what is a number of the data, by dotted names."""
    values = dict(_numbers("", data))
    if not values:
        return
    line = json.dumps({"step": step, "values": values}) + "\n"
    descriptor = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def _numbers(prefix: str, data: Any) -> Any:
    if not isinstance(data, dict):
        return
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _numbers(f"{name}.", value)
        elif isinstance(value, bool | int | float):
            yield name, value
        elif callable(getattr(value, "item", None)):  # of numpy, torch, jax
            try:
                yield name, float(value)
            except (TypeError, ValueError):
                continue  # a picture, a table, a tensor of many numbers


def _next_sitecustomize() -> None:
    """Run the sitecustomize that this one stands before."""
    here = Path(__file__).parent.resolve()
    for folder in sys.path:
        path = Path(folder or ".") / "sitecustomize.py"
        if path.is_file() and path.parent.resolve() != here:
            exec(compile(path.read_text(), str(path), "exec"), {"__name__": "sitecustomize"})  # noqa: S102
            return


if LOG in os.environ and CONFIG in os.environ:
    sys.meta_path.insert(0, _Finder())
    _next_sitecustomize()

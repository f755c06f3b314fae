"""Hyperparameter sweeps for Parameter Golf: a compute budget in, a valid submission out."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgolf_sweep.promote.candidate import About
    from pgolf_sweep.promote.promote import Promotion
    from pgolf_sweep.report.trials import StudyRead, read_study
    from pgolf_sweep.verify.verify import Verification
    from pgolf_sweep.workflows.gate import GateAnswer, gate
    from pgolf_sweep.workflows.launch import LaunchedStudy, launch
    from pgolf_sweep.workflows.plan import SweepPlan, load_sweep, plan
    from pgolf_sweep.workflows.promote import promote
    from pgolf_sweep.workflows.simulate import simulate
    from pgolf_sweep.workflows.verify import verify

__version__ = "0.1.0"
__all__ = [
    "About",
    "GateAnswer",
    "LaunchedStudy",
    "Promotion",
    "StudyRead",
    "SweepPlan",
    "Verification",
    "gate",
    "launch",
    "load_sweep",
    "plan",
    "promote",
    "read_study",
    "simulate",
    "verify",
]

_HOMES = {
    "About": "promote.candidate",
    "GateAnswer": "workflows.gate",
    "LaunchedStudy": "workflows.launch",
    "Promotion": "promote.promote",
    "StudyRead": "report.trials",
    "SweepPlan": "workflows.plan",
    "Verification": "verify.verify",
    "gate": "workflows.gate",
    "launch": "workflows.launch",
    "load_sweep": "workflows.plan",
    "plan": "workflows.plan",
    "promote": "workflows.promote",
    "read_study": "report.trials",
    "simulate": "workflows.simulate",
    "verify": "workflows.verify",
}
"""Where each public name is defined; its module loads with the first use."""


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps ``pgolf_sweep.launch`` the function, though a folder of that name is imported.

    The import of a folder binds it to its parent's attribute. Here the folder stays in
    ``sys.modules`` alone, where ``from pgolf_sweep.launch.base import ...`` finds it.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in _HOMES):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

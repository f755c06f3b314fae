"""A script's hyperparameters, and the knobs that what was made of them depends on.

Runs inside the probe's helper process, on a module that was imported there.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pgolf_sweep.script.probe.slicing import attributes_of, class_attributes, named_in, reached

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

SETTINGS_NAMES = ("Hyperparameters", "Hyperparams", "HParams", "Config", "Args", "Settings")
SETTINGS_ARGUMENTS = frozenset(
    {"args", "h", "hp", "hps", "hparams", "cfg", "config", "hyperparameters", "a"}
)
GIVEN: dict[str, Any] = {
    "rank": 0, "local_rank": 0, "world_size": 1, "distributed": False, "grad_accum_steps": 8,
    "master_process": True, "is_main_process": True, "code": "",
}  # fmt: skip
"""What a script learns from its launcher; the same in every probe."""


@dataclass(slots=True)
class Settings:
    """The script's hyperparameters, and which of them were read.

    Attributes:
        name: Name of their class, or an empty string if the script has none.
        kind: The class, made to note what is read of it.
        seen: Attributes that were read.
        nodes: What of the script was evaluated beside its import.
    """

    name: str
    kind: Any
    value: Any
    seen: set[str] = field(default_factory=set)
    nodes: list[ast.AST] = field(default_factory=list)


def read_settings(namespace: dict[str, Any], tree: ast.Module, knobs: Iterable[str]) -> Settings:
    """Make the script's hyperparameters from the environment of this process."""
    names = set(knobs)
    counts: dict[str, int] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and isinstance(namespace.get(node.name), type):
            counts[node.name] = len(named_in([node], names)) + (node.name in SETTINGS_NAMES)
    name = max(counts, key=lambda key: counts[key], default="")
    if not name or not counts[name]:
        return Settings(name="", kind=None, value=None)
    seen: set[str] = set()
    kind = namespace[name]
    recorded = _recorded(kind, seen)
    namespace[name] = recorded
    try:
        value = recorded()
    except TypeError:
        value = recorded  # a class that is only a bag of attributes, or needs arguments
    seen.clear()
    if recorded is kind:
        seen.add("__dict__")  # a class that cannot be derived from: anything may be read
    return Settings(name=name, kind=recorded, value=value, seen=seen)


def _recorded(kind: type, seen: set[str]) -> type:
    """A subclass that notes which attributes are read of it and of its instances."""
    above: Any = type(kind)

    def note(name: str) -> None:
        if not (name.startswith("__") and name != "__dict__"):
            seen.add(name)

    def of_instance(self: Any, name: str) -> Any:
        note(name)
        return kind.__getattribute__(self, name)  # type: ignore[call-arg]

    def of_class(self: Any, name: str) -> Any:
        note(name)
        return above.__getattribute__(self, name)

    try:
        noting = type(above.__name__, (above,), {"__getattribute__": of_class})
        made: type = noting(kind.__name__, (kind,), {"__getattribute__": of_instance})
    except TypeError:
        return kind
    made.__module__ = kind.__module__
    return made


def relevant_knobs(
    settings: Settings, tree: ast.Module, knobs: Iterable[str], elsewhere: AbstractSet[str]
) -> set[str]:
    """Knobs that what was built so far depends on; all others may change without a new probe.

    Args:
        settings: The hyperparameters and what was evaluated.
        tree: The script.
        knobs: All that it may read.
        elsewhere: Words of its siblings: what these make of a knob is not followed.
    """
    names = set(knobs)
    if "__dict__" in settings.seen:
        return names
    nodes = reached(tree, settings.nodes, settings.name)
    attributes = class_attributes(tree, settings.name, names)
    read = {""} | settings.seen | attributes_of(nodes, settings.name)
    inside = set().union(*(attributes.get(one, set()) for one in read))
    hidden = names - named_in([tree], names)  # read under a name that is put together
    hidden |= names & elsewhere
    return inside | named_in(nodes, names) | hidden

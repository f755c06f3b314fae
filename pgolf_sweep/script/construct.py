"""A script's model, built on the meta device by the script's own constructor call.

Runs inside the probe's helper process, on a module that was imported there.
"""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pgolf_sweep.script.slicing import (
    CallSite,
    attributes_of,
    call_sites,
    class_attributes,
    evaluate,
    loaded,
    named_in,
    parameters_of,
    reached,
    run_needed,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SETTINGS_NAMES = ("Hyperparameters", "Hyperparams", "HParams", "Config", "Args", "Settings")
SETTINGS_ARGUMENTS = frozenset(
    {"args", "h", "hp", "hps", "hparams", "cfg", "config", "hyperparameters", "a"}
)
MODEL_NAMES = ("GPT", "Model", "LM", "Net")
REFUSALS = ("ValueError", "AssertionError")
EVALUATION = ("eval", "hessian", "ttt", "val_", "teacher", "dummy", "test")
"""In the name that a model is assigned to, or in its function: a second copy of the model."""
OF_TRAINING = re.compile(
    r"(^|_)(LR|ADAM|BETA\d|WD|WEIGHT_DECAY|MOMENTUM|WARMUP|WARMDOWN|ITERATIONS|SEED|RUN_ID|EVERY"
    r"|WALLCLOCK|DATA_PATH|TOKENIZER_PATH)(_|$)"
)
"""Knobs that a script may read on its way to its quantizer, as where it makes its optimizers,
without their deciding anything about sizes."""
GIVEN: dict[str, Any] = {
    "rank": 0, "local_rank": 0, "world_size": 1, "distributed": False, "grad_accum_steps": 8,
    "master_process": True, "is_main_process": True, "code": "",
}  # fmt: skip
"""What a script learns from its launcher; the same in every probe."""


class ProbeError(Exception):
    """The script cannot be probed; the text says why, for people."""


@dataclass(slots=True)
class Settings:
    """The script's hyperparameters, and which of them were read.

    Attributes:
        name: Name of their class, or an empty string if the script has none.
        kind: The class, made to note what is read of it.
        seen: Attributes that were read.
        nodes: What of the script was evaluated beside its import.
        on_the_way: Attributes that statements before the quantizer's call read.
    """

    name: str
    kind: Any
    value: Any
    seen: set[str] = field(default_factory=set)
    nodes: list[ast.AST] = field(default_factory=list)
    on_the_way: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Built:
    """A model and how it came to be.

    Attributes:
        model: The module, its tensors on the meta device.
        how: The call's source, with its line.
        notes: What did not go as in the script.
        namespace: The names that the constructor's call was evaluated in.
    """

    model: Any
    how: str
    notes: list[str]
    namespace: dict[str, Any]


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


def relevant_knobs(settings: Settings, tree: ast.Module, knobs: Iterable[str]) -> set[str]:
    """Knobs that what was built so far depends on; all others may change without a new probe."""
    names = set(knobs)
    if "__dict__" in settings.seen | settings.on_the_way:
        return names
    nodes = reached(tree, settings.nodes, settings.name)
    attributes = class_attributes(tree, settings.name, names)
    read = {""} | settings.seen | attributes_of(nodes, settings.name)
    inside = set().union(*(attributes.get(one, set()) for one in read))
    passed = set().union(*(attributes.get(one, set()) for one in settings.on_the_way))
    inside |= {name for name in passed if not OF_TRAINING.search(name)}
    hidden = names - named_in([tree], names)  # read under a name that is put together
    return inside | named_in(nodes, names) | hidden


def build_model(namespace: dict[str, Any], tree: ast.Module, settings: Settings) -> Built:
    """The script's model on the meta device.

    Raises:
        ProbeError: No call of a model class could be repeated; says what was tried.
    """
    import torch  # noqa: PLC0415

    own = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    kinds = {
        name: namespace[name]
        for name in own
        if isinstance(namespace.get(name), type) and issubclass(namespace[name], torch.nn.Module)
    }
    if not kinds:
        raise ProbeError("it defines no torch module, so no model to count")
    sites = [site for site in call_sites(tree, kinds) if not _in_module(site, kinds)]
    sites.sort(key=_rank)
    tried: list[str] = []
    for site in sites[:4]:
        built = _repeat(site, namespace, settings, tried)
        if built is not None and any(True for _ in built.model.parameters()):
            return built
        if tried and tried[-1].startswith(REFUSALS):
            break  # the script's own words: no other way of building it would be the trial's
    else:
        roots = _roots(tree, kinds)
        for name in sorted(roots, key=lambda one: (not one.startswith(MODEL_NAMES), one))[:3]:
            built = _by_name(name, kinds[name], namespace, settings, tried)
            if built is not None and any(True for _ in built.model.parameters()):
                return built
    raise ProbeError("its model cannot be built: " + "; ".join(tried or ["no call of it found"]))


def _in_module(site: CallSite, kinds: Mapping[str, Any]) -> bool:
    """Whether a call is one part of a model making another."""
    return site.owner is not None and site.owner.name in kinds


def _rank(site: CallSite) -> tuple[bool, bool, bool, int]:
    where = f"{site.target} {site.function.name if site.function else ''}".lower()
    return (
        any(word in where for word in EVALUATION),
        not site.callee.startswith(MODEL_NAMES) and not site.callee.endswith(MODEL_NAMES),
        not site.target.endswith("model"),
        site.call.lineno,
    )


def _roots(tree: ast.Module, kinds: Mapping[str, Any]) -> list[str]:
    """Module classes that no other module class makes."""
    inner = {site.callee for site in call_sites(tree, kinds) if _in_module(site, kinds)}
    return [name for name in kinds if name not in inner]


def scope_of(
    site: CallSite, namespace: dict[str, Any], settings: Settings, given: Mapping[str, Any]
) -> tuple[dict[str, Any], set[str]]:
    """Names for the inside of a call's function, and which of them are taken as given."""
    import torch  # noqa: PLC0415

    scope = {**namespace}
    known: set[str] = set()
    for name, annotation in parameters_of(site).items():
        if name in given:
            continue
        typed = annotation is not None and settings.name in loaded(annotation)
        if settings.value is not None and (typed or name.lower() in SETTINGS_ARGUMENTS):
            scope[name] = settings.value
        elif settings.value is not None and hasattr(settings.value, name):
            scope[name] = getattr(settings.value, name)
        else:
            continue
        known.add(name)
    scope |= {"device": torch.device("meta"), **GIVEN, **given}
    known |= {"device", *GIVEN, *given}
    return scope, known


def _repeat(
    site: CallSite, namespace: dict[str, Any], settings: Settings, tried: list[str]
) -> Built | None:
    how = f"line {site.call.lineno}: {ast.unparse(site.call)}"[:300]
    scope, known = scope_of(site, namespace, settings, {})
    settings.nodes.append(site.call)
    notes = run_needed(site, scope, known, loaded(site.call) - {site.callee}, settings.nodes)
    model = _on_meta(lambda: evaluate(site.call, scope), tried, how)
    return None if model is None else Built(model=model, how=how, notes=notes, namespace=scope)


def _by_name(
    name: str, kind: Any, namespace: dict[str, Any], settings: Settings, tried: list[str]
) -> Built | None:
    """Build a model from hyperparameters of the same names as its constructor's arguments."""
    settings.nodes.append(ast.Name(id=name, ctx=ast.Load()))
    values: dict[str, Any] = {}
    for argument in inspect.signature(kind).parameters.values():
        if argument.name.lower() in SETTINGS_ARGUMENTS:
            values[argument.name] = settings.value
        elif settings.value is not None and hasattr(settings.value, argument.name):
            values[argument.name] = getattr(settings.value, argument.name)
        elif argument.default is inspect.Parameter.empty and argument.kind not in {
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        }:
            tried.append(f"{name}: no hyperparameter gives its argument {argument.name}")
            return None
    how = f"{name}({', '.join(values)}) by the names of its arguments"
    model = _on_meta(lambda: kind(**values), tried, how)
    notes = ["the constructor's arguments were matched by name"]
    return None if model is None else Built(model=model, how=how, notes=notes, namespace=namespace)


def _on_meta(make: Any, tried: list[str], how: str) -> Any:
    """The model on the meta device; on the CPU if its constructor computes with values."""
    import torch  # noqa: PLC0415

    devices = (_meta_but_for_ranges(), torch.device("meta"), torch.device("cpu"))
    for device in devices:
        try:
            with device, torch.no_grad():
                model = make()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever others' code raises
            if device is devices[-1]:
                where = how.partition("(")[0]
                tried.append(f"{type(error).__name__}: {error} ({where})"[:400])
        else:
            return model if isinstance(model, torch.nn.Module) else None
    return None


def _meta_but_for_ranges() -> Any:
    """The meta device, where only `torch.arange` makes real numbers.

    Tables of frequencies begin with it. Each step of their arithmetic costs 0.1 ms on the meta
    device, where torch does it in Python, and there is one table in every layer.
    """
    import torch  # noqa: PLC0415
    from torch.overrides import TorchFunctionMode  # noqa: PLC0415
    from torch.utils._device import _device_constructors  # noqa: PLC0415

    class MetaButForRanges(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, _: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            keywords = kwargs or {}
            if function in _device_constructors() and keywords.get("device") is None:
                keywords["device"] = "cpu" if function is torch.arange else "meta"
            return function(*args, **keywords)

    return MetaButForRanges()

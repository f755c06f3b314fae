"""A script's model, built on the meta device by the script's own constructor call.

Runs inside the probe's helper process, on a module that was imported there.
"""

from __future__ import annotations

import ast
import inspect
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgolf_sweep.script.probe.call_sites import CallSite, call_sites
from pgolf_sweep.script.probe.frames import Script, frame_of, is_second_copy
from pgolf_sweep.script.probe.hyperparameters import SETTINGS_ARGUMENTS
from pgolf_sweep.script.probe.mutations import later_changes
from pgolf_sweep.script.probe.slicing import evaluate, loaded

if TYPE_CHECKING:
    from collections.abc import Mapping

MODEL_NAMES = ("GPT", "Model", "LM", "Net")
REFUSALS = ("ValueError", "AssertionError")


class ProbeError(Exception):
    """The script cannot be probed; the text says why, for people.

    Attributes:
        refused: The script's own constructor raised ValueError or an assertion, of values that it
            would get in a run, too.
    """

    def __init__(self, text: str, *, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


@dataclass(slots=True)
class Built:
    """A model and how it came to be.

    Attributes:
        model: The module, its tensors on the meta device.
        how: The call's source, with its line.
        notes: What did not go as in the script.
        uncertain: Whether the script's model may be another; `notes` say why.
    """

    model: Any
    how: str
    notes: list[str]
    uncertain: bool = False


def build_model(script: Script) -> Built:
    """The script's model on the meta device.

    Raises:
        ProbeError: No call of a model class could be repeated; says what was tried.
    """
    import torch  # noqa: PLC0415

    tree, namespace = script.tree, script.namespace
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
        built, certain = _repeat(site, script, tried)
        if built is not None and any(True for _ in built.model.parameters()):
            return built
        if tried and tried[-1].startswith(REFUSALS):
            # The script's own words: no other way of building it would be the trial's.
            raise ProbeError(_cannot(tried), refused=certain)
    roots = _roots(tree, kinds)
    for name in sorted(roots, key=lambda one: (not one.startswith(MODEL_NAMES), one))[:3]:
        built = _by_name(name, kinds[name], script, tried)
        if built is not None and any(True for _ in built.model.parameters()):
            return built
    refused = any(one.startswith(REFUSALS) for one in tried)
    raise ProbeError(_cannot(tried), refused=refused)


def _cannot(tried: list[str]) -> str:
    return "its model cannot be built: " + "; ".join(tried or ["no call of it found"])


def _in_module(site: CallSite, kinds: Mapping[str, Any]) -> bool:
    """Whether a call is one part of a model making another."""
    return site.owner is not None and site.owner.name in kinds


def _rank(site: CallSite) -> tuple[bool, bool, bool, int]:
    return (
        is_second_copy(site),
        not site.callee.startswith(MODEL_NAMES) and not site.callee.endswith(MODEL_NAMES),
        not site.target.endswith("model"),
        site.call.lineno,
    )


def _roots(tree: ast.Module, kinds: Mapping[str, Any]) -> list[str]:
    """Module classes that no other module class makes."""
    inner = {site.callee for site in call_sites(tree, kinds) if _in_module(site, kinds)}
    return [name for name in kinds if name not in inner]


def _repeat(site: CallSite, script: Script, tried: list[str]) -> tuple[Built | None, bool]:
    """The model of one call, and whether its arguments are surely those of the script."""
    how = f"line {site.call.lineno}: {ast.unparse(site.call)}"[:300]
    script.settings.nodes.append(site.call)
    frame = frame_of(site, loaded(site.call) - {site.callee}, script, {})
    model = _on_meta(lambda: evaluate(site.call, frame.scope), tried, how)
    if model is None:
        return None, not frame.guessed
    device = next((tensor.device for tensor in model.parameters()), None)
    with _meta_but_for_ranges() if device and device.type == "meta" else nullcontext():
        failed = later_changes(site, frame, model, script)
    built = Built(
        model=model,
        how=how,
        notes=[*frame.notes, *frame.guessed, *failed],
        uncertain=bool(frame.guessed or failed),
    )
    return built, not frame.guessed


def _by_name(name: str, kind: Any, script: Script, tried: list[str]) -> Built | None:
    """Build a model from hyperparameters of the same names as its constructor's arguments."""
    settings = script.settings
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
    return None if model is None else Built(model=model, how=how, notes=notes)


def _on_meta(make: Any, tried: list[str], how: str) -> Any:
    """The model on the meta device; on the CPU if its constructor computes with values."""
    import torch  # noqa: PLC0415

    devices = (_meta_but_for_ranges(), torch.device("meta"), torch.device("cpu"))
    for device in devices:
        try:
            with device, torch.no_grad():
                model = make()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - all that others' code raises
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

"""What a script's own quantizer makes of weights, found by pushing Gaussians through it.

Runs inside the probe's helper process. A quantizer is recognised by name and shape: a function of
the module whose first argument is a state dict, that the script calls, and that returns integers.
For each shape and role one tensor is drawn at several standard deviations; the bytes of the
integers that come back (by a quick codec, else their entropy), and how they move with sigma, are
the regime: a scale that follows the weights gives a flat curve, a fixed one a bit an octave.
"""

from __future__ import annotations

import ast
import inspect
import lzma
import math
import re
import time
import zlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from pgolf_sweep.script.probe.call_sites import CallSite, call_sites
from pgolf_sweep.script.probe.codecs import codec_of
from pgolf_sweep.script.probe.frames import Script, frame_of
from pgolf_sweep.script.probe.hyperparameters import SETTINGS_ARGUMENTS, Settings
from pgolf_sweep.script.probe.size_curves import FIRST_SIGMAS, SIGMAS, Curves, flat, sampled
from pgolf_sweep.script.probe.slicing import evaluate, loaded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pgolf_sweep.script.probe.size_curves import Measure

NAME = re.compile(r"quantize", re.IGNORECASE)
NOT_A_QUANTIZER = re.compile(r"dequant|fake|_ste|tensor|weight|per_row|row$|unquant", re.IGNORECASE)
FEW = 2048
"""Numbers below which a codec's tables would weigh more than in the whole container."""
SECONDS = 30.0
FLOAT_SHARE = {8: 0.95, 4: 0.92, 2: 0.88, 1: 0.95}
"""What codecs leave of floating-point numbers, by their bytes."""
HESSIAN_NAMES = re.compile(r"hess", re.IGNORECASE)
MODEL_GIVEN = ("base_model", "model", "raw_model", "export_model", "eval_model")


class _Hessians(dict[str, Any]):
    """Identity matrices for any tensor that a GPTQ asks for: its rounding is then the plain one."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        self._shapes = shapes

    def __contains__(self, name: object) -> bool:
        return name in self._shapes

    def __missing__(self, name: str) -> Any:
        import torch  # noqa: PLC0415

        return torch.eye(self._shapes[name][-1])

    def get(self, name: str, default: Any = None) -> Any:
        """An identity of the right size."""
        return self[name] if name in self._shapes else default


def measure(
    script: Script,
    model: Any,
    known: Mapping[tuple[str, tuple[int, ...]], dict[str, Any]],
    told: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The script's quantizer and codec, and what they make of each class of tensors.

    Args:
        script: The script.
        model: Its model, on any device.
        known: Classes that another probe measured under the same knobs of the quantizer.
        told: Its ``curves``.

    Returns:
        ``quantizer``, ``codec``, ``classes``, ``curves`` and ``notes`` for the probe's answer.
    """
    sites = list(_candidates(script.namespace, script.tree))
    codec, notes = codec_of(script, {site.callee for site in sites})
    tried: list[str] = []
    for site in sites:
        try:
            prepared = _prepare(site, script, model)
            curves = Curves(told)
            classes = _classes(prepared, known, curves, codec)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - all that others' code raises
            tried.append(f"{site.callee}: {type(error).__name__}: {error}"[:200])
            continue
        if classes:
            if all(one["kept"] for one in classes):
                notes.append(f"{site.callee} keeps every tensor of this model as it is")
            return {
                "quantizer": site.callee,
                "codec": codec,
                "classes": classes,
                "curves": curves.told(),
                "notes": notes,
            }
        tried.append(f"{site.callee} returns no tensors")
    why = "; ".join(tried) or "no function of a state dict that it calls is named so"
    return {"quantizer": "", "codec": codec, "notes": [*notes, f"no quantizer recognised: {why}"]}


def _candidates(namespace: Mapping[str, Any], tree: ast.Module) -> Iterator[CallSite]:
    names = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and NAME.search(node.name)
        and not NOT_A_QUANTIZER.search(node.name)
        and callable(namespace.get(node.name))
    ]
    sites = [site for site in call_sites(tree, names) if site.call.args]
    # The last quantizer that a script defines is the one that it grew into.
    seen: set[str] = set()
    for site in sorted(sites, key=lambda one: (-names.index(one.callee), one.call.lineno)):
        if site.callee not in seen:
            seen.add(site.callee)
            yield site


class _Prepared:
    """A quantizer with its arguments, ready for state dicts of one's own."""

    def __init__(
        self,
        function: Any,
        state: Mapping[str, Any],
        shapes: dict[str, tuple[int, ...]],
        rest: list[Any],
        keywords: dict[str, Any],
    ) -> None:
        self.function = function
        self.shapes = shapes
        self.state = state
        self.rest = rest
        self.keywords = keywords

    def __call__(self, tensors: dict[str, Any]) -> Any:
        return self.function(tensors, *self.rest, **self.keywords)


def _prepare(site: CallSite, script: Script, model: Any) -> _Prepared:
    """Evaluate a quantizer call's arguments, with a state dict that takes no memory."""
    import torch  # noqa: PLC0415

    real = _without_memory(model)
    shapes: dict[str, tuple[int, ...]] = {}
    hessians = _Hessians(shapes)
    given: dict[str, Any] = dict.fromkeys(MODEL_GIVEN, real)
    function, settings = script.namespace[site.callee], script.settings
    parameters = list(inspect.signature(function).parameters.values())
    names = set().union(*(loaded(argument) for argument in _arguments(site)))
    given |= {name: hessians for name in names if HESSIAN_NAMES.search(name) or name == "H"}
    given["device"] = torch.device("cpu")
    settings.nodes.append(site.call)
    before, read = set(settings.seen), settings.seen
    read.clear()
    scope = frame_of(site, names, script, given, settable=True).scope
    settings.on_the_way |= read
    read.clear()
    read |= before
    first = site.call.args[0]
    try:
        state = evaluate(first, scope)
    except Exception:  # noqa: BLE001 - then the plain state dict has to do
        state = real.state_dict()
    if not isinstance(state, dict) or not state:
        state = real.state_dict()
    shapes |= {name: tuple(t.shape) for name, t in state.items() if torch.is_tensor(t)}
    rest = [
        _argument(node, parameter, scope, settings, hessians)
        for node, parameter in zip(site.call.args[1:], parameters[1:], strict=False)
    ]
    keywords = {
        keyword.arg: _argument(keyword.value, None, scope, settings, hessians)
        for keyword in site.call.keywords
        if keyword.arg
    }
    return _Prepared(function, state, shapes, rest, keywords)


def _without_memory(model: Any) -> Any:
    """A model on the CPU, of values that nobody has written yet."""
    import torch  # noqa: PLC0415

    def empty(tensor: Any) -> Any:
        if tensor.device.type != "meta":
            return torch.empty_like(tensor, device="cpu")
        # A tenth of `empty_like`, which asks Python for the strides of a meta tensor.
        sizes, strides = tensor.size(), tensor.stride()
        return torch.empty_strided(sizes, strides, dtype=tensor.dtype, device="cpu")

    return model._apply(empty)  # noqa: SLF001 - what `to_empty` calls, too


def _arguments(site: CallSite) -> list[ast.expr]:
    return [*site.call.args, *(keyword.value for keyword in site.call.keywords)]


def _argument(
    node: ast.expr,
    parameter: inspect.Parameter | None,
    scope: dict[str, Any],
    settings: Settings,
    hessians: _Hessians,
) -> Any:
    try:
        return evaluate(node, scope)
    except Exception:
        name = "" if parameter is None else parameter.name
        if HESSIAN_NAMES.search(name):
            return hessians
        if name.lower() in SETTINGS_ARGUMENTS:
            return settings.value
        if parameter is not None and parameter.default is not inspect.Parameter.empty:
            return parameter.default
        raise


def _classes(
    quantizer: _Prepared,
    known: Mapping[tuple[str, tuple[int, ...]], dict[str, Any]],
    curves: Curves,
    codec: str,
) -> list[dict[str, Any]]:
    """Every class of tensors with the bytes that the quantizer makes of one, by sigma."""
    import torch  # noqa: PLC0415

    members: dict[tuple[str, tuple[int, ...]], list[str]] = defaultdict(list)
    for name, tensor in quantizer.state.items():
        if torch.is_tensor(tensor) and tensor.is_floating_point() and tensor.numel():
            role = re.sub(r"\d+", "*", name)
            members[role, tuple(tensor.shape)].append(name)
    deadline = time.monotonic() + SECONDS
    classes = []
    for (role, shape), names in members.items():
        if (role, shape) in known:
            classes.append(known[role, shape] | {"count": len(names)})
            continue
        measure = _measure_of(quantizer, names[len(names) // 2], codec)
        curve = curves.of(role, shape, measure) if len(shape) == 2 else None
        if curve is None:
            sizes, levels = _by_itself(shape, measure)
        else:
            levels, numbers = curve.levels, math.prod(shape)
            sizes = {sigma: numbers * size for sigma, size in curve.per_number.items()}
        classes.append({
            "name": role,
            "shape": shape,
            "count": len(names),
            "kept": not levels,
            "levels": levels,
            "bytes": sorted(sizes.items()),
        })  # fmt: skip
        if time.monotonic() > deadline:
            raise TimeoutError(f"it takes longer than {SECONDS:g} s")
    return classes if any(size for one in classes for _, size in one["bytes"]) else []


def _by_itself(shape: tuple[int, ...], measure: Measure) -> tuple[dict[float, float], int]:
    """Bytes by sigma and levels of a tensor that is no matrix, or a small one."""
    points = {sigma: measure(sampled(shape), sigma) for sigma in FIRST_SIGMAS}
    sizes = {sigma: size for sigma, (size, _, _) in points.items()}
    levels = points[FIRST_SIGMAS[-1]][2]
    if levels and not flat(sizes):
        for sigma in SIGMAS:
            if sigma not in sizes:
                sizes[sigma], _, levels = measure(sampled(shape), sigma)
    return sizes, levels


def _measure_of(quantizer: _Prepared, name: str, codec: str) -> Measure:
    """How the quantizer is asked about one tensor; the same Gaussians for the same shape."""
    import torch  # noqa: PLC0415

    dtype = quantizer.state[name].dtype
    drawn: dict[tuple[int, ...], Any] = {}

    def measure(shape: tuple[int, ...], sigma: float) -> tuple[float, bool, int]:
        if shape not in drawn:
            generator = torch.Generator().manual_seed(math.prod(shape))
            drawn[shape] = torch.randn(shape, generator=generator).to(dtype)
        quantizer.shapes[name] = shape
        return _one(quantizer, name, drawn[shape] * sigma, codec)

    return measure


def _one(quantizer: _Prepared, name: str, tensor: Any, codec: str) -> tuple[float, bool, int]:
    """Bytes of one tensor after the quantizer; whether it was kept, and its levels."""
    import torch  # noqa: PLC0415

    with torch.no_grad():
        result = quantizer({name: tensor})
    size, levels = 0.0, 0
    for stored in {id(t): t for t in _tensors(result)}.values():
        if stored.is_floating_point():
            width = stored.element_size()
            size += _packed(stored, codec) or stored.numel() * width * FLOAT_SHARE.get(width, 1.0)
        elif stored.numel():
            bits, found = _entropy(stored)
            size += _packed(stored, codec) or stored.numel() * bits / 8
            levels = max(levels, found)
    kept = not levels
    return size, kept, levels


def _entropy(stored: Any) -> tuple[float, int]:
    """Bits of one integer by the shares of their values, corrected for the sample's size."""
    values = stored.reshape(-1).long()
    counts = (values - values.min()).bincount()
    counts = counts[counts > 0].double()
    shares = counts / counts.sum()
    bits = float(-(shares * shares.log2()).sum())
    levels = len(counts)
    return bits + (levels - 1) / (2 * math.log(2) * values.numel()), levels


def _packed(stored: Any, codec: str) -> int:
    """Bytes after a codec that is quick; 0 for others, whose excess is known, and for a few.

    Plain zlib looks for matches that are not there: on 6-bit codes it costs a tenth.
    """
    import torch  # noqa: PLC0415

    if codec not in {"zlib", "zstd", "lzma"} or stored.numel() < FEW:
        return 0
    data = stored.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    if codec == "zlib":
        return len(zlib.compress(data, 9))
    if codec == "lzma":
        return len(lzma.compress(data, preset=6))
    import zstandard  # noqa: PLC0415

    return len(zstandard.ZstdCompressor(level=19).compress(data))


def _tensors(value: Any, depth: int = 0) -> Iterator[Any]:
    """Every tensor that a quantizer's result holds."""
    import torch  # noqa: PLC0415

    if torch.is_tensor(value):
        yield value
    elif depth < 6 and isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item, depth + 1)
    elif depth < 6 and isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item, depth + 1)
    elif isinstance(value, bytes | bytearray):
        yield torch.frombuffer(bytearray(value), dtype=torch.uint8) if value else torch.empty(0)

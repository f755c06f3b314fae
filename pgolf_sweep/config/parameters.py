"""The ``parameters:`` block of a sweep file, as W&B defines it, to a `Space`.

Source of the distributions and their defaults: the schema and the documentation of W&B sweeps
(https://docs.wandb.ai/guides/sweeps/sweep-config-keys). Departures, all in the user's favour:
quantized values never leave [min, max], bounds may be equal, a ``when`` key makes a parameter
conditional.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, Literal

from pgolf_sweep.config.models import ParameterBlock
from pgolf_sweep.config.validation import read_block
from pgolf_sweep.config.yaml_lines import is_text_to_wandb, shown
from pgolf_sweep.space.domains import (
    Choices,
    Constant,
    Domain,
    Multiples,
    Number,
    Parameter,
    Quantile,
    Range,
    WeightedChoices,
    value_key,
)
from pgolf_sweep.space.space import Space

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pgolf_sweep.config.yaml_lines import Document, KeyPath
    from pgolf_sweep.core.trial import KnobValue

_BOUNDS = ("min", "max")
KEYS_BY_DISTRIBUTION = {
    "constant": ("value",),
    "categorical": ("values", "probabilities"),
    "categorical_w_probabilities": ("values", "probabilities"),
    "int_uniform": _BOUNDS,
    "uniform": _BOUNDS,
    "q_uniform": (*_BOUNDS, "q"),
    "log_uniform": _BOUNDS,
    "log_uniform_values": _BOUNDS,
    "q_log_uniform": (*_BOUNDS, "q"),
    "q_log_uniform_values": (*_BOUNDS, "q"),
    "inv_log_uniform": _BOUNDS,
    "inv_log_uniform_values": _BOUNDS,
    "normal": ("mu", "sigma"),
    "q_normal": ("mu", "sigma", "q"),
    "log_normal": ("mu", "sigma"),
    "q_log_normal": ("mu", "sigma", "q"),
    "beta": ("a", "b"),
    "q_beta": ("a", "b", "q"),
}
_SHAPE_KEYS = tuple(dict.fromkeys(key for keys in KEYS_BY_DISTRIBUTION.values() for key in keys))
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


MOST_TEXT_BYTES = 4096
"""Of a knob; the kernel takes no variable of 128 KiB and more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One parameter's mapping in the file.

    Attributes:
        path: Its names, nested ones after those around them.
        raw: Its keys as they stand there.
        block: The same, read; keys with mistakes are absent.
    """

    document: Document
    where: KeyPath
    path: tuple[str, ...]
    raw: Mapping[str, Any]
    block: ParameterBlock

    def problem(self, key: str, message: str, *more: int) -> None:
        """Note a mistake at a key, or at the parameter itself: ``""``."""
        self.document.problem((*self.where, *([key] if key else []), *more), message)

    def positive(self, key: str, *, least: bool = False) -> Number | None:
        """A number above 0, or at least 0; None if absent or wrong."""
        value: Number | None = getattr(self.block, key)
        if value is not None and not (value >= 0 if least else value > 0):
            self.problem(key, f"must be {'at least' if least else 'above'} 0, not {value:g}")
            return None
        return value


def read_space(
    document: Document,
    where: KeyPath,
    block: object,
    *,
    require: Sequence[str] = (),
    one_at_a_time: bool = False,
) -> Space:
    """The search space of a sweep file; mistakes are noted on the document.

    A parameter with a mistake is left out, so the space is of use only where no problem was noted.
    """
    entries = list(_entries(document, where, (), block))
    read: dict[str, Parameter | None] = {}
    for name, entry in entries:
        if name in read:
            document.problem(
                where if entry is None else entry.where, f"{name} is a parameter already"
            )
        read[name] = None if entry is None else _read_parameter(name, entry)
    parameters = {name: p for name, p in read.items() if p is not None}
    for parameter in parameters.values():
        _check_conditions(document, parameter, read)
    graph = {name: set(p.when) & set(parameters) for name, p in parameters.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = error.args[1]
        path = (*parameters[circle[0]].keys, "when")
        document.problem(path, f"conditions in a circle: {' -> '.join(circle)}")
        return Space((replace(p, when={}) for p in parameters.values()), require)
    return Space(parameters.values(), require, one_at_a_time=one_at_a_time)


def _entries(
    document: Document, where: KeyPath, around: tuple[str, ...], block: object
) -> Iterator[tuple[str, _Entry | None]]:
    """Every parameter with its dotted name, nested ones too; None for one that is no mapping."""
    if not isinstance(block, dict):
        if block is not None:
            document.problem(where, f"must be a mapping of keys, not {shown(block)}")
        return
    for key, value in block.items():
        path, place = (*around, key), (*where, key)
        name = ".".join(path)
        if not _NAME.fullmatch(key):
            document.problem(
                place, "a name has letters, digits, _ . and -, and begins with a letter or _"
            )
        if not isinstance(value, dict):
            fix = f"{{values: {value}}}" if isinstance(value, list) else f"{{value: {value}}}"
            document.problem(place, f"must be a mapping; for {value!r} write {fix}")
            yield name, None
        elif "parameters" in value:
            others = [other for other in value if other != "parameters"]
            if others:
                document.problem(
                    (*place, others[0]), "contradiction: a parameter with parameters has no more"
                )
            if not value["parameters"]:
                document.problem((*place, "parameters"), "missing: name at least one parameter")
            yield from _entries(document, (*place, "parameters"), path, value["parameters"])
        else:
            noted = len(document.problems)
            read = read_block(ParameterBlock, value, document, place)
            entry = _Entry(document=document, where=place, path=path, raw=value, block=read)
            sound = len(document.problems) == noted
            if not sound:
                _note_more(entry)
            yield name, entry if sound else None


def _note_more(entry: _Entry) -> None:
    """Note what else is wrong with a parameter that has mistakes; there is nothing to search."""
    wrong = {p.path for p in entry.document.problems}
    dotted = ".".join(str(part) for part in entry.where)
    sound = {key: v for key, v in entry.raw.items() if f"{dotted}.{key}" not in wrong}
    if "distribution" in entry.raw and "distribution" not in sound:
        return
    distribution = sound.get("distribution")
    if distribution is not None:
        _refuse_foreign_keys(entry, distribution)
    if sound.get("q") is not None:
        entry.positive("q")


def _read_parameter(name: str, entry: _Entry) -> Parameter | None:
    noted = len(entry.document.problems)
    distribution = _distribution(entry)
    domain = _domain(entry, distribution) if distribution else None
    when = _read_when(entry)
    if distribution:
        _refuse_foreign_keys(entry, distribution)
    if domain is None or distribution is None or len(entry.document.problems) > noted:
        return None
    if not all(_can_be_set(value) for value in domain.examples()):
        entry.problem(
            "",
            f"a text must be without NUL, and at most {MOST_TEXT_BYTES:,} bytes: see execve(2)",
        )
        return None
    return Parameter(
        name=name,
        distribution=distribution,
        domain=domain,
        when=when,
        path=entry.path if len(entry.path) > 1 else (),
        spelled=_spelled(entry),
    )


def _spelled(entry: _Entry) -> dict[str, str]:
    """Text of the values that W&B takes for text and this reader for numbers, as ``1e3``."""
    values = entry.raw.get("values")
    places = [(("values", i), v) for i, v in enumerate(values)] if isinstance(values, list) else []
    written = {
        value_key(value): entry.document.spelled.get((*entry.where, *place), "")
        for place, value in [*places, (("value",), entry.raw.get("value"))]
        if isinstance(value, float)
    }
    return {key: text for key, text in written.items() if text and is_text_to_wandb(text)}


def _can_be_set(value: KnobValue) -> bool:
    """Whether an environment variable or a flag can hold a value's text."""
    if not isinstance(value, str | list | dict):
        return True
    text = str(value)
    held = value if isinstance(value, str) else json.dumps(value)
    nul = "\0" in text or "\\u0000" in held
    return not nul and len(text.encode(errors="surrogatepass")) <= MOST_TEXT_BYTES


def _distribution(entry: _Entry) -> str | None:
    """The distribution named, or the one that W&B infers from the keys."""
    if entry.block.distribution is not None:
        return entry.block.distribution
    raw = entry.raw
    kinds = [key for key in ("value", "values") if key in raw]
    if any(key in raw for key in _BOUNDS):
        kinds.append("min/max")
    if len(kinds) > 1:
        entry.problem("", f"contradiction: {' and '.join(kinds)} in one parameter; keep one")
        return None
    if not kinds:
        shapes = [key for key in ("mu", "sigma", "a", "b", "q") if key in raw]
        needs = f" {', '.join(shapes)} need a distribution." if shapes else ""
        entry.problem("", f"nothing to choose from: give value, values, or min and max.{needs}")
        return None
    if kinds == ["value"]:
        return "constant"
    if kinds == ["values"]:
        return "categorical_w_probabilities" if "probabilities" in raw else "categorical"
    whole = all(isinstance(raw[key], int) for key in _BOUNDS if key in raw)
    if "q" in raw:
        entry.problem("q", "needs a distribution: q_uniform or q_log_uniform_values")
        return "q_uniform"
    return "int_uniform" if whole else "uniform"


def _refuse_foreign_keys(entry: _Entry, distribution: str) -> None:
    own = KEYS_BY_DISTRIBUTION.get(distribution, ())
    for key in _SHAPE_KEYS:
        if key in entry.raw and key not in own:
            entry.problem(key, f"does not belong to {distribution}, which takes {', '.join(own)}")


def _domain(entry: _Entry, distribution: str) -> Domain | None:
    """The domain, or None where a mistake was noted."""
    keys = KEYS_BY_DISTRIBUTION[distribution]
    block = entry.block
    if distribution == "constant":
        if "value" not in entry.raw:
            entry.problem("value", "missing")
            return None
        return Constant(block.value) if _is_value(entry, block.value, "value") else None
    if "values" in keys:
        return _choices(entry, weighted=distribution == "categorical_w_probabilities")
    q = (entry.positive("q") or 1) if "q" in keys else None
    if keys[:2] == _BOUNDS:
        bounds = _bounds(entry, distribution)
        return None if bounds is None else _bounded(entry, distribution, bounds, q)
    if "mu" in keys:
        return _bell(entry, distribution, q)
    shape = (float(entry.positive("a") or 1), float(entry.positive("b") or 1))
    return Quantile(kind="beta", shape=shape, q=q)


def _bell(entry: _Entry, distribution: str, q: Number | None) -> Domain:
    """A normal or log-normal; without any spread, as W&B allows it, a constant."""
    mu = float(entry.block.mu or 0)
    sigma = entry.positive("sigma", least=True)
    kind: Literal["normal", "log_normal"] = "normal"
    if distribution.endswith("log_normal"):
        kind = "log_normal"
    if sigma == 0:
        value = math.exp(mu) if kind == "log_normal" else mu
        return Constant(value if q is None else Multiples(0, 0, q).value(round(value / q)))
    return Quantile(kind=kind, shape=(mu, float(1 if sigma is None else sigma)), q=q)


def _bounds(entry: _Entry, distribution: str) -> tuple[Number, Number] | None:
    for key in _BOUNDS:
        if entry.raw.get(key) is None:
            entry.problem(key, f"missing; {distribution} needs min and max")
        elif distribution == "int_uniform" and not isinstance(entry.raw[key], int):
            entry.problem(key, f"must be a whole number, not {shown(entry.raw[key])}")
    low, high = entry.block.min, entry.block.max
    if distribution.endswith("log_uniform_values"):
        low, high = entry.positive("min"), entry.positive("max")
    if low is None or high is None:
        return None
    if low > high:
        entry.problem("min", f"min {low} is greater than max {high}")
        return None
    return low, high


def _bounded(
    entry: _Entry, distribution: str, bounds: tuple[Number, Number], q: Number | None
) -> Domain | None:
    low, high = bounds
    if distribution.endswith("log_uniform"):  # W&B: the bounds are natural exponents
        low, high = (-high, -low) if distribution.startswith("inv") else (low, high)
        try:
            low, high = math.exp(low), math.exp(high)
        except OverflowError:
            low = 0.0
        if low == 0.0:
            entry.problem(
                "max", f"{distribution} takes exponents of e; for values use {distribution}_values"
            )
            return None
    log = "log" in distribution
    if distribution == "int_uniform":
        return Multiples(int(low), int(high))
    if q is None:
        return Range(float(low), float(high), log=log)
    # A hair of slack, so that 0.3 / 0.1 = 2.9999999999999996 counts as three steps.
    first, last = math.ceil(low / q - 1e-9), math.floor(high / q + 1e-9)
    if log:
        first = max(first, 1)
    if first > last:
        entry.problem("q", f"no multiple of {q} lies between {low:g} and {high:g}")
        return None
    return Multiples(first, last, q, log=log)


def _choices(entry: _Entry, *, weighted: bool) -> Domain | None:
    values = entry.raw.get("values")
    if not isinstance(values, list) or not values:
        entry.problem("values", "must be a list with at least one value")
        return None
    readable = [_is_value(entry, value, "values", index) for index, value in enumerate(values)]
    if not all(readable):
        return None
    shares = entry.raw.get("probabilities")
    if not weighted and shares is None:
        shares = [1 / len(values)] * len(values)
    numbers = isinstance(shares, list) and all(
        isinstance(p, int | float) and not isinstance(p, bool) and p >= 0 for p in shares
    )
    if not isinstance(shares, list) or not numbers:
        entry.problem("probabilities", "must be a list of numbers, none negative")
    elif len(shares) != len(values):
        entry.problem("probabilities", f"{len(shares)} of them for {len(values)} values")
    elif not math.isclose(sum(shares), 1, abs_tol=1e-6):
        entry.problem("probabilities", f"must sum to 1, not {sum(shares):g}")
    else:
        return _chosen(values, shares)
    return None


def _chosen(values: Sequence[KnobValue], shares: Sequence[float]) -> Domain:
    """A choice among distinct values; one that stands twice has both shares."""
    by_key: dict[str, KnobValue] = {}
    weight: Counter[str] = Counter()
    for value, share in zip(values, shares, strict=True):
        if share > 0:
            by_key.setdefault(value_key(value), value)
            weight[value_key(value)] += share  # type: ignore[assignment]
    options = tuple(by_key.values())
    if len(options) == 1:
        return Constant(options[0])
    weights = tuple(float(weight[key]) for key in by_key)
    if max(weights) - min(weights) < 1e-9:
        return Choices(options)
    return WeightedChoices(options, weights)


def _is_value(entry: _Entry, value: object, *keys: str | int) -> bool:
    """Whether a value can be given to a program; a problem is noted if not."""
    if isinstance(value, list | dict):
        items = value.values() if isinstance(value, dict) else value
        return all(_is_value(entry, item, *keys) for item in items)
    finite = isinstance(value, float) and math.isfinite(value)
    if value is None or isinstance(value, str | bool | int) or finite:
        return True
    entry.document.problem(
        (*entry.where, *keys), f"must be a number, true, false or text, not {value!r}; quote text"
    )
    return False


def _read_when(entry: _Entry) -> dict[str, tuple[KnobValue, ...]]:
    if "when" in entry.raw and not entry.block.when:
        entry.problem("when", "must name a parameter and its values: {LR_SCHEDULE: cosine}")
    return {
        name: tuple(values) if isinstance(values, list) else (values,)
        for name, values in (entry.block.when or {}).items()
    }


def _check_conditions(
    document: Document, parameter: Parameter, read: Mapping[str, Parameter | None]
) -> None:
    for other, values in parameter.when.items():
        path = (*parameter.keys, "when", other)
        if other not in read:
            document.problem(path, f"{other} is not a parameter of this sweep")
            continue
        parent = read[other]
        if parent is None:  # has mistakes of its own
            continue
        if parent.domain.count() is None:
            document.problem(
                path, f"{other} is continuous ({parent.domain.describe()}); name one with values"
            )
            continue
        if not values:
            document.problem(path, "an empty list can never hold")
        for value in values:
            try:
                parent.domain.encode(value)
            except (ValueError, TypeError):
                document.problem(
                    path, f"{other} is never {value!r}; it is {parent.domain.describe()}"
                )

"""The ``parameters:`` block of a sweep file, as W&B defines it, to a `Space`.

Source of the distributions and their defaults: the schema and the documentation of W&B sweeps
(https://docs.wandb.ai/guides/sweeps/sweep-config-keys). Two departures, both in our favour:
quantized values never leave [min, max], and a ``when`` key makes a parameter conditional.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, Literal

from pgolf_sweep.config.yaml_lines import Section
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
)
from pgolf_sweep.space.space import Space

if TYPE_CHECKING:
    from collections.abc import Sequence

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
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


MOST_TEXT_BYTES = 4096
"""Of a knob; the kernel takes no variable of 128 KiB and more."""


def read_space(block: Section, *, require: Sequence[str] = ()) -> Space:
    """The search space of a sweep file; mistakes are noted on the section's document.

    A parameter with a mistake is left out, so the space is of use only where no problem was noted.
    """
    read = {name: _read_parameter(block, name) for name in block}
    parameters = {name: p for name, p in read.items() if p is not None}
    for parameter in parameters.values():
        _check_conditions(block, parameter, read)
    graph = {name: set(p.when) & set(parameters) for name, p in parameters.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = error.args[1]
        path = (*block.path, circle[0], "when")
        block.document.problem(path, f"conditions in a circle: {' -> '.join(circle)}")
        return Space((replace(p, when={}) for p in parameters.values()), require)
    return Space(parameters.values(), require)


def _read_parameter(block: Section, name: str) -> Parameter | None:
    value = block.raw(name)
    noted = len(block.document.problems)
    if not _ENVIRONMENT_NAME.fullmatch(name):
        block.problem(name, "not the name of an environment variable")
    if not isinstance(value, dict):
        fix = f"{{values: {value}}}" if isinstance(value, list) else f"{{value: {value}}}"
        block.problem(name, f"must be a mapping; for {value!r} write {fix}")
        return None
    if "parameters" in value:
        block.problem(
            name,
            "nested parameters are not offered: knobs are environment variables, which are flat",
        )
        return None
    section = Section(block.document, (*block.path, name), value)
    distribution = _distribution(section)
    domain = _domain(section, distribution) if distribution else None
    when = _read_when(section)
    if distribution:
        _refuse_foreign_keys(section, distribution)
        section.close()
    if domain is None or distribution is None or len(block.document.problems) > noted:
        return None
    if any(isinstance(v, str) and not _can_be_set(v) for v in domain.examples()):
        block.problem(
            name,
            f"a text must be without NUL, and at most {MOST_TEXT_BYTES:,} bytes: see execve(2)",
        )
        return None
    return Parameter(name=name, distribution=distribution, domain=domain, when=when)


def _can_be_set(text: str) -> bool:
    """Whether an environment variable can hold a text."""
    return "\0" not in text and len(text.encode(errors="surrogatepass")) <= MOST_TEXT_BYTES


def _distribution(section: Section) -> str | None:
    """The distribution named, or the one that W&B infers from the keys."""
    if "distribution" in section:
        return section.choice("distribution", tuple(KEYS_BY_DISTRIBUTION))
    kinds = [key for key in ("value", "values") if key in section]
    if any(key in section for key in _BOUNDS):
        kinds.append("min/max")
    if len(kinds) > 1:
        section.problem("", f"contradiction: {' and '.join(kinds)} in one parameter; keep one")
        return None
    if not kinds:
        shapes = [key for key in ("mu", "sigma", "a", "b", "q") if key in section]
        needs = f" {', '.join(shapes)} need a distribution." if shapes else ""
        section.problem("", f"nothing to choose from: give value, values, or min and max.{needs}")
        return None
    if kinds == ["value"]:
        return "constant"
    if kinds == ["values"]:
        return "categorical_w_probabilities" if "probabilities" in section else "categorical"
    whole = all(isinstance(section.raw(key), int) for key in _BOUNDS if key in section)
    if "q" in section:
        section.problem("q", "needs a distribution: q_uniform or q_log_uniform_values")
        return "q_uniform"
    return "int_uniform" if whole else "uniform"


def _refuse_foreign_keys(section: Section, distribution: str) -> None:
    own = KEYS_BY_DISTRIBUTION[distribution]
    for key in _SHAPE_KEYS:
        if key in section and key not in own:
            section.raw(key)  # known, so that it is not reported again as unknown
            section.problem(key, f"does not belong to {distribution}, which takes {', '.join(own)}")


def _domain(section: Section, distribution: str) -> Domain | None:
    """The domain, or None where a mistake was noted."""
    keys = KEYS_BY_DISTRIBUTION[distribution]
    if distribution == "constant":
        if "value" not in section:
            section.problem("value", "missing")
            return None
        return Constant(section.raw("value")) if _is_knob(section, "value") else None
    if "values" in keys:
        return _choices(section, weighted=distribution == "categorical_w_probabilities")
    q = _step(section) if "q" in keys else None
    if keys[:2] == _BOUNDS:
        bounds = _bounds(section, distribution)
        return None if bounds is None else _bounded(section, distribution, bounds, q)
    if "mu" in keys:
        shape = (float(section.number("mu") or 0), float(section.number("sigma", above=0) or 1))
        kind: Literal["normal", "log_normal"] = "normal"
        if distribution.endswith("log_normal"):
            kind = "log_normal"
        return Quantile(kind=kind, shape=shape, q=q)
    shape = (float(section.number("a", above=0) or 1), float(section.number("b", above=0) or 1))
    return Quantile(kind="beta", shape=shape, q=q)


def _step(section: Section) -> Number:
    return section.number("q", above=0) or 1


def _bounds(section: Section, distribution: str) -> tuple[Number, Number] | None:
    missing = [key for key in _BOUNDS if section.raw(key) is None]
    for key in missing:
        section.problem(key, f"missing; {distribution} needs min and max")
    above = 0 if distribution.endswith("log_uniform_values") else -math.inf
    low: Number | None
    high: Number | None
    if distribution == "int_uniform":
        low, high = (section.integer(key, least=-(2**62)) for key in _BOUNDS)
    else:
        low, high = (section.number(key, above=above) for key in _BOUNDS)
    if low is None or high is None:
        return None
    if low > high:
        section.problem("min", f"min {low} is greater than max {high}")
        return None
    return low, high


def _bounded(
    section: Section, distribution: str, bounds: tuple[Number, Number], q: Number | None
) -> Domain | None:
    low, high = bounds
    if distribution.endswith("log_uniform"):  # W&B: the bounds are natural exponents
        low, high = (-high, -low) if distribution.startswith("inv") else (low, high)
        try:
            low, high = math.exp(low), math.exp(high)
        except OverflowError:
            low = 0.0
        if low == 0.0:
            section.problem(
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
        section.problem("q", f"no multiple of {q} lies between {low:g} and {high:g}")
        return None
    return Multiples(first, last, q, log=log)


def _choices(section: Section, *, weighted: bool) -> Domain | None:
    values = section.raw("values")
    if not isinstance(values, list) or not values:
        section.problem("values", "must be a list with at least one value")
        return None
    readable = [_is_knob(section, "values", index) for index in range(len(values))]
    if not all(readable):
        return None
    repeated = [value for index, value in enumerate(values) if value in values[:index]]
    if repeated:
        section.problem("values", f"{repeated[0]!r} is in the list twice")
        return None
    if not weighted and "probabilities" not in section:
        return Choices(tuple(values))
    shares = section.raw("probabilities")
    numbers = isinstance(shares, list) and all(
        isinstance(p, int | float) and not isinstance(p, bool) and p >= 0 for p in shares
    )
    if not numbers:
        section.problem("probabilities", "must be a list of numbers, none negative")
    elif len(shares) != len(values):
        section.problem("probabilities", f"{len(shares)} of them for {len(values)} values")
    elif not math.isclose(sum(shares), 1, abs_tol=1e-6):
        section.problem("probabilities", f"must sum to 1, not {sum(shares):g}")
    else:
        possible = [(value, p) for value, p in zip(values, shares, strict=True) if p > 0]
        return WeightedChoices(tuple(v for v, _ in possible), tuple(p for _, p in possible))
    return None


def _is_knob(section: Section, *keys: str | int) -> bool:
    """Whether a value can be put into an environment variable; a problem is noted if not."""
    value: Any = section.raw(str(keys[0]))
    value = value[keys[1]] if len(keys) > 1 else value
    if isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return True
    kind = "nothing" if value is None else repr(value)
    section.document.problem(
        (*section.path, *keys), f"must be a number, true, false or text, not {kind}; quote text"
    )
    return False


def _read_when(section: Section) -> dict[str, tuple[KnobValue, ...]]:
    conditions = section.section("when")
    if "when" in section and section.raw("when") in (None, {}):
        section.problem("when", "must name a parameter and its values: {LR_SCHEDULE: cosine}")
    allowed = {name: conditions.raw(name) for name in conditions}
    return {
        name: tuple(values) if isinstance(values, list) else (values,)
        for name, values in allowed.items()
    }


def _check_conditions(
    block: Section, parameter: Parameter, read: dict[str, Parameter | None]
) -> None:
    for other, values in parameter.when.items():
        path = (*block.path, parameter.name, "when", other)
        if other not in read:
            block.document.problem(path, f"{other} is not a parameter of this sweep")
            continue
        parent = read[other]
        if parent is None:  # has mistakes of its own
            continue
        if parent.domain.count() is None:
            block.document.problem(
                path, f"{other} is continuous ({parent.domain.describe()}); name one with values"
            )
            continue
        if not values:
            block.document.problem(path, "an empty list can never hold")
        for value in values:
            try:
                parent.domain.encode(value)
            except (ValueError, TypeError):
                block.document.problem(
                    path, f"{other} is never {value!r}; it is {parent.domain.describe()}"
                )

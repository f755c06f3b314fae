"""Search spaces of other tools as parameters of a sweep file: hydra's sweepers and Ray Tune.

Optuna's studies are read in `pgolf_sweep.search.foreign`, where Optuna is imported.
"""

from __future__ import annotations

import ast
import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from pgolf_sweep.config.generate import stepped
from pgolf_sweep.config.yaml_lines import read_scalar
from pgolf_sweep.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pgolf_sweep.space.space import Space

MOST_TRIALS = 10
"""Finished trials that are tried first, the best ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A search space from elsewhere.

    Attributes:
        parameters: The ``parameters:`` block of a sweep file.
        trials: Configurations that were tried there, best first, with dotted names.
        goal: ``minimize`` or ``maximize``, or None where it is not known.
        command: The words that start the program, where it is not W&B's default.
    """

    parameters: Mapping[str, Any]
    trials: Sequence[Mapping[str, Any]] = ()
    goal: str | None = None
    command: Sequence[str] = ()


# -- hydra ----------------------------------------------------------------------------------------


def read_hydra(path: Path) -> Imported:
    """The sweep of a hydra configuration: ``hydra.sweeper.params`` or ``search_space``.

    Raises:
        InputError: There is none, or one of its ranges cannot be read.
    """
    document = _yaml(path)
    sweeper = (document.get("hydra") or {}).get("sweeper") or {}
    params = sweeper.get("params") or sweeper.get("search_space")
    if not isinstance(params, dict) or not params:
        raise InputError(
            "this hydra configuration has no sweep",
            where=str(path),
            expected="hydra: {sweeper: {params: {lr: 'interval(0.001, 0.1)'}}}",
        )
    prefixes = {re.match(r"\+*", name)[0] for name in params}  # type: ignore[index]
    if len(prefixes) > 1:
        raise InputError(
            "overrides with and without + in one sweep",
            where=str(path),
            got=", ".join(params),
            expected="one kind: W&B's commands have a macro for each",
        )
    macro = {"": "args_no_hyphens", "+": "args_append_hydra", "++": "args_override_hydra"}
    word = macro.get(prefixes.pop(), "args_override_hydra")
    return Imported(
        parameters={
            name.lstrip("+"): _hydra_parameter(name, value, path) for name, value in params.items()
        },
        goal=sweeper.get("direction") if isinstance(sweeper.get("direction"), str) else None,
        command=("${env}", "${interpreter}", "${program}", f"${{{word}}}"),
    )


def _hydra_parameter(name: str, value: Any, path: Path) -> dict[str, Any]:
    if isinstance(value, dict):  # Optuna's sweeper before 1.2
        return _hydra_typed(name, value, path)
    if isinstance(value, list):
        return {"values": value}
    if not isinstance(value, str):
        return {"value": value}
    try:
        return _sweep(value.strip())
    except (ValueError, SyntaxError) as error:
        raise InputError(
            f"the range of {name} cannot be read: {error}",
            where=f"{path}: hydra.sweeper.params.{name}",
            got=value,
            expected="choice(...), range(...), interval(...), tag(log, ...), int(...), or a,b,c",
        ) from error


def _hydra_typed(name: str, value: Mapping[str, Any], path: Path) -> dict[str, Any]:
    kind, low, high = value.get("type"), value.get("low"), value.get("high")
    if kind == "categorical":
        return {"values": list(value.get("choices") or [])}
    if kind not in {"int", "float"} or low is None or high is None:
        raise InputError(
            f"the range of {name} cannot be read",
            where=f"{path}: hydra.sweeper.search_space.{name}",
            got=str(dict(value)),
            expected="{type: float, low: 0.1, high: 1.0, log: true} or {type: categorical, ...}",
        )
    return numbers(
        low, high, step=value.get("step"), log=bool(value.get("log")), whole=kind == "int"
    )


def _sweep(text: str) -> dict[str, Any]:
    """One override's value in hydra's grammar of sweeps."""
    called = re.fullmatch(r"(\w+)\((.*)\)", text, re.DOTALL)
    if called is None:
        parts = _split(text)
        return {"values": [_plain(part) for part in parts]} if len(parts) > 1 else _one(text)
    function, parts = called[1], _split(called[2])
    match function:
        case "choice":
            return {"values": [_plain(part) for part in parts]}
        case "range":
            bounds = [_number(part) for part in parts]
            start, stop = (0, bounds[0]) if len(bounds) == 1 else bounds[:2]
            step = bounds[2] if len(bounds) > 2 else 1
            count = math.ceil((stop - start) / step)
            return {"values": [round(start + step * i, 12) for i in range(count)]}
        case "interval":
            low, high = (float(_number(part)) for part in parts)
            return numbers(low, high)
        case "tag":
            inner = _sweep(parts[-1])
            logarithmic = "log" in parts[:-1] and "min" in inner
            whole = inner.get("distribution") == "int_uniform"
            if not logarithmic:
                return inner
            return numbers(inner["min"], inner["max"], log=True, whole=whole)
        case "int" | "float" as kind:
            inner = _sweep(parts[0])
            if "values" in inner:
                made = int if kind == "int" else float
                return {"values": [made(value) for value in inner["values"]]}
            logarithmic = "log" in inner["distribution"]
            return numbers(inner["min"], inner["max"], log=logarithmic, whole=kind == "int")
        case "shuffle" | "sort":
            return _sweep(parts[0]) if len(parts) == 1 else {"values": [_plain(p) for p in parts]}
        case _:
            raise ValueError(f"{function}(...) is not offered")


def _one(text: str) -> dict[str, Any]:
    return {"value": _plain(text)}


def _split(text: str) -> list[str]:
    """Parts between commas that stand in no brackets and no quotes."""
    parts, depth, quote, start = [], 0, "", 0
    for index, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    return [*parts, text[start:].strip()]


def _plain(text: str) -> Any:
    if text[:1] in {"'", '"'}:
        return ast.literal_eval(text)
    return read_scalar(text)


def _number(text: str) -> int | float:
    value = read_scalar(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{text!r} is no number")  # noqa: TRY004 - the text is wrong, not a type
    return value


# -- Ray Tune -------------------------------------------------------------------------------------


def read_ray(path: Path) -> Imported:
    """Ray Tune's ``param_space`` as JSON, alone or as ``{"space": ..., "trials": [...]}``.

    Domains are what ``json.dumps(space, default=lambda o: {"type": type(o).__name__, **vars(o)})``
    makes of them.

    Raises:
        InputError: It is no such file, or has a domain that no sweep file can hold.
    """
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError("cannot read Ray's space", where=str(path), got=str(error)) from error
    if not isinstance(document, dict) or not document:
        raise InputError("this is no space of Ray Tune", where=str(path), expected="a JSON object")
    if set(document) <= {"space", "trials", "mode"} and "space" in document:
        space, rows = document["space"], document.get("trials") or []
        goal = {"min": "minimize", "max": "maximize"}.get(document.get("mode", ""))
    else:
        space, rows, goal = document, [], None
    sign = -1 if goal == "maximize" else 1
    scored = [row for row in rows if isinstance(row.get("score"), int | float)]
    scored.sort(key=lambda row: sign * row["score"])
    return Imported(
        parameters=_ray_space(space, path, ""),
        trials=[_flat(row["config"]) for row in scored[:MOST_TRIALS]],
        goal=goal,
    )


def _ray_space(space: Mapping[str, Any], path: Path, around: str) -> dict[str, Any]:
    found = {}
    for name, value in space.items():
        if isinstance(value, dict) and "type" not in value and "grid_search" not in value:
            found[name] = {"parameters": _ray_space(value, path, f"{around}{name}.")}
        else:
            found[name] = _ray_parameter(f"{around}{name}", value, path)
    return found


def _ray_parameter(name: str, value: Any, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {"value": value}
    if "grid_search" in value:
        return {"values": value["grid_search"]}
    kind, sampler = value.get("type"), value.get("sampler") or {}
    if kind == "Categorical":
        return {"values": value["categories"]}
    step = sampler.get("q") if sampler.get("type") == "Quantized" else None
    inner = sampler.get("sampler") if step is not None else sampler
    inner = inner or {}
    if "Normal" in str(inner.get("type")):
        shape = {"mu": inner["mean"], "sigma": inner["sd"]}
        quantized = {"q": step} if step is not None else {}
        return {"distribution": "q_normal" if quantized else "normal", **shape, **quantized}
    if kind not in {"Float", "Integer"}:
        raise InputError(
            f"{name} cannot be written into a sweep file",
            where=str(path),
            got=str(kind),
            expected="Float, Integer, Categorical, grid_search or a constant",
        )
    low, high = value["lower"], value["upper"]
    log = "LogUniform" in str(inner.get("type"))
    whole = kind == "Integer"
    if whole and step is None:
        high -= 1  # Ray's upper bound of whole numbers is not possible, unless quantized
    return numbers(low, high, step=step if step not in {1, None} else None, log=log, whole=whole)


def _flat(config: Mapping[str, Any], around: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{around}{name}.")
        else:
            found[f"{around}{name}"] = value
    return found


def within(space: Space, trials: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The trials that a space holds, without the knobs that it does not have."""
    found = []
    for trial in trials:
        knobs = {name: value for name, value in trial.items() if name in space.parameters}
        try:
            space.encode(knobs)
        except InputError:
            continue  # its range has changed since
        if knobs and knobs not in found:
            found.append(knobs)
    return found


# -- both -----------------------------------------------------------------------------------------


def numbers(
    low: float, high: float, *, step: float | None = None, log: bool = False, whole: bool = False
) -> dict[str, Any]:
    """A range of numbers as a parameter.

    Args:
        low: Lower bound, possible.
        high: Upper bound, possible.
        step: Distance between values that are possible; None for all.
        log: Uniform on a logarithmic scale.
        whole: Only whole numbers.
    """
    if whole:
        low, high = int(low), int(high)
    if step is not None and log:
        q = int(step) if whole else step
        return {"distribution": "q_log_uniform_values", "min": low, "max": high, "q": q}
    if step is not None:
        return stepped(low, high, int(step) if whole else step)
    if log and whole:
        return {"distribution": "q_log_uniform_values", "min": low, "max": high, "q": 1}
    kind = "log_uniform_values" if log else "int_uniform" if whole else "uniform"
    return {"distribution": kind, "min": low, "max": high}


def _yaml(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InputError(
            "cannot read the configuration", where=str(path), got=str(error)
        ) from error
    if not isinstance(document, dict):
        raise InputError("this is no configuration of hydra", where=str(path))
    return document

"""Flags to a commented sweep file: a search space without knowing YAML.

Everything that a flag says passes through the same strict reader as a file written by hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pgolf_sweep.config.schema import SCHEMA_LINE
from pgolf_sweep.config.types import DEFAULT_RULES, NO_RULES
from pgolf_sweep.config.yaml_lines import WORDS_FOR_BOOL, Document, read_scalar
from pgolf_sweep.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgolf_sweep.config.types import SweepSpec
    from pgolf_sweep.script.program import Program

GRAMMAR = "LOW:HIGH, LOW:HIGH:STEP, LOW:HIGH:log, A,B,C, or one value"


@dataclass(frozen=True, slots=True)
class Axis:
    """One thing that people vary.

    Attributes:
        flag: The command's option.
        knob: The environment variable.
        word: What the file's first line calls it.
        comment: What the parameter's line says of it.
    """

    flag: str
    knob: str
    word: str
    comment: str


AXES = (
    Axis("--width", "MODEL_DIM", "width", "width of the residual stream"),
    Axis("--depth", "NUM_LAYERS", "depth", "transformer blocks"),
    Axis("--heads", "NUM_HEADS", "heads", "query heads"),
    Axis("--kv-heads", "NUM_KV_HEADS", "kv heads", "heads of keys and values"),
    Axis("--mlp", "MLP_MULT", "MLP size", "MLP width, in model widths"),
    Axis("--lr", "MATRIX_LR", "learning rate", "Muon's rate, for the matrices"),
    Axis("--embed-lr", "TIED_EMBED_LR", "embedding rate", "Adam's rate, tied embedding"),
    Axis("--scalar-lr", "SCALAR_LR", "scalar rate", "Adam's rate, gains and mixes"),
    Axis("--schedule", "LR_SCHEDULE", "schedule", "shape of the warmdown"),
    Axis("--min-lr-frac", "MIN_LR_FRAC", "final rate", "rate at the end, relative to the peak"),
    Axis("--warmdown", "WARMDOWN_ITERS", "warmdown", "warmdown in steps"),
    Axis("--warmdown-frac", "WARMDOWN_FRAC", "warmdown", "warmdown as a share of the run"),
    Axis("--bits", "MATRIX_BITS", "bits", "bits of a weight of the blocks"),
    Axis("--attn-bits", "ATTN_BITS", "attention bits", "bits of attention; 0: MATRIX_BITS"),
    Axis("--mlp-bits", "MLP_BITS", "MLP bits", "bits of the MLP; 0: MATRIX_BITS"),
    Axis("--embed-bits", "EMBED_BITS", "embedding bits", "bits of the embedding"),
    Axis("--codec", "CODEC", "codec", "entropy coder of the artifact"),
    Axis("--vocab", "VOCAB_SIZE", "vocabulary", "must be the tokenizer's"),
    Axis("--weight-decay", "WEIGHT_DECAY", "weight decay", "Muon's decoupled weight decay"),
    Axis("--momentum", "MUON_MOMENTUM", "momentum", "Muon's momentum"),
    Axis("--seeds", "SEED", "noise between seeds", "seed; several only in a grid"),
)
_AXIS_BY_KNOB = {axis.knob: axis for axis in AXES}

_DIVISIBLE = (("MODEL_DIM", "NUM_HEADS"), ("NUM_HEADS", "NUM_KV_HEADS"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What the user asked for; None and empty leave the existing file's value or the default.

    Attributes:
        ranges: Range by knob name, as typed.
        program: ``trainer``, or the path of a script.
        question: What the sweep answers: the file's first line.
        parameters: Parameters from elsewhere, as a sweep file has them; `ranges` win.
        warm_start: Configurations to try first.
        metric: The ``metric`` block; None leaves the contest's score.
        command: The words that start the program, where it is not W&B's default.
    """

    ranges: Mapping[str, str] = field(default_factory=dict)
    program: str | None = None
    method: str | None = None
    run_cap: int | None = None
    rules: str | None = None
    gpus: int | None = None
    name: str | None = None
    question: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    warm_start: Sequence[Mapping[str, Any]] = ()
    metric: Mapping[str, Any] | None = None
    command: Sequence[str] = ()


def parse_range(name: str, text: str) -> dict[str, Any]:
    """A range as typed, as a parameter of a sweep file.

    ``7:13`` is every int between (with a decimal point: every float), ``384:640:64`` steps from
    the first bound, ``0.015:0.08:log`` is uniform on a logarithmic scale, ``4,5,6`` are values,
    anything else is one value.

    Raises:
        InputError: It is none of these.
    """
    if "," in text:
        return {"values": [_word(name, text, part) for part in text.split(",")]}
    if ":" not in text:
        return {"value": _word(name, text, text)}
    low, high, *rest = [part.strip() for part in text.split(":")]
    bounds = [_word(name, text, part) for part in (low, high)]
    if len(rest) > 1 or not all(_is_number(bound) for bound in bounds):
        raise _bad_range(name, text, "not a range of numbers")
    first, last = bounds
    if first > last:
        raise _bad_range(name, text, f"{first} is greater than {last}")
    whole = isinstance(first, int) and isinstance(last, int)
    if not rest:
        return {"distribution": "int_uniform" if whole else "uniform", "min": first, "max": last}
    if rest == ["log"]:
        if first <= 0:
            raise _bad_range(name, text, "a logarithmic range starts above 0")
        if whole:
            return {"distribution": "q_log_uniform_values", "min": first, "max": last, "q": 1}
        return {"distribution": "log_uniform_values", "min": first, "max": last}
    step = _word(name, text, rest[0])
    if not _is_number(step) or step <= 0:
        raise _bad_range(name, text, f"the step {rest[0]!r} is neither a number above 0 nor `log`")
    return stepped(first, last, step)


def stepped(first: float, last: float, step: float) -> dict[str, Any]:
    """Steps from the first bound: W&B's q_uniform where the bounds are multiples, else a list."""
    start, stop, q = (Decimal(str(number)) for number in (first, last, step))
    if start % q == 0:
        return {"distribution": "q_uniform", "min": first, "max": last, "q": step}
    whole = isinstance(first, int) and isinstance(step, int)
    steps = [start + q * index for index in range(int((stop - start) // q) + 1)]
    return {"values": [int(value) if whole else float(value) for value in steps]}


def draft_text(draft: Draft, *, existing: SweepSpec | None = None) -> str:
    """The sweep file that a draft asks for, with comments.

    Args:
        draft: What the user asked for.
        existing: A sweep that the draft is laid over. Its keys and parameters stay unless the
            draft names them; its comments do not.

    Raises:
        InputError: A range cannot be read, or there is no parameter.
    """
    old: dict[str, Any] = {}
    if existing is not None:
        old |= Document(existing.text, str(existing.source)).value or {}
    parameters: dict[str, Any] = {**(old.get("parameters") or {}), **draft.parameters}
    for name, text in draft.ranges.items():
        condition = parameters.get(name, {}).get("when")
        parameters[name] = parse_range(name, text) | ({"when": condition} if condition else {})
    if not parameters:
        raise InputError(
            "nothing to search: give at least one axis",
            next_step="pgolf-sweep define sweeps/mine.yaml --lr 0.015:0.08:log --depth 7:13",
        )
    method = draft.method or old.get("method") or "bayes"
    run_cap = draft.run_cap or old.get("run_cap") or (None if method == "grid" else 64)
    top: dict[str, Any] = {
        "name": draft.name or old.get("name"),
        "program": draft.program or old.get("program") or "trainer",
        "method": method,
        "metric": dict(draft.metric or {})
        or old.get("metric")
        or {"name": "val_bpb", "goal": "minimize"},
        "command": list(draft.command) or old.get("command"),
        "run_cap": run_cap,
    }
    other = {k: v for k, v in old.items() if k not in {*top, "parameters", "pgolf"}}
    pgolf = _pgolf(draft, dict(old.get("pgolf") or {}), parameters)
    notes = {"run_cap": "trials that reach a slot; discards do not count"}
    meanings = {axis.knob: axis.comment for axis in AXES}
    pgolf_notes = {
        "require": "other configurations are discarded at once",
        "resources": "of one node, for each trial",
    }
    present = {key: value for key, value in (top | other).items() if value is not None}
    lines = [
        f"# {draft.question or _question(parameters)}",
        SCHEMA_LINE,
        *_aligned(present, notes, indent=""),
        "parameters:",
        *_aligned(parameters, meanings, indent="  "),
        "pgolf:",
        *_aligned(pgolf, pgolf_notes, indent="  "),
    ]
    return "\n".join(lines) + "\n"


def _pgolf(draft: Draft, block: dict[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    rules = draft.rules or block.get("rules") or DEFAULT_RULES
    resources = dict(block.get("resources") or {})
    on_cpu = rules == "demo"
    resources.setdefault("gpus", 0 if on_cpu else 1 if rules == NO_RULES else 8)
    if draft.gpus is not None:
        resources["gpus"] = draft.gpus
    vocabulary = (parameters.get("VOCAB_SIZE") or {}).get("value", 1024)
    if rules != NO_RULES:
        block.setdefault("data", "demo" if on_cpu else f"sp{vocabulary}")
    data = {"data": block.pop("data")} if "data" in block else {}
    block = {"rules": rules, **data, "resources": resources} | {
        key: value for key, value in block.items() if key not in {"rules", "resources"}
    }
    require = list(block.get("require") or [])
    for whole, part in _DIVISIBLE:
        expression = f"{whole} % {part} == 0"
        both_vary = _varies(parameters.get(whole)) and _varies(parameters.get(part))
        if both_vary and expression not in require:
            require.append(expression)
    if require:
        block["require"] = require
    if draft.warm_start:
        block["warm_start"] = [*(block.get("warm_start") or []), *map(dict, draft.warm_start)]
    return block


def _varies(parameter: object) -> bool:
    return isinstance(parameter, dict) and "value" not in parameter


def _question(parameters: Mapping[str, Any]) -> str:
    """Which width, depth and bits score best?"""
    varied = [name for name, value in parameters.items() if _varies(value)]
    words = [_AXIS_BY_KNOB[name].word if name in _AXIS_BY_KNOB else name for name in varied]
    words = list(dict.fromkeys(words)) or ["score"]
    listed = " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
    if not varied:
        return "What does this one configuration score?"
    return f"Which {listed} score{'s' if len(words) == 1 else ''} best?"


def _aligned(block: Mapping[str, Any], notes: Mapping[str, str], *, indent: str) -> list[str]:
    """A mapping as lines of flow YAML, values and comments in columns."""
    width = max(len(key) for key in block) + 1
    entries = {key: f"{key + ':':<{width}} {_flow(value)}" for key, value in block.items()}
    column = max(len(entry) for entry in entries.values())
    return [
        f"{indent}{entry:<{column}}  # {notes[key]}" if key in notes else f"{indent}{entry}"
        for key, entry in entries.items()
    ]


def _flow(value: object) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=math.inf, sort_keys=False)
    return text.removesuffix("...\n").strip()


def _word(name: str, text: str, part: str) -> Any:
    try:
        value = read_scalar(part.strip())
    except yaml.YAMLError as error:
        raise _bad_range(name, text, f"{part!r} is no value") from error
    if value is None or isinstance(value, dict | list):
        raise _bad_range(name, text, f"{part!r} is no value")
    quoted = isinstance(value, str) and part.strip()[0] in "'\""
    return value if quoted or isinstance(value, bool | int | float) else str(part.strip())


def as_read(ranges: Mapping[str, str], program: Program) -> dict[str, str]:
    """Ranges with the values of text knobs quoted where YAML would read them otherwise."""
    found = dict(ranges)
    for name, text in ranges.items():
        readers = [known[name] for known in (program.knobs, program.flags.known) if name in known]
        if readers and all(knob.kind == "str" for knob in readers):
            found[name] = ",".join(_quoted(word.strip()) for word in text.split(","))
    return found


def _quoted(word: str) -> str:
    return f"'{word}'" if word.lower() in WORDS_FOR_BOOL else word


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _bad_range(name: str, text: str, reason: str) -> InputError:
    return InputError(f"range of {name}: {reason}", got=text, expected=GRAMMAR)


def preset_file(name: str, base: Path | None = None) -> Path:
    """The sweep file of a recipe that `define` starts from.

    Args:
        name: The recipe.
        base: Another file to start from, which contradicts it.

    Raises:
        InputError: There is no such recipe, or two starts were named.
    """
    known = {path.stem: path for path in sorted((Path(__file__).parent / "presets").glob("*.yaml"))}
    if base is not None:
        raise InputError("--preset and --from are two starts", expected="one of them")
    if name not in known:
        raise InputError("no such preset", where="--preset", got=name, expected=", ".join(known))
    return known[name]


def parse_knobs(settings: Sequence[str]) -> dict[str, str]:
    """``NAME=RANGE`` options as ranges by name.

    Raises:
        InputError: One has no ``=``, or a name comes twice.
    """
    ranges: dict[str, str] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name or not text:
            raise InputError("--knob needs NAME=RANGE", got=setting, expected=f"RANGE: {GRAMMAR}")
        if name in ranges:
            raise InputError(f"--knob {name} is given twice", got=setting)
        ranges[name] = text
    return ranges

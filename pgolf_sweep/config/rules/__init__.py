"""A contest's rules as data: presets in this folder, or a YAML file of the user's own.

A rules file names a preset in ``extends`` to change only a few of its values::

    extends: parameter-golf-2026
    record: {val_bpb: 1.2244, val_loss_nats: 2.0727, source: the naive baseline, date: 2026-03-18}
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from pgolf_sweep.core.errors import InputError, Problem, ProblemsError

_FOLDER = Path(__file__).parent
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

SEED_NOISE_BPB = 0.0007
"""Spread of ``val_bpb`` between seeds. Source: the contest's records, three seeds each."""

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The score to beat, with where and when it was read.

    Attributes:
        val_bpb: Mean score of the record.
        val_loss_nats: Mean validation loss in nats per token. Its ratio to `val_bpb` identifies
            tokenizer and validation set, so that only like is compared with like.
        seed_losses_nats: Validation loss by seed where it was published; empty otherwise.
        source: Where the numbers were read.
        date: Date of the record, ISO 8601.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    val_bpb: Positive
    val_loss_nats: Positive
    source: str
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    seed_losses_nats: tuple[Positive, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a submission must meet.

    Attributes:
        name: The preset's name, or the file's stem.
        title: One line for people.
        artifact_cap_bytes: Most bytes of counted code plus compressed model; exactly this many
        pass. train_seconds: Most seconds of training.
        eval_seconds: Most seconds of evaluation.
        clock_grace_seconds: How far a log may pass either limit: scripts look at the clock once a
            step, so a run that stops by the rules ends a fraction of a step late.
        gpus: GPUs that a run has, or None where any hardware will do.
        gpu_name: What those GPUs are, or None.
        min_seeds: Fewest runs on distinct seeds.
        margin_nats: How much better than the record the mean validation loss must be.
        p_value: One-sided p must be below this.
        record: The score to beat, or None where nothing is to be beaten.
        unlimited_compute: Passing either limit is worth a warning and no more.
        track: Folder below ``records/`` that the submission goes to.
        seed_noise: Standard deviation of the score between seeds that is expected before any
            configuration has run on two; None where nothing is known of it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    name: str
    title: str
    artifact_cap_bytes: Count
    train_seconds: Positive
    eval_seconds: Positive
    min_seeds: Count
    track: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    clock_grace_seconds: Annotated[float, Field(ge=0)] = 0.5
    unlimited_compute: bool = False
    gpus: Count | None = None
    gpu_name: str | None = None
    margin_nats: Annotated[float, Field(ge=0)] = 0.0
    p_value: Annotated[float, Field(gt=0, le=1)] = 1.0
    record: Record | None = None
    seed_noise: Positive | None = SEED_NOISE_BPB


class RulesError(ProblemsError):
    """A rules file with mistakes."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        step = f"correct {source}; presets are: {', '.join(preset_names())}"
        super().__init__(source, problems, kind="rules file", next_step=step)


def preset_names() -> tuple[str, ...]:
    """The presets that come with the program."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def load_rules(name_or_path: str, *, base: Path) -> Rules:
    """The rules of a preset, or of a YAML file.

    Args:
        name_or_path: A preset's name, or a file's path.
        base: Folder that a relative path starts from, normally the sweep file's.

    Raises:
        InputError: There is no such preset or file.
        RulesError: The file has mistakes.
    """
    if name_or_path in preset_names():
        return _read(_FOLDER / f"{name_or_path}.yaml")
    path = base / name_or_path
    if path.is_file():
        return _read(path)
    raise InputError(
        f"no rules named {name_or_path!r}",
        where=str(path),
        expected=f"a preset ({', '.join(preset_names())}) or the path of a YAML file",
    )


def load_record(path: Path) -> Record:
    """The record to beat, from a YAML file with the keys of `Record`; its date is required.

    Raises:
        InputError: The file is not there.
        RulesError: It has mistakes.
    """
    if not path.is_file():
        raise InputError(
            "no such record file",
            where=str(path),
            expected="YAML with val_bpb, val_loss_nats, source, date, seed_losses_nats if known",
        )
    data, nodes = _document(path, str(path))
    try:
        return TypeAdapter(Record).validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        problems = [
            _problem(("record", *detail["loc"]), detail, nodes) for detail in error.errors()
        ]
        raise RulesError(str(path), problems) from error


def _read(path: Path) -> Rules:
    source = path.name if path.parent == _FOLDER else str(path)
    data, nodes = _document(path, source)
    merged = {"name": path.stem, **_inherited(data.pop("extends", None), source, nodes), **data}
    try:
        # Through JSON, since only there strictness accepts lists for tuples and whole numbers
        # for floats; `str` is for the dates that YAML recognises.
        return TypeAdapter(Rules).validate_json(json.dumps(merged, default=str))
    except ValidationError as error:
        problems = [_problem(detail["loc"], detail, nodes) for detail in error.errors()]
        raise RulesError(source, problems) from error


def _document(path: Path, source: str) -> tuple[dict[str, Any], yaml.Node | None]:
    """A YAML file's keys and values, with the nodes that know their lines."""
    try:
        text = path.read_text(encoding="utf-8")
        data = yaml.safe_load(text)
        nodes = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise RulesError(
            source, [Problem(path="(file)", line=line, message=f"not YAML: {error.problem}")]
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot read the rules file: {error}", where=source) from error
    if not isinstance(data, dict):
        problem = Problem(path="(file)", line=1, message="expected keys and values, see `extends`")
        raise RulesError(source, [problem])
    return data, nodes


def _inherited(parent: Any, source: str, nodes: yaml.Node | None) -> dict[str, Any]:
    """The values of the preset that a file extends, without the preset's name."""
    if parent is None:
        return {}
    if parent not in preset_names():
        message = f"got {parent!r}, expected a preset: {', '.join(preset_names())}"
        problem = Problem(path="extends", line=_line(nodes, ("extends",)), message=message)
        raise RulesError(source, [problem])
    values: dict[str, Any] = TypeAdapter(Rules).dump_python(_read(_FOLDER / f"{parent}.yaml"))
    del values["name"]
    return values


def _problem(loc: tuple[int | str, ...], detail: Any, nodes: yaml.Node | None) -> Problem:
    known = ", ".join(field.name for field in fields(Rules if len(loc) == 1 else Record))
    match detail["type"]:
        case "unexpected_keyword_argument":
            message = f"unknown key, expected one of: {known}"
        case "missing":
            message = "missing"
        case _:
            message = f"got {detail['input']!r}: {detail['msg']}"
    return Problem(path=".".join(map(str, loc)), line=_line(nodes, loc), message=message)


def _line(node: yaml.Node | None, loc: tuple[int | str, ...]) -> int | None:
    """One-based line of the deepest part of a key path that the file has; None if it has none."""
    line = None
    for key in loc:
        if isinstance(node, yaml.MappingNode):
            found = next((pair for pair in node.value if pair[0].value == str(key)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            node = node.value[key]
            line = node.start_mark.line + 1 if node is not None else line
    return line

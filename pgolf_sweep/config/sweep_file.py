"""A sweep file as values: W&B's sweep schema plus one ``pgolf:`` block, read strictly.

Every mistake in a file is reported at once, with its key path and line. Nothing is ignored: a key
that is understood and not offered is a mistake with the reason.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from pgolf_sweep.config.binding import Binding, unnamed_hint
from pgolf_sweep.config.blocks import (
    read_early_terminate,
    read_method,
    read_metric,
    read_pgolf,
    read_require,
    study_name,
)
from pgolf_sweep.config.command import read_command
from pgolf_sweep.config.fidelity import note_fidelity
from pgolf_sweep.config.models import SweepFile
from pgolf_sweep.config.overrides import NONE, Overrides
from pgolf_sweep.config.parameters import read_space
from pgolf_sweep.config.types import (
    METHODS,
    Budget,
    DataBlock,
    EarlyTerminate,
    LimitsBlock,
    Method,
    PgolfBlock,
    SweepSpec,
)
from pgolf_sweep.config.validation import read_block
from pgolf_sweep.config.yaml_lines import Document, did_you_mean, shown
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.paths import read_regular
from pgolf_sweep.space.space import check_expression

if TYPE_CHECKING:
    from pathlib import Path

    from pgolf_sweep.script.program import Program

__all__ = [
    "METHODS",
    "Budget",
    "DataBlock",
    "EarlyTerminate",
    "LimitsBlock",
    "Method",
    "PgolfBlock",
    "SweepSpec",
    "check_against_program",
    "draft_spec",
    "load_draft",
    "load_spec",
    "note_against_program",
    "parse_spec",
    "place_of",
    "unnamed_hint",
]

MOST_BYTES = 1_000_000


def load_spec(path: Path) -> SweepSpec:
    """Read a sweep file.

    Raises:
        InputError: The file cannot be read.
        SpecError: It has mistakes; all of them are reported.
    """
    document, spec = load_draft(path)
    document.raise_problems()
    return spec


def load_draft(path: Path, overrides: Overrides = NONE) -> tuple[Document, SweepSpec]:
    """Read a sweep file with its mistakes; see `draft_spec`.

    Args:
        path: The file.
        overrides: What the command line wants otherwise; the spec's text has it, and its notes.

    Raises:
        InputError: The file cannot be read.
        SpecError: It is no mapping of keys.
    """
    try:
        text = read_regular(path, MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not text in UTF-8", where=f"{path}: byte {error.start}"
        ) from error
    except OSError as error:
        raise InputError(
            f"cannot read the sweep file {path}",
            got=error.strerror,
            next_step=f"pgolf-sweep define {path} --lr 0.015:0.08:log",
        ) from error
    text, said = overrides.apply(text, str(path))
    document, spec = draft_spec(text, path)
    return document, dataclasses.replace(spec, notes=(*said, *spec.notes))


def parse_spec(text: str, source: Path) -> SweepSpec:
    """A sweep file's content as values; see `load_spec`.

    Raises:
        SpecError: It has mistakes; all of them are reported.
    """
    document, spec = draft_spec(text, source)
    document.raise_problems()
    return spec


def draft_spec(text: str, source: Path) -> tuple[Document, SweepSpec]:
    """A sweep file's content with its mistakes; what has one reads as absent.

    For those who add what they find themselves before they report it all.

    Raises:
        SpecError: It is no mapping of keys: there is nothing to read.
    """
    document = Document(text, str(source))
    if document.value is None and not document.problems:
        document.problem((), "the file is empty; it needs method and parameters")
    elif not isinstance(document.value, dict):
        document.problem((), f"must be a mapping of keys, not {shown(document.value)}")
    if not isinstance(document.value, dict):
        document.raise_problems()
    raw: dict[str, Any] = document.value or {}
    notes: list[str] = []
    top = read_block(SweepFile, raw | {"parameters": None}, document, ())
    command = read_command(document, top.command, top.program)
    require = read_require(document, top.pgolf.require)
    space = read_space(
        document,
        ("parameters",),
        raw.get("parameters"),
        require=require,
        one_at_a_time=top.pgolf.one_at_a_time,
    )
    if not raw.get("parameters"):
        document.problem(("parameters",), "missing: name at least one environment variable or flag")
    rules = top.pgolf.rules
    program = command.module or top.program or command.script or "trainer"
    early = read_early_terminate(document, top.early_terminate, raw.get("early_terminate"), notes)
    spec = SweepSpec(
        source=source,
        text=text,
        name=study_name(document, top.name, source),
        program=program,
        method=read_method(document, top.method, space, rules=rules),
        metric=read_metric(document, top.metric, top.pgolf.metric.pattern, rules),
        run_cap=min(filter(None, (top.run_cap, top.pgolf.budget.trials)), default=None),
        space=space,
        early_terminate=early,
        project=top.project,
        entity=top.entity,
        description=top.description,
        pgolf=read_pgolf(document, top.pgolf, space, require, command, program),
        command=command,
        notes=tuple(notes),
    )
    _check_contradictions(document, spec)
    return document, spec


def check_against_program(spec: SweepSpec, program: Program) -> None:
    """Check a sweep file against what its program reads.

    Args:
        spec: The sweep file.
        program: Its knobs, its flags, and where it reads by names that only the running program
            knows. A parameter may be one of those variables or a slip of the pen; that it runs for
            nothing costs more than a line in the script, so that it is refused, with this said.

    Raises:
        SpecError: A parameter that the program never reads, a value whose type it cannot hold, or
            a requirement that speaks of neither; all of them are reported.
    """
    document = Document(spec.text, str(spec.source))
    note_against_program(document, spec, program)
    document.raise_problems()


def note_against_program(document: Document, spec: SweepSpec, program: Program) -> list[str]:
    """`check_against_program`, the mistakes noted on a document; what people should know."""
    notes = Binding(spec, program).note(document)
    note_fidelity(document, spec, program)
    known = {*program.knobs, *program.flags.known, *spec.space.parameters}
    for index, expression in enumerate(spec.pgolf.require):
        for name in sorted(check_expression(expression) - known):
            document.problem(
                ("pgolf", "require", index),
                f"{name} is neither a parameter nor read by {spec.program}"
                f"{did_you_mean(name, known)}",
            )
    return notes


def place_of(spec: SweepSpec, *path: str) -> str:
    """Where a sweep file says something: ``file:line: key.path``."""
    line = Document(spec.text, str(spec.source)).lines.get(path)
    return f"{spec.source}:{line if line is not None else '-'}: {'.'.join(path)}"


def _check_contradictions(document: Document, spec: SweepSpec) -> None:
    """Note what is right key by key and cannot be right together."""
    parameters = spec.space.parameters
    every = parameters.get("VAL_LOSS_EVERY")
    silent = every is not None and every.domain.examples() == (0,)
    if spec.early_terminate and silent:
        document.problem(
            ("early_terminate",),
            "contradiction: VAL_LOSS_EVERY is 0, so that no trial reports before its end",
        )
    if spec.pgolf.data:
        for name in ("DATA_PATH", "DATA_DIR", "TOKENIZER_PATH"):
            if name in parameters:
                document.problem(
                    ("parameters", name), "contradiction: pgolf.data sets it; keep one of the two"
                )

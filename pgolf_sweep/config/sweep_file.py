"""A sweep file as values: W&B's sweep schema plus one ``pgolf:`` block, read strictly.

Every mistake in a file is reported at once, with its key path and line. Nothing is ignored: a key
that is understood and not offered is a mistake with the reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgolf_sweep.config.blocks import (
    Command,
    read_command,
    read_early_terminate,
    read_method,
    read_metric,
    read_name,
    read_pgolf,
    read_require,
)
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
from pgolf_sweep.config.yaml_lines import Document, Section, did_you_mean
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.paths import read_regular
from pgolf_sweep.space.space import check_expression

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pgolf_sweep.script.knobs.knobs import Knob

__all__ = [
    "METHODS",
    "Budget",
    "DataBlock",
    "EarlyTerminate",
    "LimitsBlock",
    "Method",
    "PgolfBlock",
    "SweepSpec",
    "check_against_knobs",
    "load_spec",
    "parse_spec",
    "place_of",
    "unnamed_hint",
]

MOST_BYTES = 1_000_000

_NOT_OFFERED = {
    "job": "W&B launch jobs are not used; name the script under program",
    "image_uri": "W&B launch images are not used; name the script under program",
    "controller": "W&B's controller is not used: `pgolf-sweep launch` proposes the trials",
    "fidelity": "fidelity belongs under pgolf",
}


def load_spec(path: Path) -> SweepSpec:
    """Read a sweep file.

    Raises:
        InputError: The file cannot be read.
        SpecError: It has mistakes; all of them are reported.
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
    return parse_spec(text, path)


def parse_spec(text: str, source: Path) -> SweepSpec:
    """A sweep file's content as values; see `load_spec`.

    Raises:
        SpecError: It has mistakes; all of them are reported.
    """
    document = Document(text, str(source))
    if document.value is None and not document.problems:
        document.problem((), "the file is empty; it needs method and parameters")
        document.raise_problems()
    top = Section(document, (), document.value)
    if not isinstance(document.value, dict):
        document.raise_problems()
    top.refuse(_NOT_OFFERED)
    command = read_command(top)
    pgolf_section = top.section("pgolf")
    require = read_require(pgolf_section)
    parameters = top.section("parameters")
    space = read_space(parameters, require=require)
    if not list(parameters):
        top.problem("parameters", "missing: name at least one environment variable")
    method = read_method(top, parameters, space)
    early_terminate = read_early_terminate(top.section("early_terminate"))
    spec = SweepSpec(
        source=source,
        text=text,
        name=read_name(top, source),
        program=top.text("program") or command.script or "trainer",
        method=method,
        metric_name=read_metric(top.section("metric")),
        run_cap=top.integer("run_cap", least=1),
        space=space,
        early_terminate=early_terminate,
        project=top.text("project"),
        entity=top.text("entity"),
        description=top.text("description"),
        pgolf=read_pgolf(pgolf_section, space, require, command.processes),
    )
    _check_contradictions(document, spec, command)
    top.close()
    document.raise_problems()
    return spec


def check_against_knobs(
    spec: SweepSpec, knobs: Mapping[str, Knob], unnamed: Sequence[str] = ()
) -> None:
    """Check a sweep file against the environment variables that its program reads.

    Args:
        spec: The sweep file.
        knobs: What the program reads by names that stand in it.
        unnamed: Where it reads by names that only the running program knows. A parameter may be one
            of them or a slip of the pen; that it runs for nothing costs more than a line in the
            script, so that it is refused with this reason.

    Raises:
        SpecError: A parameter that the program never reads, a value whose type the knob cannot
            hold, or a requirement that speaks of neither; all of them are reported.
    """
    document = Document(spec.text, str(spec.source))
    for name, parameter in spec.space.parameters.items():
        knob = knobs.get(name)
        if knob is None:
            hint = did_you_mean(name, knobs) + unnamed_hint(name, unnamed)
            document.problem(("parameters", name), f"{spec.program} never reads {name}{hint}")
            continue
        wrong = [v for v in parameter.domain.examples() if not knob.takes(v)]
        if wrong:
            fix = "; write whole numbers (min, max and q)" if knob.kind == "int" else ""
            fix = f"; write {knob.asks_for()}" if knob.words is not None else fix
            document.problem(
                ("parameters", name),
                f"{spec.program} reads {name} as {knob.kind} and cannot read {wrong[0]!r}{fix}",
            )
    known = {*knobs, *spec.space.parameters}
    for index, expression in enumerate(spec.pgolf.require):
        for name in sorted(check_expression(expression) - known):
            document.problem(
                ("pgolf", "require", index),
                f"{name} is neither a parameter nor read by {spec.program}"
                f"{did_you_mean(name, known)}",
            )
    document.raise_problems()


def unnamed_hint(name: str, unnamed: Sequence[str]) -> str:
    """What to say of a name that is not found where a program reads others that nobody can see."""
    if not unnamed:
        return ""
    return (
        f"; {len(unnamed)} of its reads have names that only the running script knows "
        f"({', '.join(unnamed[:3])}{', ...' if len(unnamed) > 3 else ''}): if {name} is one of "
        f'them, write os.environ.get("{name}") into the script'
    )


def place_of(spec: SweepSpec, *path: str) -> str:
    """Where a sweep file says something: ``file:line: key.path``."""
    line = Document(spec.text, str(spec.source)).lines.get(path)
    return f"{spec.source}:{line if line is not None else '-'}: {'.'.join(path)}"


def _check_contradictions(document: Document, spec: SweepSpec, command: Command) -> None:
    """Note what is right key by key and cannot be right together."""
    parameters = spec.space.parameters
    if command.processes == 0:
        document.problem(("command",), "--nproc_per_node must be at least 1")
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

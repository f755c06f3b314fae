"""``pgolf-sweep simulate``: a sweep's policy on a function, before anything is spent."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgolf_sweep.cli.common import JsonOption, SweepArgument, app, emit, out, say
from pgolf_sweep.core.errors import AnswerNoError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable


@app.command()
def simulate(
    sweep: SweepArgument,
    objective: Annotated[
        str,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="From a trial's knobs to val_bpb, artifact_bytes, minutes and, if wanted, curve.",
        ),
    ],
    slots: Annotated[int, typer.Option(min=1, help="Trials that run at a time.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the sampler, in place of the file's.")] = 0,
    top: Annotated[int, typer.Option(min=1, help="That many of the best.")] = 5,
    json_output: JsonOption = False,
) -> None:
    """Run a sweep on a simulated clock: driver, sampler, pruner and gate as they are, no training.

    The function's module is looked for in this folder first. Nothing is written. Exit code 1 if no
    trial is within the cap.

    Example: pgolf-sweep simulate sweeps/lr.yaml --objective mine:run --slots 8
    """
    from pgolf_sweep.cli.render import trials_table, varied_knobs
    from pgolf_sweep.core.record import counts, ranked
    from pgolf_sweep.workflows.simulate import simulate as run

    found = run(sweep, named_function(objective), slots=slots, seed=seed)
    best = ranked(found.records, found.posteriors)[:top]
    if json_output:
        emit({"study": found.name, "trials": found.rows(), "counts": counts(found.records)})
    elif best:
        varied = varied_knobs(found.records)
        out.print(trials_table(best, varied, posteriors=found.posteriors))
    ends = ", ".join(f"{n} {kind}" for kind, n in counts(found.records).items() if n)
    say(f"{len(found.records)} trials: {ends}")
    if not best:
        raise AnswerNoError("no simulated trial completed within the cap", where=str(sweep))


def named_function(name: str) -> Callable[..., Any]:
    """The function that ``module:function`` names.

    Raises:
        InputError: There is no such module or function.
    """
    module, separator, function = name.partition(":")
    if not separator:
        raise InputError("this names no function", where="--objective", got=name)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    found: Callable[..., Any]
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"the objective cannot be loaded: {error}",
            where="--objective",
            got=name,
            expected="a function of a module in this folder, or of one that is installed",
        ) from error
    if not callable(found):
        raise InputError("the objective is no function", where="--objective", got=name)
    return found

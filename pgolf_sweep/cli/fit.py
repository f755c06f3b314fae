"""``pgolf-sweep fit``: bits with which a trained model just fits."""

from __future__ import annotations

from typing import Annotated

import typer

from pgolf_sweep.cli.common import (
    DEFAULT_RUNS,
    JsonOption,
    RunsOption,
    StudyArgument,
    app,
    emit,
    out,
    say,
)


@app.command()
def fit(
    study: StudyArgument,
    trial: Annotated[
        int | None, typer.Option(min=0, help="Trial to export anew; else the best that can be.")
    ] = None,
    tokens: Annotated[
        int, typer.Option(min=1, help="Validation tokens on which the loss is measured.")
    ] = 65_536,
    runs: RunsOption = DEFAULT_RUNS,
    json_output: JsonOption = False,
) -> None:
    """Choose bits by tensor group, of those searched, so that a trained model's artifact just fits.

    The loss of each group at each number of bits is measured on this machine, one group at a time;
    the gate predicts the bytes; an integer program chooses. The choice is proposed as a
    trial on top of that one (proposer `fit`), which the running driver, or the next `launch`,
    exports from the checkpoint and scores. Exit code 1 if it ran before, 2 without a checkpoint.

    Example: pgolf-sweep fit demo --trial 7
    """
    from pgolf_sweep.cli.detached import passed_on
    from pgolf_sweep.core.errors import AnswerNoError
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.workflows.fit import document
    from pgolf_sweep.workflows.fit import fit as choose

    paths = StudyPaths.existing(runs, study)
    words = [f"--tokens={tokens}"] + ([f"--trial={trial}"] if trial is not None else [])
    if passed_on(paths, "fit", paths.name, *words, *["--json"] * json_output, opens_study=True):
        return
    found = choose(paths, trial=trial, tokens=tokens)
    if json_output:
        emit(document(found))
    else:
        for knob, rises in found.rises.items():
            row = ", ".join(f"{bits}: {rise:+.5f}" for bits, rise in rises.items())
            out.print(f"{knob} {found.bits[knob]} of val_bpb by bits {row}", markup=False)
        size = found.predicted_bytes
        about = "" if size is None else f"about {size.mid:,.0f} of {found.cap_bytes:,} B; "
        out.print(
            f"{about}costs {found.cost_bpb:.5f} val_bpb, {found.saved_bpb:.5f} less than trial "
            f"{found.fit_of} (measured on {found.tokens:,} tokens)",
            markup=False,
        )
    if found.proposal.request is None:
        raise AnswerNoError("the best bits that fit ran before", got=found.proposal.follows)
    say(found.proposal.follows)

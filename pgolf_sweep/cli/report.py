"""``report``: a study as one page."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from pgolf_sweep.cli.common import (
    DEFAULT_RUNS,
    AnyStudyArgument,
    JsonOption,
    RunsOption,
    app,
    emit,
    out,
    say,
)


@app.command()
def report(
    study: AnyStudyArgument = None,
    file: Annotated[
        Path | None,
        typer.Option("--out", dir_okay=False, help="The page; runs/STUDY/report.html otherwise."),
    ] = None,
    runs: RunsOption = DEFAULT_RUNS,
    json_output: JsonOption = False,
) -> None:
    """Write a study as one HTML page that needs no network: to look at, print or send.

    Example: pgolf-sweep report demo --out demo.html
    """
    from pgolf_sweep.cli.detached import look
    from pgolf_sweep.core.paths import write_text
    from pgolf_sweep.report.noops import no_op_knobs
    from pgolf_sweep.report.page import page
    from pgolf_sweep.report.story import read_story

    paths = look(runs, study)
    found = read_story(paths)
    target = file or paths.report
    write_text(target, page(found))
    idle = no_op_knobs(found.status.records)
    if json_output:
        rows = [dataclasses.asdict(one) for one in idle]
        emit({"study": paths.name, "file": target, "no_op_knobs": rows})
        return
    out.print(str(target), markup=False, soft_wrap=True)
    for one in idle:
        say(one.sentence, prose=True)

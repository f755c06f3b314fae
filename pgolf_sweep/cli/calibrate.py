"""``pgolf-sweep calibrate``: keep what finished runs measured, for the gate of later studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pgolf_sweep.cli.common import DEFAULT_RUNS, JsonOption, RunsOption, app, emit, out, plain, say


@app.command()
def calibrate(
    study: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="Import a study's finished trials.")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="Import a CSV, one run a row: columns named as knobs, and model_bytes."),
    ] = None,
    log: Annotated[
        list[Path] | None, typer.Option(help="Import the size that a log tells; repeatable.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="K=V", help="A knob of the logs' runs; repeatable."),
    ] = None,
    program: Annotated[
        str | None, typer.Option(help="The script of logs and table instead of our trainer.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="The store's file instead of this user's own.")
    ] = None,
    runs: RunsOption = DEFAULT_RUNS,
    json_output: JsonOption = False,
) -> None:
    """Import measured sizes into a store that the gate of later studies learns from.

    A study learns from its own trials anyway. A sweep file asks for a store with
    `pgolf: {gate: {calibration: user}}`, `gate` and `plan` with `--calibration user`. Importing
    twice changes nothing.

    Example: pgolf-sweep calibrate demo
    """
    from pgolf_sweep.workflows.calibrate import calibrate as store_runs
    from pgolf_sweep.workflows.settings import parse_settings

    held = store_runs(
        study=study,
        table=table,
        logs=log or (),
        settings=parse_settings(settings or ()),
        program=program,
        store=store,
        runs=runs,
    )
    if json_output:
        emit(plain(held))
        return
    if held.added or held.known_before or held.skipped:
        left = f", {held.skipped} rows left: damaged, or without size or readable knobs"
        say(
            f"{held.added} runs added, {held.known_before} known before" + left * bool(held.skipped)
        )
    unread = f", {held.unread_lines} lines that do not read" if held.unread_lines else ""
    out.print(f"{held.store}: {held.runs} runs{unread}", markup=False)
    if held.trainer:
        out.print(
            f"our trainer: {held.trainer['runs']} runs; the prediction alone is off by "
            f"{held.trainer['median_error_percent']:.2f} % (median)",
            markup=False,
        )

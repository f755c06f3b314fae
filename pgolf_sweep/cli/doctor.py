"""`pgolf-sweep doctor`: what is missing here."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from pgolf_sweep.cli.common import (
    DEFAULT_DATA,
    DEFAULT_RUNS,
    DataRootOption,
    JsonOption,
    RunsOption,
    app,
    emit,
    out,
    say,
)

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@app.command()
def doctor(
    sweep: Annotated[
        Path | None,
        typer.Argument(metavar="[SWEEP.yaml]", help="Check what this sweep needs as well."),
    ] = None,
    *,
    address: Annotated[
        str | None,
        typer.Option("--address", help="HOST:PORT of a Ray cluster to look at, or auto."),
    ] = None,
    runs: RunsOption = DEFAULT_RUNS,
    data_root: DataRootOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Say what is missing on this machine or cluster; exit code 3 if something needed fails.

    Example: pgolf-sweep doctor sweeps/demo.yaml
    """
    from pgolf_sweep.workflows.doctor import Needs, examine
    from pgolf_sweep.workflows.doctor_check import Grade

    needs = None
    if sweep is not None:
        from pgolf_sweep.driver.opening import open_session

        session = open_session(sweep, data_root=data_root, need_data=False)
        needs = Needs(gpus=session.spec.pgolf.gpus, dataset=session.dataset)
    checks = list(
        examine(
            data_root=data_root,
            runs=runs,
            needs=needs,
            address=address,
            looking=lambda what: say(f"looking at {what} ...", style="dim"),
        )
    )
    counts = Counter(check.verdict for check in checks)
    failed = counts[Grade.FAIL]
    if json:
        emit({"ok": not failed, "checks": checks})
    else:
        table = Table("check", "verdict", "observed", "next", show_lines=False)
        for check in checks:
            verdict = Text(check.verdict, style=_STYLES[check.verdict])
            # Only what is not ok needs to say what would have been.
            wanted = "" if check.verdict is Grade.OK else f" (expected: {check.expected})"
            observed = Text(f"{check.observed}{wanted}")
            table.add_row(check.name, verdict, observed, Text(check.next_step or ""))
        out.print(table)
        say(f"{counts[Grade.OK]} ok, {counts[Grade.WARN]} warnings, {failed} failed")
    if failed:
        raise typer.Exit(3)

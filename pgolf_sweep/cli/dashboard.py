"""``dashboard``: a study in optuna-dashboard, in the browser."""

from __future__ import annotations

from typing import Annotated

import typer

from pgolf_sweep.cli.common import DEFAULT_RUNS, AnyStudyArgument, RunsOption, app, out, say


@app.command()
def dashboard(
    study: AnyStudyArgument = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8080,
    wandb: Annotated[
        bool, typer.Option("--wandb", help="Save a view of its runs in W&B instead, and print it.")
    ] = False,
    runs: RunsOption = DEFAULT_RUNS,
) -> None:
    """Show a study in optuna-dashboard until Ctrl-C: for this machine's browsers, and read-only.

    From elsewhere: ssh -L 8080:localhost:8080 THIS_MACHINE, then http://localhost:8080.

    Example: pgolf-sweep dashboard demo

    Example: pgolf-sweep dashboard demo --wandb
    """
    from contextlib import suppress

    from pgolf_sweep.cli.detached import look
    from pgolf_sweep.search.dashboard import study_server
    from pgolf_sweep.workflows.tracking import save_study_view

    if wandb:
        out.print(save_study_view(look(runs, study)), markup=False, soft_wrap=True)
        return
    server, address = study_server(look(runs, study), port)
    with server, suppress(KeyboardInterrupt):
        out.print(address, markup=False, soft_wrap=True)
        say("Ctrl-C ends it")
        server.serve_forever(poll_interval=0.2)

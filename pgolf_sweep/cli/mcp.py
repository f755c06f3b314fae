"""``pgolf-sweep mcp``: a study for an agent, by the Model Context Protocol."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated

import typer

from pgolf_sweep.cli.common import DEFAULT_RUNS, RunsOption, StudyArgument, app, say

TOKEN_VARIABLE = "PGOLF_MCP_TOKEN"  # noqa: S105 - the name of a variable


@app.command()
def mcp(
    study: StudyArgument,
    by: Annotated[
        str, typer.Option(help="The proposer: pgolf.proposers of the sweep file bounds it.")
    ],
    http: Annotated[
        int | None,
        typer.Option(
            "--http",
            min=0,
            max=65535,
            metavar="PORT",
            help="Serve on this port of 127.0.0.1, at /mcp; else on stdin and stdout.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the bearer token of --http; else PGOLF_MCP_TOKEN, else a new one, "
            "which is printed."
        ),
    ] = None,
    runs: RunsOption = DEFAULT_RUNS,
) -> None:
    """Serve a study to an agent: plan, gate, propose, wait, compare, lineage, show, logs, best.

    The agent proposes as --by and spends what the sweep file gives that name, which the driver
    enforces; without a budget it only reads. It cannot promote, delete, stop or read outside the
    study. Run it where the study is driven. docs/agents.md has a loop.

    Example: pgolf-sweep mcp demo --by ada
    """
    from pgolf_sweep.core.errors import InputError
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.launch.remote.dashboard import refuse_copies

    paths = StudyPaths.existing(runs, study)
    refuse_copies(paths, "mcp")
    try:
        from pgolf_sweep.agents.server import serve_http, serve_stdio
    except ImportError as error:
        raise InputError(
            "the MCP server needs the package mcp",
            got=str(error),
            next_step="pip install 'pgolf-sweep[mcp]'",
        ) from error
    from pgolf_sweep.agents.tools import StudyTools

    tools = StudyTools(paths, by)
    if http is None:
        serve_stdio(tools)
        return
    token = token_file.read_text().strip() if token_file else os.environ.get(TOKEN_VARIABLE, "")
    if not token:
        token = secrets.token_urlsafe(24)
        say(f"token: {token}")
    say(f"serving {paths.name} to {by} at http://127.0.0.1:{http}/mcp")
    serve_http(tools, port=http, token=token)

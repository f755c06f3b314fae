"""``pgolf-sweep init``: a project folder to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pgolf_sweep.cli.common import JsonOption, app, emit, say


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder; made if need be.")],
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite files that are there and differ.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Write a project folder: sweep files, the trainer as one script, rules, cluster files.

    Files that are there are kept.

    Example: pgolf-sweep init golf
    """
    from pgolf_sweep.workflows.project import init_project

    made = init_project(folder, force=force)
    if json_output:
        emit({"folder": made.folder, "written": made.written, "kept": made.kept})
        return
    say(f"{folder}: {len(made.written)} files written")
    if made.kept:
        say(f"kept as they are: {', '.join(made.kept)}; --force overwrites them")
    say(f"next: cd {folder} and read README.md")

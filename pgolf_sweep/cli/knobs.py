"""``pgolf-sweep knobs``: what a script can be asked to change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pgolf_sweep.cli.common import JsonOption, app, emit, out, say
from pgolf_sweep.errors import InputError


@app.command()
def knobs(
    path: Annotated[
        str, typer.Argument(metavar="PATH|trainer", help="A script, or `trainer` for ours.")
    ],
    json_output: JsonOption = False,
) -> None:
    """The environment variables that a script reads, with type and default.

    Packed scripts are unpacked for reading; nothing of the script is run.

    Example: pgolf-sweep knobs records/mine/train_gpt.py
    """
    from pgolf_sweep.script.knobs import read_knobs

    where: Path | None = None
    if path == "trainer":
        from pgolf_sweep.script.bundle import bundle

        source = bundle().decode()
    else:
        where = Path(path)
        if not where.is_file():
            raise InputError(
                f"no script at {path}",
                where=path,
                expected="the path of a Python script, or `trainer`",
            )
        source = where.read_bytes().decode(errors="replace")
    try:
        found = read_knobs(source, path=where)
    except SyntaxError as error:
        raise InputError(
            f"{path} is not valid Python: {error.msg}", where=f"{path}:{error.lineno}"
        ) from error
    if json_output:
        emit({"program": path, "knobs": list(found.values())})
        return
    if not found:
        say(f"{path} reads no environment variable")
        return
    from rich.table import Table

    table = Table("knob", "type", "default", "line", box=None, pad_edge=False)
    for knob in found.values():
        default = "-" if knob.default is None else str(knob.default)
        table.add_row(knob.name, knob.kind, _short(default), str(knob.line))
    out.print(table)
    say(f"{len(found)} knobs; `-` is a default that only the running script knows")


def _short(text: str) -> str:
    """A default that fits a table's column; brackets in it are no markup."""
    from rich.markup import escape

    return escape(text if len(text) <= 48 else text[:45] + "...")

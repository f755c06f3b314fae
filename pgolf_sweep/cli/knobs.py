"""``pgolf-sweep knobs``: what a script can be asked to change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgolf_sweep.cli.common import JsonOption, app, emit, out, say
from pgolf_sweep.core.errors import InputError

if TYPE_CHECKING:
    from pgolf_sweep.script.knobs.knobs import Knob


@app.command()
def knobs(
    path: Annotated[
        str, typer.Argument(metavar="PATH|trainer", help="A script, or `trainer` for ours.")
    ],
    json_output: JsonOption = False,
) -> None:
    """The environment variables and flags that a script reads, with type and default.

    Packed scripts are unpacked for reading; nothing of the script is run. A boolean shows the texts
    that the script takes for true and false: true/false in a sweep file become these. Reads whose
    names only the running script knows are counted; a sweep's parameter must be named in the text.

    Example: pgolf-sweep knobs records/mine/train_gpt.py
    """
    from pgolf_sweep.script.knobs.flags import Flags, read_flags
    from pgolf_sweep.script.knobs.knobs import survey
    from pgolf_sweep.script.source import decoded, parsed
    from pgolf_sweep.script.unpack import unpack

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
        source = decoded(where.read_bytes())
    text = unpack(source, path=where)
    try:
        read = survey({path: text})
    except SyntaxError as error:
        raise InputError(
            f"{path} is not valid Python: {error.msg}",
            where=f"{path}:{error.lineno}",
            expected="a script that this Python can run",
        ) from error
    found = read.knobs
    flags = Flags() if where is None else read_flags([parsed(text)])
    if json_output:
        documents = [
            {
                "name": knob.name,
                "kind": knob.kind,
                "default": knob.default,
                "line": knob.line,
                "texts": knob.texts,
            }
            for knob in found.values()
        ]
        options = [
            {
                "name": name,
                "kind": knob.kind,
                "default": knob.default,
                "line": knob.line,
                "choices": knob.choices,
                "takes_value": knob.switch is None,
            }
            for name, knob in flags.known.items()
        ]
        emit(
            {
                "program": path,
                "knobs": documents,
                "unnamed": read.unnamed,
                "flags": options,
                "beyond": flags.beyond,
            }
        )
        return
    if read.unnamed:
        say(
            f"{len(read.unnamed)} reads have names that only the running script knows: "
            f"{', '.join(read.unnamed)}"
        )
    if flags.beyond:
        say(f"flags may also come from {', '.join(flags.beyond)}: only the running script knows")
    if not found and not flags.known:
        say(f"{path} reads no environment variable and takes no flag")
        return
    from rich.table import Table

    table = Table("knob", "type", "default", "line", box=None, pad_edge=False)
    for knob in found.values():
        default = "-" if knob.default is None else str(knob.default)
        kind = knob.kind if knob.words is None else f"bool: {_texts(knob)}"
        table.add_row(knob.name, kind, _short(default), str(knob.line))
    for name, knob in flags.known.items():
        default = "-" if knob.default is None else str(knob.default)
        choices = "" if knob.switch is None else " (no value)"
        choices = f": {'/'.join(knob.choices)}" if knob.choices else choices
        table.add_row(f"--{name}", f"{knob.kind}{choices}", _short(default), str(knob.line))
    out.print(table)
    count = f"{len(found)} environment variables, {len(flags.known)} flags"
    say(f"{count}; `-` is a default that only the running script knows")


def _texts(knob: Knob) -> str:
    """The texts for true and for false; the empty one can be seen."""
    return "/".join(text or "''" for text in knob.texts)


def _short(text: str) -> str:
    """A default that fits a table's column; brackets in it are no markup."""
    from rich.markup import escape

    return escape(text if len(text) <= 48 else text[:45] + "...")

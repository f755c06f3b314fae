"""``pgolf-sweep verify``: does a submission folder pass the rules?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgolf_sweep.cli.common import JsonOption, app, emit, out, say

if TYPE_CHECKING:
    from pgolf_sweep.ship.verify import Verification

_STYLES = {"pass": "green", "warn": "yellow", "unknown": "dim", "fail": "bold red"}


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A submission folder.")],
    rules: Annotated[
        str | None,
        typer.Option(
            "--rules",
            help="A preset or a YAML file; else what submission.json or the track implies.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check a submission folder, anyone's, rule by rule.

    Exit code 0 if no rule is broken, 1 if one is. A rule that the folder does not let one decide
    is `unknown` and breaks nothing.

    Example: pgolf-sweep verify submissions/2026-04-01_mine
    """
    from pgolf_sweep.rules import load_rules
    from pgolf_sweep.ship.verify import verify as check_folder

    chosen = load_rules(rules, base=Path()) if rules is not None else None
    found = check_folder(folder, chosen)
    if json:
        emit({"folder": found.folder, "rules": found.rules, "ok": found.ok, "checks": found.checks})
    else:
        _show(found)
    if not found.ok:
        raise typer.Exit(1)


def _show(found: Verification) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    table.add_column("rule", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for heading in ("observed", "limit", "detail"):
        table.add_column(heading, overflow="fold")
    for check in found.checks:
        verdict = Text(check.verdict.value, style=_STYLES[check.verdict.value])
        cells = (check.observed, check.limit, check.detail)
        table.add_row(check.rule, verdict, *(Text(cell) for cell in cells))
    out.print(table)
    failed = len(found.failures)
    answer = "passes" if found.ok else f"breaks {failed} rule{'s' if failed != 1 else ''} of"
    say(f"{found.folder} {answer} {found.rules}")

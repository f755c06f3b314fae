"""``pgolf-sweep verify``: do submission folders pass the rules?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgolf_sweep.cli.common import (
    DEFAULT_DATA,
    DataRootOption,
    JsonOption,
    app,
    emit,
    fail,
    out,
    say,
    typed,
)

if TYPE_CHECKING:
    from pgolf_sweep.core.errors import PgolfError
    from pgolf_sweep.verify.verify import Verification

_STYLES = {"pass": "green", "warn": "yellow", "unknown": "dim", "fail": "bold red"}


@app.command()
def verify(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Submission folders, anyone's.")
    ],
    rules: Annotated[
        str | None,
        typer.Option(
            "--rules",
            help="A preset or a YAML file; else what submission.json or the track implies.",
        ),
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="YAML of the record to beat, with its date and source.")
    ] = None,
    rerun: Annotated[
        bool, typer.Option("--rerun", help="Train once more and compare; needs the hardware.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the run again; else the first log's.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Data set of the run again; else as the folder says.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="An existing Ray cluster for the run; else a local one.")
    ] = None,
    work: Annotated[
        Path, typer.Option(help="Where the run again leaves its log and model.")
    ] = Path("rerun"),
    data_root: DataRootOption = DEFAULT_DATA,
    json_output: JsonOption = False,
) -> None:
    """Check submission folders, anyone's, rule by rule.

    Exit code 0 if no rule is broken, 1 if one is. A rule that a folder does not let one decide
    is `unknown` and breaks nothing. Of several folders each is checked, also after one that is
    not there (exit code 2); the exit code is the highest.

    Example: pgolf-sweep verify submissions/2026-04-01_mine

    Example: pgolf-sweep verify runs/demo/submission/* --rerun
    """
    from pgolf_sweep.workflows.verify import RunAgain, verify_each

    again = None
    if rerun:
        again = RunAgain(
            seed=seed, data=data, data_root=data_root, address=address, work=work, report=say
        )
    documents, worst = [], 0
    for path, answer in verify_each(folders, rules=rules, record=record, rerun=again):
        if isinstance(answer, Exception):
            if len(folders) == 1:
                raise answer
            known = typed(answer)
            worst = max(worst, known.exit_code)
            documents.append(_refused(path, known))
            fail(known)
        else:
            worst = max(worst, 0 if answer.ok else 1)
            documents.append(_document(answer))
            if not json_output:
                _show(answer)
    if json_output:
        emit(documents[0] if len(documents) == 1 else {"ok": worst == 0, "folders": documents})
    if worst:
        raise typer.Exit(worst)


def _document(found: Verification) -> dict[str, Any]:
    return {"folder": found.folder, "rules": found.rules, "ok": found.ok, "checks": found.checks}


def _refused(path: Path, error: PgolfError) -> dict[str, Any]:
    """A folder that could not be checked, for JSON."""
    names = ("what", "where", "got", "expected", "next_step", "exit_code")
    return {"folder": path, "ok": False, "error": {name: getattr(error, name) for name in names}}


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

"""``pgolf-sweep verify``: do submission folders pass the rules?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgolf_sweep.cli.common import (
    DEFAULT_DATA,
    DEFAULT_RUNS,
    DataRootOption,
    JsonOption,
    RunsOption,
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
        list[str] | None,
        typer.Argument(
            metavar="[FOLDER]...",
            help="Submission folders, anyone's, zips of them, or REPO@REF:PATH of a local git "
            "repository.",
        ),
    ] = None,
    changed: Annotated[
        str | None,
        typer.Option(
            metavar="BASE",
            help="The record folders that this git checkout adds or changes since it left BASE.",
        ),
    ] = None,
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
    strict: Annotated[
        bool, typer.Option("--strict", help="A warning, or what cannot be told, breaks a rule too.")
    ] = False,
    explain: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="What a rule asks, how it is measured, and its source; `all` for every rule.",
        ),
    ] = None,
    ledger: Annotated[
        str | None,
        typer.Option(
            metavar="STUDY",
            help="Check the ledger of a study, by name or folder: chain, signatures, and whether "
            "the study says the same.",
        ),
    ] = None,
    json_schema: Annotated[
        bool, typer.Option("--json-schema", help="Print the JSON schema of the answer of --json.")
    ] = False,
    rerun: Annotated[
        bool,
        typer.Option(
            "--rerun", help="Score the model, train once more, compare; needs the hardware."
        ),
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
    runs: RunsOption = DEFAULT_RUNS,
    json_output: JsonOption = False,
) -> None:
    """Check submission folders, anyone's, rule by rule.

    Exit code 0 if no rule is broken, 1 if one is. A rule that a folder does not let one decide
    is `unknown` and breaks nothing. Of several folders each is checked, also after one that is
    not there (exit code 2); the exit code is the highest.

    Example: pgolf-sweep verify submissions/2026-04-01_mine

    Example: pgolf-sweep verify runs/demo/submission/* --rerun

    Example: pgolf-sweep verify --changed origin/main --strict

    Example: pgolf-sweep verify --explain bytes_per_token

    Example: pgolf-sweep verify --ledger demo
    """
    if ledger is not None:
        _check_ledger(runs, ledger, json_output=json_output)
        return
    if explain is not None:
        _explain(explain, json_output=json_output)
        return
    if json_schema:
        from pgolf_sweep.verify.schema import answer_schema

        emit(answer_schema())
        return
    from pgolf_sweep.workflows.verify import RunAgain, verify_each

    again = None
    if rerun:
        again = RunAgain(
            seed=seed, data=data, data_root=data_root, address=address, work=work, report=say
        )
    documents, worst = [], 0
    paths = _named(folders or [], changed)
    alone = len(paths) == 1 and changed is None
    for path, answer in verify_each(paths, rules=rules, record=record, rerun=again):
        if isinstance(answer, Exception) and alone:
            raise answer
        document, code = _told(path, answer, strict=strict, quiet=json_output)
        documents.append(document)
        worst = max(worst, code)
    if json_output:
        emit(documents[0] if alone else {"ok": worst == 0, "folders": documents})
    elif not documents:
        say(f"no record folder differs from {changed}")
    if worst:
        raise typer.Exit(worst)


def _check_ledger(runs: Path, study: str, *, json_output: bool) -> None:
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.workflows.ledger import check_ledger

    found = check_ledger(StudyPaths.existing(runs, study))
    if json_output:
        emit(dataclasses.asdict(found) | {"ok": found.ok})
    else:
        for problem in found.problems:
            out.print(problem)
        signed = (
            f"{found.signed} signed by {', '.join(found.signers)}"
            if found.signed
            else "none signed"
        )
        say(f"{found.entries} entries, {signed}: {'the chain holds' if found.ok else 'broken'}")
    if not found.ok:
        raise typer.Exit(1)


def _told(
    path: Path, answer: Verification | Exception, *, strict: bool, quiet: bool
) -> tuple[dict[str, Any], int]:
    """Shows the answer for one folder of several; its document and its exit code."""
    if isinstance(answer, Exception):
        known = typed(answer)
        fail(known)
        return _refused(path, known), known.exit_code
    if not quiet:
        _show(answer, strict=strict)
    return _document(answer, strict=strict), 0 if answer.passes(strict=strict) else 1


def _named(folders: list[str], changed: str | None) -> list[str]:
    """What to check: the arguments, or the folders that the checkout changes."""
    from pgolf_sweep.core.errors import InputError
    from pgolf_sweep.verify.git import changed_folders

    if bool(folders) == (changed is not None):
        raise InputError(
            "no submission folder is named" if not folders else "folders and --changed are named",
            expected="FOLDER..., or --changed BASE",
            next_step="pgolf-sweep verify --help",
        )
    return folders if changed is None else [str(p) for p in changed_folders(changed, Path())]


def _refused(path: Path, error: PgolfError) -> dict[str, Any]:
    """A folder that could not be checked, for JSON."""
    names = ("what", "where", "got", "expected", "next_step", "exit_code")
    return {"folder": path, "ok": False, "error": {name: getattr(error, name) for name in names}}


def _explain(rule: str, *, json_output: bool) -> None:
    from pgolf_sweep.verify.explain import RULES, explain

    chosen = RULES if rule == "all" else {rule: explain(rule)}
    if json_output:
        emit(chosen)
        return
    for name, told in chosen.items():
        out.print(f"{name}: {told.asks}")
        out.print(f"  measured: {told.measured}")
        out.print(f"  source: {told.source}")


def _document(found: Verification, *, strict: bool) -> dict[str, Any]:
    return {
        "folder": found.folder,
        "rules": found.rules,
        "strict": strict,
        "ok": found.passes(strict=strict),
        "checks": found.checks,
    }


def _show(found: Verification, *, strict: bool) -> None:
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
    failed = len(found.unmet(strict=strict))
    answer = "passes" if not failed else f"breaks {failed} rule{'s' if failed != 1 else ''} of"
    say(f"{found.folder} {answer} {found.rules}{', taken strictly' if strict else ''}")

"""Studies and their trials as tables: list, trials, best."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgolf_sweep.cli.common import (
    DEFAULT_RUNS,
    AnyStudyArgument,
    JsonOption,
    RunsOption,
    app,
    emit,
    out,
    say,
)
from pgolf_sweep.core.errors import AnswerNoError, InputError

if TYPE_CHECKING:
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.report.trials import StudyRead


@app.command("list")
def list_studies(runs: RunsOption = DEFAULT_RUNS, json_output: JsonOption = False) -> None:
    """Every study here: how it stands, its trials, its best; those that changed last first.

    Example: pgolf-sweep list
    """
    from pgolf_sweep.core.errors import PgolfError
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.report.read import study_status

    rows: list[dict[str, Any]] = []
    for paths in StudyPaths.every(runs):
        try:
            document = study_status(paths).to_json()
        except PgolfError as error:
            # One broken study must not hide the others.
            say(f"study {paths.name!r} is left out: {error.what}")
            continue
        keys = ("study", "state", "metric", "trials", "best")
        row = {key: document[key] for key in keys}
        rows.append(row | {"folder": paths.root, "changed_at": paths.changed_at})
    if json_output:
        emit({"studies": rows})
    elif rows:
        _show_studies(rows)
    else:
        say(f"no study in {runs}; next: pgolf-sweep launch SWEEP.yaml")


def _show_studies(rows: list[dict[str, Any]]) -> None:
    from datetime import datetime

    from pgolf_sweep.cli.render import StudiesTable
    from pgolf_sweep.core.record import SCORE
    from pgolf_sweep.report.text import bytes_text, score

    named = any(row["metric"] != SCORE for row in rows)
    heading = "best" if named else SCORE
    cells = []
    for row in rows:
        best = row["best"] or {}
        changed = datetime.fromtimestamp(row["changed_at"]).astimezone()
        name = f"{row['metric']} " if named and best else ""
        cells.append(
            {
                "study": row["study"],
                "state": row["state"],
                "completed": str(row["trials"]["completed"]),
                "all": str(sum(row["trials"].values())),
                heading: name + score(best.get(row["metric"])),
                "headroom": bytes_text(best.get("headroom_bytes")),
                "changed": f"{changed:%Y-%m-%d %H:%M}",
            }
        )
    out.print(StudiesTable(cells))


@app.command()
def trials(
    study: AnyStudyArgument = None,
    outcome: Annotated[
        str | None,
        typer.Option(
            help="Only completed, screened, pruned, discarded, failed, running or queued ones."
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="[-]KEY", help="By a key of the JSON or a knob, smallest first; - for largest."
        ),
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Only the first N.")] = None,
    csv: Annotated[
        bool, typer.Option("--csv", help="Print comma-separated values, a knob a column.")
    ] = False,
    parquet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the same table; needs pyarrow.")
    ] = None,
    runs: RunsOption = DEFAULT_RUNS,
    json_output: JsonOption = False,
) -> None:
    """Every trial of a study with its outcome and the reason of it.

    Example: pgolf-sweep trials demo --outcome discarded

    Example: pgolf-sweep trials demo --sort=-artifact_bytes --top 10 --csv
    """
    from pgolf_sweep.cli.detached import look
    from pgolf_sweep.cli.render import trials_table, varied_knobs
    from pgolf_sweep.core.record import State
    from pgolf_sweep.report.noops import no_op_knobs
    from pgolf_sweep.report.trials import read_trials

    if outcome is not None and outcome not in set(State):
        raise InputError(
            f"no outcome is called {outcome!r}", expected=", ".join(state.value for state in State)
        )
    if csv + json_output + (parquet is not None) > 1:
        raise InputError("--csv, --parquet and --json exclude one another")
    paths = look(runs, study)
    found = read_trials(paths)
    everything = found.records
    chosen = [record for record in everything if outcome in {None, record.outcome.value}]
    chosen = (chosen if sort is None else found.in_order(sort, chosen))[:top]
    if json_output:
        idle = [dataclasses.asdict(one) for one in no_op_knobs(everything)]
        document = {"study": paths.name, "metric": found.score_name}
        emit(document | {"trials": found.rows(chosen), "no_op_knobs": idle})
    elif csv:
        sys.stdout.write(found.table(chosen).to_csv(index=False))
    elif parquet is not None:
        _write_parquet(found, chosen, parquet)
    else:
        out.print(trials_table(chosen, varied_knobs(everything)))
        for one in no_op_knobs(everything):
            say(one.sentence, prose=True)


def _write_parquet(found: StudyRead, chosen: list[TrialRecord], file: Path) -> None:
    try:
        found.table(chosen).to_parquet(file, index=False)
    except ImportError as error:
        raise InputError(
            "parquet files need pyarrow",
            got=str(error).splitlines()[0],
            next_step="pip install pyarrow, or --csv",
        ) from error
    say(f"wrote {file}: {len(chosen)} trials")


@app.command()
def best(
    study: AnyStudyArgument = None,
    top: Annotated[int, typer.Option(help="That many.", min=1)] = 5,
    trial: Annotated[
        int | None, typer.Option("--trial", "-t", help="This trial instead of the best.")
    ] = None,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="Print a sweep file whose launch trains it again.")
    ] = False,
    as_env: Annotated[
        bool, typer.Option("--env", help="Print its environment, a file to source.")
    ] = False,
    as_command: Annotated[
        bool, typer.Option("--command", help="Print the line that trains it on this machine.")
    ] = False,
    runs: RunsOption = DEFAULT_RUNS,
    json_output: JsonOption = False,
) -> None:
    """The best trials whose artifact is within the cap; exit code 1 if there is none.

    With --yaml, --env or --command the best alone, or --trial N, in a form that can be run.

    Example: pgolf-sweep best demo --top 3

    Example: pgolf-sweep best demo --trial 3 --command
    """
    from pgolf_sweep.cli.detached import look
    from pgolf_sweep.cli.render import trials_table, varied_knobs
    from pgolf_sweep.core.record import ranked
    from pgolf_sweep.report.search import evidence
    from pgolf_sweep.report.trials import read_trials

    forms = {"yaml": as_yaml, "env": as_env, "command": as_command}
    asked = [form for form, wanted in forms.items() if wanted]
    if len(asked) > 1:
        raise InputError("--yaml, --env and --command exclude one another")
    paths = look(runs, study)
    found = read_trials(paths)
    first = ranked(found.records, found.posteriors)[: 1 if asked else top]
    if trial is not None:
        first = [record for record in found.records if record.number == trial]
        if not first:
            raise InputError(
                f"study {paths.name!r} has no trial {trial}",
                expected=f"0 to {len(found.records) - 1}" if found.records else "a trial",
            )
    if asked and first:
        _print_form(paths, first[0], asked[0], json_output=json_output)
    elif json_output:
        emit({"study": paths.name, "metric": found.score_name, "trials": found.rows(first)})
    elif first:
        varied = varied_knobs(found.records)
        out.print(trials_table(first, varied, posteriors=found.posteriors))
        for text in evidence(found.records, found.posteriors):
            say(text, prose=True)
    if not first:
        raise AnswerNoError(
            f"study {paths.name!r} has no completed trial within the cap yet",
            next_step=f"pgolf-sweep trials {paths.name}",
        )


def _print_form(paths: StudyPaths, record: TrialRecord, form: str, *, json_output: bool) -> None:
    from pgolf_sweep.workflows.rerun import env_text, rerun_command, rerun_env, rerun_yaml

    env = rerun_env(paths, record)
    if form == "env":
        text = env_text(env)
    else:
        text = rerun_yaml(paths, record) if form == "yaml" else rerun_command(paths, record) + "\n"
    if json_output:
        shown = env if form == "env" else text.rstrip("\n")
        emit({"study": paths.name, "trial": record.number, form: shown})
    else:
        sys.stdout.write(text)

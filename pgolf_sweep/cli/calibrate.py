"""``pgolf-sweep calibrate``: keep what finished runs measured, for the gate of later studies."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgolf_sweep.cli.common import DEFAULT_RUNS, JsonOption, RunsOption, app, emit, out, say
from pgolf_sweep.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgolf_sweep.script.program import Program
    from pgolf_sweep.size.store import Measured


@app.command()
def calibrate(
    study: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="Import a study's finished trials.")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="Import a CSV, one run a row: columns named as knobs, and model_bytes."),
    ] = None,
    log: Annotated[
        list[Path] | None, typer.Option(help="Import the size that a log tells; repeatable.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="K=V", help="A knob of the logs' runs; repeatable."),
    ] = None,
    program: Annotated[
        str | None, typer.Option(help="The script of logs and table instead of our trainer.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="The store's file instead of this user's own.")
    ] = None,
    runs: RunsOption = DEFAULT_RUNS,
    json_output: JsonOption = False,
) -> None:
    """Import measured sizes into a store that the gate of later studies learns from.

    A study learns from its own trials anyway. A sweep file asks for a store with
    `pgolf: {gate: {calibration: user}}`, `gate` and `plan` with `--calibration user`. Importing
    twice changes nothing. A table of the contest's logs is recognised by its columns; it says how
    well the physics predicts such scripts, and is not mixed with our trainer's sizes.

    Example: pgolf-sweep calibrate demo
    """
    from pgolf_sweep.size.store import append, read_store, user_store

    path = store or user_store()
    found: list[Measured] = []
    skipped = 0
    published = None
    if study is not None:
        found += _of_study(study, runs)
    if log or table is not None:
        loaded = _program(program)
        if log:
            found += [_of_log(one, settings or [], loaded) for one in log]
        if table is not None:
            rows = _rows(table)
            published = _published(rows)
            if published is None:
                read = [_of_row(row, loaded, f"{table.name}:{n}") for n, row in enumerate(rows, 2)]
                found += [run for run in read if run is not None]
                skipped = sum(run is None for run in read)
    added = append(path, found)
    held = read_store(path)
    known = _known(held)
    if json_output:
        emit({
            "store": path, "added": added, "known_before": len(found) - added, "skipped": skipped,
            "runs": len(held), "published": published, "trainer": known,
        })  # fmt: skip
        return
    if found or skipped:
        already = len(found) - added
        say(f"{added} runs added, {already} known before, {skipped} rows without size or knobs")
    if published is not None:
        _show_published(published)
    out.print(f"{path}: {len(held)} runs", markup=False)
    if known:
        out.print(
            f"our trainer: {known['runs']} runs; the prediction alone is off by "
            f"{known['median_error_percent']:.2f} % (median)",
            markup=False,
        )


def _program(name: str | None) -> Program:
    from pgolf_sweep.script.program import BUILTIN, load_program

    return load_program(name or BUILTIN, base=Path.cwd(), extra_files=())


def _of_study(study: str, runs: Path) -> list[Measured]:
    from pgolf_sweep.launch.detached import refuse_copies
    from pgolf_sweep.report.read import study_records
    from pgolf_sweep.session import stored_program
    from pgolf_sweep.size.store import Measured, program_key
    from pgolf_sweep.trialdir import StudyPaths

    paths = StudyPaths.existing(runs, study)
    refuse_copies(paths, "calibrate")
    loaded = stored_program(paths)
    key = program_key(builtin=loaded.builtin, sha256=loaded.sha256)
    return [
        Measured(
            program=key,
            knobs=record.knobs,
            model_bytes=record.model_bytes,
            source=f"{paths.name}/{record.number}",
            steps=record.steps,
            train_seconds=record.train_seconds,
        )
        for record in study_records(paths.root)
        if record.model_bytes and record.duplicate_of is None
    ]


def _of_log(path: Path, settings: list[str], program: Program) -> Measured:
    from pgolf_sweep.cli.gate import parsed_settings
    from pgolf_sweep.script.logstream import parse_log
    from pgolf_sweep.size.store import Measured, program_key

    summary = parse_log(path)
    if summary.model_bytes is None:
        raise InputError(
            "the log does not say how large the model is",
            where=str(path),
            expected="a line such as 'Serialized model int8+zlib: 15815847 bytes'",
        )
    knobs = parsed_settings(settings, program)
    if summary.seed is not None:
        knobs.setdefault("SEED", summary.seed)
    return Measured(
        program=program_key(builtin=program.builtin, sha256=program.sha256),
        knobs=knobs,
        model_bytes=summary.model_bytes,
        source=path.name,
        steps=summary.steps,
        train_seconds=summary.train_seconds,
    )


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError("the table cannot be read", where=str(path), got=str(error)) from error
    if not rows or "model_bytes" not in rows[0]:
        raise InputError(
            "the table does not say how large the models are",
            where=str(path),
            expected="a header line with a column model_bytes",
        )
    return rows


def _of_row(row: Mapping[str, str], program: Program, source: str) -> Measured | None:
    """A row whose columns are knobs, in upper or lower case."""
    from pgolf_sweep.cli.gate import value_of
    from pgolf_sweep.size.store import Measured, program_key

    knobs = {
        name.upper(): value_of(text)
        for name, text in row.items()
        if name.upper() in program.knobs and text
    }
    try:
        model_bytes = int(float(row["model_bytes"]))
    except (ValueError, OverflowError):
        return None
    if not knobs or model_bytes <= 0:
        return None
    return Measured(
        program=program_key(builtin=program.builtin, sha256=program.sha256),
        knobs=knobs,
        model_bytes=model_bytes,
        source=source,
    )


def _published(rows: list[dict[str, str]]) -> dict[str, Any] | None:
    """What a table of the contest's logs says of the physics; None for any other table."""
    from statistics import median

    from pgolf_sweep.size.calibration import Calibration
    from pgolf_sweep.size.published import predict_run
    from pgolf_sweep.size.published_rows import complete, read_run

    if not {"quant_scheme", "record", "codec"} <= rows[0].keys():
        return None
    runs = [run for row in complete(rows) if (run := read_run(row)) is not None]
    errors: dict[str, list[float]] = {}
    for record in sorted({run.record for run in runs}):
        calibration = Calibration()
        for run in runs:
            if run.record != record:
                size = predict_run(run)
                error = run.model_bytes - size.model_bytes
                calibration.learn(size.traits, size.noise_bytes, run.configuration, error)
        for run in runs:
            if run.record == record:
                size = predict_run(run)
                shift = calibration.shift(size.traits, size.noise_bytes, run.configuration)
                off = abs((size.model_bytes + shift.mean) / run.model_bytes - 1)
                errors.setdefault(size.regime, []).append(100 * off)
    return {
        "rows": len(rows),
        "read": len(runs),
        "regimes": {
            name: {"runs": len(found), "median_error_percent": median(found)}
            for name, found in sorted(errors.items())
        },
    }


def _show_published(published: Mapping[str, Any]) -> None:
    read, rows = published["read"], published["rows"]
    out.print(f"contest logs: {read} of {rows} rows read, cross-validated by record:")
    for name, found in published["regimes"].items():
        error = found["median_error_percent"]
        out.print(f"  {name}: {found['runs']} runs, median error {error:.3f} %", markup=False)


def _known(held: list[Measured]) -> dict[str, Any] | None:
    """How far off the prediction alone is on what a store holds of our trainer."""
    from statistics import median

    from pgolf_sweep.script.program import BUILTIN, load_program
    from pgolf_sweep.size.gate import Gate
    from pgolf_sweep.size.store import OUR_TRAINER

    ours = [run for run in held if run.program == OUR_TRAINER]
    if not ours:
        return None
    program = load_program(BUILTIN, base=Path.cwd(), extra_files=())
    judge = Gate(program, cap_bytes=1)
    errors = []
    for run in ours:
        expected = judge.verdict(run.knobs).model_bytes
        if expected is not None:
            errors.append(100 * abs(expected.mid / run.model_bytes - 1))
    if not errors:
        return None
    return {"runs": len(ours), "median_error_percent": median(errors)}

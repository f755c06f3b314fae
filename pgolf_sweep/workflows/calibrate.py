"""`calibrate`: measured sizes of finished runs into a store that later studies learn from."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.paths import StudyPaths
from pgolf_sweep.core.trial import VerdictKind, parsed_value
from pgolf_sweep.driver.opening import stored_program
from pgolf_sweep.gate.gate import Gate
from pgolf_sweep.gate.store import OUR_TRAINER, append, measured, read_store, user_store
from pgolf_sweep.launch.remote.dashboard import refuse_copies
from pgolf_sweep.report.read import study_records
from pgolf_sweep.script.logs.stream import parse_log
from pgolf_sweep.script.program import BUILTIN, load_program
from pgolf_sweep.workflows.gate import checked_knobs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.gate.store import Measured
    from pgolf_sweep.script.program import Program


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRuns:
    """A store after an import.

    Attributes:
        store: Its file.
        added: Runs that are new in it.
        known_before: Imported runs that it already held.
        skipped: Rows of the table that are damaged, or without a size or readable knobs.
        runs: Runs that it holds now.
        unread_lines: Its lines that do not read.
        trainer: Of our trainer's runs in it, how many and the median error of the prediction
            alone in percent; None for no such run.
    """

    store: Path
    added: int
    known_before: int
    skipped: int
    runs: int
    unread_lines: int
    trainer: dict[str, Any] | None


def calibrate(
    *,
    study: str | None = None,
    table: Path | None = None,
    logs: Sequence[Path] = (),
    settings: Mapping[str, KnobValue] | None = None,
    program: str | None = None,
    store: Path | None = None,
    runs: Path = Path("runs"),
) -> StoredRuns:
    """Import measured sizes into a store; importing twice changes nothing.

    Args:
        study: A study whose finished trials are imported.
        table: A CSV, one run a row: columns named as knobs, and model_bytes.
        logs: Logs that print their artifact's size.
        settings: Knobs of the logs' runs that are not the program's defaults.
        program: The script of logs and table; None for our trainer.
        store: The store's file; None for this user's own.
        runs: Folder of the studies.

    Raises:
        InputError: A study, log, table or knob is missing or does not fit the program.
    """
    path = store or user_store()
    found: list[Measured] = []
    skipped = 0
    if study is not None:
        found += _of_study(study, runs)
    if logs or table is not None:
        loaded = load_program(program or BUILTIN, base=Path.cwd(), extra_files=())
        for log in logs:
            found += _of_log(log, settings or {}, loaded)
        if table is not None:
            rows, skipped = _rows(table)
            _refuse_contest_logs(table, rows.values())
            read = [_of_row(row, loaded, f"{table.name}:{n}") for n, row in rows.items()]
            found += [run for run in read if run is not None]
            skipped += sum(run is None for run in read)
    added = append(path, found)
    held = read_store(path)
    return StoredRuns(
        store=path,
        added=added,
        known_before=len(found) - added,
        skipped=skipped,
        runs=len(held.runs),
        unread_lines=held.unread,
        trainer=_known(held.runs),
    )


def _of_study(study: str, runs: Path) -> list[Measured]:
    paths = StudyPaths.existing(runs, study)
    refuse_copies(paths, "calibrate")
    loaded = stored_program(paths)
    return [
        measured(
            loaded,
            record.knobs,
            record.model_bytes,
            f"{paths.name}/{record.number}",
            steps=record.steps,
            train_seconds=record.train_seconds,
        )
        for record in study_records(paths.root)
        if record.model_bytes and record.duplicate_of is None and not record.variant
    ]


def _of_log(path: Path, settings: Mapping[str, KnobValue], program: Program) -> list[Measured]:
    """The sizes that a log tells: of the artifact as configured, and of a smaller export of it."""
    summary = parse_log(path)
    knobs = checked_knobs(dict(settings), program)
    _check_params(path, summary.model_params, knobs, program)
    if summary.seed is not None:
        knobs.setdefault("SEED", summary.seed)
    changes = {name: parsed_value(text) for name, text in summary.exported.items()}
    sizes = [(summary.over_cap or summary, knobs)]
    if summary.over_cap is not None:
        sizes.append((summary, {**knobs, **changes}))
    found = [
        measured(
            program,
            values,
            one.model_bytes,
            path.name,
            steps=one.steps,
            train_seconds=one.train_seconds,
        )
        for one, values in sizes
        if one.model_bytes
    ]
    if not found:
        raise InputError(
            "the log does not say how large the model is",
            where=str(path),
            expected="a line such as 'Serialized model int8+zlib: 15815847 bytes'",
        )
    return found


def _check_params(
    path: Path, logged: int | None, knobs: Mapping[str, KnobValue], program: Program
) -> None:
    """Refuse a log of our trainer that is not of these knobs.

    Other scripts count parameters in ways of their own.
    """
    if not program.builtin:
        return
    verdict = Gate(program, cap_bytes=1).verdict(knobs)
    next_step = "name each knob of the run that was not the trainer's default with --set K=V"
    if verdict.kind is VerdictKind.INVALID:
        raise InputError(
            "no run can have had these knobs",
            where=str(path),
            got=verdict.reason,
            next_step=next_step,
        )
    if logged is not None and logged != verdict.model_params:
        raise InputError(
            "the log is of another configuration",
            where=str(path),
            got=f"model_params {logged:,}",
            expected=f"{verdict.model_params:,}, which these knobs make",
            next_step=next_step,
        )


def _rows(path: Path) -> tuple[dict[int, dict[str, str]], int]:
    """A table's rows by line, and how many are damaged: a field too few or too many."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows: dict[int, dict[Any, Any]] = {}
            for row in reader:
                rows[reader.line_num] = row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError("the table cannot be read", where=str(path), got=str(error)) from error
    if not rows or "model_bytes" not in (reader.fieldnames or ()):
        raise InputError(
            "the table does not say how large the models are",
            where=str(path),
            expected="a header line with a column model_bytes, and rows",
        )
    whole = {n: row for n, row in rows.items() if None not in row and None not in row.values()}
    return whole, len(rows) - len(whole)


def _of_row(row: Mapping[str, str], program: Program, source: str) -> Measured | None:
    """A row whose columns are knobs, in upper or lower case; None where it does not read."""
    knobs = {
        name.upper(): parsed_value(text)
        for name, text in row.items()
        if name.upper() in program.knobs and text
    }
    try:
        model_bytes = int(float(row["model_bytes"]))
    except (ValueError, OverflowError):
        return None
    reads = all(program.knobs[name].takes(value) for name, value in knobs.items())
    if not knobs or not reads or model_bytes <= 0:
        return None
    return measured(program, knobs, model_bytes, source)


def _refuse_contest_logs(table: Path, rows: Iterable[dict[str, str]]) -> None:
    """Keep the sizes of other people's scripts out of a store of one program's.

    Raises:
        InputError: The columns are those of a table of the contest's logs.
    """
    columns = next((row.keys() for row in rows), ())
    if {"quant_scheme", "record", "codec"} <= set(columns):
        raise InputError(
            "a table of many programs' logs teaches one program's gate nothing",
            where=str(table),
            got="columns quant_scheme, record, codec",
            expected="rows of one program: its knobs by name, and model_bytes",
            next_step="python bench/gate/runs_csv.py TABLE says how well the physics predicts it",
        )


def _known(held: Sequence[Measured]) -> dict[str, Any] | None:
    """How far off the prediction alone is on what a store holds of our trainer."""
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

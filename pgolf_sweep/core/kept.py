"""Files of a study's folder that keep its trials, read with care: any of them may be damaged."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import InfraError, InputError
from pgolf_sweep.core.paths import on_disk, put_aside, read_json
from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.core.trial import run_identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pgolf_sweep.core.paths import StudyPaths, TrialPaths


def read_result(folder: TrialPaths) -> dict[str, Any] | None:
    """A trial's ``result.json``; None where there is none.

    Raises:
        InfraError: It is damaged.
    """
    if not folder.result.is_file():
        return None
    document = read_json(folder.result)
    try:
        TrialRecord.from_json(document["record"])
        if document.get("export") is not None:
            TrialRecord.from_json(document["export"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InfraError(
            f"{folder.result.name} is damaged: {type(error).__name__}: {error}",
            where=str(folder.result),
        ) from error
    return document


def whole_result(folder: TrialPaths, message: Callable[[str], None]) -> dict[str, Any] | None:
    """`read_result`; a damaged file is put aside, so that its trial can run again."""
    try:
        return read_result(folder)
    except InfraError as error:
        aside = put_aside(folder.result)
        message(f"{error.what}: put aside as {aside}, the trial runs again")
        return None


def read_spec(folder: TrialPaths) -> dict[str, Any] | None:
    """A trial's ``spec.json``; None where there is none, or none that can be read."""
    with suppress(InfraError):
        spec = read_json(folder.spec)
        if isinstance(spec.get("knobs"), dict) and isinstance(spec.get("program_sha256"), str):
            return spec
    return None


def identity_of(folder: TrialPaths) -> str | None:
    """The configuration whose run a folder holds; None where nothing readable says it."""
    with suppress(InfraError, AttributeError, KeyError, TypeError, ValueError):
        if (result := read_result(folder)) is not None:
            return str(result["record"]["identity"])
    spec = read_spec(folder)
    return None if spec is None else spec_identity(spec)


def spec_identity(spec: Mapping[str, Any]) -> str:
    """The identity of the run that a ``spec.json`` asks for."""
    return run_identity(spec["knobs"], spec["program_sha256"], spec.get("rung"))


def make_room(folder: TrialPaths, identity: str, message: Callable[[str], None]) -> None:
    """Move a trial's folder aside if it holds another configuration's run: it was paid for."""
    if not folder.root.is_dir() or not any(folder.root.iterdir()):
        return
    if identity_of(folder) != identity:
        aside = put_aside(folder.root)
        message(f"{folder.root} holds another run: kept as {aside.name}")


def append_row(paths: StudyPaths, record: TrialRecord) -> None:
    """Keep the final row of a trial; of a discarded one it is all that the folder keeps."""
    line = json.dumps(record.to_json(), separators=(",", ":")).encode() + b"\n"
    with on_disk(paths.root), paths.rows.open("a+b") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":  # a driver died in the middle of a line
                line = b"\n" + line
        file.write(line)


def kept_rows(paths: StudyPaths) -> dict[int, TrialRecord]:
    """The rows that `append_row` wrote, the newest of each trial; damaged lines are left out."""
    found: dict[int, TrialRecord] = {}
    if paths.rows.is_file():
        with paths.rows.open("rb") as file:
            for line in file:
                with suppress(AttributeError, KeyError, TypeError, ValueError):
                    row = TrialRecord.from_json(json.loads(line))
                    found[row.number] = row
    return found


def strangers(paths: StudyPaths, records: Iterable[TrialRecord]) -> list[int]:
    """Trials with a folder that a study does not know, or knows as another configuration.

    A folder of another configuration in which nothing has run is none: a driver of a shared study
    that froze while it asked for the trial made it, and another driver has asked in its place.
    """
    known = {}
    for index, record in enumerate(records):
        # A journal that lost a record in its middle gives rows to the wrong trials.
        known[index] = record.identity if record.number == index else None
    found = []
    for number in paths.trial_numbers():
        if number in known and known[number] == "":
            continue  # its driver died before it noted a row
        folder = paths.trial(number)
        if number not in known or (
            _has_run(folder) and identity_of(folder) not in {None, known[number]}
        ):
            found.append(number)
    return found


def _has_run(folder: TrialPaths) -> bool:
    return any(path.exists() for path in (folder.result, folder.log, folder.live_log))


def lost_trials(paths: StudyPaths, numbers: Sequence[int]) -> InputError:
    """What is said of trials that have a folder and that the study does not know."""
    shown = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
    return InputError(
        f"study {paths.name!r} does not know {len(numbers)} of the trials in its folder",
        where=str(paths.trials),
        got=f"trials {shown}",
        expected="a record of every trial that ran; a launch would run them again",
        next_step=f"pgolf-sweep recover {paths.name}",
    )


def settled(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Rows as they are where no driver lives: nothing runs."""
    return [
        dataclasses.replace(
            record,
            outcome=State.QUEUED,
            reason=record.reason or "its driver is gone: runs again when the study is resumed",
        )
        if record.outcome is State.RUNNING
        else record
        for record in records
    ]

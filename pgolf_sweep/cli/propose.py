"""``pgolf-sweep propose``: a trial of one's own into a study."""

from __future__ import annotations

import getpass
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgolf_sweep.cli.common import (
    DEFAULT_RUNS,
    JsonOption,
    RunsOption,
    StudyArgument,
    app,
    emit,
    out,
    say,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.core.trial import KnobValue, Verdict
    from pgolf_sweep.driver.proposals import ProposalRequest
    from pgolf_sweep.driver.session import Session

LOOK_SECONDS = 0.5
WITHOUT_DRIVER_SECONDS = 60.0
"""How long `--wait` hopes for a driver: one that was just launched starts Ray first."""


@app.command()
def propose(
    study: StudyArgument,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="K=V", help="A parameter's value; repeatable."),
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Who proposes; the trial carries it. Else the user's name.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--from", help="`best`, or a trial's number: the values that are not set."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until the trial has ended.")] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Most seconds to wait; else no limit.")
    ] = None,
    runs: RunsOption = DEFAULT_RUNS,
    json_output: JsonOption = False,
) -> None:
    """Have a trial of your own run in a study, ahead of what the sampler draws.

    The values are checked against the space, `require` and the gate at once. A running driver
    takes the proposal up within a second; a stopped study's next `launch` does. What is neither
    set nor taken over by --from, the sampler chooses. A proposal counts against run_cap.

    Exit code 2: outside the space. 1: the gate says that it cannot fit, or with --wait the trial
    did not complete.

    Example: pgolf-sweep propose demo --set MATRIX_LR=0.02 --from best --by ada --wait --json
    """
    from pgolf_sweep.cli.detached import passed_on
    from pgolf_sweep.core.errors import AnswerNoError
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.driver.proposals import adapted, completed, submit
    from pgolf_sweep.driver.session import reopen_session
    from pgolf_sweep.driver.writer import calibrate

    paths = StudyPaths.existing(runs, study)
    by, settings = by or getpass.getuser(), settings or []
    words = words_again(settings, by, base, timeout, wait=wait, json_output=json_output)
    if passed_on(paths, "propose", paths.name, *words, opens_study=True):
        return
    session = reopen_session(paths, need_data=False)
    records = _records(paths)
    knobs = _asked(settings, session)
    if base is not None:
        knobs = adapted(session.spec.space, _base(base, records, paths), knobs)
    resolved, open_names = completed(session.spec.space, knobs)
    verdict = None
    if not open_names:
        knobs = resolved  # constants too, so that the very configuration is known by its hash
        calibrate(session.gate, *records)  # what the driver's gate knows
        verdict = session.verdict(session.resolve(resolved))
        if verdict.discards:
            if json_output:
                emit(_document(None, session, knobs, open_names, verdict, None))
            raise AnswerNoError(
                f"the gate refuses this configuration: {verdict.reason}",
                next_step=f"pgolf-sweep gate --sweep {_launched(paths)} --set ... shows what would "
                "fit",
            )
    request = submit(paths, knobs, by=by, at=time.time())
    _say_what_follows(request, paths, session, records, open_names)
    record = None
    if wait:
        request, record = _wait(paths, request, timeout)
    if json_output:
        emit(_document(request, session, knobs, open_names, verdict, record))
    elif record is not None:
        _show(record)
    else:
        out.print(request.id, markup=False)
    if record is not None and record.outcome.value != "completed":
        raise AnswerNoError(
            f"trial {record.number} is {record.outcome.value}: {record.reason}",
            where=str(paths.trial(record.number).root),
        )


def _launched(paths: StudyPaths) -> Path:
    """The sweep file that was launched, which other files may lie beside."""
    from pgolf_sweep.core.paths import read_json

    origin = read_json(paths.origin)
    return Path(origin["base"], Path(origin["sweep"]).name)


def words_again(
    settings: Sequence[str],
    by: str,
    base: str | None,
    timeout: float | None,
    *,
    wait: bool,
    json_output: bool,
) -> list[str]:
    """The options of a proposal as they are typed."""
    words = [f"--by={by}", *(f"--set={setting}" for setting in settings)]
    words += [f"--from={base}"] if base is not None else []
    words += [f"--timeout={timeout}"] if timeout is not None else []
    return words + ["--wait"] * wait + ["--json"] * json_output


def _say_what_follows(
    request: ProposalRequest,
    paths: StudyPaths,
    session: Session,
    records: Sequence[TrialRecord],
    open_names: Sequence[str],
) -> None:
    if open_names:
        say(f"the sampler chooses {', '.join(open_names)}; the gate judges when it has")
    say(_when(request, paths, session, records))


def _when(
    request: ProposalRequest, paths: StudyPaths, session: Session, records: Sequence[TrialRecord]
) -> str:
    """When a proposal will run, for people."""
    from pgolf_sweep.driver.control import live_driver
    from pgolf_sweep.workflows.study_folder import cap_reached

    if cap_reached(session, records):
        return (
            f"proposal {request.id} waits: run_cap of {session.spec.run_cap} is reached; raise "
            "it in the sweep file and launch again"
        )
    if live_driver(paths) is None:
        return f"study {paths.name!r} is not running: the next launch takes up {request.id}"
    return f"proposal {request.id} is left for the driver"


def _asked(settings: Sequence[str], session: Session) -> dict[str, KnobValue]:
    """``K=V`` texts as values of the space's parameters."""
    from pgolf_sweep.core.errors import InputError
    from pgolf_sweep.driver.proposals import parsed_value
    from pgolf_sweep.script.knobs.knobs import nearest_knob

    parameters = session.spec.space.parameters
    values: dict[str, KnobValue] = {}
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator:
            raise InputError(
                "--set needs a name and a value", got=setting, expected="K=V, as MODEL_DIM=576"
            )
        if name not in parameters:
            nearest = nearest_knob(name, parameters)
            raise InputError(
                f"{name} is not a parameter of this sweep",
                where=str(session.spec.source),
                got=setting,
                expected=f"one of {', '.join(parameters)}"
                + (f"; did you mean {nearest}?" if nearest else ""),
            )
        values[name] = parsed_value(text)
    return values


def _records(paths: StudyPaths) -> list[TrialRecord]:
    from pgolf_sweep.core.errors import InputError
    from pgolf_sweep.report.read import study_records

    try:
        return study_records(paths.root)
    except InputError:
        return []  # launched, but nothing was proposed yet


def _base(base: str, records: Sequence[TrialRecord], paths: StudyPaths) -> Mapping[str, KnobValue]:
    """The knobs that ``--from`` names."""
    from pgolf_sweep.core.errors import InputError
    from pgolf_sweep.core.record import ranked

    if base == "best":
        first = next(iter(ranked(records)), None)
        if first is None:
            raise InputError(
                f"study {paths.name!r} has no best trial yet",
                next_step="wait for one, or set every parameter",
            )
        return first.knobs
    found = next((r for r in records if str(r.number) == base), None)
    if found is None:
        raise InputError(
            f"study {paths.name!r} has no trial {base}", expected="--from best or a trial's number"
        )
    return found.knobs


def _wait(
    paths: StudyPaths, request: ProposalRequest, timeout: float | None
) -> tuple[ProposalRequest, TrialRecord]:
    """Look until the proposal's trial has ended."""
    from pgolf_sweep.core.errors import AnswerNoError, InputError
    from pgolf_sweep.driver.control import live_driver
    from pgolf_sweep.driver.proposals import look

    began = time.monotonic()
    driven_at = began
    told = False
    while True:
        request = look(paths, request.id)
        if request.refused:
            raise InputError(f"the driver refused the proposal: {request.refused}")
        if request.number is not None:
            if not told:
                say(f"proposal {request.id} is trial {request.number}")
                told = True
            record = next((r for r in _records(paths) if r.number == request.number), None)
            if record is not None and record.outcome.final:
                return request, record
        now = time.monotonic()
        if live_driver(paths) is not None:
            driven_at = now
        if now - driven_at > WITHOUT_DRIVER_SECONDS or (
            timeout is not None and now - began > timeout
        ):
            raise AnswerNoError(
                f"proposal {request.id} has not ended",
                got="nobody drives the study" if now - driven_at > 1 else "time is up",
                next_step=f"pgolf-sweep launch {paths.sweep}; the proposal is kept",
            )
        time.sleep(LOOK_SECONDS)


def _document(
    request: ProposalRequest | None,
    session: Session,
    knobs: Mapping[str, KnobValue],
    open_names: Sequence[str],
    verdict: Verdict | None,
    record: TrialRecord | None,
) -> dict[str, Any]:
    """The document of ``propose --json``; keys stay stable."""
    return {
        "study": session.spec.name,
        "proposal": None if request is None else request.id,
        "by": None if request is None else request.by,
        "number": None if request is None else request.number,
        "knobs": dict(knobs),
        "sampler_chooses": list(open_names),
        "verdict": None if verdict is None else verdict.kind,
        "reason": "" if verdict is None else verdict.reason,
        "predicted_bytes": None if verdict is None else verdict.artifact_bytes,
        "trial": None if record is None else record.to_json(),
    }


def _show(record: TrialRecord) -> None:
    score = "" if record.val_bpb is None else f" val_bpb {record.val_bpb:.4f}"
    size = "" if record.artifact_bytes is None else f", {record.artifact_bytes:,} B"
    out.print(f"trial {record.number}: {record.outcome.value}{score}{size}", markup=False)

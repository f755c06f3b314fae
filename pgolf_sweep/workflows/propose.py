"""`propose`: a trial of one's own into a study, and the wait for its end."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import AnswerNoError, InputError
from pgolf_sweep.core.paths import read_json
from pgolf_sweep.core.record import ranked
from pgolf_sweep.driver.control import live_driver
from pgolf_sweep.driver.proposals import adapted, completed, look, parsed_value, submit
from pgolf_sweep.driver.session import reopen_session
from pgolf_sweep.driver.writer import calibrate
from pgolf_sweep.report.read import study_records
from pgolf_sweep.script.knobs.knobs import nearest_knob
from pgolf_sweep.workflows.study_folder import cap_reached

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.core.trial import KnobValue, Verdict
    from pgolf_sweep.driver.proposals import ProposalRequest
    from pgolf_sweep.driver.session import Session

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
WITHOUT_DRIVER_SECONDS = 60.0
"""How long a wait goes on without a driver: one that was just launched starts Ray first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A trial that somebody proposes.

    Attributes:
        study: The study's name.
        knobs: Values of the sweep file's parameters; with constants where nothing is open.
        open_names: Parameters that the sampler chooses.
        verdict: The gate's; None where something is open.
        request: What the driver takes up; None where the gate refuses the configuration.
        refusal: What to type after a refusal; empty otherwise.
        follows: When the trial will run, for people.
    """

    study: str
    knobs: Mapping[str, KnobValue]
    open_names: Sequence[str]
    verdict: Verdict | None
    request: ProposalRequest | None = None
    refusal: str = ""
    follows: str = ""


def propose(
    paths: StudyPaths, settings: Sequence[str], *, by: str, base: str | None = None
) -> Proposal:
    """Check a configuration against space, `require` and gate, and leave it for the driver.

    Args:
        paths: The study's folder.
        settings: ``K=V`` texts, values of the sweep's parameters.
        by: Who proposes.
        base: `best` or a trial's number, for the values that are not set; None for the sampler's.

    Returns:
        The proposal, without a request where the gate refuses it.

    Raises:
        InputError: A value lies outside the space, or there is no such study or trial.
    """
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
            return Proposal(
                study=session.spec.name,
                knobs=knobs,
                open_names=open_names,
                verdict=verdict,
                refusal=f"pgolf-sweep gate --sweep {_launched(paths)} --set ... shows what would "
                "fit",
            )
    request = submit(paths, knobs, by=by, at=time.time())
    return Proposal(
        study=session.spec.name,
        knobs=knobs,
        open_names=open_names,
        verdict=verdict,
        request=request,
        follows=_what_follows(request, paths, session, records),
    )


def wait_for_trial(
    paths: StudyPaths,
    request: ProposalRequest,
    *,
    timeout_seconds: float | None = None,
    report: Callable[[str], None] = logger.info,
) -> tuple[ProposalRequest, TrialRecord]:
    """Wait until a proposal's trial has ended.

    Args:
        paths: The study's folder.
        request: The proposal.
        timeout_seconds: Most to wait; None for no limit.
        report: Takes a line for people once the trial has its number.

    Returns:
        The proposal with the trial's number, and the trial.

    Raises:
        InputError: The driver refuses the proposal.
        AnswerNoError: Time is up, or nobody drives the study.
    """
    began = time.monotonic()
    driven_at = began
    reported = False
    while True:
        request = look(paths, request.id)
        if request.refused:
            raise InputError(f"the driver refused the proposal: {request.refused}")
        if request.number is not None:
            if not reported:
                report(f"proposal {request.id} is trial {request.number}")
                reported = True
            record = next((r for r in _records(paths) if r.number == request.number), None)
            if record is not None and record.outcome.final:
                return request, record
        now = time.monotonic()
        if live_driver(paths) is not None:
            driven_at = now
        if now - driven_at > WITHOUT_DRIVER_SECONDS or (
            timeout_seconds is not None and now - began > timeout_seconds
        ):
            raise AnswerNoError(
                f"proposal {request.id} has not ended",
                got="nobody drives the study" if now - driven_at > 1 else "time is up",
                next_step=f"pgolf-sweep launch {paths.sweep}; the proposal is kept",
            )
        time.sleep(LOOK_SECONDS)


def _launched(paths: StudyPaths) -> Path:
    """The sweep file that was launched, which other files may lie beside."""
    origin = read_json(paths.origin)
    return Path(origin["base"], Path(origin["sweep"]).name)


def _asked(settings: Sequence[str], session: Session) -> dict[str, KnobValue]:
    """``K=V`` texts as values of the space's parameters."""
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


def _what_follows(
    request: ProposalRequest, paths: StudyPaths, session: Session, records: Sequence[TrialRecord]
) -> str:
    """A line for people: when the proposal will run."""
    if cap_reached(session, records):
        return (
            f"proposal {request.id} waits: run_cap of {session.spec.run_cap} is reached; raise "
            "it in the sweep file and launch again"
        )
    if live_driver(paths) is None:
        return f"study {paths.name!r} is not running: the next launch takes up {request.id}"
    return f"proposal {request.id} is left for the driver"


def _records(paths: StudyPaths) -> list[TrialRecord]:
    try:
        return study_records(paths.root)
    except InputError:
        return []  # launched, but nothing was proposed yet


def _base(base: str, records: Sequence[TrialRecord], paths: StudyPaths) -> Mapping[str, KnobValue]:
    """The knobs that ``--from`` names."""
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

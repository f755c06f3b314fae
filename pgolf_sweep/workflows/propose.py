"""`propose`: a trial of one's own into a study, and the wait for its end."""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import AnswerNoError, InputError
from pgolf_sweep.core.paths import read_json
from pgolf_sweep.core.record import SEED_KNOB, ranked
from pgolf_sweep.core.trial import Change, FailureKind, configuration_hash
from pgolf_sweep.driver.control import live_driver
from pgolf_sweep.driver.opening import reopen_session
from pgolf_sweep.driver.proposals import adapted, completed, look, submit
from pgolf_sweep.driver.variants import Sessions
from pgolf_sweep.driver.writer import calibrate
from pgolf_sweep.report.read import study_records
from pgolf_sweep.script.knobs.knobs import nearest_knob
from pgolf_sweep.variants.store import Variant, keep
from pgolf_sweep.workflows.open_runs import configuration_of, open_runs, seed_within
from pgolf_sweep.workflows.settings import parse_settings
from pgolf_sweep.workflows.study_folder import cap_reached
from pgolf_sweep.workflows.variant_checks import code_findings
from pgolf_sweep.workflows.variants import (
    as_run,
    is_same_code,
    program_of,
    proposed_program,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.core.trial import KnobValue, Verdict
    from pgolf_sweep.driver.proposals import ProposalRequest
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.workflows.open_runs import OpenRun

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
WITHOUT_DRIVER_SECONDS = 60.0
"""How long a wait goes on without a driver: one that was just launched starts Ray first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A configuration of a program that somebody proposes, on one seed or several.

    Attributes:
        study: The study's name.
        knobs: Values of the sweep file's parameters; with constants where nothing is open.
        open_names: Parameters that the sampler chooses.
        verdict: The gate's; None where something is open, or where all of it ran before.
        requests: What the driver takes up, one a seed; none where the gate refuses, or where all of
            it ran before.
        earlier: Trials that ran the same code with the same knobs, one a seed: the answer for it.
        change: Program, parent and idea.
        notes: What people should know of the program.
        refusal: What to type after a refusal; empty otherwise.
        follows: When the trials will run, for people.
    """

    study: str
    knobs: Mapping[str, KnobValue]
    open_names: Sequence[str]
    verdict: Verdict | None
    requests: tuple[ProposalRequest, ...] = ()
    earlier: tuple[TrialRecord, ...] = ()
    change: Change = field(default_factory=Change)
    notes: tuple[str, ...] = ()
    refusal: str = ""
    follows: str = ""

    @property
    def request(self) -> ProposalRequest | None:
        """The first of the requests."""
        return self.requests[0] if self.requests else None


def propose(
    paths: StudyPaths,
    settings: Sequence[str],
    *,
    by: str,
    base: str | None = None,
    program: Path | None = None,
    patch: Path | None = None,
    idea: str = "",
    seeds: int = 1,
) -> Proposal:
    """Check a configuration, and its program, and leave it for the driver.

    Args:
        paths: The study's folder.
        settings: ``K=V`` texts, values of the sweep's parameters.
        by: Who proposes.
        base: `best` or a trial's number, for the program and the values that are not given; None
            for the study's program and the sampler's values.
        program: A script to run instead.
        patch: A diff against the program instead.
        idea: One line.
        seeds: How many; the first is the base's, else the sweep's.

    Returns:
        The proposal, without a request where the gate refuses it or where it ran before.

    Raises:
        InputError: A value lies outside the space, there is no such study, trial or file, or the
            program does not parse.
        AnswerNoError: The program breaks the study's protocol or a rule of the contest.
    """
    if program is not None and patch is not None:
        raise InputError("--program gives the whole script, --patch a change: give one of them")
    asked = Asked.of(paths, by=by, idea=idea, seeds=seeds)
    parent = None if base is None else asked.trial(base)
    files = None
    if program is not None or patch is not None:
        before = program_of(paths, "" if parent is None else parent.variant)
        files = proposed_program(before, program=program, patch=patch)
    return asked.propose(_asked(settings, asked.session), parent=parent, files=files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A study to which somebody proposes, read once.

    Attributes:
        paths: The study's folder.
        session: Of its own program.
        records: Its trials.
        by: Who proposes.
        idea: The one line of it.
        seeds: How many seeds each configuration runs on.
    """

    paths: StudyPaths
    session: Session
    records: Sequence[TrialRecord]
    by: str
    idea: str = ""
    seeds: int = 1

    @classmethod
    def of(cls, paths: StudyPaths, *, by: str, idea: str = "", seeds: int = 1) -> Asked:
        """Read a study."""
        session = reopen_session(paths, need_data=False)
        idea = " ".join(idea.split())
        return cls(
            paths=paths, session=session, records=_records(paths), by=by, idea=idea, seeds=seeds
        )

    def trial(self, named: str) -> TrialRecord:
        """The trial that `best` or a number names.

        Raises:
            InputError: There is none.
        """
        return _base(named, self.records, self.paths)

    def propose(
        self,
        knobs: Mapping[str, KnobValue],
        *,
        parent: TrialRecord | None,
        files: Mapping[str, bytes] | None = None,
        merged: str = "",
    ) -> Proposal:
        """Check one configuration and leave it for the driver.

        Args:
            knobs: Values of the sweep's parameters that are given.
            parent: The trial whose program and values are changed, or None.
            files: The program's, as people wrote them; None for the parent's program.
            merged: Id of the second variant that the program was merged from.

        Raises:
            InputError: See the function `propose`.
            AnswerNoError: See the function `propose`.
        """
        space, given = self.session.spec.space, knobs
        session, notes = self._session(given, parent=parent, files=files, merged=merged)
        if parent is not None:
            knobs = adapted(space, parent.knobs, knobs)
        resolved, open_names = completed(space, knobs)
        change = Change(
            variant=session.variant,
            parent=None if parent is None else parent.number,
            idea=self.idea,
        )
        done = Proposal(
            study=session.spec.name,
            knobs=knobs,
            open_names=open_names,
            verdict=None,
            change=change,
            notes=notes,
        )
        wanted = self._seeds(session, resolved, None if SEED_KNOB in given else parent)
        if open_names:
            again = self._left_open(knobs, change, wanted)
        else:
            # Constants too, so that the very configuration is known by its hash.
            done = dataclasses.replace(done, knobs=resolved)
            ran = {seed: self._ran(session, resolved, seed) for seed in wanted}
            again, begun = self._left(session, resolved, [s for s in wanted if ran[s] is None])
            earlier = (*(record for record in ran.values() if record is not None), *begun.values())
            wanted = [seed for seed in wanted if ran[seed] is None and seed not in begun]
            done = dataclasses.replace(done, earlier=earlier)
            if not wanted:
                numbers = ", ".join(str(record.number) for record in earlier)
                same = f"the same code with the same knobs is trial {numbers}: it is not run again"
                return dataclasses.replace(done, follows=same)
            own = [r for r in self.records if r.variant == session.variant]
            calibrate(session.gate, *own)  # what the driver's gate knows
            verdict = session.verdict(session.resolve(resolved))
            done = dataclasses.replace(done, verdict=verdict)
            if verdict.discards:
                step = (
                    f"pgolf-sweep gate --sweep {_launched(self.paths)} --set ... shows what would "
                    "fit"
                )
                return dataclasses.replace(done, refusal=step)
        requests = tuple(
            again.get(seed)
            or submit(
                self.paths,
                done.knobs,
                by=self.by,
                at=time.time(),
                change=dataclasses.replace(change, seed=seed),
            )
            for seed in wanted
        )
        follows = _what_follows(requests, self.paths, self.session, self.records)
        if again:
            same = ", ".join(request.id for request in again.values())
            notes = (*notes, f"asked before, and not ended yet: {same} is not left twice")
        return dataclasses.replace(done, requests=requests, follows=follows, notes=notes)

    def _session(
        self,
        given: Mapping[str, KnobValue],
        *,
        parent: TrialRecord | None,
        files: Mapping[str, bytes] | None,
        merged: str,
    ) -> tuple[Session, tuple[str, ...]]:
        """The session of the program that will run, which is kept, and notes on it.

        Raises:
            AnswerNoError: It breaks the protocol or a rule.
        """
        variant = "" if parent is None else parent.variant
        sessions = Sessions(self.session, self.paths)
        if files is None:
            return sessions.of(variant), ()
        program = as_run(files, self.session.program)
        if is_same_code(program, self.session.program):
            return self.session, ("the code is the study's own program",)
        found = code_findings(program, self.session, given)
        if found.refusals:
            raise AnswerNoError(
                "the program gets no slot",
                got="\n       ".join(found.refusals),
                expected="the study's protocol and the rules of the contest on code",
                next_step="correct the script and propose it again",
            )
        draft = Variant(
            parent=variant,
            merged=merged,
            parent_trial=None if parent is None else parent.number,
            idea=self.idea,
            by=self.by,
            at=time.time(),
        )
        made = keep(self.paths, draft, program, program_of(self.paths, variant))
        return sessions.of(made.id), found.notes

    def _seeds(
        self, session: Session, knobs: Mapping[str, KnobValue], parent: TrialRecord | None
    ) -> list[int | None]:
        """Seeds to ask for; None is the sweep's own.

        Raises:
            InputError: Several are wanted, and the program reads none.
        """
        own = knobs.get(SEED_KNOB, session.defaults.get(SEED_KNOB))
        first = own if parent is None else parent.knobs.get(SEED_KNOB, own)
        if type(first) is not int:
            if self.seeds > 1:
                raise InputError(
                    f"the program reads no {SEED_KNOB}: every run of it would be the same one",
                    got=f"--seeds {self.seeds}",
                )
            return [None]
        wanted = range(first, first + self.seeds)
        return [None if seed == own else seed for seed in wanted]

    def _left(
        self, session: Session, knobs: Mapping[str, KnobValue], wanted: Sequence[int | None]
    ) -> tuple[dict[int | None, ProposalRequest], dict[int | None, TrialRecord]]:
        """Requests, and trials without one, that will run a configuration, by seed."""
        configuration = configuration_of(self.session, session.variant, knobs)
        found = {
            run.seed: run
            for run in reversed(open_runs(self.paths, self.session, self.records))
            if run.configuration == configuration
        }
        rows = {record.number: record for record in self.records}
        requests, begun = {}, {}
        for seed in wanted:
            run = found.get(seed_within(self.session, knobs, seed))
            if run is not None and run.request is not None:
                requests[seed] = run.request
            elif run is not None and run.number is not None:
                begun[seed] = rows[run.number]
        return requests, begun

    def _left_open(
        self, knobs: Mapping[str, KnobValue], change: Change, wanted: Sequence[int | None]
    ) -> dict[int | None, ProposalRequest]:
        """Requests in the same words, whose trials have not ended, by seed."""
        runs = open_runs(self.paths, self.session, self.records)
        asked = [run.request for run in runs if run.request is not None]
        return {
            seed: request
            for seed in wanted
            for request in asked
            if (request.by, dict(request.knobs)) == (self.by, dict(knobs))
            and request.change == dataclasses.replace(change, seed=seed)
        }

    def _ran(
        self, session: Session, knobs: Mapping[str, KnobValue], seed: int | None
    ) -> TrialRecord | None:
        """The trial that runs, or ran, a configuration; not one that infrastructure ended."""
        resolved = session.resolve(knobs)
        if seed is not None:
            resolved[SEED_KNOB] = seed
        identity = configuration_hash(resolved, session.program.sha256)
        lost = FailureKind.INFRASTRUCTURE.value
        return next(
            (
                record
                for record in self.records
                if record.identity == identity
                and record.duplicate_of is None
                and record.failure != lost
            ),
            None,
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
    told = request

    def find() -> TrialRecord | None:
        nonlocal told
        before, told = told.number, look(paths, request.id)
        if told.refused:
            raise InputError(f"the driver refused the proposal: {told.refused}")
        if told.number is None:
            return None
        if before is None:
            report(f"proposal {told.id} is trial {told.number}")
        rows = (row for row in _records(paths) if row.number == told.number)
        return next((row for row in rows if row.outcome.final), None)

    record = _awaited(paths, find, f"proposal {request.id}", timeout_seconds)
    return told, record


def wait_for_run(
    paths: StudyPaths, run: OpenRun, *, report: Callable[[str], None] = logger.info
) -> TrialRecord:
    """Wait until a run that was asked for has ended.

    Raises:
        InputError: The driver refuses the proposal.
        AnswerNoError: Nobody drives the study.
    """
    if run.request is not None:
        return wait_for_trial(paths, run.request, report=report)[1]
    report(f"trial {run.number} has not ended")
    return ended(paths, run.number or 0)


def ended(paths: StudyPaths, number: int, *, timeout_seconds: float | None = None) -> TrialRecord:
    """A trial's row once it has ended.

    Raises:
        AnswerNoError: Time is up, or nobody drives the study.
    """

    def look() -> TrialRecord | None:
        rows = (row for row in _records(paths) if row.number == number)
        return next((row for row in rows if row.outcome.final), None)

    return _awaited(paths, look, f"trial {number}", timeout_seconds)


def _awaited(
    paths: StudyPaths,
    look: Callable[[], TrialRecord | None],
    named: str,
    timeout_seconds: float | None,
) -> TrialRecord:
    """What `look` finds, once it finds something.

    Raises:
        AnswerNoError: Time is up, or nobody drives the study.
    """
    began = driven_at = time.monotonic()
    while (found := look()) is None:
        now = time.monotonic()
        if live_driver(paths) is not None:
            driven_at = now
        if now - driven_at > WITHOUT_DRIVER_SECONDS or (
            timeout_seconds is not None and now - began > timeout_seconds
        ):
            raise AnswerNoError(
                f"{named} has not ended",
                got="nobody drives the study" if now - driven_at > 1 else "time is up",
                next_step=f"pgolf-sweep launch {paths.sweep}; the proposal is kept",
            )
        time.sleep(LOOK_SECONDS)
    return found


def _launched(paths: StudyPaths) -> Path:
    """The sweep file that was launched, which other files may lie beside."""
    origin = read_json(paths.origin)
    return Path(origin["base"], Path(origin["sweep"]).name)


def _asked(settings: Sequence[str], session: Session) -> dict[str, KnobValue]:
    """``K=V`` texts as values of the space's parameters."""
    parameters = session.spec.space.parameters
    values = parse_settings(settings)
    for name in values:
        if name not in parameters:
            nearest = nearest_knob(name, parameters)
            raise InputError(
                f"{name} is not a parameter of this sweep",
                where=str(session.spec.source),
                got=name,
                expected=f"one of {', '.join(parameters)}"
                + (f"; did you mean {nearest}?" if nearest else ""),
            )
    return values


def _what_follows(
    requests: Sequence[ProposalRequest],
    paths: StudyPaths,
    session: Session,
    records: Sequence[TrialRecord],
) -> str:
    """A line for people: when the proposals will run."""
    several = len(requests) > 1
    named = f"proposal{'s' * several} {', '.join(request.id for request in requests)}"
    if cap_reached(session, records):
        return (
            f"{named} {'wait' if several else 'waits'}: run_cap of {session.spec.run_cap} is "
            "reached; raise it in the sweep file and launch again"
        )
    if live_driver(paths) is None:
        return f"study {paths.name!r} is not running: the next launch takes up {named}"
    return f"{named} {'are' if several else 'is'} left for the driver"


def _records(paths: StudyPaths) -> list[TrialRecord]:
    try:
        return study_records(paths.root)
    except InputError:
        return []  # launched, but nothing was proposed yet


def _base(base: str, records: Sequence[TrialRecord], paths: StudyPaths) -> TrialRecord:
    """The trial that ``--from`` names."""
    if base == "best":
        first = next(iter(ranked(records)), None)
        if first is None:
            raise InputError(
                f"study {paths.name!r} has no best trial yet",
                next_step="wait for one, or set every parameter",
            )
        return first
    found = next((r for r in records if str(r.number) == base), None)
    if found is None:
        raise InputError(
            f"study {paths.name!r} has no trial {base}", expected="--from best or a trial's number"
        )
    return found

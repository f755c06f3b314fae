"""From a proposal to a trial that waits for a slot, unless the gate or a duplicate ends it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.events import TrialNotRepaired
from pgolf_sweep.core.kept import make_room, whole_result
from pgolf_sweep.core.paths import write_bytes, write_json
from pgolf_sweep.core.record import SEED_KNOB, State, TrialRecord
from pgolf_sweep.core.trial import Discarded, FailureCode, FailureKind, VerdictKind
from pgolf_sweep.driver.anchors import PROPOSER as ANCHOR
from pgolf_sweep.driver.table import OpenTrial
from pgolf_sweep.search.origin import Origin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgolf_sweep.core.trial import Verdict
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.driver.writer import TrialWriter
    from pgolf_sweep.script.program import Program
    from pgolf_sweep.search.study import Proposal
    from pgolf_sweep.track.base import StudyTracker

LIKELY = 0.9
"""A trial near the cap that fits with this probability waits for no others: the sampler that asks
the gate proposes none that is less likely to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Gates proposals and prepares the folders of those that will run.

    Attributes:
        writer: Writes their rows, and ends those that are discarded or ran before.
        tracker: Hears of those that are discarded.
        provenance: Written into each ``spec.json``.
    """

    writer: TrialWriter
    tracker: StudyTracker
    provenance: Mapping[str, Any]

    def admit(self, proposal: Proposal, *, noted: TrialRecord | None = None) -> OpenTrial | None:
        """Gate a proposal; None if it took its end at once or waits for its duplicate.

        Args:
            proposal: What to try.
            noted: The row that an earlier driver left of it: what it has cost so far counts.
        """
        change = proposal.change
        try:
            session = self.writer.sessions.of(change.variant)
        except InputError as error:
            self._fail(proposal, error)
            return None
        knobs = session.resolve(proposal.knobs)
        if change.seed is not None:
            knobs[SEED_KNOB] = change.seed
        run_id = f"{self.writer.study.name}-{proposal.number}"
        rung = proposal.rung
        spec = session.trial_spec(
            proposal.number, knobs, proposal.proposer, run_id=run_id, rung=rung
        )
        verdict = session.verdict_of(proposal.knobs)
        if rung is None:  # the artifact of a short training is nobody's to submit
            env = {**spec.env, **session.export_env(knobs, verdict)}
            spec = dataclasses.replace(spec, env=env)
        record = TrialRecord(
            number=proposal.number,
            outcome=State.QUEUED,
            knobs=knobs,
            predicted_bytes=verdict.artifact_bytes,
            model_params=verdict.model_params,
            code_bytes=verdict.code_bytes,
            proposer=proposal.proposer,
            repair_of=proposal.repair_of,
            maximize=session.spec.metric.goal == "maximize",
            metric="" if session.spec.metric.contest else session.spec.metric.name,
            attempts=noted.attempts if noted is not None else 0,
            uncounted_attempts=noted.uncounted_attempts if noted is not None else 0,
            slot_seconds=noted.slot_seconds if noted is not None else 0.0,
            identity=spec.identity,
            expected_bpb=proposal.expected_bpb,
            expected_sd=proposal.expected_sd,
            redrawn=proposal.redrawn,
            rung=rung,
            driver=self.writer.me,
            **dataclasses.asdict(change),
        )
        trial = OpenTrial(record, spec, near_cap=verdict.kind is VerdictKind.NEAR)
        if trial.near_cap and verdict.fit_probability is not None:
            trial.fit_probability = verdict.fit_probability
            trial.near_cap = verdict.fit_probability < LIKELY
        anchors = proposal.proposer == ANCHOR and verdict.kind is VerdictKind.TOO_BIG
        if verdict.kind in {VerdictKind.NEAR, VerdictKind.TOO_BIG} and not anchors:
            verdict = self._repaired(proposal, verdict, session)
        if verdict.discards and not anchors:
            self._discard(record, verdict)
            return None
        original = self.writer.table.original(spec.identity, proposal.number)
        if original is not None:
            self.writer.dedupe(trial, original)
            return None
        folder = self.writer.paths.trial(proposal.number)
        make_room(folder, spec.identity, self.writer.file_kept)
        if (result := whole_result(folder, self.writer.file_kept)) is not None:
            self.writer.tell_result(result)
            return None
        self._prepare(trial, session.program)
        self.writer.note(trial, record)
        return trial

    def no_longer_fits(self, trial: OpenTrial) -> bool:
        """Judge one near the cap again: it has waited while finished trials taught the gate."""
        session = self.writer.sessions.of(trial.record.variant)
        verdict = session.verdict_of(trial.record.knobs)
        if verdict.discards:
            predicted = verdict.artifact_bytes
            self._discard(dataclasses.replace(trial.record, predicted_bytes=predicted), verdict)
        return verdict.discards

    def _discard(self, record: TrialRecord, verdict: Verdict) -> None:
        self.tracker.discarded(record.number, record.knobs, verdict)
        cap_bytes = self.writer.sessions.base.rules.artifact_cap_bytes
        self.writer.tell(record.ended(Discarded(verdict=verdict), None, cap_bytes=cap_bytes))

    def _fail(self, proposal: Proposal, error: InputError) -> None:
        """End a trial whose program is lost; it took no slot."""
        record = TrialRecord(
            number=proposal.number,
            outcome=State.FAILED,
            knobs=proposal.knobs,
            reason=error.what,
            failure=FailureKind.INFRASTRUCTURE.value,
            failure_code=FailureCode.SETUP.value,
            proposer=proposal.proposer,
            driver=self.writer.me,
            **dataclasses.asdict(proposal.change),
        )
        self.writer.tell(record)

    def _repaired(self, proposal: Proposal, verdict: Verdict, session: Session) -> Verdict:
        """Enqueue what surely fits, by the knobs that may give; the proposal itself ends."""
        changed = session.repaired(proposal.knobs)
        if changed is None:
            return verdict
        try:
            origin = Origin.repair(proposal.number, proposal.change, rung=proposal.rung)
            number = self.writer.study.enqueue_once(changed, origin)
        except InputError as error:
            # One repair less, rather than a loop that ends here again at each launch.
            self.writer.notify(TrialNotRepaired(number=proposal.number, reason=error.what))
            return verdict
        reason = f"{verdict.reason}; repaired as trial {number}"
        return dataclasses.replace(verdict, kind=VerdictKind.TOO_BIG, reason=reason)

    def _prepare(self, trial: OpenTrial, program: Program) -> None:
        """Write a queued trial's folder ahead of its slot, which then need not wait for it."""
        folder = self.writer.paths.trial(trial.record.number)
        more: dict[str, Any] = {"provenance": dict(self.provenance)}
        if trial.record.repair_of is not None:
            more["repair_of"] = trial.record.repair_of
        more |= trial.record.change.to_json()
        write_json(folder.spec, dataclasses.asdict(trial.spec) | more)
        for name, content in program.files.items():
            write_bytes(folder.root / name, content)

"""What the MCP server's tools do, without the protocol: one study, one proposer, one budget.

Nothing here promotes, deletes or stops, or reads outside the study's folder. What is proposed is a
file in that folder; the driver holds its proposer to the sweep file's budget.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgolf_sweep.agents.answers import (
    BestAnswer,
    CompareAnswer,
    GateAnswer,
    KnobAnswer,
    KnobsAnswer,
    LineageAnswer,
    LogsAnswer,
    PlanAnswer,
    PromoteAnswer,
    ProposeAnswer,
    ShowAnswer,
    TrialAnswer,
    WaitAnswer,
)
from pgolf_sweep.agents.logs import summarised
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.record import State, counts, ranked
from pgolf_sweep.core.secrets import visible
from pgolf_sweep.driver.control import live_driver
from pgolf_sweep.driver.opening import reopen_session
from pgolf_sweep.driver.proposals import completed, look, readable
from pgolf_sweep.driver.proposers import Proposers
from pgolf_sweep.gate.plan import fit_share, sample_space
from pgolf_sweep.report.compare import noise_floor
from pgolf_sweep.report.read import study_records, study_status
from pgolf_sweep.workflows.compare import compare, request_runs
from pgolf_sweep.workflows.promotion_plan import prepare_promotion
from pgolf_sweep.workflows.propose import propose

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.driver.proposers import Account
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.report.compare import NoiseFloor
    from pgolf_sweep.workflows.open_runs import OpenRun

MOST_KNOBS, MOST_TRIALS, MOST_DIFF_LINES, MOST_SCRIPT_CHARS = 60, 40, 200, 1_000_000
MOST_WAIT_SECONDS, LOOK_SECONDS = 300.0, 0.5
PLAN_DRAWS = 200


@dataclass(frozen=True)
class StudyTools:
    """The tools for one proposer of one study.

    Attributes:
        paths: The study's folder.
        by: The proposer's name; a caller cannot take another.
    """

    paths: StudyPaths
    by: str

    @cached_property
    def session(self) -> Session:
        """The study's sweep file, program and gate."""
        return reopen_session(self.paths, need_data=False)

    # -- looking --------------------------------------------------------------------------------

    def plan(self) -> PlanAnswer:
        """Where the study stands, what your budget has left, and how noisy a score is."""
        session, records = self.session, self._records()
        state = study_status(self.paths).state if records else "launched"
        account, proposers = self._account()
        verdict = proposers.answer(account)
        budget = account.budget
        hours = None if budget is None else budget.gpu_hours
        noise = noise_floor(records).noise
        share = None
        if session.spec.pgolf.gate_enabled and session.program.builtin:
            share = fit_share(
                sample_space(session, session.spec.space, draws=PLAN_DRAWS, seed=0)
            ).fits
        first = next((r.number for r in records if r.outcome is State.COMPLETED), None)
        return PlanAnswer(
            study=self.paths.name,
            state=state,
            method=session.spec.method,
            rules=session.rules.name,
            cap_bytes=session.rules.artifact_cap_bytes,
            trials={key: count for key, count in counts(records).items() if count},
            run_cap=session.spec.run_cap,
            share_that_fits=share,
            gpu_hours_left=None if hours is None else max(0.0, hours - account.gpu_hours),
            concurrent=None if budget is None else budget.concurrent,
            open=account.open,
            may_propose=self._unnamed() or verdict.refused or verdict.waits or "yes",
            noise_bpb=None if noise is None else noise.std,
            accept=session.spec.pgolf.accept.rule,
            next_step=_first_step(noise_floor(records), first),
        )

    def gate(self, knobs: dict[str, Any]) -> GateAnswer:
        """Whether a configuration of the study's program will fit, before it takes a slot.

        Args:
            knobs: Values of the sweep's parameters; the others take the program's own.
        """
        resolved, open_names = completed(self.session.spec.space, knobs)
        verdict = self.session.verdict(self.session.resolve(resolved))
        interval, headroom = verdict.artifact_bytes, verdict.headroom_bytes
        left = f" ({', '.join(open_names)} at their lowest)" if open_names else ""
        return GateAnswer(
            verdict=verdict.kind.value,
            reason=verdict.reason + left,
            artifact_bytes_low=None if interval is None else round(interval.low),
            artifact_bytes_high=None if interval is None else round(interval.high),
            headroom_bytes=None if headroom is None else round(headroom),
            next_step="make it smaller" if verdict.discards else "propose it",
        )

    def knobs(self) -> KnobsAnswer:
        """Knobs that the program reads, with its own values and what the sweep searches."""
        searched = self.session.spec.space.parameters
        names = [*searched, *(n for n in self.session.program.knobs if n not in searched)]
        found = [
            KnobAnswer(
                name=name,
                default=self.session.defaults.get(name),
                searched=searched[name].domain.describe() if name in searched else "",
            )
            for name in names[:MOST_KNOBS]
        ]
        return KnobsAnswer(
            knobs=found,
            left_out=max(0, len(names) - MOST_KNOBS),
            next_step="gate a configuration; a knob that is not searched is changed in the script",
        )

    def lineage(self, last: int = MOST_TRIALS) -> LineageAnswer:
        """Trials that were made from others, discarded ones included, the newest last.

        Args:
            last: How many at most, up to 40.
        """
        records = self._records()
        parents = {record.parent for record in records}
        family = [
            r for r in records if r.parent is not None or r.idea or r.variant or r.number in parents
        ]
        shown = family[-max(1, min(last, MOST_TRIALS)) :]
        return LineageAnswer(
            trials=[_line(record) for record in shown],
            left_out=len(family) - len(shown),
            next_step="show a trial for its diff, or propose with its number as parent",
        )

    def show(self, trial: int) -> ShowAnswer:
        """One trial: its knobs, and the diff of its program against its parent's.

        Args:
            trial: Its number.
        """
        record = self._record(trial)
        diff: list[str] = []
        if record.variant:
            with suppress(OSError):
                file = self.paths.variants / record.variant / "diff.patch"
                diff = visible(file.read_text(errors="replace")).splitlines()
        return ShowAnswer(
            trial=_line(record),
            knobs=dict(record.knobs),
            diff="\n".join(line[:240] for line in diff[:MOST_DIFF_LINES]),
            diff_lines_left_out=max(0, len(diff) - MOST_DIFF_LINES),
            next_step="logs of the trial"
            if record.outcome.final
            else "wait for its end, then compare it with its parent",
        )

    def logs(self, trial: int) -> LogsAnswer:
        """A trial's log in numbers: curve, throughput, memory, quantization gap, error.

        Args:
            trial: Its number.
        """
        record = self._record(trial)
        return summarised(record, self.paths.trial(trial), script=self.session.program.name)

    def best(self) -> BestAnswer:
        """The five best trials within the cap."""
        found = ranked(self._records())[:5]
        return BestAnswer(
            trials=[_line(record) for record in found],
            next_step="compare the first two: one seed does not tell them apart"
            if len(found) > 1
            else "wait for a completed trial",
        )

    def promote(self, trial: int | None = None) -> PromoteAnswer:
        """What a promotion would run on fresh seeds; a person runs it.

        Args:
            trial: Its number; else the best that fits.
        """
        prepared = prepare_promotion(self.paths.root, trial=trial)
        document = prepared.to_json()
        return PromoteAnswer(
            trial=document["trial"],
            seeds=document["seeds"],
            rules=document["rules"],
            cost=prepared.cost,
            next_step=f"ask a person to run: pgolf-sweep promote {self.paths.name} "
            f"--trial {document['trial']}",
        )

    # -- proposing ------------------------------------------------------------------------------

    def propose(
        self,
        knobs: dict[str, Any] | None = None,
        script: str | None = None,
        patch: str | None = None,
        parent: int | None = None,
        idea: str = "",
        seeds: int = 1,
        repeat_of: int | None = None,
    ) -> ProposeAnswer:
        """Leave a trial for the driver: other knobs, another program, or further seeds of a trial.

        Args:
            knobs: Values of the sweep's parameters; what is left out is the parent's, else the
                sampler's.
            script: The whole script to run instead; or give `patch`.
            patch: A unified diff against the parent's program.
            parent: The trial that is changed; its knobs and program are the base.
            idea: One line.
            seeds: 1 or 3 for a new trial; how many further seeds with `repeat_of`.
            repeat_of: A trial to run again on further seeds; nothing else is given then.
        """
        refused = self._unnamed() or self._refused()
        if refused:
            return ProposeAnswer(
                proposals=[], verdict="refused", reason=refused, earlier=[], notes=[],
                next_step="ask whoever owns the sweep file for a budget, or wait",
            )  # fmt: skip
        if repeat_of is not None:
            return self._repeat(repeat_of, max(1, min(seeds, 8)))
        for text in (script, patch):
            if text is not None and len(text) > MOST_SCRIPT_CHARS:
                raise InputError("the program is too long", expected=f"{MOST_SCRIPT_CHARS} chars")
        settings = [f"{name}={_text(value)}" for name, value in (knobs or {}).items()]
        with tempfile.TemporaryDirectory() as folder:
            files = {
                name: _written(Path(folder) / file, text)
                for name, file, text in (
                    ("program", self.session.program.name, script),
                    ("patch", "change.patch", patch),
                )
                if text is not None
            }
            done = propose(
                self.paths,
                settings,
                by=self.by,
                base=None if parent is None else str(parent),
                idea=idea,
                seeds=max(1, min(seeds, 3)),
                **files,
            )
        verdict = done.verdict
        ran = bool(done.earlier) and not done.requests
        return ProposeAnswer(
            proposals=[request.id for request in done.requests],
            verdict="" if verdict is None else verdict.kind.value,
            reason="" if verdict is None else verdict.reason,
            earlier=[_line(record) for record in done.earlier],
            notes=[note[:240] for note in done.notes[:10]],
            next_step="it ran before: read `earlier`"
            if ran
            else "wait for the proposals"
            if done.requests
            else "change it: the gate refuses it",
        )

    def wait(self, proposal: str, seconds: float = 60.0) -> WaitAnswer:
        """Wait until a proposal's trial has ended, or for some time.

        Args:
            proposal: An id that `propose` or `compare` gave, or a trial's number.
            seconds: Most to wait, up to 300.
        """
        deadline = time.monotonic() + max(0.0, min(seconds, MOST_WAIT_SECONDS))
        while True:
            answer = self._standing(proposal)
            if answer.state in {"ended", "refused"} or time.monotonic() >= deadline:
                return answer
            time.sleep(LOOK_SECONDS)

    def compare(self, base: int, candidate: int, run: bool = False) -> CompareAnswer:
        """Whether a candidate is better than its base, by the study's rule of acceptance.

        Args:
            base: A trial: what is compared to.
            candidate: A trial: what is judged.
            run: Leave the further seeds that the rule asks for; wait for them, then compare again.
        """
        found = compare(self.paths, base, candidate)
        runs: list[OpenRun] = []
        refused = ""
        if run and found.next_runs:
            refused = self._unnamed() or self._refused()
            runs = [] if refused else request_runs(self.paths, found, by=self.by)
        effect, noise = found.effect, found.noise
        step = found.next_step
        if runs:
            step = "wait for the proposals, then compare again"
        elif found.next_runs:
            step = refused or "compare again with run=true"
        return CompareAnswer(
            decision=found.decision.value,
            text=found.text,
            effect_bpb=None if effect is None else effect.value,
            low_bpb=None if effect is None else effect.low,
            high_bpb=None if effect is None else effect.high,
            p_value=None if effect is None else effect.p_value,
            noise_bpb=None if noise is None else noise.std,
            seeds_more=found.seeds_more,
            base_mean_bpb=found.base.mean_bpb,
            candidate_mean_bpb=found.candidate.mean_bpb,
            base_artifact_bytes=found.base.artifact_bytes,
            candidate_artifact_bytes=found.candidate.artifact_bytes,
            base_step_avg_ms=found.base.step_avg_ms,
            candidate_step_avg_ms=found.candidate.step_avg_ms,
            proposals=[one.name for one in runs],
            next_step=step,
        )

    # -- parts ----------------------------------------------------------------------------------

    def _repeat(self, number: int, count: int) -> ProposeAnswer:
        from pgolf_sweep.workflows.repeats import repeat  # noqa: PLC0415 - a method of that name

        runs = repeat(self.paths, number, count, by=self.by)
        return ProposeAnswer(
            proposals=[one.name for one in runs],
            verdict="",
            reason=f"seeds {', '.join(str(one.seed) for one in runs)}",
            earlier=[],
            notes=[],
            next_step="wait for the proposals",
        )

    def _standing(self, proposal: str) -> WaitAnswer:
        number: int | None = int(proposal) if proposal.isdecimal() else None
        if number is not None:
            self._record(number)
        else:
            request = look(self.paths, Path(proposal).name)
            number = request.number
            if request.refused:
                return WaitAnswer(
                    state="refused",
                    reason=request.refused,
                    trial=None,
                    next_step="change the proposal, or wait where you are paused",
                )
        driven = live_driver(self.paths) is not None
        nobody = "" if driven else "nobody drives the study: ask a person to launch it"
        if number is None:
            account, proposers = self._account()
            return WaitAnswer(
                state="waits",
                reason=nobody or proposers.answer(account).waits or "the driver takes it up soon",
                trial=None,
                next_step="wait again",
            )
        record = next((r for r in self._records() if r.number == number), None)
        if record is None or not record.outcome.final:
            running = record is not None and record.outcome is State.RUNNING
            return WaitAnswer(
                state="running" if running else "queued",
                reason=nobody,
                trial=None if record is None else _line(record),
                next_step="wait again",
            )
        if record.outcome is State.COMPLETED:
            base = record.parent
            step = f"compare base={base} candidate={record.number}" if base is not None else "best"
        else:
            step = f"logs of trial {record.number}"
        return WaitAnswer(state="ended", reason=record.reason, trial=_line(record), next_step=step)

    def _unnamed(self) -> str:
        """Why this proposer may spend nothing: the sweep file gives it no budget."""
        if self.session.spec.pgolf.proposers:
            return ""  # the driver's word holds
        return f"the sweep file gives {self.by} no budget: pgolf.proposers is absent"

    def _refused(self) -> str:
        account, proposers = self._account()
        return proposers.answer(account).refused

    def _account(self) -> tuple[Account, Proposers]:
        records, block = self._records(), self.session.spec.pgolf
        times = sorted(r.slot_seconds for r in records if r.outcome is State.COMPLETED)
        typical = times[len(times) // 2] if times else 0.0
        proposers = Proposers(
            budgets=block.proposers, gpus=block.gpus, expected_seconds=typical, now=time.time()
        )
        requests = [r for r in readable(self.paths) if r.number is not None]
        return proposers.account(self.by, records, requests), proposers

    def _records(self) -> Sequence[TrialRecord]:
        try:
            return study_records(self.paths.root)
        except InputError:
            return []  # launched, but nothing was proposed yet

    def _record(self, number: int) -> TrialRecord:
        found = next((r for r in self._records() if r.number == number), None)
        if found is None:
            raise InputError(f"the study has no trial {number}", next_step="lineage, or best")
        return found


def _first_step(floor: NoiseFloor, first: int | None) -> str:
    if floor.ended < floor.runs:
        return f"propose a change with an idea; {floor.text}"
    if floor.noise is not None or first is None:
        return "propose a change with an idea"
    return f"measure the noise: propose with repeat_of={first}, seeds=3"


def _line(record: TrialRecord) -> TrialAnswer:
    return TrialAnswer(
        number=record.number,
        outcome=record.outcome.value,
        reason=visible(record.reason)[:240],
        val_bpb=record.val_bpb,
        artifact_bytes=record.artifact_bytes,
        parent=record.parent,
        variant=record.variant,
        idea=visible(record.idea)[:240],
        proposer=record.proposer,
        seed=record.seed,
    )


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def _text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def resources(tools: StudyTools) -> Mapping[str, str]:
    """The texts that a client may read: rules, sweep file and program of the study."""
    session = tools.session
    program = session.program
    plain = program.plain if program.plain is not None else program.files[program.name]
    rules = "\n".join(f"{name}: {value}" for name, value in _fields(session.rules).items())
    return {
        "study://rules": rules,
        "study://study": tools.paths.sweep.read_text(errors="replace"),
        "study://program": plain.decode(errors="replace"),
    }


def _fields(rules: object) -> dict[str, Any]:
    names = getattr(rules, "__dataclass_fields__", {})
    return {name: getattr(rules, name) for name in names}

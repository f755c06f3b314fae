"""Greedy forward selection: which of several changes of a program are worth keeping together.

Each round proposes every change that is left on top of what is accepted, lets the study's rule of
acceptance decide on each, and accepts the best that it keeps; a round that keeps none is the last
(S. Weisberg, "Applied Linear Regression", 4th ed., 2014, section 10.2, with a test of its own
instead of F). All of it stands in the study, proposals in its trials and decisions in its ledger,
so that the same call goes on where an earlier one ended.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import AnswerNoError, InputError
from pgolf_sweep.core.record import cost
from pgolf_sweep.driver.ledger import decisions
from pgolf_sweep.submission.effects import Decision, Rule
from pgolf_sweep.variants.diff import merged
from pgolf_sweep.variants.store import kept, plain_files
from pgolf_sweep.workflows.compare import compare, request_runs
from pgolf_sweep.workflows.lineage import ancestors
from pgolf_sweep.workflows.open_runs import OpenRun
from pgolf_sweep.workflows.propose import Asked, wait_for_run
from pgolf_sweep.workflows.variants import program_of, proposed_program

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.workflows.propose import Proposal

Files = dict[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A change on top of what a round began with.

    Attributes:
        change: Its name: a patch's file name without its end, or an idea.
        trial: That runs it; None while it has no number, and where it cannot run.
        decision: Of the rule; ``more`` until it decides; empty where the change cannot run.
        effect: On the score, as it was when the rule decided; None without one.
        problem: Why it cannot run or has no score; it is not tried again.
    """

    change: str
    trial: int | None = None
    decision: str = ""
    effect: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What became of the changes that were left.

    Attributes:
        base: The trial that they are tried on.
        tried: They, in the order that was given.
        kept: Name of the change that is accepted; empty for none, or none yet.
    """

    base: int
    tried: tuple[Tried, ...]
    kept: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A forward selection as far as it has come.

    Attributes:
        study: The study's name.
        trial: The trial with all that is accepted; None while the first one has not ended.
        rounds: What was tried, in order.
        waits_for: Runs that must end before it goes on; empty where it is over.
    """

    study: str
    trial: int | None
    rounds: tuple[Round, ...]
    waits_for: tuple[OpenRun, ...]

    @property
    def accepted(self) -> list[str]:
        """Names of the accepted changes, the first one first."""
        return [one.kept for one in self.rounds if one.kept]

    def to_json(self) -> dict[str, Any]:
        """The document of ``ablate --forward --json``; keys stay stable."""
        return {
            "study": self.study,
            "finished": not self.waits_for,
            "accepted": self.accepted,
            "trial": self.trial,
            "rounds": [
                {
                    "base": one.base,
                    "kept": one.kept,
                    "changes": [
                        {
                            "change": tried.change,
                            "trial": tried.trial,
                            "decision": tried.decision,
                            "effect_bpb": tried.effect,
                            "problem": tried.problem,
                        }
                        for tried in one.tried
                    ],
                }
                for one in self.rounds
            ],
            "waits_for": [run.name for run in self.waits_for],
        }


def forward(
    paths: StudyPaths, named: str, patches: Sequence[Path], *, by: str, seeds: int = 1
) -> Selection:
    """Take a forward selection as far as it goes without waiting.

    Args:
        paths: The study's folder.
        named: A trial's number, or `best`.
        patches: Diffs against that trial's program, which are added to it; without any, the changes
            of its lineage are added to the study's own program under that trial's knobs.
        by: Who proposes.
        seeds: Runs of each program before the rule asks for more.

    Raises:
        InputError: There is no such trial or file, two patches have one name, a lineage has no
            change, or the sweep file's rule never keeps.
        AnswerNoError: The gate refuses what a lineage is added to.
    """
    asked = Asked.of(paths, by=by, seeds=seeds)
    if asked.session.spec.pgolf.accept.rule == Rule.NONE.value:
        raise InputError(
            "forward selection keeps what the rule of acceptance keeps, and this one keeps nothing",
            where=f"{asked.session.spec.source}: pgolf.accept.rule",
            got=Rule.NONE.value,
            expected=f"{Rule.SIGNIFICANT.value} or {Rule.GREEDY.value}",
        )
    record = asked.trial(named)
    rounds: list[Round] = []
    base: TrialRecord | None
    if patches:
        changes, broken = _of_patches(paths, record, patches)
        base, waits = record, _unfinished([record])
    else:
        changes, broken = _of_lineage(paths, record), []
        start = asked.propose({}, parent=record, files=plain_files(program_of(paths, "")))
        base, waits = _first(start, asked), _open_runs(start)
        if base is None and not waits:
            raise AnswerNoError(
                f"the gate refuses the study's own program at trial {record.number}",
                got=None if start.verdict is None else start.verdict.reason,
                next_step="give patches against a trial that ran",
            )
    while changes and base is not None and not waits:
        tried, waits = _round(asked, base, changes)
        best = None if waits else _best(tried, asked)
        rounds.append(
            Round(
                base=base.number,
                tried=(*broken, *tried),
                kept="" if best is None else best.change,
            )
        )
        broken = []
        if best is None or best.trial is None:
            break
        base = asked.trial(str(best.trial))
        out = {best.change, *(one.change for one in tried if one.problem)}
        changes = {name: files for name, files in changes.items() if name not in out}
    return Selection(
        study=paths.name,
        trial=None if base is None else base.number,
        rounds=tuple(rounds),
        waits_for=tuple(waits),
    )


def select(
    paths: StudyPaths,
    named: str,
    patches: Sequence[Path],
    *,
    by: str,
    seeds: int = 1,
    report: Callable[[str], None],
) -> Selection:
    """`forward` to its end, waiting for the runs.

    Raises:
        InputError: As `forward`; or the driver refuses a run.
        AnswerNoError: Nobody drives the study.
    """
    while True:
        found = forward(paths, named, patches, by=by, seeds=seeds)
        if not found.waits_for:
            return found
        for run in found.waits_for:
            wait_for_run(paths, run, report=report)


# -- changes -------------------------------------------------------------------------------------


def _of_patches(
    paths: StudyPaths, record: TrialRecord, patches: Sequence[Path]
) -> tuple[dict[str, tuple[Files, Files]], list[Tried]]:
    """Files before and after each patch by its name, and those that do not apply."""
    names = [path.stem for path in patches]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError("two patches have one name", got=twice, next_step="rename one of them")
    program = program_of(paths, record.variant)
    before, found, broken = plain_files(program), {}, []
    for name, path in zip(names, patches, strict=True):
        if not path.is_file():
            raise InputError(f"patch {str(path)!r} does not exist", where=str(path))
        try:
            found[name] = (before, proposed_program(program, patch=path))
        except InputError as error:
            broken.append(Tried(change=name, problem=_problem(error)))
    return found, broken


def _of_lineage(paths: StudyPaths, record: TrialRecord) -> dict[str, tuple[Files, Files]]:
    """Files before and after each change of a lineage by its idea, the oldest first."""
    line = [variant for variant in ancestors(paths, record.variant) if variant]
    if not line:
        raise InputError(
            f"trial {record.number} runs the study's own program: nothing was changed",
            next_step=f"give patches, or a trial of another program: "
            f"pgolf-sweep lineage {paths.name}",
        )
    found: dict[str, tuple[Files, Files]] = {}
    for variant in reversed(line):
        made = kept(paths, variant)
        name = made.idea or variant
        files = (plain_files(program_of(paths, one)) for one in (made.parent, variant))
        before, after = files
        found[name if name not in found else f"{name} ({variant})"] = (before, after)
    return found


# -- a round -------------------------------------------------------------------------------------


def _round(
    asked: Asked, base: TrialRecord, changes: Mapping[str, tuple[Files, Files]]
) -> tuple[list[Tried], list[OpenRun]]:
    """Each change on top of a trial, and the runs that must end before all are decided."""
    here = plain_files(program_of(asked.paths, base.variant))
    tried: list[Tried] = []
    waits: list[OpenRun] = []
    for name, (before, after) in changes.items():
        one, runs = _on_top(asked, base, name, merge=(before, here, after))
        tried.append(one)
        waits += [run for run in runs if run.name not in {other.name for other in waits}]
    return tried, waits


def _on_top(
    asked: Asked, base: TrialRecord, name: str, *, merge: tuple[Files, Files, Files]
) -> tuple[Tried, list[OpenRun]]:
    try:
        proposal = dataclasses.replace(asked, idea=name).propose(
            {}, parent=base, files=merged(*merge)
        )
    except (AnswerNoError, InputError) as error:
        return Tried(change=name, problem=_problem(error)), []
    if proposal.change.variant == base.variant:
        return Tried(change=name, problem=f"it changes nothing of trial {base.number}"), []
    if not proposal.requests and not proposal.earlier:
        reason = "" if proposal.verdict is None else proposal.verdict.reason
        return Tried(change=name, problem=f"the gate refuses it: {reason}"), []
    record = _first(proposal, asked)
    number = None if record is None else record.number
    if runs := _open_runs(proposal):
        return Tried(change=name, trial=number, decision=Decision.MORE.value), runs
    if record is None or record.val_bpb is None:
        reason = "" if record is None else f"{record.outcome.value}: {record.reason}"
        return Tried(change=name, trial=number, problem=reason), []
    return _decided(asked, base, record, name)


def _decided(
    asked: Asked, base: TrialRecord, record: TrialRecord, name: str
) -> tuple[Tried, list[OpenRun]]:
    """What the ledger says of a candidate, else what the rule says now."""
    pair = (base.number, record.number, asked.session.spec.pgolf.accept.rule)
    for entry in decisions(asked.paths):
        body = entry.body
        if (body["base"], body["candidate"], body["rule"]) == pair:
            return Tried(
                change=name,
                trial=record.number,
                decision=str(body["decision"]),
                effect=body["effect"],
            ), []
    try:
        found = compare(asked.paths, base.number, record.number)
    except AnswerNoError as error:
        return Tried(change=name, trial=record.number, problem=_problem(error)), []
    effect = None if found.effect is None else found.effect.value
    one = Tried(change=name, trial=record.number, decision=found.decision.value, effect=effect)
    more = found.decision is Decision.MORE
    return one, request_runs(asked.paths, found, by=asked.by) if more else []


def _best(tried: Sequence[Tried], asked: Asked) -> Tried | None:
    """The kept change with the largest effect; by its score where an effect is unknown."""
    keeps = [one for one in tried if one.decision == Decision.KEEP.value]
    if any(one.effect is None for one in keeps):
        return min(keeps, key=lambda one: cost(asked.trial(str(one.trial))), default=None)
    sign = asked.session.spec.metric.sign
    return min(keeps, key=lambda one: sign * (one.effect or 0.0), default=None)


def _first(proposal: Proposal, asked: Asked) -> TrialRecord | None:
    """The first trial of a proposal, as its row stands; None while it has none."""
    if proposal.earlier:
        return proposal.earlier[0]
    numbers = [request.number for request in proposal.requests]
    return next((row for row in asked.records if row.number in numbers), None)


def _open_runs(proposal: Proposal) -> list[OpenRun]:
    """What of a proposal has not ended."""
    left = [
        OpenRun(configuration="", seed=0, request=request, number=request.number)
        for request in proposal.requests
    ]
    return [*left, *_unfinished(proposal.earlier)]


def _unfinished(records: Sequence[TrialRecord]) -> list[OpenRun]:
    return [
        OpenRun(configuration="", seed=0, number=record.number)
        for record in records
        if not record.outcome.final
    ]


def _problem(error: AnswerNoError | InputError) -> str:
    return "; ".join(filter(None, [error.what, error.got]))

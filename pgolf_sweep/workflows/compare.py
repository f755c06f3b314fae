"""`compare`: two configurations of a study, and what its rule of acceptance says of the second."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pgolf_sweep.core.ledger import Ledger
from pgolf_sweep.driver.ledger import DECISION, decisions
from pgolf_sweep.driver.opening import reopen_session
from pgolf_sweep.report.alone import one_at_a_time
from pgolf_sweep.report.compare import compared
from pgolf_sweep.report.read import study_records
from pgolf_sweep.submission.effects import Accept, Decision, Rule
from pgolf_sweep.workflows.open_runs import configuration_of, open_runs
from pgolf_sweep.workflows.propose import wait_for_run
from pgolf_sweep.workflows.repeats import repeat

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgolf_sweep.config.pgolf_model import AcceptBlock
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.report.alone import OneAtATime
    from pgolf_sweep.report.compare import Compared
    from pgolf_sweep.workflows.open_runs import OpenRun


def compare(paths: StudyPaths, base: int, candidate: int, *, rule: str | None = None) -> Compared:
    """Compare two trials with all their further seeds, and note a decision in the ledger.

    Runs on which an earlier comparison accepted the base are left out: they are the lucky ones of
    several, and a later candidate would be held against luck.

    Args:
        paths: The study's folder.
        base: A trial of the configuration that is compared to.
        candidate: A trial of the one that is judged.
        rule: ``significant``, ``greedy`` or ``none``; None for the sweep file's.

    Raises:
        InputError: There is no such trial, or both are one configuration.
        AnswerNoError: A side failed: it has no score.
    """
    block = reopen_session(paths, need_data=False).spec.pgolf
    accepted = [e.body for e in decisions(paths) if e.body["decision"] == Decision.KEEP.value]
    # The comparison that accepted the candidate is shown with its own runs.
    before = [body for body in accepted if (body["base"], body["candidate"]) != (base, candidate)]
    used = {(trial, seed) for body in before for trial, seed in body["runs"]}
    records, accept = study_records(paths.root), _accept(block.accept, rule)

    def held(used: set[tuple[int, int]]) -> Compared:
        return compared(
            paths.name, records, base, candidate, accept=accept, used=used, gpus=block.gpus
        )

    found = held(used)
    own = [body for body in accepted if body not in before]
    if own:
        again = held(used | {(trial, seed) for body in own for trial, seed in body["runs"]})
        return replace(found, decision=Decision.KEEP, next_runs=(), remeasured=again.effect)
    if found.decision in {Decision.KEEP, Decision.DROP}:
        _note(paths, found)
    return found


def each_change(paths: StudyPaths) -> OneAtATime:
    """The effect of each change of a study that changes one parameter at a time.

    Raises:
        InputError: It does not.
    """
    spec = reopen_session(paths, need_data=False).spec
    return one_at_a_time(paths.name, spec.space, study_records(paths.root))


def decide(
    paths: StudyPaths,
    base: int,
    candidate: int,
    *,
    by: str,
    rule: str | None = None,
    report: Callable[[str], None],
) -> Compared:
    """`compare`, running the further seeds that the rule asks for until it decides.

    Args:
        paths: The study's folder.
        base: A trial of the configuration that is compared to.
        candidate: A trial of the one that is judged.
        by: Who asks for the runs; they count against its budget.
        rule: As `compare` takes it.
        report: Hears of each run.

    Raises:
        InputError: As `compare`; or the driver refuses a run.
        AnswerNoError: As `compare`; or nobody drives the study.
    """
    while True:
        found = compare(paths, base, candidate, rule=rule)
        if found.decision is not Decision.MORE:
            return found
        report(found.text)
        for run in request_runs(paths, found, by=by):
            record = wait_for_run(paths, run, report=report)
            if record.val_bpb is None:
                report(f"trial {record.number} is {record.outcome.value}: {record.reason}")


def request_runs(paths: StudyPaths, found: Compared, *, by: str) -> list[OpenRun]:
    """Have the further runs made that a comparison asks for, on the other side's seeds if it can.

    Returns:
        What to wait for before comparing again: runs of either side that have not ended, and only
        where there are none what was left now.
    """
    if waiting := _open_runs(paths, found):
        return waiting
    runs: list[OpenRun] = []
    for side, other in ((found.base, found.candidate), (found.candidate, found.base)):
        count = found.next_runs.count(side.number)
        if count:
            runs += repeat(paths, side.number, count, by=by, first=tuple(other.val_bpb))
    return runs


def _open_runs(paths: StudyPaths, found: Compared) -> list[OpenRun]:
    session = reopen_session(paths, need_data=False)
    records = study_records(paths.root)
    rows = {record.number: record for record in records}
    sides = [rows[side.number] for side in (found.base, found.candidate)]
    wanted = {configuration_of(session, side.variant, side.knobs) for side in sides}
    runs = open_runs(paths, session, records)
    return [run for run in runs if run.configuration in wanted]


def _accept(block: AcceptBlock, rule: str | None) -> Accept:
    return Accept(
        rule=Rule(rule or block.rule),
        false_keep=block.false_keep,
        missed=block.missed,
        least_effect=block.least_effect,
        most_seeds=block.most_seeds,
    )


def _note(paths: StudyPaths, found: Compared) -> None:
    """Append a decision once; what is decided stays decided, on the runs of that time."""
    base, candidate = found.base, found.candidate
    effect = found.effect
    body = {
        "base": base.number,
        "candidate": candidate.number,
        "rule": found.rule.value,
        "decision": found.decision.value,
        "effect": None if effect is None else effect.value,
        "p_value": None if effect is None else effect.p_value,
        "runs": [list(run) for run in candidate.runs],
    }
    key = f"{base.number}-{candidate.number}-{found.rule.value}"
    Ledger(paths).append([(DECISION, key, body)], time.time())

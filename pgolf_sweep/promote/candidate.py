"""A candidate's submission, and what `verify` says of its folder before it has its name.

`verify` decides each rule. Of anyone's folder it leaves open what cannot be told from it; whoever
promotes has the runs at hand, so a rule that is still open then was not shown to be met.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import PromotionError
from pgolf_sweep.submission.margins import against_record, margins
from pgolf_sweep.submission.submission import READABLE_NAME, staged
from pgolf_sweep.submission.types import Submission
from pgolf_sweep.verify.check import Check, CheckVerdict
from pgolf_sweep.verify.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from pgolf_sweep.config.rules import Rules
    from pgolf_sweep.promote.seeds import PromotionPlan
    from pgolf_sweep.submission.evidence import Provenance, SeedRun
    from pgolf_sweep.submission.margins import Margin
    from pgolf_sweep.submission.types import RaceResult
    from pgolf_sweep.verify.verify import Verification

_ANSWERED = frozenset({"seeds", "record"})
_CLOCKS = frozenset({"train_seconds", "eval_seconds"})
_SIZES = frozenset({"artifact", "logged_artifact"})


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What only people know of a submission."""

    name: str
    author: str = ""
    github_id: str = ""
    blurb: str = ""
    include_model: bool = True


def submission_of(
    planned: PromotionPlan,
    runs: Sequence[SeedRun],
    *,
    about: About,
    provenance: Provenance,
    race: RaceResult | None = None,
) -> Submission:
    """What the folder is written from.

    Args:
        planned: The promotion.
        runs: Its runs, all with a score.
        about: Name, author, blurb.
        provenance: For the README.
        race: How the race went that chose the trial, or None.
    """
    return Submission(
        name=about.name,
        # The day of the last run, so that the same command writes the same folder tomorrow.
        date=datetime.fromtimestamp(max(run.end.ended_at for run in runs), tz=UTC)
        .date()
        .isoformat(),
        author=about.author,
        github_id=about.github_id,
        blurb=about.blurb,
        candidate=planned.candidate,
        runs=tuple(runs),
        rules=planned.rules,
        comparison=against_record(runs, planned.rules),
        provenance=provenance,
        script=planned.script,
        files=planned.files,
        include_model=about.include_model,
        margins=tuple(margins(runs, planned.rules.record)),
        pack=planned.pack,
        race=race,
        documents={} if planned.plain is None else {READABLE_NAME: planned.plain},
    )


def verified(folder: Path, rules: Rules, runs: Iterable[SeedRun]) -> Verification:
    """What `verify` says of a staged folder, with the time that each run took from end to end."""
    return verify(folder, rules, run_seconds={run.seed: run.end.slot_seconds for run in runs})


def broken_by_runs(
    planned: PromotionPlan, runs: Sequence[SeedRun], *, about: About, provenance: Provenance
) -> list[str]:
    """What keeps the runs from being a submission, at any number and against any record; lines.

    A run without a score has no folder; those that have one are staged below the plan's folder.
    """
    failed = [
        f"seed {run.seed}: {run.failure}; expected a run with a final score"
        for run in runs
        if run.failure is not None
    ]
    scored = [run for run in runs if run.failure is None]
    if not scored:
        return failed
    rules = dataclasses.replace(planned.rules, min_seeds=1, record=None)
    alone = dataclasses.replace(planned, rules=rules)
    submission = submission_of(alone, scored, about=about, provenance=provenance)
    with staged(submission, planned.root) as folder:
        return failed + [str(one) for one in unmet(verified(folder, rules, scored), rules)]


def unmet(found: Verification, rules: Rules) -> list[Check]:
    """The rules that are broken, and those that the folder and its runs had to show and do not."""
    asked = _ANSWERED if rules.unlimited_compute else _ANSWERED | _CLOCKS
    sizes = [check for check in found.checks if check.rule in _SIZES]
    if all(check.verdict is CheckVerdict.UNKNOWN for check in sizes):
        asked |= _SIZES
    return [
        check
        for check in found.checks
        if check.verdict is CheckVerdict.FAIL
        or (check.rule in asked and check.verdict is CheckVerdict.UNKNOWN)
    ]


def refuse(rules: Sequence[str], planned: PromotionPlan, against: Sequence[Margin] = ()) -> None:
    """Raise PromotionError if any rule is unmet; the message lists every one."""
    if rules:
        count = len(rules)
        raise PromotionError(
            f"trial {planned.candidate.number} does not meet {count} "
            f"rule{'s' if count != 1 else ''} of {planned.rules.name}",
            where=str(planned.root),
            got="\n       ".join([*rules, *map(str, against)]),
            expected=f"a folder that verify passes by {planned.rules.name}",
            next_step="the evidence stays there; promote another trial with --trial N",
        )

"""What a study's sampler and pruner were worth: what they expected, passed over, saved and cost."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.record import State, ranked, second_seeds
from pgolf_sweep.core.record import cost as cost_of
from pgolf_sweep.report.rungs import rung_lines, rungs_document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgolf_sweep.core.record import Posterior, TrialRecord

NEAR_CAP = 0.03
"""Relative distance to the cap that counts as near."""

MOST_NAMED = 8

LIKELY = 0.5
"""Probability from which on one more seed is said to tell two trials apart."""

LEAST_EXPECTED = 4
"""Trials with an expectation and a score below which their agreement is not shown."""


def search_document(records: Sequence[TrialRecord]) -> dict[str, Any]:
    """The ``search`` of ``status --json``: is it learning anything?

    Shares are of 0 to 1, None where there is nothing to tell from. `sampler_error_bpb` is the root
    mean square of score less expectation, `sampler_error_sd` the same in units of what the sampler
    said it would be, `spread_bpb` the standard deviation of the scores.
    """
    done = [r for r in records if r.outcome is State.COMPLETED and r.duplicate_of is None]
    measured = [r for r in done if r.artifact_bytes and r.headroom_bytes is not None]
    near = [abs((r.headroom_bytes or 0) / _cap(r)) <= NEAR_CAP for r in measured]
    asked = sum(r.slot_seconds > 0 for r in records)
    refused = sum(r.redrawn + (r.outcome is State.DISCARDED) for r in records)
    expected = [r for r in done if r.expected_bpb is not None and r.val_bpb is not None]
    errors = [(r.val_bpb or 0.0) - (r.expected_bpb or 0.0) for r in expected]
    told = [e / r.expected_sd for e, r in zip(errors, expected, strict=True) if r.expected_sd]
    enough = len(errors) >= LEAST_EXPECTED
    return {
        "near_cap_share": statistics.mean(near) if near else None,
        "redrawn_share": refused / (refused + asked) if refused + asked else None,
        "sampler_error_bpb": _root_mean_square(errors) if enough else None,
        "sampler_error_sd": _root_mean_square(told) if enough and told else None,
        "spread_bpb": statistics.pstdev([r.val_bpb or 0.0 for r in expected]) if enough else None,
        "early_stopping": stopping_document(records),
    } | rungs_document(records)


def stopping_document(records: Sequence[TrialRecord]) -> dict[str, Any]:
    """What early stopping saved, and what it cost as far as the trials that ran on show.

    `cost_bpb` is by how much the best of those beats the best of the others; None where none ran
    on. They are a tenth of what was found behind, so that it is a sample, not a bound.
    """
    stopped = [r for r in records if r.outcome is State.PRUNED]
    saved = sum(r.slot_seconds * (1 / r.behind_at - 1) for r in stopped if r.behind_at)
    trained = sum(r.slot_seconds for r in records)
    ran_on = [r for r in records if r.behind_at and r.outcome is State.COMPLETED]
    best_behind = next(iter(ranked(ran_on)), None)
    best = next(iter(ranked(r for r in records if not r.behind_at)), None)
    cost = None
    if best_behind is not None and best is not None:
        cost = max(0.0, cost_of(best) - cost_of(best_behind))
    return {
        "stopped": len(stopped),
        "saved_seconds": saved,
        "saved_share": saved / (saved + trained) if saved + trained else None,
        "ran_on": [r.number for r in ran_on],
        "cost_bpb": cost,
    }


def _cap(record: TrialRecord) -> float:
    return float((record.artifact_bytes or 0) + (record.headroom_bytes or 0))


def _root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(statistics.fmean(value * value for value in values))


def search_lines(document: dict[str, Any]) -> list[str]:
    """The document in words, a line for each thing that there is something to say of."""
    lines = []
    if document["redrawn_share"] is not None and document["near_cap_share"] is not None:
        lines.append(
            f"{document['near_cap_share']:.0%} of the artifacts within {NEAR_CAP:.0%} of the cap; "
            f"{document['redrawn_share']:.0%} of what was drawn cannot fit"
        )
    if document["sampler_error_bpb"] is not None:
        sds = document["sampler_error_sd"]
        lines.append(
            f"scores missed the sampler's expectation by {document['sampler_error_bpb']:.4f} "
            f"(they spread by {document['spread_bpb']:.4f})"
            + (f", {sds:.1f} times what it said" if sds is not None else "")
        )
    stopping = document["early_stopping"]
    if stopping["stopped"] or stopping["ran_on"]:
        cost = stopping["cost_bpb"]
        told = "none ran on to show what that cost"
        if cost is not None:
            told = f"{len(stopping['ran_on'])} ran on, the best of them "
            told += f"{cost:.4f} better than all others" if cost else "no better than the others"
        lines.append(
            f"early stopping ended {_trials(stopping['stopped'])} and saved "
            f"{stopping['saved_share'] or 0:.0%} of the slot time; {told}"
        )
    return lines + rung_lines(document.get("rungs", ()))


def tied(records: Sequence[TrialRecord], posteriors: Mapping[int, Posterior]) -> list[int]:
    """Trials within the cap that cannot be told from the best by their scores, best first."""
    return [
        record.number
        for record in ranked(records, posteriors)[1:]
        if record.number in posteriors and posteriors[record.number].tied
    ]


def decided(
    records: Sequence[TrialRecord], posteriors: Mapping[int, Posterior]
) -> dict[int, float]:
    """Those of `tied`, with the probability that one more seed of both tells them from the best."""
    return {number: posteriors[number].decided or 0.0 for number in tied(records, posteriors)}


def evidence(records: Sequence[TrialRecord], posteriors: Mapping[int, Posterior]) -> list[str]:
    """What the scores say of the best trial: its posterior, and what cannot be told from it."""
    best = next(iter(ranked(records, posteriors)), None)
    posterior = None if best is None else posteriors.get(best.number)
    if best is None or posterior is None:
        return []
    ran = 1 + list(second_seeds(records).values()).count(best.number)
    seeds = f", {ran} seeds" if ran > 1 else ""
    lines = [f"trial {best.number} by all scores: {posterior.text}, 95 %{seeds}"]
    alike = decided(records, posteriors)
    if alike:
        noun = "trial" if len(alike) == 1 else "trials"
        lines.append(f"not distinguishable from {noun} {_named(list(alike))}")
        likely = {number: share for number, share in alike.items() if share >= LIKELY}
        if likely:
            lines.append(f"one more seed of each would likely tell it from {_named(list(likely))}")
        else:
            most = max(alike.values())
            lines.append(
                f"one more seed of each would tell it from none (at most {most:.0%} likely)"
            )
    return lines


def _trials(count: int) -> str:
    return f"{count} trial{'s' * (count != 1)}"


def _named(numbers: Sequence[int]) -> str:
    """The first few, and how many more."""
    more = len(numbers) - MOST_NAMED
    some = ", ".join(map(str, numbers[:MOST_NAMED]))
    return f"{some} and {more} more" if more > 0 else some

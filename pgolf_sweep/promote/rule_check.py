"""Rules of a preset that a promotion's runs do not meet, each with its number and its limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf_sweep.submission.evidence import mean_bpb
from pgolf_sweep.submission.stats import Comparison, compare, same_yardstick, sample, seeds_needed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgolf_sweep.config.rules import Record, Rules
    from pgolf_sweep.submission.evidence import SeedRun


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmetRule:
    """A rule that the evidence does not meet.

    Attributes:
        rule: Name of the rule.
        observed: The number seen, with its unit.
        limit: What the rule asks.
    """

    rule: str
    observed: str
    limit: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.observed}, must be {self.limit}"


def unmet(rules: Rules, runs: Sequence[SeedRun]) -> list[UnmetRule]:
    """Every rule that the runs do not meet, with the number seen and the limit."""
    found: list[UnmetRule] = []
    scored = [run for run in runs if run.failure is None]
    for run in runs:
        if run.failure is not None:
            found.append(_rule(f"seed {run.seed}", run.failure, "a run with a final score"))
        else:
            found += unmet_by(run, rules)
    if len({run.seed for run in scored}) < rules.min_seeds:
        found.append(_rule("seeds", f"{len(scored)} finished", f">= {rules.min_seeds}"))
    elif rules.record is not None:
        found += _unmet_margin(scored, rules, rules.record)
    return found


def against_record(runs: Sequence[SeedRun], rules: Rules) -> Comparison | None:
    """The runs against the rules' record; None where there is none or it cannot be compared."""
    record = rules.record
    if record is None or len(runs) < 2:
        return None
    if not all(same_yardstick(run.val_bpb, run.val_loss_nats, record) for run in runs):
        return None
    return compare([run.val_loss_nats for run in runs], record, rules.margin_nats)


def unmet_by(run: SeedRun, rules: Rules) -> list[UnmetRule]:
    """The rules that one finished run does not meet."""
    name, found = f"seed {run.seed}", []
    cap = rules.artifact_cap_bytes
    if run.artifact_bytes is None:
        found.append(_rule(f"{name} artifact", "unknown size", f"<= {cap:,} bytes"))
    elif run.artifact_bytes > cap:
        found.append(_rule(f"{name} artifact", f"{run.artifact_bytes:,} bytes", f"<= {cap:,}"))
    said = run.summary.code_bytes
    if said is not None and said != run.code_bytes:
        found.append(_rule(f"{name} counted code", f"{said:,} bytes", f"{run.code_bytes:,}"))
    if run.summary.seed is not None and run.summary.seed != run.seed:
        found.append(_rule(f"{name} log", f"seed {run.summary.seed}", f"seed {run.seed}"))
    if rules.unlimited_compute:
        return found
    grace, train = rules.clock_grace_seconds, run.summary.train_seconds
    if train is None or train > rules.train_seconds + grace:
        seen = "not in the log" if train is None else f"{train:.1f} s"
        found.append(_rule(f"{name} training", seen, f"<= {rules.train_seconds:g} s"))
    # A log that does not time the evaluation is bounded by what is left of the whole run.
    rest = run.end.slot_seconds - (train or 0.0)
    evaluation = run.summary.eval_seconds if run.summary.eval_seconds is not None else rest
    if evaluation > rules.eval_seconds + grace:
        bound = "" if run.summary.eval_seconds is not None else " at most, not in the log"
        seen = f"{evaluation:.1f} s{bound}"
        found.append(_rule(f"{name} evaluation", seen, f"<= {rules.eval_seconds:g} s"))
    return found


def _unmet_margin(runs: Sequence[SeedRun], rules: Rules, record: Record) -> list[UnmetRule]:
    if not all(same_yardstick(run.val_bpb, run.val_loss_nats, record) for run in runs):
        ours = mean_bpb(runs) / sample([run.val_loss_nats for run in runs]).mean
        theirs = record.val_bpb / record.val_loss_nats
        seen = f"val_bpb / val_loss {ours:.5f}: another tokenizer or validation set"
        return [_rule("record", seen, f"{theirs:.5f}, as {record.source}, to be comparable")]
    losses = [run.val_loss_nats for run in runs]
    if len(losses) < 2:
        return [_rule("p-value", "1 seed", f"< {rules.p_value:g}, from at least 2 seeds")]
    result = compare(losses, record, rules.margin_nats)
    if result.p_value < rules.p_value:
        return []
    needed = seeds_needed(losses, record, rules.margin_nats, rules.p_value)
    hint = f"; {needed} seeds would do if mean and spread stay" if needed else ""
    seen = f"p = {result.p_value:.3g} at {result.improvement_nats:+.5f} nats{hint}"
    limit = f"p < {rules.p_value:g} for {rules.margin_nats:g} nats below {record.val_loss_nats:.5f}"
    return [_rule("record", seen, limit)]


def _rule(rule: str, observed: str, limit: str) -> UnmetRule:
    return UnmetRule(rule=rule, observed=observed, limit=limit)

"""One trial as everyone reads it: the row of ``trials --json``, of the tables and of the frames."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.classify import impossible_score
from pgolf_sweep.core.trial import (
    TRAIN,
    Change,
    Completed,
    Discarded,
    Failed,
    FailureCode,
    Interval,
    KnobValue,
    Outcome,
    Pruned,
    configuration_hash,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgolf_sweep.core.trial import RunEnd


BASELINE = "baseline"
"""Proposer of the program's own configuration."""

SEED_KNOB = "SEED"
"""The one knob that second seeds and promotions vary; never a default of a shipped script."""


class State(StrEnum):
    """Where a trial is in its life; the last five are final."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    SCREENED = "screened"
    """Completed on a cheaper rung: its score is of that rung, and no result."""
    PRUNED = "pruned"
    DISCARDED = "discarded"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        """Whether nothing will change any more."""
        return self not in {State.QUEUED, State.RUNNING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Posterior:
    """What all scores of a study say of one trial's, over seeds.

    Attributes:
        mean: Expected `val_bpb`.
        low: Lower end of its 95 % interval.
        high: Upper end.
        tied: Whether it cannot be told from the best trial that fits, at 95 %.
        decided: Probability that one more seed of both would tell them apart; None for the best.
    """

    mean: float
    low: float
    high: float
    tied: bool
    decided: float | None = None

    @property
    def text(self) -> str:
        """``1.1589 (1.1581 to 1.1596)``."""
        return f"{self.mean:.4f} ({self.low:.4f} to {self.high:.4f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """A trial's row. Absent measurements are None; keys of `to_json` stay stable.

    Attributes:
        outcome: State, or final outcome.
        reason: Why it ended so; empty for a plain success.
        failure: ``deterministic`` or ``infrastructure`` for a failed trial.
        failure_code: A `FailureCode`; the reason may say more, and may be worded otherwise.
        predicted_bytes: What the gate expected of the whole artifact.
        artifact_bytes: Measured bytes of code plus model.
        headroom_bytes: Cap minus the artifact: measured, or predicted for a discarded trial.
        uncounted_attempts: Attempts that their node ended (drained, quarantined, in doubt) or the
            user's cancel: they are in `attempts` and do not count against `max_retries`.
        node_speed: Tokens per second of its node as a share of the other nodes' median, where
            that was measured.
        duplicate_of: The trial whose result this one shares; such a trial took no slot.
        export_of: The trial over the cap whose trained weights this one stores smaller; such a
            trial took no slot.
        repair_of: The trial over the cap that this one was enqueued for instead.
        reused_from: The trial whose training this one shares, and from whose checkpoint or artifact
            it went on.
        stage: Part of the run that it started at: export or eval; None: it trained.
        checkpoint_bytes: Size of the checkpoint that was kept of its training.
        slot_seconds: Time for which it held a slot, all attempts together.
        finals: Every final score that the script printed, by label.
        behind_at: Fraction of its schedule at which the pruner found it behind; a completed trial
            that was ran on to show what stopping costs.
        expected_bpb: `val_bpb` that the sampler's model expected before the trial, or None.
        expected_sd: Standard deviation with which it did, the seed's part not counted.
        redrawn: Configurations that the sampler passed over for this one because they cannot fit:
            what a sampler without a gate would have launched.
        driver: In a study that several drivers share, the one that holds the trial or told it;
            empty while a trial waits for any of them.
        maximize: Whether a high score is good; never so for the contest's.
        metric: Name of what `val_bpb` holds where that is not the contest's score; else empty.
        variant: Id of the program that it runs; empty for the study's own.
        parent: The trial that it was proposed as a change of.
        idea: Its proposer's one line.
        seed: The seed that its proposal asked for; None for the sweep's.
        rung: Number of the cheaper rung that it runs on, 1 for the cheapest; None for the sweep's
            own. `knobs` are those that it would have there.
        taken_from: Study and number, ``lr:12``, of a trial that was taken over; it took no slot
            here. Empty for one that ran here.
    """

    number: int
    outcome: State
    knobs: Mapping[str, KnobValue]
    reason: str = ""
    failure: str | None = None
    failure_code: str | None = None
    val_bpb: float | None = None
    val_loss_nats: float | None = None
    val_bpb_prequant: float | None = None
    predicted_bytes: Interval | None = None
    artifact_bytes: int | None = None
    model_bytes: int | None = None
    code_bytes: int | None = None
    model_params: int | None = None
    headroom_bytes: int | None = None
    train_seconds: float | None = None
    eval_seconds: float | None = None
    slot_seconds: float = 0.0
    steps: int | None = None
    step_avg_ms: float | None = None
    node: str | None = None
    proposer: str = ""
    attempts: int = 0
    uncounted_attempts: int = 0
    node_speed: float | None = None
    duplicate_of: int | None = None
    export_of: int | None = None
    repair_of: int | None = None
    reused_from: int | None = None
    stage: str | None = None
    checkpoint_bytes: int | None = None
    started_at: float | None = None
    ended_at: float | None = None
    finals: Mapping[str, float] = field(default_factory=dict)
    identity: str = ""
    behind_at: float | None = None
    expected_bpb: float | None = None
    expected_sd: float | None = None
    redrawn: int = 0
    driver: str = ""
    maximize: bool = False
    metric: str = ""
    variant: str = ""
    parent: int | None = None
    idea: str = ""
    seed: int | None = None
    rung: int | None = None
    taken_from: str = ""

    @property
    def change(self) -> Change:
        """What its proposal changed besides the sweep file's knobs."""
        return Change(variant=self.variant, parent=self.parent, idea=self.idea, seed=self.seed)

    @property
    def configuration(self) -> str:
        """What it shares with the trials that differ in their seed alone."""
        knobs = {name: value for name, value in self.knobs.items() if name != SEED_KNOB}
        return configuration_hash(knobs, self.variant)

    @property
    def submittable(self) -> bool:
        """Completed with a score that can be, and not known to be over the cap."""
        return (
            self.outcome is State.COMPLETED
            and self.val_bpb is not None
            and (bool(self.metric) or not impossible_score(self.val_bpb, self.val_loss_nats))
            and (self.headroom_bytes is None or self.headroom_bytes >= 0)
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data, the form in which the study stores it."""
        former = {"excused": self.uncounted_attempts}  # its name in version 0.1, for one release
        return dataclasses.asdict(self) | {"outcome": self.outcome.value} | former

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> TrialRecord:
        """Inverse of `to_json`; keys of other versions are left aside."""
        if "excused" in document:
            document = {"uncounted_attempts": document["excused"], **document}
        if "failure_code" not in document and document.get("reason") == "out of memory":
            document = {**document, "failure_code": FailureCode.OUT_OF_MEMORY.value}
        if "repair_of" not in document:
            # A duplicate's row held its original's `export_of`; the proposer's name was right.
            origin = former_origin(str(document.get("proposer", "")))
            document = {**document, "export_of": None, **origin}
        names = {item.name for item in dataclasses.fields(cls)}
        values = {key: value for key, value in document.items() if key in names}
        predicted = values.get("predicted_bytes")
        values["predicted_bytes"] = None if predicted is None else Interval(**predicted)
        return cls(**values | {"outcome": State(values["outcome"])})

    def ended(self, outcome: Outcome, end: RunEnd | None, *, cap_bytes: int) -> TrialRecord:
        """The record with an outcome, and with what the run's log and files say."""
        changes: dict[str, Any] = {"reason": outcome.reason}
        if end is not None:
            summary = end.summary
            changes |= {
                "val_loss_nats": summary.val_loss_nats,
                "val_bpb_prequant": summary.val_bpb_prequant,
                "model_bytes": summary.model_bytes or end.model_file_bytes,
                "code_bytes": summary.code_bytes,
                "model_params": summary.model_params,
                "train_seconds": summary.train_seconds,
                "eval_seconds": summary.eval_seconds,
                "steps": summary.steps,
                "step_avg_ms": summary.step_avg_ms,
                "finals": dict(summary.finals),
                "node": end.node,
                "started_at": end.started_at,
                "ended_at": end.ended_at,
                "slot_seconds": self.slot_seconds + end.slot_seconds,
                "checkpoint_bytes": end.checkpoint_bytes,
            }
            if end.start_at == TRAIN:
                changes |= {"reused_from": None, "stage": None}
            else:
                changes |= {"stage": end.start_at, "train_seconds": None}
        match outcome:
            case Completed(val_bpb=val_bpb, artifact_bytes=artifact_bytes):
                headroom = None if artifact_bytes is None else cap_bytes - artifact_bytes
                changes |= {
                    "outcome": State.COMPLETED if self.rung is None else State.SCREENED,
                    "val_bpb": val_bpb,
                    "artifact_bytes": artifact_bytes,
                    "headroom_bytes": headroom,
                }
            case Pruned(val_bpb=val_bpb):
                changes |= {"outcome": State.PRUNED, "val_bpb": val_bpb}
            case Discarded(verdict=verdict):
                predicted = verdict.headroom_bytes
                changes |= {
                    "outcome": State.DISCARDED,
                    "headroom_bytes": None if predicted is None else round(predicted),
                }
            case Failed(kind=kind, code=code):
                changes |= {
                    "outcome": State.FAILED,
                    "failure": kind.value,
                    "failure_code": code.value,
                }
        return dataclasses.replace(self, **changes)


def former_origin(text: str) -> dict[str, int]:
    """``export_of`` or ``repair_of``, which version 0.1 wrote as "export of 7"; else nothing."""
    match = re.fullmatch(r"(export|repair) of (\d+)", text)
    return {f"{match[1]}_of": int(match[2])} if match is not None else {}


def ranked(
    records: Iterable[TrialRecord], posteriors: Mapping[int, Posterior] | None = None
) -> list[TrialRecord]:
    """Completed trials whose artifact is not over the cap, best first; ties to the older.

    Duplicates are left out: they are no evidence of their own. So are runs on a seed that was asked
    for: the best of several seeds is no better configuration.

    Args:
        records: Rows of trials.
        posteriors: What all scores say of each: the order is that of their means, since the best
            of many scores flatters itself. What they do not know goes by its score, as all does
            where they are absent.
    """
    known = posteriors or {}

    def rank(record: TrialRecord) -> tuple[float, int]:
        posterior = known.get(record.number)
        if posterior is None:
            return cost(record), record.number
        return (-posterior.mean if record.maximize else posterior.mean, record.number)

    good = [
        record
        for record in records
        if record.submittable and record.duplicate_of is None and record.seed is None
    ]
    return sorted(good, key=rank)


def second_seeds(records: Iterable[TrialRecord]) -> dict[int, int]:
    """Trials that ran the configuration of another on a seed asked for: number to its number."""
    first: dict[str, int] = {}
    asked = []
    for record in records:
        if record.rung is not None:
            continue
        if record.seed is not None:
            asked.append(record)
        elif record.duplicate_of is None:
            first.setdefault(record.configuration, record.number)
    if not asked:
        return {}
    return {r.number: first[r.configuration] for r in asked if r.configuration in first}


def cost(record: TrialRecord) -> float:
    """A trial's score with its sign such that low is good; infinity where it has none."""
    if record.val_bpb is None:
        return math.inf
    return -record.val_bpb if record.maximize else record.val_bpb


SCORE = "val_bpb"
"""The score's key and heading, where it is the contest's."""


def score_name(records: Iterable[TrialRecord]) -> str:
    """What the score of a study's trials is called."""
    return next((record.metric for record in records if record.metric), SCORE)


def named(document: Any, metric: str) -> Any:
    """A document of a study with the keys of its score under its metric's own name.

    ``val_bpb`` becomes the name, ``posterior_bpb`` ``posterior_NAME``. A name that the mapping has
    for something else gets ``metric.`` before it. Knobs are left as they are.
    """
    if metric in {"", SCORE}:
        return document
    if isinstance(document, list | tuple):
        return [named(item, metric) for item in document]
    if not isinstance(document, Mapping):
        return document
    found: dict[str, Any] = {}
    for key, value in document.items():
        called = key.replace(SCORE, metric) if SCORE in key else re.sub("_bpb$", f"_{metric}", key)
        if called != key and called in document:
            called = f"metric.{called}"
        found[called] = value if key == "knobs" else named(value, metric)
    return found


def counts(records: Iterable[TrialRecord]) -> dict[str, int]:
    """How many trials are in each state, in the order of the states; duplicates on their own.

    Of a sweep without rungs none is screened, and none is counted so.
    """
    always = (state.value for state in State if state is not State.SCREENED)
    result = dict.fromkeys(always, 0) | {"duplicates": 0}
    for record in records:
        key = tally_key(record)
        result[key] = result.get(key, 0) + 1
    return result


def tally_key(record: TrialRecord) -> str:
    """Under what a trial is counted."""
    return "duplicates" if record.duplicate_of is not None else record.outcome.value

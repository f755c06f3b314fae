"""Answers of the MCP server's tools: flat, bounded, each with a next step."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """What every tool answers with.

    Attributes:
        next_step: What to do then.
    """

    model_config = ConfigDict(extra="forbid")

    next_step: str


class PlanAnswer(Answer):
    """The study, its budget and the state of both.

    Attributes:
        study: Its name.
        state: ``running``, ``finished``, ...
        method: The sampler that proposes beside you.
        rules: The preset that a submission must meet.
        cap_bytes: Of code plus compressed model.
        trials: How many ended how.
        run_cap: Trials that may take a slot, or null.
        share_that_fits: Of the search space, by the gate; null where it was not sampled.
        gpu_hours_left: Of your budget; null: not bounded.
        concurrent: Trials that you may have open; null: not bounded.
        open: Trials of yours that wait or run.
        may_propose: Whether one more would be taken up now, and why not.
        noise_bpb: Standard deviation of one run over seeds; null while nothing ran twice.
        accept: The rule by which `compare` keeps a candidate.
    """

    study: str
    state: str
    method: str
    rules: str
    cap_bytes: int
    trials: dict[str, int]
    run_cap: int | None
    share_that_fits: float | None
    gpu_hours_left: float | None
    concurrent: int | None
    open: int
    may_propose: str
    noise_bpb: float | None
    accept: str


class GateAnswer(Answer):
    """Whether a configuration will fit; bytes are predicted."""

    verdict: str
    reason: str
    artifact_bytes_low: int | None
    artifact_bytes_high: int | None
    headroom_bytes: int | None


class KnobAnswer(BaseModel):
    """One knob: what the program's own value is, and what the sweep searches."""

    name: str
    default: Any
    searched: str


class KnobsAnswer(Answer):
    """Knobs that the program reads."""

    knobs: list[KnobAnswer]
    left_out: int


class TrialAnswer(BaseModel):
    """One trial in a line."""

    number: int
    outcome: str
    reason: str
    val_bpb: float | None
    artifact_bytes: int | None
    parent: int | None
    variant: str
    idea: str
    proposer: str
    seed: int | None


class ProposeAnswer(Answer):
    """What became of a proposal.

    Attributes:
        proposals: Ids to `wait` for, the same where it was asked before and has not ended; empty
            where it is refused or ran before.
        verdict: The gate's word, where it was asked.
        earlier: Trials that ran the same code with the same knobs: the answer already.
        notes: What to know of the program.
    """

    proposals: list[str]
    verdict: str
    reason: str
    earlier: list[TrialAnswer]
    notes: list[str]


class WaitAnswer(Answer):
    """How a proposal stands.

    Attributes:
        state: ``waits``, ``queued``, ``running``, ``ended`` or ``refused``.
        reason: Why it waits, or was refused.
        trial: Once it has a number.
    """

    state: str
    reason: str
    trial: TrialAnswer | None


class CompareAnswer(Answer):
    """Is the candidate better? Negative effects are better where the metric is minimised.

    Attributes:
        decision: ``keep``, ``drop``, ``more`` (seeds are needed) or ``open``.
        text: The answer in a sentence.
        proposals: With `run`: further runs to `wait` for, those that others asked for included.
    """

    decision: str
    text: str
    effect_bpb: float | None
    low_bpb: float | None
    high_bpb: float | None
    p_value: float | None
    noise_bpb: float | None
    seeds_more: int | None
    base_mean_bpb: float | None
    candidate_mean_bpb: float | None
    base_artifact_bytes: int | None
    candidate_artifact_bytes: int | None
    base_step_avg_ms: float | None
    candidate_step_avg_ms: float | None
    proposals: list[str]


class LineageAnswer(Answer):
    """Trials with a parent or an idea, and those that others were made from."""

    trials: list[TrialAnswer]
    left_out: int


class ShowAnswer(Answer):
    """One trial: knobs, and what it changes of its parent's program."""

    trial: TrialAnswer
    knobs: dict[str, Any]
    diff: str
    diff_lines_left_out: int


class CurvePoint(BaseModel):
    """One point of a run's curve."""

    step: int
    train_seconds: float | None
    train_loss_nats: float | None
    val_bpb: float | None


class LogsAnswer(Answer):
    """A log in numbers.

    Attributes:
        curve: At most 24 points, the last one included.
        quantization_gap_bpb: Score after the round trip minus before it.
        error: Last line of the error; empty without one.
        error_line: Line of the script where it was raised.
        error_code: That line's text.
        tail: Last lines of the log of a run without a score.
    """

    trial: int
    outcome: str
    curve: list[CurvePoint]
    steps: int | None
    step_avg_ms: float | None
    train_seconds: float | None
    eval_seconds: float | None
    peak_memory_mib: float | None
    val_bpb: float | None
    val_bpb_prequant: float | None
    quantization_gap_bpb: float | None
    model_bytes: int | None
    artifact_bytes: int | None
    error: str
    error_line: int | None
    error_code: str
    tail: list[str]


class BestAnswer(Answer):
    """The best trials within the cap, on the search's seed: the first is flattered by chance."""

    trials: list[TrialAnswer]


class PromoteAnswer(Answer):
    """What a promotion would run; it is not run from here."""

    trial: int
    seeds: list[int]
    rules: str
    cost: str

"""A trial, what a run of it measured, and how it can end.

The vocabulary that every other module shares; nothing here does input or output.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

KnobValue: TypeAlias = bool | int | float | str | list[Any] | dict[str, Any] | None
"""A resolved knob: what the sweep file's space produces and what a script reads. Lists, mappings
and null are for programs with flags, as W&B's sweeps give them."""


TRAIN, EXPORT, EVAL = "train", "export", "eval"
"""Parts of a run, in their order; each starts from what the one before left."""

CHECKPOINT_KNOB, START_KNOB = "CHECKPOINT", "START_AT"
"""Variables of a program that starts at any part: where its checkpoint lies, less the rank, and the
part."""
CHECKPOINT = "checkpoint"
CHECKPOINT_FILE = f"{CHECKPOINT}.0"
"""In a run's folder."""


def knob_text(value: KnobValue) -> str:
    """The text that a script finds in its environment for a knob's value.

    Booleans become ``1`` and ``0``, since the contest's scripts read ``bool(int(...))``.
    """
    if isinstance(value, bool):
        return "1" if value else "0"
    return repr(value) if isinstance(value, float) else str(value)


def parsed_value(text: str) -> KnobValue:
    """The text of ``K=V`` as a number or a truth value where it is one."""
    if text in {"true", "True", "false", "False"}:
        return text.lower() == "true"
    for reader in (int, float):
        try:
            value = reader(text)
            finite = math.isfinite(value)
        except (ValueError, OverflowError):  # the second: more digits than a float holds
            continue
        if finite:
            return value
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A prediction with its bounds, ``low <= mid <= high``, all in the same unit."""

    low: float
    mid: float
    high: float

    def plus(self, constant: float) -> Interval:
        """The interval moved by something known exactly, such as the code's bytes."""
        return Interval(low=self.low + constant, mid=self.mid + constant, high=self.high + constant)


class VerdictKind(StrEnum):
    """What the gate says of one configuration."""

    FITS = "fits"
    """The whole interval is within the cap."""
    NEAR = "near"
    """The interval holds the cap: launched, after those that fit."""
    TOO_BIG = "too_big"
    """Even the interval's lower bound is over the cap: discarded."""
    INVALID = "invalid"
    """No artifact can exist: the model cannot be built, or a `require` is not met. Discarded."""
    UNKNOWN = "unknown"
    """Nothing is known of this program's artifact yet: launched, and learnt from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The gate's answer for one configuration; see `pgolf_sweep.gate.gate`.

    Attributes:
        kind: The answer.
        reason: One sentence for people.
        artifact_bytes: Predicted bytes of code plus compressed model, or None if unknown.
        model_bytes: The same without the code.
        code_bytes: Exact bytes of the counted code.
        cap_bytes: The preset's limit.
        model_params: Number of parameters, or None if unknown.
        confidence: Probability that the interval claims to hold the truth.
        regime: Which physics made the prediction, for example ``entropy`` or ``measured``.
        fit_probability: That the artifact is within the cap, or None if unknown.
    """

    kind: VerdictKind
    reason: str
    code_bytes: int
    cap_bytes: int
    confidence: float
    regime: str
    model_params: int | None = None
    model_bytes: Interval | None = None
    artifact_bytes: Interval | None = None
    fit_probability: float | None = None

    @property
    def discards(self) -> bool:
        """Whether the configuration must not take a slot."""
        return self.kind in {VerdictKind.TOO_BIG, VerdictKind.INVALID}

    @property
    def headroom_bytes(self) -> float | None:
        """Cap minus the predicted artifact (middle of the interval); negative when over."""
        return None if self.artifact_bytes is None else self.cap_bytes - self.artifact_bytes.mid

    @property
    def excess_bytes(self) -> float | None:
        """Predicted bytes over the cap, positive when over: the sampler's constraint."""
        return None if self.artifact_bytes is None else self.artifact_bytes.mid - self.cap_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one trial occupies, all of it on one node."""

    gpus: int
    cpus: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a run may take before it is ended, in seconds of the node's clock."""

    total_seconds: float
    """From the script's start to its exit: training, evaluation, compilation, everything."""
    silent_seconds: float
    """Longest time without a line of output."""
    log_bytes: int = 64_000_000
    """Most bytes of log that are kept; the middle of a longer log is dropped, its ends stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What a sweep optimises.

    Attributes:
        name: Name under which the program logs it.
        goal: Whether low or high is good.
        contest: Whether it is the contest's score after the round trip, read by the dialects of
            the contest's logs; any other is the last number that is logged under its name.
        pattern: A regular expression whose one group is the number, instead of the name; or empty.
        target: Value at which the sweep starts no further trial.
        impute: Which score a failed trial gets in the sampler's eyes, or None for none.
    """

    name: str = "val_bpb"
    goal: Literal["minimize", "maximize"] = "minimize"
    contest: bool = True
    pattern: str = ""
    target: float | None = None
    impute: Literal["latest", "best", "worst"] | None = None

    @property
    def sign(self) -> int:
        """1 where low is good, -1 where high is: what to multiply by so that low is good."""
        return 1 if self.goal == "minimize" else -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a proposal changes besides the knobs of the sweep file.

    Attributes:
        variant: Id of the program that the trial runs; empty for the study's own.
        parent: Number of the trial that it was proposed as a change of, or None.
        idea: The proposer's one line; may be empty.
        seed: Seed that was asked for, whether or not the space holds it; None for the sweep's.
    """

    variant: str = ""
    parent: int | None = None
    idea: str = ""
    seed: int | None = None

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Change:
        """The change that a request, a trial's attributes or its row hold; absent keys are none.

        Raises:
            TypeError: A value is of another type.
        """
        change = cls(**{name: document[name] for name in CHANGE_KEYS if name in document})
        numbers = (change.parent, change.seed)
        texts = isinstance(change.variant, str) and isinstance(change.idea, str)
        if not texts or any(type(number) not in {int, type(None)} for number in numbers):
            raise TypeError("variant and idea are texts, parent and seed whole numbers")
        return change

    def to_json(self) -> dict[str, Any]:
        """Inverse of `from_json`; what is not set is left out."""
        values = {name: getattr(self, name) for name in CHANGE_KEYS}
        return {name: value for name, value in values.items() if value not in {"", None}}


CHANGE_KEYS = ("variant", "parent", "idea", "seed")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """One configuration, resolved: everything that decides what a run computes.

    Attributes:
        study: Name of the study.
        number: The study's number of the trial.
        knobs: Resolved values of the sweep file's parameters, by knob name.
        env: Every environment variable that the script gets beyond those of the node.
        program_name: File name that runs, normally ``train_gpt.py``.
        program_sha256: Hash of the program's files.
        proposer: Who proposed it, for example ``tpe`` or ``propose:alice``.
        argv: Words that start the script, macros of the node left in; empty for the script alone,
            by torchrun where a trial has more than one GPU.
        config: The parameters as W&B hands them out, for ``${args_json_file}`` and wandb.config.
        metric: What is read from its log and from ``wandb.log``.
        passes: Variables of the node that the script gets beyond the system's.
        variant: Id of its program; empty for the study's own.
        rung: Number of the cheaper rung that it runs on; None for the sweep's own.
    """

    study: str
    number: int
    knobs: Mapping[str, KnobValue]
    env: Mapping[str, str]
    program_name: str
    program_sha256: str
    resources: Resources
    limits: Limits
    proposer: str
    argv: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    metric: Metric = field(default_factory=Metric)
    passes: tuple[str, ...] = ()
    variant: str = ""
    rung: int | None = None

    @property
    def identity(self) -> str:
        """Hash of what decides the result: two trials that share it are the same run."""
        return run_identity(self.knobs, self.program_sha256, self.rung)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReuse:
    """What a run takes over from another one's training, and leaves of its own.

    Attributes:
        start_at: The part that it starts at; one whose checkpoint cannot be had trains.
        checkpoint: Address of the checkpoint that it exports.
        keep_at: Address where its own checkpoint is kept, or empty.
        files: Files of the other run that it needs, by relative path.
    """

    start_at: str = TRAIN
    checkpoint: str = ""
    keep_at: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)


def configuration_hash(knobs: Mapping[str, KnobValue], program_sha256: str) -> str:
    """Sixteen hex digits for a configuration of a program (the seed is one of the knobs)."""
    canonical = json.dumps(
        [program_sha256, sorted((name, knob_text(value)) for name, value in knobs.items())],
        separators=(",", ":"),
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def run_identity(knobs: Mapping[str, KnobValue], program_sha256: str, rung: int | None) -> str:
    """`configuration_hash` of a run: one on a cheaper rung is another."""
    own = knobs if rung is None else {**knobs, " rung": rung}
    return configuration_hash(own, program_sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSummary:
    """What a script's log says, as `pgolf-sweep logs --parse FILE --json` prints it.

    None stands for what the log does not say. `val_bpb` and `val_loss_nats` are the last legal
    final score after the round trip; `finals` holds every final score by its label.
    """

    val_bpb: float | None = None
    val_loss_nats: float | None = None
    val_bpb_prequant: float | None = None
    val_loss_nats_prequant: float | None = None
    finals: Mapping[str, float] = field(default_factory=dict)
    final_losses_nats: Mapping[str, float] = field(default_factory=dict)
    """Of those finals that print one."""
    model_bytes: int | None = None
    code_bytes: int | None = None
    uncompressed_code_bytes: int | None = None
    """The script before it was packed, where the log counts it apart."""
    total_bytes: int | None = None
    model_params: int | None = None
    steps: int | None = None
    step_avg_ms: float | None = None
    train_seconds: float | None = None
    eval_seconds: float | None = None
    peak_memory_mib: float | None = None
    seed: int | None = None
    stopped_early: bool = False
    non_finite: bool = False
    """A train or validation loss was NaN or infinite."""
    unread_finals: tuple[str, ...] = ()
    """Lines that look like a final score but that no dialect reads."""
    over_cap: LogSummary | None = None
    """Of the artifact as configured, where it was over the cap and a smaller one followed."""
    exported: Mapping[str, str] = field(default_factory=dict)
    """Knobs that the smaller one was made with instead, as the script prints them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One progress line of a running script.

    Attributes:
        step: Training step.
        total_steps: Steps planned, or None if the line does not say.
        train_seconds: Training time so far.
        val_bpb: Validation bits per byte; None on a training line.
        val_loss_nats: Validation loss in nats per token; None on a training line.
        train_loss_nats: Training loss in nats per token; None on a validation line.
        step_avg_ms: Mean milliseconds a step so far.
    """

    step: int
    total_steps: int | None = None
    train_seconds: float | None = None
    val_bpb: float | None = None
    val_loss_nats: float | None = None
    train_loss_nats: float | None = None
    step_avg_ms: float | None = None


def schedule_fraction(report: StepReport, knobs: Mapping[str, KnobValue]) -> float | None:
    """Share of a run's schedule that is trained, by steps or by wallclock, whichever is more.

    Args:
        report: A progress line.
        knobs: The run's knobs, its limit on the wallclock among them.

    Returns:
        None where neither is known.
    """
    shares = []
    if report.total_steps:
        shares.append(report.step / report.total_steps)
    limit = knobs.get("MAX_WALLCLOCK_SECONDS")
    if report.train_seconds is not None and isinstance(limit, int | float) and limit > 0:
        shares.append(report.train_seconds / limit)
    return min(1.0, max(shares)) if shares else None


class EndCause(StrEnum):
    """Why a run's process is no longer there."""

    EXITED = "exited"
    """The script ended by itself, with any exit code."""
    SIGNALED = "signaled"
    """A signal that we did not send ended it."""
    TIMEOUT = "timeout"
    """It passed `Limits.total_seconds`."""
    SILENT = "silent"
    """It printed nothing for `Limits.silent_seconds`."""
    CANCELLED = "cancelled"
    """The user, or the launcher's end, ended it."""
    PRUNED = "pruned"
    """The pruner ended it: its curve is worse than the others'."""
    SETUP = "setup"
    """The node could not start it: data missing, disk full."""
    MISSING_DEPENDENCY = "missing_dependency"
    """The node lacks a package that the program asks for: another attempt would find the same."""
    FOLDER_REMOVED = "folder_removed"
    """The script removed its own working folder: nothing that it left can be kept."""
    LOST = "lost"
    """The worker or its node is gone."""
    OUTPUT_WRITE_FAILED = "output_write_failed"
    """The driver's own disk refused what came of it: no fault of the node."""
    PREEMPTED = "preempted"
    """Its node was drained: taken away with notice."""

    @classmethod
    def _missing_(cls, value: object) -> EndCause | None:
        """Names that version 0.1 wrote; readers take them for one release more."""
        former = {"unmet": cls.MISSING_DEPENDENCY, "unkept": cls.OUTPUT_WRITE_FAILED}
        return former.get(str(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """How one run of a script ended, as its launcher saw it. Times are epoch seconds.

    Attributes:
        cause: Why it ended.
        exit_code: The script's exit code; negative is a signal; None if unknown.
        detail: One sentence where the cause needs one.
        summary: What its log said.
        node: Host it ran on.
        started_at: When the script started.
        ended_at: When it was gone.
        log_tail: Last lines of its log.
        model_file_bytes: Size of the compressed model file that it left, or None.
        start_at: The part that it started at: train, or export or eval from what another left.
        checkpoint_bytes: Size of the checkpoint that was kept of its training, or None.
        gpu_share: Share of a trial's GPUs that it had; the driver knows.
    """

    cause: EndCause
    exit_code: int | None
    detail: str
    summary: LogSummary
    node: str
    started_at: float
    ended_at: float
    log_tail: tuple[str, ...] = ()
    model_file_bytes: int | None = None
    start_at: str = TRAIN
    checkpoint_bytes: int | None = None
    gpu_share: float = 1.0

    @property
    def slot_seconds(self) -> float:
        """Seconds for which the run held the GPUs of a trial, or its share of them."""
        return self.gpu_share * max(0.0, self.ended_at - self.started_at)


class FailureKind(StrEnum):
    """Who is to blame for a failed trial, which decides whether it is tried again."""

    DETERMINISTIC = "deterministic"
    """The configuration's own fault: never retried."""
    INFRASTRUCTURE = "infrastructure"
    """A node, a worker, a disk: retried up to the study's limit."""


class FailureCode(StrEnum):
    """The cause of a failure, for programs; the reason beside it is for people."""

    EXIT_CODE = "exit_code"
    SIGNAL = "signal"
    OUT_OF_MEMORY = "out_of_memory"
    NOT_FINITE = "not_finite"
    NO_SCORE = "no_score"
    IMPOSSIBLE_SCORE = "impossible_score"
    DISK_FULL = "disk_full"
    """The node's disk refused what the script wrote."""
    TIMEOUT = "timeout"
    SILENT = "silent"
    MISSING_DEPENDENCY = "missing_dependency"
    FOLDER_REMOVED = "folder_removed"
    CANCELLED = "cancelled"
    SETUP = "setup"
    LOST = "lost"
    OUTPUT_WRITE_FAILED = "output_write_failed"
    PREEMPTED = "preempted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The script ran to its end and printed a final score.

    Attributes:
        val_bpb: Score after the round trip; lower is better.
        artifact_bytes: Counted code plus compressed model, measured.
    """

    val_bpb: float
    artifact_bytes: int | None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """Stopped by the pruner because its curve was worse than the others'."""

    val_bpb: float | None
    step: int | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Discarded:
    """Refused by the gate; no slot was taken."""

    verdict: Verdict

    @property
    def reason(self) -> str:
        """The gate's reason."""
        return self.verdict.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The run gave no score."""

    kind: FailureKind
    code: FailureCode
    reason: str
    log_tail: tuple[str, ...] = ()


Outcome: TypeAlias = Completed | Pruned | Discarded | Failed

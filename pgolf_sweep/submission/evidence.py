"""Evidence of a promotion: the candidate, its runs on fresh seeds, and where it came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

from pgolf_sweep.core.trial import EndCause

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pgolf_sweep.core.trial import KnobValue, LogSummary, RunEnd

SCRIPT_NAME = "train_gpt.py"
"""What a submission calls its script, regardless of the name of the sweep's program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A completed trial, as promotion chooses among them.

    Attributes:
        study: Name of the study.
        number: The trial's number.
        knobs: Resolved values of the sweep's parameters.
        proposer: Who proposed it.
        val_bpb: Score on the search's seed: biased, since the search picked the best of many.
        artifact_bytes: Measured code plus compressed model, or None if the log did not say.
        variant: Id of the program that it ran; empty for the study's own.
        expected_bpb: What all scores of the search say of it; None where they say nothing.
        second_seeds: Its scores on further seeds of the search.
    """

    study: str
    number: int
    knobs: Mapping[str, KnobValue]
    proposer: str
    val_bpb: float
    artifact_bytes: int | None
    variant: str = ""
    expected_bpb: float | None = None
    second_seeds: tuple[float, ...] = ()

    @property
    def rank_bpb(self) -> float:
        """By what it is compared with others before a race."""
        return self.val_bpb if self.expected_bpb is None else self.expected_bpb


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedRun:
    """One run of the very script that ships, on one seed.

    Attributes:
        seed: Its seed.
        end: How the launcher saw it end.
        summary: What `log` says.
        log: The run's log.
        artifact: The compressed model that it left, or None.
        code_bytes: Bytes of the script that ran.
    """

    seed: int
    end: RunEnd
    summary: LogSummary
    log: Path
    artifact: Path | None
    code_bytes: int

    @property
    def failure(self) -> str | None:
        """Why the run gives no score; None if it gives one."""
        if self.end.cause is not EndCause.EXITED or self.end.exit_code != 0:
            return self.end.detail or f"{self.end.cause} with exit code {self.end.exit_code}"
        if self.summary.non_finite:
            return "a loss was not finite"
        if self.summary.val_bpb is None or self.summary.val_loss_nats is None:
            return "the log has no final score"
        return None

    @property
    def val_bpb(self) -> float:
        """Final score of a run that has one."""
        return _known(self.summary.val_bpb)

    @property
    def val_loss_nats(self) -> float:
        """Final loss of a run that has one."""
        return _known(self.summary.val_loss_nats)

    @property
    def model_bytes(self) -> int | None:
        """Size of the model file, else what the log says of it."""
        if self.artifact is not None:
            return self.artifact.stat().st_size
        return self.summary.model_bytes

    @property
    def artifact_bytes(self) -> int | None:
        """Code plus compressed model."""
        return None if self.model_bytes is None else self.code_bytes + self.model_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageStep:
    """One change on the way to a candidate, and what it is worth by measurement.

    Attributes:
        trial: The trial that made it.
        parent: The trial that it changed; None for the first.
        proposer: Who proposed it.
        idea: Its one line.
        variant: Id of its program; empty for the study's own.
        effect_bpb: Its score minus its parent's; None where the noise is unknown or a run lacks.
        low_bpb: Lower end of the 95 % interval.
        high_bpb: Upper end.
        runs: Of the trial's configuration and of its parent's.
    """

    trial: int
    parent: int | None
    proposer: str
    idea: str
    variant: str
    effect_bpb: float | None = None
    low_bpb: float | None = None
    high_bpb: float | None = None
    runs: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a candidate came from, for the README and for whoever doubts it.

    Attributes:
        sweep_text: The sweep file as launched.
        sampler: The sampler and its seed, in words.
        trials: How many trials ended how, for example ``{"completed": 40, "discarded": 25}``.
        slot_seconds: Seconds for which trials held slots.
        gpus: GPUs of a slot; 0 for CPU slots.
        hardware: What the seeds ran on, for example ``8xH100 SXM``.
        dataset: Name of the data set.
        program_sha256: Hash of the program that the search ran.
        versions: Version by package, of what the runs had installed.
        lineage: The changes that made it, the first one first; empty where nothing was changed.
        tried: Trials of the study by proposer, further seeds left out.
        based_on: The published work that the program began as: name, link and licence.
    """

    sweep_text: str
    sampler: str
    trials: Mapping[str, int]
    slot_seconds: float
    gpus: int
    hardware: str
    dataset: str
    program_sha256: str
    versions: Mapping[str, str] = field(default_factory=dict)
    lineage: tuple[LineageStep, ...] = ()
    tried: Mapping[str, int] = field(default_factory=dict)
    based_on: Mapping[str, str] = field(default_factory=dict)


def mean_bpb(runs: Sequence[SeedRun]) -> float:
    """Mean score of runs that have one."""
    return fmean(run.val_bpb for run in runs)


def largest(runs: Sequence[SeedRun]) -> SeedRun:
    """The run with the largest artifact: its bytes are the submission's bytes."""
    return max(runs, key=lambda run: run.artifact_bytes or 0)


def _known(value: float | None) -> float:
    if value is None:
        raise ValueError("a run without a final score was asked for it; look at `failure` first")
    return value

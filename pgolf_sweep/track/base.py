"""Tracker protocols. A tracker never raises and never fails a trial: it warns once and goes on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.core.trial import KnobValue, RunEnd, StepReport, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTracking:
    """Everything a worker needs to own a trial's W&B run; plain data, sent to the node.

    Attributes:
        mode: ``online``, ``offline`` or ``disabled``.
        project: W&B project.
        entity: W&B entity, or None for the key's default.
        group: The study's name.
        run_id: Stable for (study, trial), so that a retried trial continues its run.
        name: What people see, for example ``demo-12``.
        config: Knobs and what the gate predicted.
        cap_bytes: For the headroom in the summary.
        tags: For example the sampler.
        metric: Name of what the sweep optimises where it is not the contest's score; or empty.
        bytes_per_token: Of the validation set, where it is known.
        batch_tokens: Tokens of a training step, which make a rate of its time; 0 if unknown.
        env: WANDB_* variables that the driver has and the node needs (the key, the base URL);
            left out of the repr, which may land in a log.
    """

    mode: str
    project: str
    entity: str | None
    group: str
    run_id: str
    name: str
    config: Mapping[str, KnobValue | None]
    cap_bytes: int
    tags: tuple[str, ...] = ()
    metric: str = ""
    batch_tokens: int = 0
    bytes_per_token: float | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedFiles:
    """Files that W&B keeps as one artifact.

    Attributes:
        name: The artifact's; a later version of the same name follows the earlier.
        kind: Its type, for example ``sweep``.
        files: Path on this machine by the name in the artifact.
        metadata: What W&B shows of it.
    """

    name: str
    kind: str
    files: Mapping[str, Path]
    metadata: Mapping[str, KnobValue | None] = field(default_factory=dict)


class RunTracker(Protocol):
    """One trial's run, owned by the worker on the trial's node."""

    def report(self, report: StepReport) -> None:
        """A point of the curves."""
        ...

    def log(self, values: Mapping[str, float], step: int | None) -> None:
        """What the script handed to ``wandb.log`` itself."""
        ...

    def finish(self, end: RunEnd) -> None:
        """Final metrics, artifact bytes, headroom, status; then close the run."""
        ...


class StudyTracker(Protocol):
    """The study's one summary run, owned by the driver."""

    def discarded(self, number: int, knobs: Mapping[str, KnobValue], verdict: Verdict) -> None:
        """A row of the table of discards."""
        ...

    def ended(self, record: TrialRecord, *, again: bool = False) -> None:
        """A row of the table of trials, and a point of what was predicted against what came.

        Args:
            record: The trial's final row.
            again: Whether an earlier launch saw its end, and drew the point.
        """
        ...

    def progress(self, metrics: Mapping[str, float]) -> None:
        """Best so far, GPU hours, counts of outcomes."""
        ...

    def finish(
        self, summary: Mapping[str, float | str], artifacts: Iterable[TrackedFiles] = ()
    ) -> None:
        """Keep the files as W&B artifacts and close the run."""
        ...

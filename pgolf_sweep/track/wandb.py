"""What W&B gets: a run for each trial, and one that sums the study up.

How a run is written, and what happens where W&B is away: `pgolf_sweep.track.wandb_run`.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from pgolf_sweep.track.mode import run_id
from pgolf_sweep.track.summary import final_summary
from pgolf_sweep.track.wandb_run import (
    DEFAULT_BOUNDS,
    Bounds,
    Channel,
    RunOptions,
    keep_files,
    log_table,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.core.trial import KnobValue, RunEnd, StepReport, Verdict
    from pgolf_sweep.track.base import RunTracking, TrackedFiles

_TABLE_ROWS = 10_000
"""Discards kept for the table, the newest: as many rows as W&B shows."""

_FIRST_TABLE = 64
"""Rows after which a table is logged first; then each time their number has doubled, since every
version holds all rows."""


_CURVES = (
    "train/loss_nats",
    "train/seconds",
    "val/bpb",
    "val/loss_nats",
    "step_avg_ms",
    "tokens_per_second",
)


class WandbRunTracker:
    """A trial's run: curves against ``step``, and how it ended."""

    def __init__(
        self, tracking: RunTracking, folder: Path, bounds: Bounds = DEFAULT_BOUNDS
    ) -> None:
        self._cap_bytes = tracking.cap_bytes
        self._metric = tracking.metric
        self._bytes_per_token = tracking.bytes_per_token
        self._batch_tokens = tracking.batch_tokens
        self._tags = tracking.tags
        self._last_val: StepReport | None = None
        options = RunOptions(
            mode=tracking.mode,
            project=tracking.project,
            entity=tracking.entity,
            run_id=tracking.run_id,
            name=tracking.name,
            group=tracking.group,
            job_type="trial",
            config=dict(tracking.config),
            folder=folder,
            tags=tracking.tags,
            env=dict(tracking.env),
            node_metrics=True,
            step_metrics=_CURVES,
        )
        self._channel = Channel(options, bounds)

    def report(self, report: StepReport) -> None:
        """A point of the curves."""
        if report.val_bpb is not None:
            self._last_val = report
        values = (
            report.train_loss_nats,
            report.train_seconds,
            report.val_bpb,
            report.val_loss_nats,
            report.step_avg_ms,
            1000 * self._batch_tokens / report.step_avg_ms
            if self._batch_tokens and report.step_avg_ms
            else None,
        )
        # The step is a metric of its own: a train and a validation line share one, and W&B drops
        # what is logged to a step of its own counter that has passed.
        point: dict[str, float] = {"step": report.step}
        point |= {
            name: value for name, value in zip(_CURVES, values, strict=True) if value is not None
        }
        if self._metric and report.val_bpb is not None:
            point[self._metric] = point.pop("val/bpb")
        self._channel.send(lambda run: run.log(point))

    def log(self, values: Mapping[str, float], step: int | None) -> None:
        """What the script logged itself, under its own names."""
        point = {**values, **({} if step is None else {"step": step})}
        self._channel.send(lambda run: run.log(point))

    def finish(self, end: RunEnd) -> None:
        """Final metrics, artifact bytes, headroom, status; then close the run."""
        last = self._last_val
        final = final_summary(
            end,
            cap_bytes=self._cap_bytes,
            last_val_bpb=last.val_bpb if last else None,
            last_step=last.step if last else None,
            metric=self._metric,
            bytes_per_token=self._bytes_per_token,
        )
        status = str(final["status"])

        def conclude(run: Any) -> None:
            run.summary.update(final)
            # W&B knows finished and failed only; a tag can be filtered by.
            run.tags = (*self._tags, status)

        ended_well = status in {"completed", "pruned"}
        self._channel.close(conclude, exit_code=0 if ended_well else 1)


class WandbStudyTracker:
    """A study's summary run: progress, trials and discards as tables, its files as artifacts."""

    def __init__(
        self,
        mode: str,
        *,
        project: str,
        entity: str | None,
        study: str,
        folder: Path,
        config: Mapping[str, object],
        tags: tuple[str, ...] = (),
        salt: str = "",
        bounds: Bounds = DEFAULT_BOUNDS,
    ) -> None:
        self._bounds = bounds
        self._discards = _Rows("discards", _DISCARD_COLUMNS)
        self._trials = _Rows("trials", _TRIAL_COLUMNS)
        self._progress: Mapping[str, float] = {}
        self._progress_at = -math.inf
        self._waiting: Mapping[str, float] | None = None
        options = RunOptions(
            mode=mode,
            project=project,
            entity=entity,
            run_id=run_id(study, "summary", salt=salt),
            name=f"{study}-summary",
            group=study,
            job_type="sweep",
            config=dict(config),
            folder=folder,
            tags=tags,
            step="trial/number",
            step_metrics=("trial/*",),
        )
        self._channel = Channel(options, bounds)

    def discarded(self, number: int, knobs: Mapping[str, KnobValue], verdict: Verdict) -> None:
        """A row of the table of discards."""
        predicted = verdict.artifact_bytes
        bounds = (predicted.low, predicted.mid, predicted.high) if predicted else (None,) * 3
        text = json.dumps(dict(knobs), sort_keys=True)
        row = (number, text, *bounds, verdict.excess_bytes, verdict.reason)
        self._log(self._discards, self._discards.add(row))

    def ended(self, record: TrialRecord, *, again: bool = False) -> None:
        """A row of the table of trials, and a point of what was predicted against what came."""
        predicted = None if record.predicted_bytes is None else record.predicted_bytes.mid
        values: dict[str, float | None] = {
            "number": record.number,
            "score": record.val_bpb,
            "expected_score": record.expected_bpb,
            "expected_sd": record.expected_sd,
            "predicted_bytes": predicted,
            "artifact_bytes": record.artifact_bytes,
            "headroom_bytes": record.headroom_bytes,
            "slot_seconds": record.slot_seconds,
        }
        text = json.dumps(dict(record.knobs), sort_keys=True)
        row = (*values.values(), record.outcome.value, record.reason, text)
        self._log(self._trials, self._trials.add(row))
        if not again:
            point = {f"trial/{name}": value for name, value in values.items() if value is not None}
            self._channel.send(lambda run: run.log(point))

    def progress(self, metrics: Mapping[str, float]) -> None:
        """Best so far, GPU hours, counts of outcomes; what is new, and not more often than read."""
        if metrics == self._progress:
            return
        now = time.monotonic()
        if now - self._progress_at < self._bounds.progress_seconds:
            self._waiting = dict(metrics)
            return
        self._log_progress(metrics)

    def finish(
        self, summary: Mapping[str, float | str], artifacts: Iterable[TrackedFiles] = ()
    ) -> None:
        """Keep the files as W&B artifacts and close the run."""
        if self._waiting is not None:
            self._log_progress(self._waiting)
        for rows in (self._discards, self._trials):
            self._log(rows, rows.rest())
        if kept := list(artifacts):
            self._channel.send_asking("artifacts", lambda run: keep_files(run, kept))
        final = {"discarded": self._discards.count, **summary}
        self._channel.close(lambda run: run.summary.update(final), exit_code=0)

    def _log_progress(self, metrics: Mapping[str, float]) -> None:
        self._progress, self._progress_at, self._waiting = dict(metrics), time.monotonic(), None
        point = dict(metrics)
        self._channel.send(lambda run: run.log(point))

    def _log(self, rows: _Rows, due: list[list[Any]] | None) -> None:
        if due is not None:
            self._channel.send_asking(
                "tables", lambda run: log_table(run, rows.name, rows.columns, due)
            )


class _Rows:
    """Rows of a table that is logged whole, each time that their number has doubled."""

    def __init__(self, name: str, columns: tuple[str, ...]) -> None:
        self.name = name
        self.columns = columns
        self.count = 0
        self._rows: deque[tuple[Any, ...]] = deque(maxlen=_TABLE_ROWS)
        self._logged = 0

    def add(self, row: tuple[Any, ...]) -> list[list[Any]] | None:
        """Take a row; the table, where it is to be logged now."""
        self._rows.append(row)
        self.count += 1
        return self.rest() if self.count >= max(_FIRST_TABLE, 2 * self._logged) else None

    def rest(self) -> list[list[Any]] | None:
        """The table, where it has rows that no version of it has."""
        if self.count == self._logged:
            return None
        self._logged = self.count
        return [list(row) for row in self._rows]


_DISCARD_COLUMNS = (
    "number",
    "knobs",
    "predicted_bytes_low",
    "predicted_bytes_mid",
    "predicted_bytes_high",
    "excess_bytes",
    "reason",
)

_TRIAL_COLUMNS = (
    "number",
    "score",
    "expected_score",
    "expected_sd",
    "predicted_bytes",
    "artifact_bytes",
    "headroom_bytes",
    "slot_seconds",
    "outcome",
    "reason",
    "knobs",
)

"""Trackers that do nothing, so that callers never branch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.core.trial import KnobValue, RunEnd, StepReport, Verdict
    from pgolf_sweep.track.base import TrackedFiles


class NullRunTracker:
    """A trial that nobody watches."""

    def report(self, report: StepReport) -> None:
        """Nothing."""

    def log(self, values: Mapping[str, float], step: int | None) -> None:
        """Nothing."""

    def finish(self, end: RunEnd) -> None:
        """Nothing."""


class NullStudyTracker:
    """A study that nobody watches."""

    def discarded(self, number: int, knobs: Mapping[str, KnobValue], verdict: Verdict) -> None:
        """Nothing."""

    def ended(self, record: TrialRecord, *, again: bool = False) -> None:
        """Nothing."""

    def progress(self, metrics: Mapping[str, float]) -> None:
        """Nothing."""

    def finish(
        self, summary: Mapping[str, float | str], artifacts: Iterable[TrackedFiles] = ()
    ) -> None:
        """Nothing."""

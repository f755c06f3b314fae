"""What a sweep may spend, and how many more trials that is; pure arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass

HOUR = 3600.0
ROUNDING = 1e-9
"""Relative: a budget of exactly n trials is n trials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """The limits of a study over its whole life.

    Attributes:
        gpus: Of one trial; a trial without any counts as one.
        gpu_hours: Of all trials, or None.
        usd: Of all trials, or None.
        usd_per_gpu_hour: The price, or None.
        deadline_at: Seconds of the epoch at which the last trial has ended, or None.
        reserved_runs: Runs of a promotion, which are kept back.
    """

    gpus: int = 0
    gpu_hours: float | None = None
    usd: float | None = None
    usd_per_gpu_hour: float | None = None
    deadline_at: float | None = None
    reserved_runs: int = 0

    @property
    def slot_seconds(self) -> float | None:
        """Most seconds for which slots may be held; None: no limit."""
        by_usd = self.usd / self.usd_per_gpu_hour if self.usd and self.usd_per_gpu_hour else None
        hours = [limit for limit in (self.gpu_hours, by_usd) if limit is not None]
        return min(hours) * HOUR / max(1, self.gpus) if hours else None

    @property
    def limit(self) -> str:
        """The tighter of the limits of GPU-hours and dollars in words; empty where neither is."""
        seconds = self.slot_seconds
        if seconds is None:
            return ""
        if self.gpu_hours is not None and self.gpu_hours_of(seconds) >= self.gpu_hours:
            return f"{self.gpu_hours:g} GPU-hours"
        return f"${self.usd:,g}"

    def gpu_hours_of(self, slot_seconds: float) -> float:
        """GPU-hours of slots that were held for so long."""
        return slot_seconds * max(1, self.gpus) / HOUR

    def usd_of(self, slot_seconds: float) -> float | None:
        """The same in dollars; None without a price."""
        if self.usd_per_gpu_hour is None:
            return None
        return self.gpu_hours_of(slot_seconds) * self.usd_per_gpu_hour

    def affordable(self, seconds_each: float, *, spent: float = 0.0) -> float:
        """How many trials GPU-hours and dollars still pay for; infinite without a limit.

        Args:
            seconds_each: What a trial holds its slot for.
            spent: Seconds for which slots were held, or will be by what has begun.
        """
        limit = self.slot_seconds
        if limit is None:
            return math.inf
        left = (limit - spent) / seconds_each if seconds_each else math.inf
        if math.isinf(left):
            return left
        return float(max(0, math.floor(left * (1 + ROUNDING)) - self.reserved_runs))

    def seconds_to_start(self, seconds_each: float, *, slots: int, now: float) -> float:
        """How long from now a trial may start that ends by the deadline; infinite without one.

        Negative where it is too late. The runs of a promotion, as many at a time as there are
        slots, must end by the deadline as well.
        """
        if self.deadline_at is None:
            return math.inf
        rounds = 1 + math.ceil(self.reserved_runs / max(1, slots))
        return self.deadline_at - now - rounds * seconds_each

    def trials_by_deadline(self, seconds_each: float, *, slots: int, now: float) -> float:
        """How many trials end by the deadline if all slots are free now."""
        left = self.seconds_to_start(seconds_each, slots=slots, now=now)
        if not math.isfinite(left) or not seconds_each:
            return math.inf
        return slots * max(0, math.floor(left / seconds_each * (1 + ROUNDING)) + 1)

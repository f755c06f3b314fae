"""Budget of a driver: trials under the cap, free slots, GPU-hours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgolf_sweep.core.clock import Clock
    from pgolf_sweep.driver.sharing.leases import DriverLease
    from pgolf_sweep.driver.table import TrialTable
    from pgolf_sweep.launch.base import Launcher
    from pgolf_sweep.nodes.quarantine import NodeBook

MOST_NEAR_WAITING = 64
"""Trials near the cap that wait for those that fit, where the sampler does not learn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What one driver may propose, hold and spend, as its trials and slots stand.

    Attributes:
        run_cap: Trials that may take a slot, over the whole life of the study; None: no limit.
        gpu_hours: Budget over the whole life of the study, or None.
        gpus: Of one trial; a trial without any counts as one.
        learns: Whether the sampler learns from the trials before.
        table: What is known of all trials.
        launcher: Its slots.
        nodes: Which of their nodes are trusted.
        clock: What held slots cost until now.
        lease: The other drivers' slots; None where there are no others.
    """

    run_cap: int | None
    gpu_hours: float | None
    gpus: int
    learns: bool
    table: TrialTable
    launcher: Launcher
    nodes: NodeBook
    clock: Clock
    lease: DriverLease | None

    def room(self) -> float:
        """How many trials this driver should propose now."""
        return min(self.wanted(), self.left())

    def left(self) -> float:
        """How many trials may be proposed before `run_cap` is reached."""
        if self.run_cap is None:
            return math.inf
        held = self.table.queued_count + len(self.table.probing)
        return self.run_cap - (self.table.counted + held + self.table.reserved)

    def wanted(self) -> float:
        """How many more trials this driver should hold: one ahead of its free slots.

        The last trials of a shared study are left to those that have free slots for them.
        """
        near = self.table.near_count()
        ahead = self.lease is None or self.left() > self.lease.other_slots
        waiting = min(near, self._may_wait()) if near else 0
        free = self.launcher.free(self.nodes.closed())
        held = self.table.queued_count + len(self.table.probing)
        return free + ahead - (held - waiting)

    def _may_wait(self) -> int:
        """How many trials near the cap may wait beside the queue for those that fit.

        A sampler that learns proposes each without what the trials before it will teach, so it is
        not asked for more of them than there are slots.
        """
        return len(self.launcher.slots()) if self.learns else MOST_NEAR_WAITING

    def over_budget(self) -> bool:
        """Whether the GPU-hours are spent, those of the trials that run among them."""
        if self.gpu_hours is None:
            return False
        now, epoch = self.clock.monotonic(), self.clock.now()
        seconds = self.table.slot_seconds(now=now, epoch=epoch)
        return seconds * max(1, self.gpus) / 3600 >= self.gpu_hours

"""A sweep at one moment, for whoever watches: the terminal, W&B, ``status.json``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgolf_sweep.core.events import SweepEvent
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.nodes.quarantine import NodeRow

JOINING = "joining"
"""Key of ``status.json`` until its driver has taken a turn: it waits for the first node."""


class SweepState(StrEnum):
    """Where a sweep is; all but the first two are ends."""

    RUNNING = "running"
    DRAINING = "draining"
    FINISHED = "finished"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    NO_HEALTHY_NODES = "no_healthy_nodes"
    """No node was fit to run a trial for too long."""
    ABORTED_SAME_ERROR = "aborted_same_error"
    """No trial has trained, and the last ones all failed at once with the same error."""

    @classmethod
    def _missing_(cls, value: object) -> SweepState | None:
        """Names that version 0.1 wrote; readers take them for one release more."""
        former = {"stranded": cls.NO_HEALTHY_NODES, "hopeless": cls.ABORTED_SAME_ERROR}
        return former.get(str(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningTrial:
    """A trial that holds a slot, as observers see it.

    Attributes:
        curve: Its validations, or its training losses where they are fewer than three; oldest
            first.
        seconds_left: Until it ends, by its schedule or by the time that a trial takes.
        rung: Number of the cheaper rung that it runs on, or None.
    """

    number: int
    knobs: Mapping[str, KnobValue]
    node: str | None
    step: int | None
    total_steps: int | None
    val_bpb: float | None
    started_at: float
    curve: tuple[float, ...] = ()
    seconds_left: float | None = None
    rung: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRow:
    """What is spent, and of what.

    Attributes:
        limit: The tighter of the limits of GPU-hours and dollars in words; may be empty.
        deadline_at: Seconds of the epoch, or None.
        spent_gpu_hours: Slot-hours where trials have no GPU.
        spent_usd: None without a price.
        reserved_runs: Runs of a promotion, which are kept back.
        trials_left: How many more may start; None where nothing says it.
    """

    limit: str
    deadline_at: float | None
    spent_gpu_hours: float
    spent_usd: float | None
    reserved_runs: int
    trials_left: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What an observer sees after each turn of the loop.

    Attributes:
        counts: Trials by state, as `record.counts` gives them.
        counted: Trials that count against `run_cap`.
        waiting: Trials of this driver that wait for a slot.
        near: Those of them near the cap.
        proposals: Trials that people asked for and that have had no slot yet.
        last: The trial that ended last.
        began_at: When this launch began, in seconds since 1970.
        held_seconds: Time for which slots were held, by the trials that run, too.
        gpus: Of one trial; 0 on a CPU.
        usd_per_gpu_hour: Price, where the sweep file has one.
        metric: What is optimised, where it is not the contest's score; or empty.
        records: Every row, for an observer that needs them; not copied.
    """

    state: SweepState
    counts: Mapping[str, int]
    run_cap: int | None
    slots: int
    running: Sequence[RunningTrial]
    best: TrialRecord | None
    trained_seconds: float
    idle_seconds: float
    saved_by_gate_seconds: float
    redrawn: int
    seconds_left: float | None
    now: float
    reason: str = ""
    nodes: Sequence[NodeRow] = ()
    counted: int = 0
    waiting: int = 0
    near: int = 0
    proposals: int = 0
    last: TrialRecord | None = None
    began_at: float | None = None
    held_seconds: float = 0.0
    gpus: int = 0
    usd_per_gpu_hour: float | None = None
    records: Mapping[int, TrialRecord] = field(default_factory=dict)
    budget: BudgetRow | None = None
    metric: str = ""
    """Name of the score, where it is not the contest's."""


class Observer(Protocol):
    """Shows a sweep to people."""

    def turn(self, snapshot: Snapshot) -> None:
        """After each turn of the loop; must be quick."""
        ...

    def event(self, event: SweepEvent) -> None:
        """Something worth a line: a trial ended, a retry, a drain."""
        ...


def status_document(snapshot: Snapshot) -> dict[str, Any]:
    """A driver's snapshot as the plain data of ``status.json``."""
    return {
        "state": snapshot.state.value,
        "reason": snapshot.reason,
        "run_cap": snapshot.run_cap,
        "slots": snapshot.slots,
        "idle_seconds": snapshot.idle_seconds,
        "trained_seconds": snapshot.trained_seconds,
        "redrawn": snapshot.redrawn,
        "saved_by_gate_seconds": snapshot.saved_by_gate_seconds,
        "seconds_left": snapshot.seconds_left,
        "written_at": snapshot.now,
        "running": [
            dataclasses.asdict(trial) | {"knobs": dict(trial.knobs)} for trial in snapshot.running
        ],
        "nodes": [dataclasses.asdict(row) for row in snapshot.nodes],
        "budget": None if snapshot.budget is None else dataclasses.asdict(snapshot.budget),
        "counts": dict(snapshot.counts),
        "best": dataclasses.asdict(snapshot.best) if snapshot.best is not None else None,
        "counted": snapshot.counted,
        "waiting": snapshot.waiting,
        "near": snapshot.near,
        "proposals": snapshot.proposals,
        "last": dataclasses.asdict(snapshot.last) if snapshot.last is not None else None,
        "began_at": snapshot.began_at,
        "held_seconds": snapshot.held_seconds,
        "gpus": snapshot.gpus,
        "usd_per_gpu_hour": snapshot.usd_per_gpu_hour,
        "metric": snapshot.metric,
    }

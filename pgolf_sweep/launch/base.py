"""The launcher protocol: start a run, hear of it, end it.

A launcher owns slots. A slot runs one trial at a time on the GPUs (or CPUs) of one node; a trial
that needs more takes several slots of a node, and runs on the GPUs of all. The
driver calls from one thread and never blocks for longer than `poll`'s timeout. Launchers know
nothing of studies, samplers or gates.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

from pgolf_sweep.core.errors import InfraError
from pgolf_sweep.core.trial import EndCause, TrainingReuse

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from pgolf_sweep.core.trial import RunEnd, StepReport, TrialSpec
    from pgolf_sweep.nodes.info import NodeInfo
    from pgolf_sweep.track.base import RunTracking


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run to start.

    Attributes:
        key: Unique among the launcher's live jobs, for example ``12`` or ``seed-7``.
        attempt: Tells tries of a key apart (the driver's first is 1); events carry it, so that a
            late word of a lost attempt is not taken for the next.
        spec: What to run.
        files: The program's files by relative path; ``spec.program_name`` is one of them.
        folder: Where the driver's machine gets the log and the artifact.
        tracking: How the worker reports to W&B, or None.
        wandb_folder: Where the driver's machine gets W&B's offline runs, or None to drop them.
        avoid: Names of nodes on which it must not start.
        reuse: What it takes over from another run, and leaves to others.
        slots: How many slots of one node it takes.
    """

    key: str
    attempt: int
    spec: TrialSpec
    files: Mapping[str, bytes]
    folder: Path
    tracking: RunTracking | None = None
    wandb_folder: Path | None = None
    avoid: Collection[str] = frozenset()
    reuse: TrainingReuse = field(default_factory=TrainingReuse)
    slots: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The script's process exists."""

    key: str
    attempt: int
    node: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """The script printed progress."""

    key: str
    attempt: int
    report: StepReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The run is over: its processes are gone, its files are in `Job.folder`, its slot is free.

    Exactly one for each started job, no matter what happened to worker or node. With the cause
    ``lost`` nobody could look: on a node that is cut off the run goes on for up to four leases, and
    what SIGKILL does not end for as long as it hangs (docs/faults.md). The slot of such a run is
    gone.
    """

    key: str
    attempt: int
    end: RunEnd


Event: TypeAlias = Started | Reported | Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotInfo:
    """One slot as people see it."""

    node: str
    gpus: int
    busy_with: str | None


class Launcher(Protocol):
    """Runs jobs on slots. One contract suite (`tests/contracts`) holds for every launcher."""

    def slots(self) -> Sequence[SlotInfo]:
        """Every slot that exists now; nodes may come and go."""
        ...

    def nodes(self) -> Sequence[NodeInfo]:
        """Every node that has slots, or would have if it were not refused or taken away."""
        ...

    def free(self, avoid: Collection[str] = frozenset(), slots: int = 1) -> int:
        """How many jobs of so many slots that avoid these nodes `start` takes now."""
        ...

    def start(self, job: Job) -> str:
        """Start a job on free slots of one node and return at once the name of the node.

        Raises:
            InfraError: No node that the job may use has as many free slots.
        """
        ...

    def poll(self, timeout_seconds: float) -> list[Event]:
        """Events since the last call, in order for each job; waits for one at most this long."""
        ...

    def cancel(self, key: str, reason: str, *, cause: EndCause = EndCause.CANCELLED) -> None:
        """End a job's process group; its `Ended` with that cause follows within seconds.

        An unknown key is ignored: the job may just have ended.
        """
        ...

    def close(self) -> None:
        """End what still runs, then everything that this launcher started itself."""
        ...


def refuse_start(job: Job, free: int, duplicate: bool) -> None:
    """What every launcher checks before it starts a job.

    Raises:
        InfraError: There is no free slot, or the key is in use.
    """
    if duplicate:
        raise InfraError(f"job {job.key} runs already", where=f"attempt {job.attempt}")
    if free < 1:
        raise InfraError(
            "there is no free slot",
            where=f"job {job.key}",
            expected="a launcher with free() > 0",
            next_step="poll until a run has ended",
        )

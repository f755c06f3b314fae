"""Events of a sweep that are worth a line: plain data, for `core.event_text` to put into words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgolf_sweep.core.record import TrialRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialEnded:
    """A trial ended with a result of its own."""

    record: TrialRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class BestFound:
    """A trial that can be submitted scores better than all before it.

    Attributes:
        metric: What is optimised.
    """

    record: TrialRecord
    metric: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRetried:
    """An attempt failed and the trial runs again.

    Attributes:
        reason: How the attempt ended.
        attempt: The attempt that follows.
        uncounted: Why the failed one does not count; empty where it does.
    """

    number: int
    reason: str
    attempt: int
    uncounted: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialProposed:
    """A request of a user became a trial."""

    number: int
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialNotRepaired:
    """A trial that does not fit has no repair inside the space."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorLaunched:
    """A configuration that is predicted not to fit runs, to check the predictions.

    Attributes:
        number: The trial.
        discards: Proposals that unchecked predictions discarded in a row.
        predicted_bytes: Of the trial's artifact, the smallest of theirs.
    """

    number: int
    discards: int
    predicted_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeContradicted:
    """A finished trial's log says otherwise than the probe of its script."""

    number: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialsResumed:
    """This driver goes on with trials that an earlier one left."""

    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialTakenOver:
    """Another driver holds a trial that runs here."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DriversLost:
    """Drivers of a shared study are gone; their trials wait for another."""

    drivers: tuple[str, ...]
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining:
    """The user stopped the sweep: what runs may finish."""

    study: str
    running: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Spared:
    """A trial is behind the others and runs on, to show what stopping such trials costs."""

    number: int
    validation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningIdle:
    """The sweep file's rule of stopping early cannot stop any trial of this sweep."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelling:
    """The user cancelled the sweep: what runs is ended."""

    running: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StartingEnded:
    """The nodes or the trials let nothing more start."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSpent:
    """The budget lets no further trial start."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepEnded:
    """A driver is done with its study.

    Attributes:
        state: How it ended, as ``status`` says it; ``interrupted`` where an error ended it.
        reason: Why, in words.
        completed: Trials with a score, of all launches.
    """

    study: str
    state: str
    reason: str
    completed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageAway:
    """The storage of a shared study does not answer."""

    what: str
    got: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageBack:
    """The storage of a shared study answers again."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FileKept:
    """A file of a trial's folder was put aside instead of overwritten."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeQuarantined:
    """A node takes no trials for a while."""

    node: str
    reason: str
    retry_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProbed:
    """A quarantined node is tried with one trial."""

    node: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReleased:
    """A node takes trials again.

    Attributes:
        number: The trial that showed it.
        ran_well: It ran well there; else it failed elsewhere, too.
    """

    node: str
    number: int
    ran_well: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRefused:
    """A check found a node unfit.

    Attributes:
        partly: Some of its slots take trials.
    """

    node: str
    reason: str
    partly: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDraining:
    """A node will be taken away."""

    node: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReady:
    """A node that was not takes trials."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoHealthyNode:
    """No node can take a trial, or a run of a promotion.

    Attributes:
        what: ``trial`` or ``run``.
        troubles: What is wrong with each node.
    """

    what: str
    troubles: str
    give_up_seconds: float


NodeEvent: TypeAlias = (
    NodeQuarantined
    | NodeProbed
    | NodeReleased
    | NodeRefused
    | NodeDraining
    | NodeReady
    | NoHealthyNode
)

TrialEvent: TypeAlias = (
    TrialEnded
    | BestFound
    | TrialRetried
    | TrialProposed
    | TrialNotRepaired
    | AnchorLaunched
    | ProbeContradicted
    | TrialsResumed
    | TrialTakenOver
)

EndEvent: TypeAlias = Draining | Cancelling | StartingEnded | BudgetSpent | SweepEnded

StudyEvent: TypeAlias = DriversLost | Spared | PruningIdle | StorageAway | StorageBack | FileKept

SweepEvent: TypeAlias = TrialEvent | StudyEvent | EndEvent | NodeEvent

if TYPE_CHECKING:
    Notify: TypeAlias = Callable[[SweepEvent], None]
    """Takes each event; must be quick."""

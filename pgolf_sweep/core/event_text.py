"""Events of a sweep in words, and as the JSON lines of ``launch --events``."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any, assert_never

from pgolf_sweep.core.events import (
    AnchorLaunched,
    BestFound,
    BudgetSpent,
    Cancelling,
    Draining,
    DriversLost,
    FileKept,
    NodeDraining,
    NodeProbed,
    NodeQuarantined,
    NodeReady,
    NodeRefused,
    NodeReleased,
    NoHealthyNode,
    ProbeContradicted,
    PruningIdle,
    Spared,
    StartingEnded,
    StorageAway,
    StorageBack,
    SweepEnded,
    TrialEnded,
    TrialNotRepaired,
    TrialProposed,
    TrialRetried,
    TrialsResumed,
    TrialTakenOver,
)
from pgolf_sweep.core.record import SCORE, State

if TYPE_CHECKING:
    from pgolf_sweep.core.events import EndEvent, NodeEvent, StudyEvent, SweepEvent
    from pgolf_sweep.core.record import TrialRecord


def event_text(event: SweepEvent) -> str:
    """An event as one line for people."""
    match event:
        case TrialEnded(record=record):
            return trial_line(record)
        case BestFound(record=record, metric=metric):
            score = "unknown" if record.val_bpb is None else f"{record.val_bpb:.4f}"
            return f"trial {record.number} is the best so far: {metric} {score}"
        case TrialRetried(number=number, reason=reason, attempt=attempt, uncounted=uncounted):
            return f"trial {number}: {reason}; {uncounted or f'attempt {attempt} follows'}"
        case TrialProposed(number=number, by=by):
            return f"trial {number} is proposed by {by}"
        case TrialNotRepaired(number=number, reason=reason):
            return f"trial {number} is not repaired: {reason}"
        case AnchorLaunched(number=number, discards=discards, predicted_bytes=size):
            return (
                f"the last {discards} proposals were discarded on predictions that no finished "
                f"trial has checked: the smallest, {size:,} bytes, is launched as an anchor "
                f"(trial {number})"
            )
        case ProbeContradicted(number=number, text=text):
            return f"trial {number}: {text}"
        case TrialsResumed(numbers=numbers):
            return f"resuming trials {_listed(numbers)}, which an earlier driver left"
        case TrialTakenOver(number=number):
            return f"trial {number} was taken over by another driver: it ends here"
        case _:
            return _study_text(event)


def _study_text(event: StudyEvent | EndEvent | NodeEvent) -> str:
    match event:
        case DriversLost(drivers=drivers, numbers=numbers):
            gone = ", ".join(drivers)
            return f"driver {gone} is gone: trials {_listed(numbers)} wait for another"
        case Spared(number=number, validation=validation):
            return (
                f"trial {number}: behind the others at validation {validation}; runs on to show "
                "what stopping costs"
            )
        case PruningIdle(reason=reason):
            return f"early_terminate stops no trial of this sweep: {reason}"
        case StorageAway(what=what, got=got):
            return f"{what} ({got}): trials go on, trying again"
        case StorageBack(seconds=seconds):
            return f"the study's storage answers again after {seconds:.0f} s"
        case FileKept(text=text):
            return text
        case _:
            return _end_text(event)


def _end_text(event: EndEvent | NodeEvent) -> str:
    match event:
        case Draining(study=study, running=running):
            return (
                f"draining: {running} running trials may finish, nothing more starts; Ctrl-C "
                f"again, or `pgolf-sweep cancel {study}`, ends them now"
            )
        case Cancelling(running=running):
            return f"ending {running} running trials"
        case StartingEnded(reason=reason):
            return f"nothing more starts: {reason}"
        case BudgetSpent(reason=reason):
            return f"the budget is spent: {reason}"
        case SweepEnded(state=state, reason=reason):
            return f"ended: {reason or state}"
        case _:
            return _node_text(event)


def _node_text(event: NodeEvent) -> str:
    match event:
        case NodeQuarantined(node=node, reason=reason, retry_seconds=seconds):
            again = f"it is tried again in {seconds / 60:.0f} min"
            return f"node {node} is QUARANTINED: {reason}; {again}"
        case NodeProbed(node=node, number=number):
            return f"node {node} is tried again with trial {number}"
        case NodeReleased(node=node, number=number, ran_well=ran_well):
            why = "ran well there" if ran_well else "failed elsewhere, too"
            return f"node {node} takes trials again: trial {number} {why}"
        case NodeRefused(node=node, reason=reason, partly=partly):
            return f"node {node} {'works in part:' if partly else 'is REFUSED:'} {reason}"
        case NodeDraining(node=node, reason=reason):
            return f"node {node} is draining: {reason}"
        case NodeReady(node=node):
            return f"node {node} is ready"
        case NoHealthyNode(what=what, troubles=troubles, give_up_seconds=seconds):
            return (
                f"NO NODE can take a {what}: {troubles}; it waits for one, and ends after "
                f"{seconds / 60:.0f} min without"
            )
        case _:
            assert_never(event)


def event_document(event: SweepEvent, *, at: float) -> dict[str, Any]:
    """An event as one JSON line: its kind, the time, its fields, and the words for people.

    Args:
        event: It.
        at: Seconds since 1970.
    """
    kind = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()
    fields = dataclasses.asdict(event)
    if isinstance(event, TrialEnded | BestFound):
        del fields["record"]
        fields["trial"] = event.record.to_json()
    return {"event": kind, "at": at, **fields, "message": event_text(event)}


def trial_line(record: TrialRecord) -> str:
    """One line about a trial that ended."""
    match record.outcome:
        case State.COMPLETED:
            headroom = record.headroom_bytes
            room = "" if headroom is None else f", headroom {headroom:,} B"
            if headroom is not None and headroom < 0:
                room = f", {-headroom:,} B over the cap: cannot be submitted"
            return f"trial {record.number}: {record.metric or SCORE} {record.val_bpb:.4f}{room}"
        case State.SCREENED:
            name = record.metric or SCORE
            return f"trial {record.number}: {name} {record.val_bpb:.4f} on rung {record.rung}"
        case State.PRUNED:
            return f"trial {record.number}: {record.reason}"
        case _:
            return f"trial {record.number}: {record.outcome.value}: {record.reason}"


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))

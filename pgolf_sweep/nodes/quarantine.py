"""Retry policy and node quarantine: one bad machine does not eat the sweep.

A pure account: it learns what the launcher sees and how runs ended, and says where nothing may
start now and which failures do not count for their trial. docs/nodes.md has the rules.
"""

from __future__ import annotations

import re
import statistics
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from pgolf_sweep.core.backoff import backoff
from pgolf_sweep.core.events import (
    NodeDraining,
    NodeProbed,
    NodeQuarantined,
    NodeReady,
    NodeRefused,
    NodeReleased,
)
from pgolf_sweep.core.trial import (
    TRAIN,
    Completed,
    EndCause,
    Failed,
    FailureCode,
    FailureKind,
    Pruned,
)
from pgolf_sweep.nodes.failures import Evidence, NodeFailures
from pgolf_sweep.nodes.info import NodeState
from pgolf_sweep.nodes.wait import NodeWait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pgolf_sweep.config.types import NodesBlock
    from pgolf_sweep.core.clock import Clock
    from pgolf_sweep.core.errors import Finding
    from pgolf_sweep.core.events import NodeEvent
    from pgolf_sweep.core.trial import Outcome, RunEnd
    from pgolf_sweep.nodes.info import NodeInfo

LONGEST_START_SECONDS = 60.0
"""A run that failed sooner than this, before its first step, failed at once."""

START_SHARE = 0.25
"""... and sooner than this share of a completed run's time."""

LONGEST_BACKOFF = 8
"""Most times `retry_seconds` between two tries of a quarantined node."""

SAME_ERROR_TRIALS = 10
"""Trials in a row that fail at once with one error, and none has trained: the launch gives up."""

MOST_UNCOUNTED_ATTEMPTS = 8
"""Of one trial: one that brings down every node that it runs on must have an end, too."""


_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+")
_MACHINE = re.compile(
    r"no CUDA-capable device|device\(s\) is/are busy or unavailable|CUDA driver version is insuff"
    r"|CUDA (driver )?initialization|uncorrectable ECC|CUDA error: (unknown error|unspecified laun)"
    r"|GPU (is lost|has fallen off the bus)|nccl(System|Internal|Remote|UnhandledCuda)Error"
    r"|NCCL error|Failed to initialize NVML|Driver/library version mismatch|libcuda\.so"
    r"|SIGBUS|Bus error|Input/output error|Stale file handle|No space left on device"
)


class NodeStatus(StrEnum):
    """Where a node stands: what the launcher says of it, else what its runs did."""

    READY = "ready"
    CHECKING = "checking"
    REFUSED = "refused"
    DRAINING = "draining"
    QUARANTINED = "quarantined"
    PROBING = "probing"
    """Quarantined, and the time has come to try it with one trial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """One node as ``status --json`` lists it. Times are epoch seconds; absent ones are None.

    Attributes:
        state: A `NodeStatus`.
        reason: Why it takes no trials, one sentence; empty where it does.
        since: When it came into this state, as far as this driver saw it.
        retry_at: When it is tried or looked at again.
        drains_at: When a draining node goes.
        failures: Trials that failed here in a row.
        speed: Its tokens per second as a share of the other nodes' median, where measured.
        refusals: What the node check found, each with what, where, got, expected, next_step.
    """

    node: str
    state: NodeStatus
    reason: str = ""
    since: float | None = None
    retry_at: float | None = None
    drains_at: float | None = None
    failures: int = 0
    speed: float | None = None
    refusals: tuple[Finding, ...] = ()


@dataclass(slots=True)
class _Quarantine:
    """Times are the monotonic clock's."""

    reason: str
    since: float
    until: float
    probe: int | None = None


@dataclass(slots=True)
class _Node:
    """What is known of a node.

    Attributes:
        failures: Trials that failed here since the last run that got going.
        quarantined: How often, which decides how long the next time lasts.
    """

    info: NodeInfo | None = None
    since: float = 0.0
    failures: NodeFailures = field(default_factory=NodeFailures)
    good: bool = False
    quarantine: _Quarantine | None = None
    quarantined: int = 0


class NodeBook:
    """Nodes of one launch; a new launch begins with trust in all of them.

    Args:
        rules: The sweep file's ``pgolf.nodes``.
        clock: Backoffs go by its monotonic time, which never jumps.
        notify: Takes each change.
    """

    def __init__(
        self, rules: NodesBlock, clock: Clock, notify: Callable[[NodeEvent], None]
    ) -> None:
        self._rules = rules
        self._clock = clock
        self._notify = notify
        self._nodes: dict[str, _Node] = {}
        self._usable: frozenset[str] = frozenset()
        self._closed: frozenset[str] = frozenset()
        self._running: dict[int, tuple[str, float]] = {}
        self._failed_on: dict[int, dict[str, Evidence]] = {}
        self._uncounted: dict[int, int] = {}
        self._own_errors: set[str] = set()
        self._first_errors: deque[str] = deque(maxlen=SAME_ERROR_TRIALS)
        self._completed_seconds: deque[float] = deque(maxlen=99)
        self._wait = NodeWait(clock, rules.give_up_seconds, notify, "trial")

    # ---- what is asked -----------------------------------------------------------------------

    def closed(self, number: int | None = None) -> frozenset[str]:
        """Nodes on which nothing may start now, or this trial may not.

        A trial that failed on a node is kept from it, and from others in doubt, as long as that
        leaves a node.
        """
        failed_on = self._failed_on.get(number) if number is not None else None
        if not failed_on:
            return self._closed
        doubted = {n for n, node in self._nodes.items() if node.failures or node.quarantine}
        for avoided in (self._closed | failed_on.keys() | doubted, self._closed | failed_on.keys()):
            if self._usable - avoided:
                return avoided
        return self._closed

    def speed(self, name: str) -> float | None:
        """A node's share of the other nodes' median tokens per second, where measured."""
        node = self._nodes.get(name)
        return node.info.speed if node is not None and node.info is not None else None

    def slowness(self, name: str) -> str:
        """What marks the trials of a node that is slow and may work all the same; else nothing."""
        share = self.speed(name)
        if share is None or share >= self._rules.min_speed:
            return ""
        return f"ran on a slow node: {share:.0%} of the others' tokens per second"

    def same_error(self) -> str | None:
        """Why nothing will ever succeed: no trial trained, and the last failed with one error."""
        errors = self._first_errors
        if len(errors) < SAME_ERROR_TRIALS or len(set(errors)) > 1:
            return None
        return (
            f"no trial of this launch has trained a step, and the last {len(errors)} all failed "
            f"with the same error: {errors[0]}"
        )

    def no_healthy_nodes(self) -> str | None:
        """Why the sweep gives up: no node has been fit to run a trial for too long."""
        late = "" if self._running else self._wait.too_long()
        return f"{late}: {self._troubles()}" if late else None

    def rows(self) -> list[NodeRow]:
        """Every node that the launcher knows, by name."""
        seen = sorted((name, node) for name, node in self._nodes.items() if node.info is not None)
        return [self._row(name, node) for name, node in seen]

    # ---- what it learns ---------------------------------------------------------------------

    def see(self, infos: Iterable[NodeInfo]) -> None:
        """Take in what the launcher says of its nodes; once a turn."""
        seen = {info.name: info for info in infos}
        for name, node in self._nodes.items():
            if name not in seen:
                node.info = None
        for name, info in seen.items():
            node = self._nodes.setdefault(name, _Node(since=self._clock.monotonic()))
            before, node.info = node.info, info
            if before is None or (before.state, before.refusals) != (info.state, info.refusals):
                self._notify_change(name, node, before)
        self._open_and_close()
        healthy = self._usable - self._quarantined()
        self._wait.look(waits=not healthy, troubles=self._troubles)

    def started(self, number: int, name: str) -> None:
        """A trial took a slot of a node."""
        self._running[number] = (name, self._clock.monotonic())
        quarantine = self._nodes.setdefault(name, _Node()).quarantine
        if quarantine is not None:
            quarantine.probe = number
            self._notify(NodeProbed(node=name, number=number))
            self._open_and_close()

    def progressed(self, number: int) -> None:
        """A trial has trained a step: its node can do that."""
        if number in self._running:
            self._nodes[self._running[number][0]].good = True
            self._first_errors.clear()

    def forget(self, number: int) -> None:
        """A run ended that another driver has taken over: its end says nothing of the node."""
        name, _ = self._running.pop(number, ("", 0.0))
        node = self._nodes.get(name)
        if node is not None and node.quarantine is not None and node.quarantine.probe == number:
            node.quarantine.probe = None
            self._open_and_close()

    def ended(self, number: int, *, outcome: Outcome, end: RunEnd, step: int | None) -> str | None:
        """What an end says of the node, and why a failure does not count for the trial.

        Args:
            number: The trial.
            outcome: What the end means for the trial alone.
            end: How the run ended.
            step: Last training step that it reported in this attempt.

        Returns:
            A reason to run the trial again without counting the attempt; None to believe the
            outcome.
        """
        name, began = self._running.pop(number, (end.node, 0.0))
        node = self._nodes.setdefault(name, _Node())
        probed = node.quarantine is not None and node.quarantine.probe == number
        if probed and node.quarantine is not None:
            node.quarantine.probe = None
        if end.cause is EndCause.PREEMPTED:
            return f"node {name} was taken away: it runs again, and the attempt does not count"
        if isinstance(outcome, Completed) and end.start_at == TRAIN:
            self._completed_seconds.append(end.slot_seconds)
        retry_reason = None
        evidence = self._evidence(outcome, end, step)
        if evidence is Evidence.GOOD:
            self._record_success(number, name, node, probed=probed)
        elif evidence is Evidence.SUSPECT and node.quarantine is None:
            assert isinstance(outcome, Failed)  # noqa: S101 - only a failure is suspect
            retry_reason = self._retry_elsewhere(number, name, node, outcome, end, began)
        elif evidence is not Evidence.NOTHING:
            node.failures.add(number, evidence, began=began, at=self._clock.monotonic())
            retry_reason = self._record_failure(
                number, name, node, outcome.reason, evidence, probed=probed
            )
        self._open_and_close()
        return self._limited(number, retry_reason)

    # ---- what an end means -------------------------------------------------------------------

    def _evidence(self, outcome: Outcome, end: RunEnd, step: int | None) -> Evidence:
        if isinstance(outcome, Completed | Pruned):
            return Evidence.GOOD
        if not isinstance(outcome, Failed) or end.cause in {
            EndCause.CANCELLED,
            EndCause.OUTPUT_WRITE_FAILED,
        }:
            return Evidence.NOTHING
        if outcome.kind is FailureKind.INFRASTRUCTURE:
            return Evidence.INFRASTRUCTURE
        if any(_MACHINE.search(text) for text in (outcome.reason, *outcome.log_tail)):
            return Evidence.SUSPECT
        if step:
            return Evidence.GOOD  # for the node: it trained
        at_once = end.cause in {EndCause.MISSING_DEPENDENCY, EndCause.SILENT} or (
            end.slot_seconds < self._start_seconds()
        )
        return Evidence.SUSPECT if at_once else Evidence.NOTHING

    def _start_seconds(self) -> float:
        if not self._completed_seconds:
            return LONGEST_START_SECONDS
        typical = statistics.median(self._completed_seconds)
        return min(LONGEST_START_SECONDS, START_SHARE * typical)

    def _record_success(self, number: int, name: str, node: _Node, *, probed: bool) -> None:
        node.good = True
        node.failures.clear()
        self._failed_on.pop(number, None)
        self._first_errors.clear()
        if probed:
            node.quarantine = None
            self._notify(NodeReleased(node=name, number=number, ran_well=True))

    def _record_failure(
        self, number: int, name: str, node: _Node, reason: str, evidence: Evidence, *, probed: bool
    ) -> str | None:
        """The node is at fault; the attempt counts unless the node is known to be bad."""
        self._failed_on.setdefault(number, {})[name] = evidence
        if probed:
            self._shut(name, node, f"trial {number} failed there again: {reason}")
        elif node.quarantine is None:
            self._judge(name, node, reason)
        return f"node {name} is quarantined: it runs elsewhere" if node.quarantine else None

    def _retry_elsewhere(
        self, number: int, name: str, node: _Node, failed: Failed, end: RunEnd, began: float
    ) -> str | None:
        """A trial's failure may be the node's: try it once on another before it is believed."""
        error = _NUMBER.sub("#", failed.reason)
        before = self._failed_on.get(number, {})
        if any(evidence is Evidence.SUSPECT for other, evidence in before.items() if other != name):
            self._own_errors.add(error)
            for other in self._failed_on.pop(number):
                self._exonerate(number, other)
            self._believe(failed)
            return None
        known = error in self._own_errors
        trusted = node.good and not node.failures
        nowhere_good = not any(other.good for other in self._nodes.values())
        alternatives = self._usable - {name} - self._quarantined()
        if alternatives:
            node.failures.add(number, Evidence.SUSPECT, began=began, at=self._clock.monotonic())
        if not alternatives or (known and (trusted or nowhere_good)):
            self._believe(failed)
            return None
        self._failed_on.setdefault(number, {})[name] = Evidence.SUSPECT
        self._judge(name, node, failed.reason)
        return (
            f"after {end.slot_seconds:.0f} s on node {name}: once more on another node, "
            "before that is believed"
        )

    def _believe(self, failed: Failed) -> None:
        """Count the first trials of a launch if none has got going yet."""
        # What runs out of memory is a large model's failure, and others may be smaller.
        too_large = failed.code is FailureCode.OUT_OF_MEMORY
        if not too_large and not any(node.good for node in self._nodes.values()):
            self._first_errors.append(_NUMBER.sub("#", failed.reason))

    def _limited(self, number: int, retry_reason: str | None) -> str | None:
        if retry_reason is None:
            return None
        self._uncounted[number] = self._uncounted.get(number, 0) + 1
        return retry_reason if self._uncounted[number] <= MOST_UNCOUNTED_ATTEMPTS else None

    # ---- quarantine --------------------------------------------------------------------------

    def _judge(self, name: str, node: _Node, reason: str) -> None:
        """Quarantine a node whose last trials all failed."""
        most = self._rules.failures
        lost, failed = node.failures.losses, node.failures.incidents
        guilty = lost >= most or (failed >= most and self._others_do_well(name))
        if most and guilty:
            self._shut(name, node, f"{len(node.failures)} trials in a row failed there: {reason}")

    def _others_do_well(self, name: str) -> bool:
        """Whether trials get going elsewhere; a script's bug fails on every node."""
        now, needed = self._clock.monotonic(), self._start_seconds()
        if any(node.good for other, node in self._nodes.items() if other != name):
            return True
        return any(on != name and now - at >= needed for on, at in self._running.values())

    def _shut(self, name: str, node: _Node, reason: str) -> None:
        now = self._clock.monotonic()
        first = self._rules.retry_seconds
        wait = backoff(first, node.quarantined, most=LONGEST_BACKOFF * first)
        node.quarantined += 1
        since = node.quarantine.since if node.quarantine is not None else now
        node.quarantine = _Quarantine(reason=reason, since=since, until=now + wait)
        self._notify(NodeQuarantined(node=name, reason=reason, retry_seconds=wait))

    def _exonerate(self, number: int, name: str) -> None:
        """A trial failed on two nodes: that says nothing of either."""
        node = self._nodes[name]
        node.failures.drop(number)
        if node.quarantine is not None and node.failures.incidents < self._rules.failures:
            node.quarantine = None
            node.quarantined -= 1
            self._notify(NodeReleased(node=name, number=number, ran_well=False))

    def _quarantined(self) -> frozenset[str]:
        return frozenset(name for name, node in self._nodes.items() if node.quarantine)

    def _open_and_close(self) -> None:
        """A quarantined node whose time has come is open until one trial has started there."""
        now = self._clock.monotonic()
        self._usable = frozenset(
            name
            for name, node in self._nodes.items()
            if node.info is not None and node.info.state is NodeState.READY
        )
        self._closed = frozenset(
            name
            for name, node in self._nodes.items()
            if (shut := node.quarantine) and (now < shut.until or shut.probe is not None)
        )

    # ---- for people --------------------------------------------------------------------------

    def _troubles(self) -> str:
        told = [f"{row.node}: {row.reason or row.state}" for row in self.rows()]
        return "; ".join(told) or "the cluster has none"

    def _notify_change(self, name: str, node: _Node, before: NodeInfo | None) -> None:
        info = node.info
        if info is None:
            return
        node.since = self._clock.monotonic()
        reason = self._row(name, node).reason
        if info.refusals:
            partly = info.state is NodeState.READY
            self._notify(NodeRefused(node=name, reason=reason, partly=partly))
        elif info.state is NodeState.DRAINING:
            self._notify(NodeDraining(node=name, reason=reason))
        elif before is not None and info.state is NodeState.READY:
            self._notify(NodeReady(node=name))

    def _row(self, name: str, node: _Node) -> NodeRow:
        info, shut = node.info, node.quarantine
        now = self._clock.monotonic()
        epoch = self._clock.now() - now
        state, reason, since = NodeStatus.READY, "", node.since
        retry_at = drains_at = speed = None
        refusals: Sequence[Finding] = ()
        if info is not None:
            state, retry_at, drains_at = NodeStatus(info.state.value), info.retry_at, info.drains_at
            speed, refusals = info.speed, info.refusals
        if refusals:
            some = "some of its slots take no trials: " if state is NodeStatus.READY else ""
            found = (f"{r.what} (got {r.got}, expected {r.expected})" for r in refusals)
            reason = some + "; ".join(found)
        if state is NodeStatus.DRAINING:
            left = None if drains_at is None else max(0.0, drains_at - self._clock.now())
            known = "nobody said when it goes" if left is None else f"it goes in {left:.0f} s"
            reason = f"it will be taken away; nothing more starts there, {known}"
        elif shut is not None and state is not NodeStatus.REFUSED:
            probing = shut.probe is not None or now >= shut.until
            state = NodeStatus.PROBING if probing else NodeStatus.QUARANTINED
            reason, since = shut.reason, shut.since
            retry_at = epoch + shut.until if shut.probe is None else None
        return NodeRow(
            node=name,
            state=state,
            reason=reason,
            since=epoch + since,
            retry_at=retry_at,
            drains_at=drains_at,
            failures=len(node.failures),
            speed=speed,
            refusals=tuple(refusals),
        )

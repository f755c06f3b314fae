"""Comparison of nodes by their answers: which of them are fit for trials. Pure.

Each value is compared across nodes: one that differs from most others' is refused, regardless of
its value; where as many have one value as another, the one that came first stands.
"""

from __future__ import annotations

import bisect
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import Finding, InfraError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from pgolf_sweep.config.types import NodesBlock
    from pgolf_sweep.nodes.check import CheckOrder, NodeReport

CLOCK_SECONDS = 10.0
"""Times of trials are their node's; budgets and the view subtract the driver's from them."""


@dataclass(slots=True)
class NodeComparison:
    """The answers of all workers, and what follows from them for each.

    Attributes:
        order: What every node is asked.
        rules: The sweep file's ``pgolf.nodes``.
    """

    order: CheckOrder
    rules: NodesBlock
    _reports: dict[Hashable, NodeReport] = field(default_factory=dict)
    _clocks: dict[Hashable, tuple[Finding, ...]] = field(default_factory=dict)
    _values: dict[str, Counter[str]] = field(default_factory=dict)
    _speeds: list[float] = field(default_factory=list)
    """Of all workers, in order; with hundreds of them each answer is compared with all others."""

    def take(
        self, worker: Hashable, report: NodeReport, *, sent_at: float, received_at: float
    ) -> None:
        """Keep an answer.

        Args:
            worker: Whose it is; a later answer replaces it.
            report: The answer.
            sent_at: The driver's clock when it asked, epoch seconds.
            received_at: The driver's clock when it heard.
        """
        self._reports[worker] = report
        self._clocks[worker] = tuple(clock_faults(report, sent_at, received_at))
        self._compare()

    def forget(self, worker: Hashable) -> None:
        """A worker is gone."""
        self._reports.pop(worker, None)
        self._clocks.pop(worker, None)
        self._compare()

    def _compare(self) -> None:
        reports = self._reports.values()
        names = {name for report in reports for name in report.compared}
        self._values = {
            name: Counter(report.compared[name] for report in reports if name in report.compared)
            for name in names
        }
        self._speeds = sorted(r.tokens_per_second for r in reports if r.tokens_per_second)

    def refusals(self, worker: Hashable) -> tuple[Finding, ...]:
        """Why a worker gets no trials; empty if it does, or has not answered."""
        report = self._reports.get(worker)
        if report is None:
            return ()
        return (
            *report.faults,
            *self._clocks[worker],
            *self._unlike(report),
            *self._too_slow(report, self.speed(worker)),
        )

    def lacks(self, worker: Hashable) -> tuple[str, ...]:
        """Packages of codecs that a worker's node lacks, as far as it was asked."""
        report = self._reports.get(worker)
        return () if report is None else report.lacks

    def speed(self, worker: Hashable) -> float | None:
        """Tokens per second as a share of the lower median of the others; None if there are none.

        The lower one, so that of three nodes a fast one does not put the other two to shame.
        """
        report = self._reports.get(worker)
        if report is None or not report.tokens_per_second or len(self._speeds) < 2:
            return None
        middle = (len(self._speeds) - 2) // 2  # of the others, as if its own were not there
        own = bisect.bisect_left(self._speeds, report.tokens_per_second)
        return report.tokens_per_second / self._speeds[middle + (own <= middle)]

    def _unlike(self, report: NodeReport) -> Iterator[Finding]:
        for name, value in report.compared.items():
            values = self._values[name]
            usual, count = values.most_common(1)[0]  # of equals the first
            if value != usual:
                yield Finding(
                    what=f"{name} differs from other nodes'",
                    where=report.node,
                    got=value,
                    expected=f"{usual}, as {count} of {values.total()} workers have",
                    next_step=f"make {report.node} like the others: their scores would not compare",
                )

    def _too_slow(self, report: NodeReport, share: float | None) -> Iterator[Finding]:
        if share is None or share >= self.rules.min_speed or self.rules.speed == "mark":
            return
        yield Finding(
            what=f"it is slow: {share:.0%} of the other nodes' tokens per second",
            where=report.node,
            got=f"{report.tokens_per_second or 0:,.0f} tokens per second on the probe",
            expected=f"at least {self.rules.min_speed:.0%} of the others' median",
            next_step="replace the node, or pgolf.nodes: {speed: mark} to use it all the same",
        )


def clock_faults(report: NodeReport, sent_at: float, received_at: float) -> Iterator[Finding]:
    """A node answers between question and answer, by its own clock, too."""
    ahead = report.ended_at - received_at
    behind = sent_at - report.began_at
    if max(ahead, behind) <= CLOCK_SECONDS:
        return
    off = f"{ahead:.0f} s ahead of" if ahead > behind else f"{behind:.0f} s behind"
    yield Finding(
        what="its clock is wrong",
        where=report.node,
        got=f"{off} the driver's",
        expected=f"within {CLOCK_SECONDS:g} s",
        next_step=f"on {report.node}: chronyc makestep",
    )


def unfit(refusals: Sequence[Finding]) -> InfraError:
    """The error of a cluster on which no node may run trials."""
    first = refusals[0]
    several = list(dict.fromkeys(f"{one.where}: {one.what} ({one.got})" for one in refusals))
    return InfraError(
        "no node of the cluster is fit to run trials",
        where=", ".join(dict.fromkeys(refusal.where or "" for refusal in refusals)),
        got="; ".join(several),
        expected=first.expected,
        next_step=f"{first.next_step}; or pgolf.nodes: {{check: false}} to skip the check",
    )


def check_failed(node: str, error: str) -> Finding:
    """What is made of a node on which the check itself breaks."""
    return Finding(
        what="the node check failed",
        where=node,
        got=error,
        expected="an answer",
        next_step=f"on {node}: see to what it names; or pgolf.nodes: {{check: false}}",
    )


def no_answer(node: str, seconds: float) -> Finding:
    """What is made of a node whose check hangs."""
    return Finding(
        what="the node check does not end",
        where=node,
        got=f"no answer in {seconds:g} s",
        expected="seconds, or a minute where torch loads slowly",
        next_step=f"on {node}: look for file systems or GPUs that hang",
    )

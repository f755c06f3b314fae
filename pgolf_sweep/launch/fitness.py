"""Which nodes are fit for trials, from what they answered: pure, over all answers so far.

Nodes are held against each other: a value that differs from most others' is refused, whatever it
is; where as many have one value as another, the one that came first stands.
"""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgolf_sweep.errors import InfraError
from pgolf_sweep.launch.base import Refusal

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from pgolf_sweep.launch.nodecheck import CheckOrder, NodeReport
    from pgolf_sweep.spectypes import NodesBlock

CLOCK_SECONDS = 10.0
"""Times of trials are their node's; budgets and the view subtract the driver's from them."""


@dataclass(slots=True)
class Fitness:
    """The answers of all workers, and what follows from them for each.

    Attributes:
        order: What every node is asked.
        rules: The sweep file's ``pgolf.nodes``.
    """

    order: CheckOrder
    rules: NodesBlock
    _reports: dict[Hashable, NodeReport] = field(default_factory=dict)
    _clocks: dict[Hashable, tuple[Refusal, ...]] = field(default_factory=dict)

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

    def forget(self, worker: Hashable) -> None:
        """A worker is gone."""
        self._reports.pop(worker, None)
        self._clocks.pop(worker, None)

    def refusals(self, worker: Hashable) -> tuple[Refusal, ...]:
        """Why a worker gets no trials; empty if it does, or has not answered."""
        report = self._reports.get(worker)
        if report is None:
            return ()
        everyone = list(self._reports.values())
        return (
            *report.faults,
            *self._clocks[worker],
            *unlike(report, everyone),
            *self._too_slow(report, self.speed(worker)),
        )

    def speed(self, worker: Hashable) -> float | None:
        """Tokens per second as a share of the lower median of the others; None if there are none.

        The lower one, so that of three nodes a fast one does not put the other two to shame.
        """
        report = self._reports.get(worker)
        others = [
            other.tokens_per_second
            for key, other in self._reports.items()
            if key != worker and other.tokens_per_second
        ]
        if report is None or not report.tokens_per_second or not others:
            return None
        return report.tokens_per_second / statistics.median_low(others)

    def _too_slow(self, report: NodeReport, share: float | None) -> Iterator[Refusal]:
        if share is None or share >= self.rules.min_speed or self.rules.speed == "mark":
            return
        yield Refusal(
            what=f"it is slow: {share:.0%} of the other nodes' tokens per second",
            where=report.node,
            got=f"{report.tokens_per_second or 0:,.0f} tokens per second on the probe",
            expected=f"at least {self.rules.min_speed:.0%} of the others' median",
            next_step="replace the node, or pgolf.nodes: {speed: mark} to use it all the same",
        )


def clock_faults(report: NodeReport, sent_at: float, received_at: float) -> Iterator[Refusal]:
    """A node answers between question and answer, by its own clock, too."""
    ahead = report.ended_at - received_at
    behind = sent_at - report.began_at
    if max(ahead, behind) <= CLOCK_SECONDS:
        return
    off = f"{ahead:.0f} s ahead of" if ahead > behind else f"{behind:.0f} s behind"
    yield Refusal(
        what="its clock is wrong",
        where=report.node,
        got=f"{off} the driver's",
        expected=f"within {CLOCK_SECONDS:g} s",
        next_step=f"on {report.node}: chronyc makestep",
    )


def unlike(report: NodeReport, everyone: Sequence[NodeReport]) -> Iterator[Refusal]:
    """What differs from most answers, a report's own among them."""
    for name, value in report.alike.items():
        values = [other.alike[name] for other in everyone if name in other.alike]
        usual, count = Counter(values).most_common(1)[0]  # of equals the first
        if value != usual:
            yield Refusal(
                what=f"{name} differs from other nodes'",
                where=report.node,
                got=value,
                expected=f"{usual}, as {count} of {len(values)} workers have",
                next_step=f"make {report.node} like the others: their scores would not compare",
            )


def unfit(refusals: Sequence[Refusal]) -> InfraError:
    """The error of a cluster on which no node may run trials."""
    first = refusals[0]
    several = list(dict.fromkeys(f"{one.where}: {one.what} ({one.got})" for one in refusals))
    return InfraError(
        "no node of the cluster is fit to run trials",
        where=", ".join(dict.fromkeys(refusal.where for refusal in refusals)),
        got="; ".join(several),
        expected=first.expected,
        next_step=f"{first.next_step}; or pgolf.nodes: {{check: false}} to skip the check",
    )


def no_answer(node: str, seconds: float) -> Refusal:
    """What is made of a node whose check hangs."""
    return Refusal(
        what="the node check does not end",
        where=node,
        got=f"no answer in {seconds:g} s",
        expected="seconds, or a minute where torch loads slowly",
        next_step=f"on {node}: look for file systems or GPUs that hang",
    )

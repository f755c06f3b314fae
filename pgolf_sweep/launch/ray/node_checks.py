"""Asks workers what their nodes are like, before their first trial and after a refusal."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.backoff import backoff
from pgolf_sweep.nodes.compare import no_answer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pgolf_sweep.core.errors import Finding
    from pgolf_sweep.launch.ray.slots import Slot
    from pgolf_sweep.nodes.check import NodeReport
    from pgolf_sweep.nodes.compare import NodeComparison

CHECK_SECONDS = 180.0
CHECK_WAIT_SECONDS = 15.0
LONGEST_CHECK_WAIT = 300.0
"""Until a node that was refused is looked at again: doubles from the shorter to the longer."""


@dataclass(slots=True)
class Checks:
    """Opens slots once their nodes are found fit, and closes them where they are not.

    Attributes:
        comparison: What nodes are checked for; None: nothing, and every slot is open.
    """

    comparison: NodeComparison | None

    def begin(self, slot: Slot) -> None:
        """A worker exists: ask it, or open it unasked."""
        if self.comparison is None:
            slot.up = True
        else:
            self._ask(slot, self.comparison)

    def again(self, slots: Iterable[Slot]) -> None:
        """Ask free workers that were refused once more, and give up on those that do not answer."""
        now = time.monotonic()
        for slot in slots:
            if slot.asked is not None:
                if now - slot.asked[1] > CHECK_SECONDS:
                    self.refuse(slot, no_answer(slot.node.name, CHECK_SECONDS))
            elif not (self.comparison and slot.refusals and slot.same):
                continue
            elif now >= slot.check_at and slot.live is None and not slot.lent_to:
                self._ask(slot, self.comparison)

    def hears(self, slot: Slot, ref: Any) -> bool:
        """Whether an answer of a slot's worker is the one that `judge` waits for."""
        return self.comparison is not None and slot.asked is not None and ref == slot.asked[0]

    def judge(self, answered: Slot, report: NodeReport, slots: Sequence[Slot]) -> None:
        """Each answer may change what is made of every worker: they are compared across nodes.

        Args:
            answered: Whose worker was asked and has answered.
            report: The answer.
            slots: All that there are.
        """
        comparison, asked = self.comparison, answered.asked
        if comparison is None or asked is None:
            return
        comparison.take(answered, report, sent_at=asked[2], received_at=time.time())
        answered.asked, answered.up = None, True
        for slot in slots:
            if slot.up:
                slot.refusals, slot.speed = comparison.refusals(slot), comparison.speed(slot)
                slot.lacks = comparison.lacks(slot)
        self._plan(answered)

    def refuse(self, slot: Slot, refusal: Finding) -> None:
        """The check did not answer, or broke: no trials there until it does."""
        self.forget(slot)  # what it said before says nothing now
        slot.asked, slot.up, slot.refusals = None, False, (refusal,)
        self._plan(slot)

    def _plan(self, slot: Slot) -> None:
        slot.checks = slot.checks + 1 if slot.refusals else 0
        wait = backoff(CHECK_WAIT_SECONDS, slot.checks, most=LONGEST_CHECK_WAIT)
        slot.check_at = time.monotonic() + wait

    def forget(self, slot: Slot) -> None:
        """A worker is gone."""
        if self.comparison is not None:
            self.comparison.forget(slot)

    def _ask(self, slot: Slot, comparison: NodeComparison) -> None:
        order = dataclasses.replace(comparison.order, node=slot.node.name)
        check = slot.actor.check.options(concurrency_group="check")
        slot.asked = (check.remote(order), time.monotonic(), time.time())

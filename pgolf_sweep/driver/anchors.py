"""Trials against a prediction that nobody has checked.

Of a program that is not ours, a prediction may order and warn; it may not end a sweep unseen. After
some discards in a row on predictions that no finished trial backs, the smallest of the discarded
configurations runs as an anchor. Once anchors are measured and the discards go on, the space holds
nothing that fits, and the sweep ends with what comes nearest.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgolf_sweep.gate.plan import feasible_text, nearest_text

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from pgolf_sweep.core.trial import KnobValue, Verdict
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.search.study import Proposal

DISCARDS_UNTIL_ANCHOR = 20
DISCARDS_UNTIL_INFEASIBLE = 60
"""Discards in a row on measured predictions after which the space itself is looked at: samplers
can be caught where nothing fits."""
RANDOM_DRAWS = 200
"""Were one configuration in fifty feasible, as many random ones would all miss it once in 57
times."""
PROPOSER = "anchor"


@dataclass(slots=True)
class Anchors:
    """The discards in a row of one sweep.

    Attributes:
        session: Of the sweep.
    """

    session: Session
    _row: list[tuple[float, Mapping[str, KnobValue], Verdict]] = field(default_factory=list)
    _launched: int = 0
    _running: int = -1
    _rescues: int = 0

    def launched(self, proposal: Proposal) -> None:
        """A trial was admitted: the row of discards ends."""
        self._row.clear()
        if proposal.proposer == PROPOSER:
            self._running = proposal.number

    def waits(self, unfinished: Container[int]) -> bool:
        """Whether proposing waits for an anchor's end, which will say what discards are worth.

        Args:
            unfinished: Numbers of the trials that wait or run.
        """
        return len(self._row) >= DISCARDS_UNTIL_ANCHOR and self._is_open(unfinished)

    def _is_open(self, unfinished: Container[int]) -> bool:
        return not self.session.gate.measured and self._running in unfinished

    def discarded(self, proposal: Proposal) -> None:
        """The gate has discarded a proposal."""
        verdict = self.session.verdict_of(proposal.knobs)
        if verdict.artifact_bytes is not None:
            self._row.append((verdict.artifact_bytes.mid, proposal.knobs, verdict))

    def due(self, unfinished: Container[int]) -> tuple[Mapping[str, KnobValue], str, int] | None:
        """An anchor to enqueue: knobs, a key of its own, predicted bytes; None where none is due.

        Args:
            unfinished: Numbers of the trials that wait or run.
        """
        if self.session.gate.trusted or self.session.gate.measured:
            return None
        if self._is_open(unfinished):
            return None
        if len(self._row) < DISCARDS_UNTIL_ANCHOR:
            return None
        mid, knobs, _ = min(self._row, key=lambda one: one[0])
        self._row.clear()
        self._launched += 1
        key = f"{PROPOSER} {self._launched} {sorted(knobs.items(), key=str)}"
        return knobs, key, round(mid)

    def rescue(self) -> tuple[Mapping[str, KnobValue], str] | None:
        """A configuration that fits, after many in a row that did not: the sampler finds none.

        Returns:
            Its knobs and a key of its own; None where none is due, or where none was found among
            many random ones: `infeasible` says so.
        """
        if not self._is_long():
            return None
        rng = random.Random(f"{self.session.spec.pgolf.seed} {self._rescues}")
        for _ in range(RANDOM_DRAWS):
            knobs = self.session.spec.space.sample(rng)
            if not self.session.verdict_of(knobs).discards:
                self._row.clear()
                self._rescues += 1
                return knobs, f"rescue {self._rescues} {sorted(knobs.items(), key=str)}"
        return None

    def _is_long(self) -> bool:
        measured = not self.session.gate.trusted and self.session.gate.measured
        return measured and len(self._row) >= DISCARDS_UNTIL_INFEASIBLE

    def infeasible(self) -> str:
        """Why the sweep ends: nothing of the space fits as measured; empty otherwise.

        To be asked after `rescue`.
        """
        if not self._is_long():
            return ""
        _, knobs, verdict = min(self._row, key=lambda one: one[0])
        return (
            f"the last {len(self._row)} proposals are over the cap by predictions that finished "
            f"trials have checked; {nearest_text(knobs, verdict)}"
            f"{feasible_text(self.session.gate, self.session.resolve(knobs))}"
        )

"""Second seeds of the leading trials, run when the budget's end nears.

The best of many noisy scores flatters itself: what is claimed of the leaders, and which of them is
promoted, rests on their repeats. All get the same second seed, so that they are compared in pairs.
Repeats choose the winner no better than new trials would (shared measurements: docs/measurements).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.record import SEED_KNOB, ranked, second_seeds
from pgolf_sweep.core.trial import Change
from pgolf_sweep.driver.seeds import further_seeds, own_seed
from pgolf_sweep.search.origin import Origin

if TYPE_CHECKING:
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.driver.table import TrialTable
    from pgolf_sweep.search.study import Study

LEADERS = 3
"""Trials that get a second seed by default."""
LEAST_TRIALS = 24
"""Trials of a sweep below which none does: too few to spare one."""
DEFAULT_METHODS = frozenset({"bayes", "gp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondSeeds:
    """Decides which trial is repeated next.

    Attributes:
        session: The sweep.
        study: The repeats are enqueued here.
        table: Rows of all trials.
    """

    session: Session
    study: Study
    table: TrialTable

    def enqueue(self, left: float) -> None:
        """Have the best trial that lacks a second seed proposed next, if it is time for it.

        Args:
            left: Trials that the budget still allows.
        """
        count = self._leaders(left)
        if not 0 < left <= count:
            return
        records = self.table.records.values()
        repeated = set(second_seeds(records).values())
        leaders = ranked(records, self.study.posteriors())[:count]
        missing = [record for record in leaders if record.number not in repeated]
        if left > len(missing):
            return
        for record in missing:
            if self._repeated(record):
                return

    def _leaders(self, left: float) -> int:
        """How many trials are to have a second seed."""
        if own_seed(self.session) is None:
            return 0
        asked = self.session.spec.pgolf.second_seeds
        if asked is not None:
            return asked
        if self.session.spec.method not in DEFAULT_METHODS or math.isinf(left):
            return 0
        return LEADERS if self.table.counted + self.table.queued_count + left >= LEAST_TRIALS else 0

    def _repeated(self, record: TrialRecord) -> bool:
        """Enqueue a trial's configuration on the next seed; False where the space lacks it."""
        seed = record.knobs.get(SEED_KNOB, self.session.defaults[SEED_KNOB])
        assert isinstance(seed, int)  # noqa: S101 - see `own_seed`
        parameters = self.session.spec.space.parameters
        knobs = {n: v for n, v in record.knobs.items() if n in parameters and n != SEED_KNOB}
        key = f"second seed of {record.number}"
        (second,) = further_seeds(self.study.name, 1, {seed})
        change = Change(variant=record.variant, parent=record.number, seed=second)
        try:
            self.study.enqueue_once(knobs, Origin(proposer=key, request=key, change=change))
        except InputError:
            return False  # an export with knobs of its own
        return True

"""The rungs of a study: on which each trial runs, what a trial costs there, and which goes on.

Trials begin on the cheapest rung; of each rung the leading share goes on to the next, as slots
become free (asynchronous successive halving: Li et al., 2020, https://arxiv.org/abs/1810.05934).
Leading is decided by what all scores of all rungs say of the score on the sweep's own rung.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.record import SEED_KNOB, State, cost
from pgolf_sweep.search.gp.encoding import Encoding
from pgolf_sweep.search.gp.observation import BELOW, STATE, Observation, clipped
from pgolf_sweep.search.gp.surrogate import Surrogate
from pgolf_sweep.search.journal import RECORD
from pgolf_sweep.search.origin import PROPOSER, RUNG, Origin
from pgolf_sweep.search.proposing import conditions, distributions, expected_noise, observed
from pgolf_sweep.search.sampler import GAUSSIAN

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from optuna.trial import FrozenTrial

    from pgolf_sweep.config.types import SweepSpec
    from pgolf_sweep.core.record import TrialRecord

LEAST_VALUES = 5
"""Scores below which those of one rung alone decide."""

MOST_VALUES = 300
"""Scores, the newest, that the model looks at."""


class Rungs:
    """The rungs below a sweep.

    Args:
        spec: The sweep, which has some.
    """

    def __init__(self, spec: SweepSpec) -> None:
        assert spec.pgolf.fidelity is not None  # noqa: S101 - see above
        self._fidelity = spec.pgolf.fidelity
        self._space = spec.space
        self._models = spec.method in GAUSSIAN
        self._noise = expected_noise(spec)
        self.ending = False
        """Whether what is left of the budget is for trials on the sweep's own rung."""
        self._known: tuple[int, dict[int, float], float | None] = (0, {}, None)

    @property
    def depth(self) -> int:
        """How many there are below the sweep's own."""
        return len(self._fidelity.rungs)

    # -- where a trial runs ----------------------------------------------------------------------

    def rung_of(self, frozen: FrozenTrial) -> int | None:
        """A trial's rung: as it was enqueued, else as the sampler drew it; None: the sweep's own.

        What somebody else than the sampler wants is run as the sweep runs it.
        """
        row = frozen.user_attrs.get(RECORD)
        if row is not None or PROPOSER in frozen.user_attrs:
            found: int | None = (row or frozen.user_attrs).get(RUNG)
            return found
        below = frozen.system_attrs.get(STATE, {}).get(BELOW, self.depth)
        return self.depth + 1 - below if below else None

    def below(self, trial: FrozenTrial) -> int:
        """How many rungs below the sweep's own a trial runs."""
        return self._below(self.rung_of(trial))

    def _below(self, rung: int | None) -> int:
        return 0 if rung is None else self.depth + 1 - rung

    def observe(self, trial: FrozenTrial) -> Observation | None:
        """What a finished trial says of its configuration."""
        found = observed(trial)
        return None if found is None else dataclasses.replace(found, below=self.below(trial))

    def costs(self, trials: Iterable[FrozenTrial]) -> Sequence[float]:
        """What a trial costs on each rung, as a share of the sweep's own, from that on down.

        By the slots that trials have held, else by the share of the training.
        """
        rows: list[dict[str, Any]] = [t.user_attrs.get(RECORD, {}) for t in trials]
        held: dict[int, list[float]] = defaultdict(list)
        for row in rows:
            ended = row.get("outcome") in {State.COMPLETED.value, State.SCREENED.value}
            if ended and row.get("slot_seconds") and not row.get("stage"):
                held[self._below(row.get(RUNG))].append(row["slot_seconds"])
        found = self._fidelity.costs()
        if 0 in held:
            whole = statistics.median(held[0])
            for below in range(1, self.depth + 1):
                if below in held:
                    found[below] = statistics.median(held[below]) / whole
        return found

    # -- which goes on -----------------------------------------------------------------------------

    def leading(
        self, records: Sequence[TrialRecord], asked: Collection[str]
    ) -> tuple[TrialRecord, Origin] | None:
        """The trial that goes on to the next rung now, and the origin of that; None where none is.

        At the end of a budget a sampler that models the rungs is asked instead: what has run there
        is among its candidates, and nothing else need be worth its cost.

        Args:
            records: Rows of the study's trials.
            asked: Names of the requests for trials that were made before.
        """
        if self.ending and self._models:
            return None
        for rung in range(self.depth, 0, -1):
            ran = [r for r in records if r.rung == rung and r.duplicate_of is None]
            ended = [r for r in ran if r.outcome in {State.SCREENED, State.FAILED}]
            done = [r for r in ran if r.outcome is State.SCREENED and r.val_bpb is not None]
            onward = {r.number: self._onward(r) for r in done}
            left = [r for r in done if onward[r.number].request not in asked]
            gone = len(done) - len(left)
            enough = gone >= int(self._fidelity.keep * len(ended)) and not self.ending
            if not left or enough:
                continue
            means = self.means(records)
            # On the scale of its own rung a score compares with those of its rung alone.
            known = all(record.number in means for record in left)
            best = min(left, key=lambda r: (means[r.number] if known else cost(r), r.number))
            return best, onward[best.number]
        return None

    def _onward(self, record: TrialRecord) -> Origin:
        assert record.rung is not None  # noqa: S101 - it ran below the sweep's own
        last = record.rung == self.depth or self.ending
        return Origin.advance(record.number, rung=None if last else record.rung + 1)

    def means(self, records: Sequence[TrialRecord]) -> dict[int, float]:
        """Posterior mean of the score on the sweep's own rung, low is good, by a trial's number.

        Of the trials that ended with a score on any rung; empty while there are too few.
        """
        return self._model(records)[1]

    def agreement(self, records: Sequence[TrialRecord]) -> float | None:
        """Correlation of a rung with the next, as learnt; None while no trial ended on the last."""
        return self._model(records)[2]

    def _model(self, records: Sequence[TrialRecord]) -> tuple[int, dict[int, float], float | None]:
        done = [r for r in records if r.outcome in {State.SCREENED, State.COMPLETED}]
        done = [r for r in done if r.duplicate_of is None and r.val_bpb is not None]
        done = [r for r in done if not r.variant]
        if len(done) != self._known[0]:
            self._known = (len(done), *self._fitted(done[-MOST_VALUES:]))
        return self._known

    def _fitted(self, done: Sequence[TrialRecord]) -> tuple[dict[int, float], float | None]:
        encoding = Encoding(distributions(self._space), conditions(self._space))
        rows, kept = [], []
        for record in done:
            own = {n: v for n, v in record.knobs.items() if n in self._space.parameters}
            if record.seed is not None:
                own.pop(SEED_KNOB, None)  # the sweep's own seed is another
            try:
                rows.append(encoding.row(self._space.encode(own)))
            except (InputError, ValueError):
                continue  # an export with knobs of its own
            kept.append(record)
        if len(kept) < LEAST_VALUES or not len(encoding):
            return {}, None
        below = np.array([self._below(record.rung) for record in kept], dtype=float)
        values = np.array([cost(record) for record in kept])
        for one in np.unique(below):
            values[below == one] = clipped(values[below == one])
        truest = float(below.min())
        x = np.hstack([encoding.inputs(np.array(rows)), (below - truest)[:, None]])
        model = Surrogate(x, values, noise=self._noise, rungs=True)
        model.condition(model.fit([model.prior.means]))
        x[:, -1] = 0.0
        mean, _ = model.posterior(x)
        means = {record.number: float(m) for record, m in zip(kept, mean, strict=True)}
        return means, None if truest else model.agreement

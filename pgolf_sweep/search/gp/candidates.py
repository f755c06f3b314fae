"""The search for the most promising configuration that fits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from pgolf_sweep.search.gp.acquisition import log_expected_improvement
from pgolf_sweep.search.gp.feasible import LAST_RESORT, LEAST_PROBABILITY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pgolf_sweep.search.gp.observation import Observation
    from pgolf_sweep.search.gp.prior import Shifted
    from pgolf_sweep.search.gp.sampler import GaussianProcessSampler
    from pgolf_sweep.search.gp.surrogate import Surrogate

    Floats: TypeAlias = NDArray[np.float64]
    Ints: TypeAlias = NDArray[np.intp]

UNIFORM, LOCAL, AROUND = 1_500, 1_500, 6
"""Candidates drawn from the whole space, and around the best few points."""

REFINED, COPIES, REFINED_SD = 8, 120, 0.03
"""Refinement: the best few candidates, copies of each, and by how much they move."""

KEPT, GOING_ON = 8, 800
"""Kept trials, the best, that candidates go on from, and how many candidates."""
LEAST_SHARE = 0.01
"""Cheaper than this nothing is taken to be."""

MARGINS = 0.0, 1.5, 3.0
"""Of the regression's error, how far below the limit is looked for what surely fits."""

LEAST_APART = 1e-3
"""Of a value's standard deviation, the least that its difference to another may have."""

LEAST_ERROR = 0.005
"""What the regression of the limit is off by at least."""


class Candidates:
    """Candidates of one proposal.

    Args:
        sampler: Whose proposal it is.
        model: Of the objective.
        tried: Keys of what is not to be proposed again.
        held: Columns that something else decides, with their places.
        rng: The proposal's own.
        kept: Rows that others may go on from at less cost; None: there are none.
        final: With rungs, at the end: rows whose objective is measured or under way, and which
            are within the limit; None before that.
    """

    def __init__(
        self,
        sampler: GaussianProcessSampler,
        model: Surrogate | Shifted,
        tried: set[bytes],
        held: Mapping[int, float],
        rng: np.random.Generator,
        kept: Floats | None = None,
        final: Floats | None = None,
    ) -> None:
        self._sampler = sampler
        self._kept = kept
        self._final = final
        self._point: Floats | None = None
        """Inputs of what improvement is over, where only its difference to others is known."""
        self._cheap = set() if kept is None else set(sampler.dear_keys(kept))
        self._model = model
        self._tried = tried
        self._held = held
        self._rng = rng
        self._offset = 0.0
        """What the judge says of the logarithm of the excess beside the regression."""
        self.passed_over = False
        """Whether the most promising row of all cannot fit."""

    def best(self, finished: Floats, observed: Sequence[Observation]) -> Floats | None:
        """The row with the largest acquisition that fits and is new; None if none is."""
        sampler = self._sampler
        encoding, effort = sampler.encoding, sampler.effort
        mean, _ = self._model.posterior(sampler.inputs(finished))
        feasible = np.array([one.feasible for one in observed])
        self._incumbent = float(mean[feasible].min() if feasible.any() else mean.min())
        if sampler.fidelity is not None:
            self._compare(finished, np.where(feasible, mean, np.inf))
        order = np.argsort(np.where(feasible, mean, np.inf), kind="stable")[:AROUND]
        around = np.repeat(finished[order], -(-LOCAL // len(order)), axis=0)[:LOCAL]
        uniform = self._rng.random((UNIFORM, len(encoding)))
        rows = np.vstack([encoding.snapped(uniform), encoding.moved(around, self._rng)])
        if any(one.below for one in observed):
            rows = np.vstack([rows, finished])  # what was measured on a cheaper rung may go on
        if self._kept is not None:
            rows = np.vstack([rows, self._going_on(self._kept)])
        found = self._verified(hold(rows, self._held), effort.verified)
        self.passed_over = self._sampler.judged(self._first).fit_probability == 0.0
        if not found:
            return None
        seeds = np.array([row for _, row in found[:REFINED]])
        copies = encoding.nudged(np.repeat(seeds, COPIES, axis=0), REFINED_SD, self._rng)
        goes_on = np.repeat([key in self._cheap for key in sampler.dear_keys(seeds)], COPIES)
        dear = sampler.dear
        copies[np.ix_(goes_on, dear)] = np.repeat(seeds, COPIES, axis=0)[np.ix_(goes_on, dear)]
        found += self._verified(hold(copies, self._held), effort.refined)
        return max(found, key=lambda one: one[0])[1]

    def _compare(self, finished: Floats, mean: Floats) -> None:
        """Take what improvement is over where there are rungs: their levels are hardly known.

        At the end it is the best of what has the objective or will have it: a score on a cheaper
        rung is no result. Where nothing has, any is one, and what is sought is the least mean.

        Args:
            finished: Rows that were measured on any rung.
            mean: Of the objective there; infinite where the limit is exceeded.
        """
        if self._final is None:
            rows = finished
        elif len(self._final):
            rows = self._final
            mean, _ = self._model.posterior(self._sampler.inputs(rows))
        else:
            known = mean[np.isfinite(mean)]
            self._incumbent = float(known.mean()) if len(known) else self._incumbent
            return
        at = int(np.argmin(mean))
        if math.isfinite(mean[at]):
            self._incumbent = float(mean[at])
            self._point = self._sampler.inputs(rows[at : at + 1])[0]

    def _going_on(self, kept: Floats) -> Floats:
        """Candidates that go on from the most promising of what was kept."""
        sampler, encoding = self._sampler, self._sampler.encoding
        mean, _ = self._model.posterior(sampler.inputs(kept))
        best = kept[np.argsort(mean, kind="stable")[:KEPT]]
        rows = np.repeat(best, -(-GOING_ON // len(best)), axis=0)
        drawn = encoding.snapped(self._rng.random(rows.shape))
        drawn[:, sampler.dear] = rows[:, sampler.dear]
        return drawn

    def _prices(self, rows: Floats) -> Floats:
        """Logarithm of what each row costs, as a share of a whole trial."""
        reuse = self._sampler.reuse
        if reuse is None or not self._cheap:
            return np.zeros(len(rows))
        cheap = np.array([key in self._cheap for key in self._sampler.dear_keys(rows)])
        return np.where(cheap, math.log(max(reuse.share, LEAST_SHARE)), 0.0)

    def _verified(self, rows: Floats, most: int) -> list[tuple[float, Floats]]:
        """The most promising rows that the judge lets pass, with their acquisition, best first."""
        sampler, limit = self._sampler, self._sampler.limit
        x = sampler.encoding.inputs(rows)
        mean, sd = self._model.posterior(sampler.whole(x))
        if self._point is not None:
            sd = np.maximum(self._model.apart(sampler.whole(x), self._point), LEAST_APART * sd)
        gain = log_expected_improvement(mean, sd, self._incumbent) - self._prices(rows)
        self._first = rows[int(np.argmax(gain))]
        if limit.excess is None:
            order = np.argsort(-gain, kind="stable")
            found = self._passed(rows, gain, order, most)
            return found or self._passed(rows, gain, order, most, least=LAST_RESORT)
        excess, error = limit.excess(x), max(limit.excess.error, LEAST_ERROR)
        for margin in MARGINS:
            away = np.maximum(0.0, (excess + self._offset) / error + margin)
            order = np.argsort(away**2 / 2 - gain, kind="stable")
            found = self._passed(rows, gain, order, most, excess)
            if found:
                return found
        # What is far below the limit, if anything is.
        order = np.argsort(excess, kind="stable")
        return self._passed(rows, gain, order, most, excess, least=LAST_RESORT)

    def _passed(
        self,
        rows: Floats,
        gain: Floats,
        order: Ints,
        most: int,
        excess: Floats | None = None,
        *,
        least: float = LEAST_PROBABILITY,
    ) -> list[tuple[float, Floats]]:
        """Those of the first rows in an order that are new and that the judge lets pass."""
        sampler = self._sampler
        found: list[tuple[float, Floats]] = []
        differences: list[float] = []
        seen: set[bytes] = set()
        for at in order:
            key = sampler.key(rows[at])
            if key in self._tried or key in seen:
                continue
            if len(seen) >= most:
                break
            seen.add(key)
            judged = sampler.judged(rows[at])
            if excess is not None and judged.log_excess is not None:
                differences.append(judged.log_excess - float(excess[at]))
            if judged.fit_probability >= least:
                found.append((float(gain[at]) + math.log(judged.fit_probability), rows[at]))
        if differences:
            self._offset = float(np.median(differences))
        return sorted(found, key=lambda one: -one[0])


def hold(rows: Floats, held: Mapping[int, float]) -> Floats:
    """Rows with the places that something else decides; the array itself is changed."""
    for at, place in held.items():
        rows[:, at] = place
    return rows

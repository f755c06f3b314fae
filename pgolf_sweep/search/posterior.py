"""What the scores of a study say together: each trial's posterior mean, with an interval.

The best of many noisy scores flatters itself: at 64 trials by 0.0009 on a smooth surface and by .03
on one as noisy as its gains, the posterior mean of the same trial by .0003 and .002.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np

from pgolf_sweep.config.rules import SEED_NOISE_BPB
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.record import SEED_KNOB, Posterior, State, ranked
from pgolf_sweep.search.gp.encoding import Encoding
from pgolf_sweep.search.gp.observation import clipped
from pgolf_sweep.search.gp.surrogate import Surrogate
from pgolf_sweep.search.proposing import conditions, distributions

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.space.space import Space

LEAST_TRIALS = 5
"""Completed trials below which nothing is said."""

MOST_TRIALS = 200
"""Trials, the best, that are looked at."""

SURE = 1.96
"""Standard deviations of a 95 % interval."""

LEAST_SECONDS = 5.0
"""Between two fits for one who looks again and again."""

SHARE = 0.05
"""Of a processor that these fits may take."""

SMOOTH = 0.5
"""Of the seeds' spread, what two neighbours may differ by beyond what the model, which takes the
score to be smooth, allows for."""


def posteriors(
    space: Space, records: Iterable[TrialRecord], noise: float | None = SEED_NOISE_BPB
) -> dict[int, Posterior]:
    """The posterior of each completed trial's score, over seeds; empty where there are too few.

    Args:
        space: Of the sweep.
        records: Rows of its trials.
        noise: Standard deviation between seeds that is expected; None where it is unknown.
    """
    done = [r for r in records if r.outcome is State.COMPLETED and r.duplicate_of is None]
    # Of another program: the model is one of the study's own over its knobs.
    done = [r for r in done if r.val_bpb is not None and not r.variant]
    sign = -1.0 if any(record.maximize for record in done) else 1.0
    done = sorted(done, key=lambda r: (sign * (r.val_bpb or 0.0), r.number))[:MOST_TRIALS]
    encoding = Encoding(distributions(space), conditions(space))
    rows, kept = [], []
    for record in done:
        own = {name: v for name, v in record.knobs.items() if name in space.parameters}
        if record.seed is not None:
            own.pop(SEED_KNOB, None)  # the sweep's own seed is another
        try:
            rows.append(encoding.row(space.encode(own)))
        except (InputError, ValueError):
            continue  # an export with knobs of its own, or a trial of an earlier space
        kept.append(record)
    if len(kept) < LEAST_TRIALS or not len(encoding):
        return {}
    x = encoding.inputs(np.array(rows))
    scores = sign * np.array([record.val_bpb for record in kept], dtype=float)
    within = clipped(scores)
    source = {record.number: record.reused_from for record in kept}
    groups = [_trained(record.number, source) for record in kept]
    model = Surrogate(x, within, noise=noise, groups=groups)
    model.condition(model.fit([model.prior.means]))
    keys: dict[bytes, int] = {}
    mean, cov = model.tried([keys.setdefault(row.tobytes(), len(keys)) for row in x])
    variance = np.maximum(np.diag(cov), 0.0)
    sd = np.sqrt(variance)
    mean = mean + (scores - within)  # what is too bad for the model is no contender by it
    fits = [at for at, record in enumerate(kept) if record.submittable]
    best = min(fits, key=lambda at: mean[at], default=None)
    apart = np.zeros(len(kept))
    if best is not None:
        apart = np.sqrt(np.maximum(variance + variance[best] - 2 * cov[best], 0.0))
    apart = np.hypot(apart, SMOOTH * model.repeats)
    behind = np.zeros(len(kept)) if best is None else mean - mean[best]
    decided = [
        None if best in {None, at} else _decided(gap, sd_apart, model.repeats)
        for at, (gap, sd_apart) in enumerate(zip(behind, apart, strict=True))
    ]
    return {
        record.number: Posterior(
            mean=sign * float(mean[at]),
            low=sign * float(mean[at]) - SURE * float(sd[at]),
            high=sign * float(mean[at]) + SURE * float(sd[at]),
            tied=best is not None and float(behind[at]) <= SURE * float(apart[at]),
            decided=decided[at],
        )
        for at, record in enumerate(kept)
    }


def _trained(number: int, source: Mapping[int, int | None]) -> int:
    """The trial whose training a trial shares; itself where it shares none."""
    while (before := source.get(number)) is not None:
        number = before
    return number


class Posteriors:
    """`posteriors` of a study that grows, for one who looks at it again and again.

    A new fit waits until trials have completed and the last fit lies far enough back.

    Args:
        space: Of the sweep.
        noise: As of `posteriors`.
        clock: Seconds from any start.

    Attributes:
        found: What all scores say of each completed trial's, perhaps without the newest.
    """

    def __init__(
        self, space: Space, noise: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.found: dict[int, Posterior] = {}
        self._space = space
        self._noise = noise
        self._clock = clock
        self._completed = 0
        self._next = -math.inf
        self._best: TrialRecord | None = None

    def look(
        self, records: Collection[TrialRecord], completed: int | None = None
    ) -> dict[int, Posterior]:
        """`found`, brought up to date where that is due.

        Args:
            records: Rows of the study's trials.
            completed: How many of them have completed; None: they are counted.
        """
        if completed is None:
            completed = sum(record.outcome is State.COMPLETED for record in records)
        if completed == self._completed or self._clock() < self._next:
            return self.found
        began = time.thread_time()
        self.found = posteriors(self._space, records, self._noise)
        self._best = next(iter(ranked(records, self.found)), None)
        self._completed = completed
        spent = time.thread_time() - began
        self._next = self._clock() + max(LEAST_SECONDS, spent / SHARE)
        return self.found

    def best(self, by_score: TrialRecord | None) -> TrialRecord | None:
        """The best trial by all scores, without a look at every row.

        Args:
            by_score: The best by its own score, which may be newer than `found`.
        """
        known = [record for record in (self._best, by_score) if record is not None]
        return next(iter(ranked(known, self.found)), None)


def _decided(gap: float, sd: float, noise: float) -> float:
    """Probability that another run of both tells two configurations apart.

    A run of each measures their difference with variance 2 noise^2; its posterior then has the
    standard deviation `after`, and its mean moves by `moves`.

    Args:
        gap: Posterior mean of the difference.
        sd: Its standard deviation.
        noise: Standard deviation between seeds.
    """
    after = sd * noise * math.sqrt(2 / (sd**2 + 2 * noise**2))
    moves = math.sqrt(max(sd**2 - after**2, 1e-24))
    outside = [(sign * gap - SURE * after) / moves for sign in (1, -1)]
    return sum(0.5 * math.erfc(-z / math.sqrt(2)) for z in outside)

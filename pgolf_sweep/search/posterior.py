"""What the scores of a study say together: each trial's posterior mean, with an interval.

The best of many noisy scores flatters itself: at 64 trials by 0.0009 on a smooth surface and by .03
on one as noisy as its gains, the posterior mean of the same trial by .0003 and .002.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from pgolf_sweep.config.rules import SEED_NOISE_BPB
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.record import SEED_KNOB, Posterior, State
from pgolf_sweep.search.gp.encoding import Encoding
from pgolf_sweep.search.gp.sampler import clipped
from pgolf_sweep.search.gp.surrogate import Surrogate
from pgolf_sweep.search.proposing import conditions, distributions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.space.space import Space

LEAST_TRIALS = 5
"""Completed trials below which nothing is said."""

MOST_TRIALS = 200
"""Trials, the best, that are looked at."""

SURE = 1.96
"""Standard deviations of a 95 % interval."""

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
    mean, sd = model.posterior(x)
    mean = mean + (scores - within)  # what is too bad for the model is no contender by it
    fits = [at for at, record in enumerate(kept) if record.submittable]
    best = min(fits, key=lambda at: mean[at], default=None)
    apart = np.zeros(len(kept)) if best is None else model.apart(x, x[best])
    apart = np.hypot(apart, SMOOTH * model.noise)
    behind = np.zeros(len(kept)) if best is None else mean - mean[best]
    decided = [
        None if best in {None, at} else _decided(gap, sd_apart, model.noise)
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

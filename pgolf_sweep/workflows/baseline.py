"""The first trials of a study: the program's own configuration, and its repeats for the noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.record import BASELINE, SEED_KNOB
from pgolf_sweep.core.trial import Change
from pgolf_sweep.driver.seeds import further_seeds, own_seed
from pgolf_sweep.gate.repair import nearest_values, repair
from pgolf_sweep.search.origin import Origin

if TYPE_CHECKING:
    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.search.study import Study

COVERING = frozenset({"grid", "random", "qmc"})
"""Methods that cover the space by no measurement: they begin with no trial of their own."""

NOISE_RUNS = 4
"""Runs of the baseline where programs are compared; 3 to 6 keep and cost the same in
docs/measurements/agents.md."""


def noise_runs(session: Session) -> int:
    """Runs of the baseline with which a study begins to measure its noise; 0 for none.

    Raises:
        InputError: The sweep file asks for some, and no seed can vary.
    """
    block = session.spec.pgolf
    asked = block.noise_floor
    if asked == 0 or (asked is None and not block.proposers):
        return 0
    if own_seed(session) is None:
        if asked is None:
            return 0
        raise InputError(
            f"the noise needs runs that differ by {SEED_KNOB} alone, which the program does not "
            "read, or the sweep searches",
            where=f"{session.spec.source}: pgolf.noise_floor",
            got=f"{asked} runs of {session.program.name}",
            next_step=f'let it read os.environ["{SEED_KNOB}"] with a default, or drop the key',
        )
    return NOISE_RUNS if asked is None else asked


def baseline_knobs(session: Session) -> dict[str, KnobValue] | None:
    """The program's own configuration, as far as the space holds it; None where it does not.

    A knob on which the space forbids the program's value has the nearest that it allows. Where
    that cannot fit, its whole numbers give, in the order of the sweep file; what no one of them
    makes fit is left to the sampler.
    """
    space = session.spec.space
    knobs = space.nearest(session.defaults)
    if any(p.active(knobs) and p.name not in knobs for p in space.parameters.values()):
        return None  # the program has no value of its own for one of them
    if not session.verdict_of(knobs).discards:
        return knobs
    parents = {name for one in space.parameters.values() for name in one.when}
    whole = [
        one
        for one in space.parameters.values()
        if one.searched and one.name not in parents and isinstance(knobs.get(one.name), int)
    ]
    may_give = {one.name: nearest_values(one.domain, knobs[one.name]) for one in whole}
    return repair(session.verdict_of, knobs, may_give)


def enqueue_baseline(session: Session, study: Study) -> None:
    """Have a new study begin with its baseline, on as many seeds as measure its noise.

    Doing it again, after a launch that died here, changes nothing.

    Raises:
        InputError: See `noise_runs`; or the space holds no baseline to run them of.
    """
    runs = noise_runs(session)
    if session.spec.method in COVERING and not runs:
        return
    knobs = baseline_knobs(session)
    if knobs is None:
        if session.spec.pgolf.noise_floor:
            raise InputError(
                "the space holds no configuration of the program's own to measure the noise with",
                where=f"{session.spec.source}: pgolf.noise_floor",
                next_step="drop the key, and repeat a trial: pgolf-sweep repeat STUDY N --seeds 3",
            )
        return
    own = own_seed(session)
    more = further_seeds(study.name, runs - 1, () if own is None else {own})
    for at, seed in enumerate([None, *more]):
        origin = Origin(proposer=BASELINE, request=f"{BASELINE} {at}", change=Change(seed=seed))
        study.enqueue_once(knobs, origin)

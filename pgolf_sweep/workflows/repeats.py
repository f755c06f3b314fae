"""`repeat`: a trial's configuration on further seeds, to measure it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.record import SEED_KNOB
from pgolf_sweep.core.trial import Change
from pgolf_sweep.driver.proposals import adapted, readable, submit
from pgolf_sweep.driver.seeds import further_seeds
from pgolf_sweep.driver.session import reopen_session
from pgolf_sweep.report.compare import repeats, seed_of
from pgolf_sweep.report.read import study_records

if TYPE_CHECKING:
    from collections.abc import Collection

    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.driver.proposals import ProposalRequest


def repeat(
    paths: StudyPaths, number: int, count: int, *, by: str, first: Collection[int] = ()
) -> list[ProposalRequest]:
    """Leave further runs of a trial for the driver, each on a seed of its own.

    Args:
        paths: The study's folder.
        number: A trial of the configuration.
        count: How many further seeds.
        by: Who asks; the trials carry it.
        first: Seeds to take before the study's sequence: those of what it is compared to.

    Returns:
        The requests, one a seed.

    Raises:
        InputError: There is no such trial, or the program reads no SEED.
    """
    session = reopen_session(paths, need_data=False)
    own = repeats(study_records(paths.root), number)
    record = next(one for one in own if one.number == number)
    if SEED_KNOB not in record.knobs and SEED_KNOB not in session.program.knobs:
        raise InputError(
            "the program reads no SEED: a further run would be the same run",
            where=session.program.name,
            next_step=f'let it read os.environ["{SEED_KNOB}"]',
        )
    knobs = adapted(session.spec.space, record.knobs, {})
    asked = [
        request.change.seed
        for request in readable(paths)
        if not request.refused
        and request.change.variant == record.variant
        and request.knobs == knobs
    ]
    taken = {seed_of(one) for one in own} | {seed for seed in asked if seed is not None}
    change = record.change
    return [
        submit(
            paths,
            knobs,
            by=by,
            at=time.time(),
            change=Change(
                variant=change.variant, parent=change.parent, idea=change.idea, seed=seed
            ),
        )
        for seed in further_seeds(paths.name, count, taken, first=first)
    ]

"""`repeat`: a trial's configuration on further seeds, to measure it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.record import SEED_KNOB
from pgolf_sweep.core.trial import Change
from pgolf_sweep.driver.opening import reopen_session
from pgolf_sweep.driver.proposals import adapted, submit
from pgolf_sweep.driver.seeds import further_seeds
from pgolf_sweep.report.compare import repeats, seed_of
from pgolf_sweep.report.read import study_records
from pgolf_sweep.workflows.open_runs import OpenRun, configuration_of, open_runs

if TYPE_CHECKING:
    from collections.abc import Collection

    from pgolf_sweep.core.paths import StudyPaths


def repeat(
    paths: StudyPaths, number: int, count: int, *, by: str, first: Collection[int] = ()
) -> list[OpenRun]:
    """Have a trial run on further seeds; runs of it that have not ended count among them.

    Args:
        paths: The study's folder.
        number: A trial of the configuration.
        count: How many further seeds.
        by: Who asks; the trials carry it.
        first: Seeds to take before the study's sequence: those of what it is compared to.

    Returns:
        The runs, one a seed: first those that somebody had asked for already.

    Raises:
        InputError: There is no such trial, or the program reads no SEED.
    """
    session = reopen_session(paths, need_data=False)
    records = study_records(paths.root)
    own = repeats(records, number)
    record = next(one for one in own if one.number == number)
    if SEED_KNOB not in record.knobs and SEED_KNOB not in session.program.knobs:
        raise InputError(
            "the program reads no SEED: a further run would be the same run",
            where=session.program.name,
            next_step=f'let it read os.environ["{SEED_KNOB}"]',
        )
    wanted = configuration_of(session, record.variant, record.knobs)
    alike = [run for run in open_runs(paths, session, records) if run.configuration == wanted]
    waiting = [run for run in alike if run.number != number][:count]
    knobs = adapted(session.spec.space, record.knobs, {})
    taken = {seed_of(one) for one in own} | {run.seed for run in alike}
    change = record.change
    left = [
        submit(
            paths,
            knobs,
            by=by,
            at=time.time(),
            change=Change(
                variant=change.variant, parent=change.parent, idea=change.idea, seed=seed
            ),
        )
        for seed in further_seeds(paths.name, count - len(waiting), taken, first=first)
    ]
    return waiting + [
        OpenRun(configuration=wanted, seed=request.change.seed or 0, request=request)
        for request in left
    ]

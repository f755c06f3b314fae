"""Runs that somebody asked for and that have not ended: what is asked again is not run twice.

An agent, its client or the server between them may die after a request was left and before its id
was heard of. Whoever asks again finds the request here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.record import SEED_KNOB
from pgolf_sweep.core.trial import knob_text
from pgolf_sweep.driver.proposals import completed, readable
from pgolf_sweep.space.space import is_seed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.driver.proposals import ProposalRequest
    from pgolf_sweep.driver.session import Session

NO_SEED = -1
"""Where the program reads none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRun:
    """A run that waits, for a driver or a slot, or that runs.

    Attributes:
        configuration: Of its program and knobs without the seed; empty where the sampler chooses.
        seed: That it runs on; -1 where the program reads none.
        request: The proposal, if somebody left one.
        number: Its trial's, once a driver has enqueued it.
    """

    configuration: str
    seed: int
    request: ProposalRequest | None = None
    number: int | None = None

    @property
    def name(self) -> str:
        """By which it is waited for: the proposal's id, else the trial's number."""
        return str(self.number) if self.request is None else self.request.id


def configuration_of(session: Session, variant: str, knobs: Mapping[str, KnobValue]) -> str:
    """What repeats have in common: the program, and the sweep's parameters but the seed."""
    own = [
        (name, knob_text(value))
        for name, value in sorted(knobs.items())
        if name in session.spec.space.parameters and not is_seed(name)
    ]
    return json.dumps([variant, own])


def seed_within(session: Session, knobs: Mapping[str, KnobValue], asked: int | None) -> int:
    """The seed that a run of these knobs has, where `asked` may ask for another."""
    value = asked if asked is not None else knobs.get(SEED_KNOB, session.defaults.get(SEED_KNOB))
    return value if type(value) is int else NO_SEED


def open_runs(paths: StudyPaths, session: Session, records: Sequence[TrialRecord]) -> list[OpenRun]:
    """All of a study that have not ended, those that no driver has taken up last.

    Args:
        paths: The study's folder.
        session: Of its own program.
        records: Its rows.
    """
    rows = {record.number: record for record in records}
    requests = [one for one in readable(paths) if not one.refused]
    by_number = {one.number: one for one in requests if one.number is not None}
    found = [
        OpenRun(
            configuration=_complete(session, row.variant, row.knobs),
            seed=seed_within(session, row.knobs, row.seed),
            request=by_number.get(row.number),
            number=row.number,
        )
        for row in records
        if not row.outcome.final and row.duplicate_of is None
    ]
    return found + [
        OpenRun(
            configuration=_complete(session, one.change.variant, one.knobs),
            seed=seed_within(session, one.knobs, one.change.seed),
            request=one,
            number=one.number,
        )
        for one in requests
        if one.number is None or one.number not in rows
    ]


def _complete(session: Session, variant: str, knobs: Mapping[str, KnobValue]) -> str:
    """A configuration with the constants that a trial has from the sweep file."""
    parameters = session.spec.space.parameters
    try:
        resolved, missing = completed(
            session.spec.space,
            {n: v for n, v in knobs.items() if n in parameters and n != SEED_KNOB},
        )
    except InputError:
        return ""  # an export with knobs of its own, or an older sweep file's
    return "" if missing else configuration_of(session, variant, resolved)

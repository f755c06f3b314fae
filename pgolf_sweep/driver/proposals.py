"""Trials that people and programs ask for: a request file each, which the driver picks up.

The driver is the only writer of the study. Whoever wants a trial leaves
``runs/<study>/proposals/<id>.json``; the driver enqueues it ahead of what the sampler draws and
writes the trial's number, or why it refuses, into the file.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import InfraError, InputError
from pgolf_sweep.core.events import TrialProposed
from pgolf_sweep.core.paths import read_json, write_json
from pgolf_sweep.core.record import SEED_KNOB, State
from pgolf_sweep.core.trial import Change
from pgolf_sweep.driver.variants import share
from pgolf_sweep.search.origin import Origin

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from pgolf_sweep.core.events import Notify
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.search.study import Study
    from pgolf_sweep.space.space import Space


logger = logging.getLogger(__name__)

PROPOSED = "propose:"
"""Before the name of who asked, in a trial's `proposer`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalRequest:
    """A trial that somebody asked for.

    Attributes:
        id: Names the file; unique.
        by: Who asks.
        knobs: Values of the sweep file's parameters; what is left out the sampler chooses.
        at: When, in seconds of the epoch.
        number: The trial's number, once the driver has enqueued it.
        refused: Why the driver did not; empty otherwise.
        change: Program, parent, idea and seed.
    """

    id: str
    by: str
    knobs: Mapping[str, KnobValue]
    at: float
    number: int | None = None
    refused: str = ""
    change: Change = field(default_factory=Change)

    @property
    def origin(self) -> Origin:
        """How the trial names it."""
        return Origin(proposer=f"{PROPOSED}{self.by}", request=self.id, change=self.change)


_COUNT = itertools.count()


def submit(
    paths: StudyPaths,
    knobs: Mapping[str, KnobValue],
    *,
    by: str,
    at: float,
    change: Change | None = None,
) -> ProposalRequest:
    """Leave a request for the study's driver, the present one or the next.

    A variant's files must be kept before: `pgolf_sweep.variants.store.keep`.
    """
    # Sorted by time, and within a millisecond of one process by count: the driver takes them so.
    request = ProposalRequest(
        id=f"{at:015.3f}-{next(_COUNT) % 10_000:04}{secrets.token_hex(4)}",
        by=by,
        knobs=dict(knobs),
        at=at,
        change=change or Change(),
    )
    _write(paths, request)
    return request


def pending(paths: StudyPaths) -> list[ProposalRequest]:
    """Requests that no driver has answered, oldest first."""
    if not paths.proposals.is_dir():
        return []
    found = []
    for path in sorted(paths.proposals.glob("*.json")):
        try:
            found.append(_read(path))
        except (InfraError, KeyError, TypeError) as error:
            # Somebody else's file must not end a sweep.
            logger.warning("%s is no proposal and is set aside: %s", path, error)
            path.replace(path.with_suffix(".unread"))
    return [request for request in found if request.number is None and not request.refused]


def answered(paths: StudyPaths) -> list[ProposalRequest]:
    """Requests that a driver has enqueued, oldest first; files that are none are left out."""
    return [request for request in readable(paths) if request.number is not None]


def left_over(paths: StudyPaths, records: Iterable[TrialRecord]) -> int:
    """How many requests got no slot; for one who does not drive the study, it changes nothing.

    Args:
        paths: The study's folder.
        records: A row for every trial of the study.
    """
    unanswered = [r for r in readable(paths) if r.number is None and not r.refused]
    queued = [
        record
        for record in records
        if record.outcome is State.QUEUED and record.proposer.startswith(PROPOSED)
    ]
    return len(unanswered) + len(queued)


def left_over_text(count: int) -> str:
    """What is said of them where no driver lives."""
    wait, them = ("proposals wait", "them") if count > 1 else ("proposal waits", "it")
    return (
        f"{count} {wait} for a slot: the next launch runs {them} first; where run_cap or the "
        "budget is used up, raise it in the sweep file before"
    )


def readable(paths: StudyPaths) -> list[ProposalRequest]:
    """All requests, oldest first; files that are none are left out."""
    found = []
    for path in sorted(paths.proposals.glob("*.json")):
        with suppress(InfraError, KeyError, TypeError):
            found.append(_read(path))
    return found


def answer(
    paths: StudyPaths, request: ProposalRequest, *, number: int | None = None, refused: str = ""
) -> None:
    """Write down what became of a request; the driver's word."""
    _write(paths, dataclasses.replace(request, number=number, refused=refused))


def enqueue_pending(
    paths: StudyPaths,
    study: Study,
    notify: Notify,
    *,
    requests: Iterable[ProposalRequest] | None = None,
) -> None:
    """Enqueue what was asked for; the asker finds the trial's number in the file.

    Args:
        paths: The study's folder.
        study: What the requests go into.
        notify: Hears of each.
        requests: Those to enqueue, in this order; None for all that wait.
    """
    for request in pending(paths) if requests is None else requests:
        try:
            with study.exclusive():
                share(study, paths, request.change.variant)
                number = study.enqueue_once(request.knobs, request.origin)
        except InputError as error:
            answer(paths, request, refused=error.what)
            continue
        answer(paths, request, number=number)
        notify(TrialProposed(number=number, by=request.by))


def look(paths: StudyPaths, request_id: str) -> ProposalRequest:
    """A request as it stands.

    Raises:
        InputError: There is no such request.
    """
    path = _file(paths, request_id)
    if not path.is_file():
        raise InputError(f"study {paths.name!r} has no proposal {request_id}", where=str(path))
    return _read(path)


def _file(paths: StudyPaths, request_id: str) -> Path:
    return paths.proposals / f"{request_id}.json"


def _write(paths: StudyPaths, request: ProposalRequest) -> None:
    write_json(
        _file(paths, request.id),
        {
            "id": request.id,
            "by": request.by,
            "knobs": dict(request.knobs),
            "at": request.at,
            "number": request.number,
            "refused": request.refused,
            **request.change.to_json(),
        },
    )


def _read(path: Path) -> ProposalRequest:
    """The request in a file.

    Raises:
        InfraError: It is not JSON.
        KeyError: It lacks something.
        TypeError: It is not what `submit` writes.
    """
    document = read_json(path)
    names = [name for name in ProposalRequest.__dataclass_fields__ if name != "change"]
    request = ProposalRequest(
        **{name: document[name] for name in names}, change=Change.from_json(document)
    )
    if request.id != path.stem:
        raise TypeError(f"id {request.id!r} is not the file's name")  # else its answer is lost
    if not isinstance(request.knobs, dict):
        raise TypeError("knobs are no mapping")
    odd = [k for k, v in request.knobs.items() if not isinstance(v, bool | int | float | str)]
    if odd:
        raise TypeError(f"{', '.join(odd)}: neither a number, a truth value nor a text")
    return request


# -- completing a request ------------------------------------------------------------------------


@dataclass(slots=True)
class _Fixed:
    """Answers a space with values that are given; remembers what it had to make up."""

    values: Mapping[str, Any]
    missing: list[str] = field(default_factory=list)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """The given value, or the lowest."""
        del high, step, log
        return float(self._given(name, low))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """The given value, or the lowest."""
        del high, step, log
        return int(self._given(name, low))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """The given value, or the first."""
        return self._given(name, choices[0])

    def _given(self, name: str, otherwise: Any) -> Any:
        if name not in self.values:
            self.missing.append(name)
        return self.values.get(name, otherwise)


def completed(
    space: Space, knobs: Mapping[str, KnobValue]
) -> tuple[dict[str, KnobValue], list[str]]:
    """A configuration from the values that are given.

    Returns:
        The resolved knobs, constants included, and the names that the sampler will choose; where
        there are any, the knobs are not what will run.

    Raises:
        InputError: A value is outside the space.
    """
    fixed = _Fixed(space.encode(knobs))
    resolved = space.suggest(fixed)
    return resolved, fixed.missing


def adapted(
    space: Space, base: Mapping[str, KnobValue], knobs: Mapping[str, KnobValue]
) -> dict[str, KnobValue]:
    """A trial's knobs with some changed; those whose condition no longer holds are left out.

    Args:
        space: Of the sweep.
        base: Another trial's knobs.
        knobs: What is asked for; kept even where it does not belong, so that it is complained of.
    """
    mixed = {name: value for name, value in base.items() if name in space.parameters}
    if SEED_KNOB in mixed:
        try:
            space.parameters[SEED_KNOB].domain.encode(mixed[SEED_KNOB])
        except ValueError:  # one that its proposal asked for
            del mixed[SEED_KNOB]
    mixed |= knobs
    return {
        name: value
        for name, value in mixed.items()
        if name in knobs or name not in space.parameters or space.parameters[name].active(mixed)
    }

"""Seeds on which a trial runs again: one sequence a study, so that two trials' runs pair."""

from __future__ import annotations

import hashlib
from itertools import chain, count
from typing import TYPE_CHECKING

from pgolf_sweep.core.record import SEED_KNOB
from pgolf_sweep.space.domains import Constant

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from pgolf_sweep.driver.session import Session

MOST_SEED = 99_999


def seed_sequence(study: str) -> Iterator[int]:
    """Seeds that nobody chose, 1 to 99,999, in the study's order; a seed may come again."""
    for index in count():
        digest = hashlib.sha256(f"{study}/further/{index}".encode()).digest()
        yield 1 + int.from_bytes(digest[:4], "big") % MOST_SEED


def own_seed(session: Session) -> int | None:
    """The seed of a sweep's trials; None where its program reads none, or it is searched."""
    knob = session.program.knobs.get(SEED_KNOB)
    if knob is None or not isinstance(knob.default, int) or isinstance(knob.default, bool):
        return None
    parameter = session.spec.space.parameters.get(SEED_KNOB)
    if parameter is None:
        return knob.default
    if not isinstance(parameter.domain, Constant):
        return None
    value = parameter.domain.value
    return value if type(value) is int else None


def further_seeds(
    study: str, number: int, taken: Collection[int], *, first: Collection[int] = ()
) -> list[int]:
    """Seeds for further runs of a configuration.

    Args:
        study: The study's name.
        number: How many.
        taken: Seeds that it ran on already.
        first: Seeds to take before the sequence's: those of the configuration it is compared to.
    """
    found: list[int] = []
    for seed in chain(first, seed_sequence(study)) if number > 0 else ():
        if seed not in taken and seed not in found:
            found.append(seed)
        if len(found) == number:
            break
    return found

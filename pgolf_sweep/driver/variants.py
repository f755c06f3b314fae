"""The session of each program that a study's trials run: its own, and the variants of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgolf_sweep.driver.session import with_program
from pgolf_sweep.variants.store import variant_program

if TYPE_CHECKING:
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.driver.session import Session


@dataclass(slots=True)
class Sessions:
    """Sessions by the program of a trial; each variant's is made when it is first needed.

    Attributes:
        base: The study's.
        paths: The study's folder.
    """

    base: Session
    paths: StudyPaths
    _made: dict[str, Session] = field(default_factory=dict)

    def of(self, variant: str) -> Session:
        """The session of a program.

        Args:
            variant: Its id; empty for the study's own.

        Raises:
            InputError: The variant is not kept here, or is damaged.
        """
        if not variant:
            return self.base
        if variant not in self._made:
            program = variant_program(self.paths, variant)
            self._made[variant] = with_program(self.base, program, variant=variant)
        return self._made[variant]

    def known(self, variant: str) -> Session | None:
        """`of`, for a program that was needed before; None for another."""
        return self._made.get(variant) if variant else self.base

"""The session of each program that a study's trials run: its own, and the variants of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.driver.opening import with_program
from pgolf_sweep.variants.store import as_text, from_text, kept, variant_program

if TYPE_CHECKING:
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.script.program import Program
    from pgolf_sweep.search.study import Study


ATTRIBUTE = "variant "
"""Before a variant's id, in the attributes of a study that several folders share."""


def share(study: Study, paths: StudyPaths, variant: str) -> None:
    """Leave a variant in a shared study, for drivers in other folders; once.

    Raises:
        InputError: It is not kept here, or is damaged.
    """
    if not variant:
        return
    kept(paths, variant)
    if study.shared and study.attribute(ATTRIBUTE + variant) is None:
        study.set_attribute(ATTRIBUTE + variant, as_text(paths, variant))


@dataclass(slots=True)
class Sessions:
    """Sessions by the program of a trial; each variant's is made when it is first needed.

    Attributes:
        base: The study's.
        paths: The study's folder.
        study: Where other folders leave their variants; None for one who only reads this folder.
    """

    base: Session
    paths: StudyPaths
    study: Study | None = None
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
            program = self._program(variant)
            self._made[variant] = with_program(self.base, program, variant=variant)
        return self._made[variant]

    def _program(self, variant: str) -> Program:
        try:
            return variant_program(self.paths, variant)
        except InputError:
            shared = self.study is not None and self.study.shared
            text = self.study.attribute(ATTRIBUTE + variant) if self.study and shared else None
            if text is None:
                raise
            from_text(self.paths, variant, text)
            return variant_program(self.paths, variant)

    def known(self, variant: str) -> Session | None:
        """`of`, for a program that was needed before; None for another."""
        return self._made.get(variant) if variant else self.base

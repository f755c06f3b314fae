"""Errors, as types that tell the caller what to do next.

    PgolfError               base; carries an exit code
    ├── InputError      (2)  the user's input is wrong: fix it and type the command again
    │   ├── ProblemsError    a file; carries every problem found, each with key path and line
    │   │   └── SpecError    a sweep file; DraftError: what `define` would write
    │   └── DataError        shards or a tokenizer that are missing or broken
    ├── AnswerNoError   (1)  it ran and the answer is no
    │   └── PromotionError   unmet rules of a preset, or too little evidence
    ├── InfraError      (3)  a node, a cluster, a disk or a network failed: retry
    │   └── StorageAwayError a shared study's database does not answer: what runs goes on
    ├── FaultError      (4)  a fault of ours: report it
    └── InterruptedSweepError (130)  the user stopped it; everything that finished is kept

A gate's verdict and a trial's outcome are values, not exceptions (`pgolf_sweep.core.trial`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something wrong, in the parts that a message has; absent ones are None.

    Attributes:
        what: What went wrong, one sentence.
        where: File, key path and line, trial number or host.
        got: The offending value as the user would recognise it.
        expected: What would have been accepted.
        next_step: A command or an edit that gets the user further.
    """

    what: str
    where: str | None = None
    got: str | None = None
    expected: str | None = None
    next_step: str | None = None

    def lines(self) -> list[str]:
        """The message as lines, most important first; absent parts are left out."""
        parts = (
            ("where", self.where),
            ("got", self.got),
            ("expected", self.expected),
            ("next", self.next_step),
        )
        return [self.what, *(f"  {name}: {text}" for name, text in parts if text)]


class PgolfError(Exception):
    """Base of every error that the command line turns into a message and an exit code.

    Its arguments are the parts of its `Finding`.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        got: str | None = None,
        expected: str | None = None,
        next_step: str | None = None,
    ) -> None:
        super().__init__(what)
        self.finding = Finding(
            what=what, where=where, got=got, expected=expected, next_step=next_step
        )

    @property
    def what(self) -> str:
        """What went wrong."""
        return self.finding.what

    @property
    def where(self) -> str | None:
        """Where it went wrong."""
        return self.finding.where

    @property
    def got(self) -> str | None:
        """What was there."""
        return self.finding.got

    @property
    def expected(self) -> str | None:
        """What would have been accepted."""
        return self.finding.expected

    @property
    def next_step(self) -> str | None:
        """What to do now."""
        return self.finding.next_step

    def lines(self) -> list[str]:
        """The message as lines."""
        return self.finding.lines()

    def __str__(self) -> str:
        return "\n".join(self.lines())


class InputError(PgolfError):
    """The user's input is wrong."""

    exit_code = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake in a sweep file.

    Attributes:
        path: Dotted key path, for example ``parameters.MATRIX_LR.min``.
        line: One-based line in the file, or None when the key is absent from it.
        message: What is wrong, with the value got and the values expected.
    """

    path: str
    line: int | None
    message: str


class ProblemsError(InputError):
    """A file with at least one mistake; all of them are reported at once.

    Args:
        source: The file.
        problems: Every mistake.
        kind: The kind of file, for people.
        next_step: A command or an edit that gets the user further.
    """

    def __init__(
        self, source: str, problems: Sequence[Problem], *, kind: str, next_step: str
    ) -> None:
        count = len(problems)
        super().__init__(
            f"{source}: {count} problem{'s' if count != 1 else ''} in the {kind}",
            next_step=next_step,
        )
        self.source = source
        self.problems = tuple(problems)

    def lines(self) -> list[str]:
        """The headline, one line a problem, the next step."""
        listed = [
            f"  {self.source}:{p.line if p.line is not None else '-'}: {p.path}: {p.message}"
            for p in self.problems
        ]
        return [self.what, *listed, f"  next: {self.next_step}"]


class SpecError(ProblemsError):
    """A sweep file with mistakes."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        step = f"correct {source} and run `pgolf-sweep plan {source}`"
        super().__init__(source, problems, kind="sweep file", next_step=step)


class DraftError(SpecError):
    """Flags that would make a sweep file with mistakes; none is written."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        super().__init__(source, [replace(problem, line=None) for problem in problems])
        step = f"correct the flags; {source} is not written"
        self.finding = replace(self.finding, next_step=step)

    def lines(self) -> list[str]:
        """The problems by key alone: there is no file to look into."""
        count = len(self.problems)
        listed = [f"  {problem.path}: {problem.message}" for problem in self.problems]
        head = f"{count} problem{'s' if count != 1 else ''} in the flags"
        return [head, *listed, f"  next: {self.next_step}"]


class DataError(InputError):
    """Shards or a tokenizer that are missing, truncated or not of the contest's format."""


class AnswerNoError(PgolfError):
    """The program ran and the answer is no: does not fit, does not verify, no trial succeeded."""


class PromotionError(AnswerNoError):
    """A candidate that does not meet a preset's rules."""


class InfraError(PgolfError):
    """Infrastructure failed: a node, a cluster, a disk, a network."""

    exit_code = 3


class StorageAwayError(InfraError):
    """The database of a shared study does not answer now; it may a moment later."""


class FaultError(PgolfError):
    """A fault of ours: nothing that the user gave or can repair."""

    exit_code = 4


class InterruptedSweepError(PgolfError):
    """The user interrupted the sweep; it can be resumed."""

    exit_code = 130

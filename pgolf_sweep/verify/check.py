"""One line of a verification: a rule, what was seen, the limit, the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pgolf_sweep.verify.explain import RULES


class CheckVerdict(StrEnum):
    """What a check says."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    """The rule is met, and the folder shows it."""
    WARN = "warn"
    """Odd, but no rule is broken: a reviewer will ask."""
    UNKNOWN = "unknown"
    """The folder does not let one decide."""
    FAIL = "fail"
    """The rule is broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One rule's answer.

    Attributes:
        rule: Stable name of the rule, a key of `RULES`.
        verdict: The answer.
        observed: What was seen.
        limit: What the rule asks.
        detail: Which file, which number, why.
    """

    rule: str
    verdict: CheckVerdict
    observed: str = ""
    limit: str = ""
    detail: str = ""

    def __post_init__(self) -> None:
        """Every rule is explained: a check without an entry cannot be made.

        Raises:
            ValueError: There is none.
        """
        if self.rule not in RULES:
            raise ValueError(f"rule {self.rule!r} has no entry in pgolf_sweep/verify/explain.py")

    def __str__(self) -> str:
        expected = f"expected {self.limit}" if self.limit else ""
        return f"{self.rule}: {'; '.join(filter(None, [self.observed, expected, self.detail]))}"

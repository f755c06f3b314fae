"""Texts that a script takes for true, where it compares its environment with words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TRUE = ("1", "true", "yes", "on", "y", "t")
FALSE = ("0", "false", "no", "off", "n", "f")


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """A comparison that turns a text into a boolean.

    Attributes:
        listed: The texts that the script names.
        meaning: What they mean; every other text means the opposite.
        fold: Method of `str` that the script calls before: ``lower``, ``upper``, ``casefold``.
    """

    listed: tuple[str, ...]
    meaning: bool
    fold: str | None = None

    def value(self, given: Any) -> bool:
        """What the script makes of a text, or of a default that is none."""
        if self == NOT_EMPTY:
            return bool(given)
        if isinstance(given, str) and self.fold is not None:
            given = getattr(given, self.fold)()
        return (given in self.listed) == self.meaning

    @property
    def inverted(self) -> bool:
        """Whether what says yes means no, as in ``os.environ.get("NO_EMA", "0") != "1"``."""
        return any(said(word) is (not self.meaning) for word in self.listed if word)

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts for true and for false, best ones that the script names."""
        found = self._text(wanted=True), self._text(wanted=False)
        return tuple(text for text in found if text is not None)

    def text(self, *, wanted: bool) -> str | None:
        """The text for a boolean; None if there is none, or if people would read it otherwise."""
        return None if self.inverted else self._text(wanted=wanted)

    def takes(self, text: str) -> bool:
        """Whether the script understands a text, and as what it says."""
        if said(text) is None:
            return text in self.listed
        return (said(text) == self.value(text)) != self.inverted

    def _text(self, *, wanted: bool) -> str | None:
        named = sorted(self.listed, key=lambda word: not word)  # "" says little to people
        lowered = [word.lower() for word in named]
        kin = [
            pair[1 - side].title() if any(word.istitle() for word in named) else pair[1 - side]
            for word in lowered
            for pair in zip(TRUE, FALSE, strict=True)
            for side in (0, 1)
            if pair[side] == word
        ]
        says = wanted != self.inverted
        for text in (*named, *kin, "1" if says else "0", ""):
            if self.value(text) == wanted and said(text) in {says, None}:
                return text
        return None


NOT_EMPTY = Words(listed=("",), meaning=False)
"""``bool(text)``: every text but the empty one is true, ``0`` too."""


def said(text: str) -> bool | None:
    """What a text says to people; None if it is neither yes nor no."""
    lowered = text.lower()
    return True if lowered in TRUE else False if lowered in {*FALSE, ""} else None

"""``name separator value unit``: the form in which scripts report numbers, read in general.

A line is a chain of such pairs. A name is the text since the pair before; a colon, an equals sign
or a space separates it from its number. What a name means is decided by its words, in `scores`
and `sizes`, so that a new script's spelling needs no pattern of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NUMBER = r"[-+]?(?:\d+(?:[,_]\d{3})++|\d+\.?\d*(?:e[-+]?\d+)?|\.\d+|nan|inf(?:inity)?)"
_UNIT = r"bytes?|ms|[kmg]i?b|min|b|s|m|h|%"
_PAIR = re.compile(
    rf"""(?:(?<!\s)\s*(?:[:=]|->)\s*|(?<=[a-z)])\s+(?:is\s+)?)
         \**(?P<number>{_NUMBER})\**(?:\s?(?P<unit>{_UNIT}))?(?![\w(]|\.\w)
        |(?P<bare>(?<![\w.])[-+]?(?:\d+\.\d\d+|nan|inf))\s+(?=(?:val[ _])?bpb\b(?!\s*[:=]))""",
    re.VERBOSE | re.IGNORECASE,
)
_ASSIGNED = re.compile(r"\S+=\S+\s")
_WORD = re.compile(r"[a-z]+\d*|\d+", re.IGNORECASE)
_FOLLOWING = re.compile(r"[\s(]*([a-z_]+)(\s*[:=])?", re.IGNORECASE)
MOST_PAIRS = 64
"""No report has more on a line."""
LONGEST_NAME_CHARS = 200


@dataclass(frozen=True, slots=True)
class Pair:
    """One number with its name.

    Attributes:
        name: The text before it, since the pair before.
        number: As printed.
        unit: In lower case; empty where none is printed.
        start: Where the name begins in the line.
        follows: The word after it, in lower case.
        of: Whether a stroke and another number follow, as in ``123/456``.
    """

    name: str
    number: str
    unit: str
    start: int
    follows: str
    of: bool

    @property
    def words(self) -> frozenset[str]:
        """Words of the name, in lower case, without settings that are no numbers."""
        return words(_ASSIGNED.sub("", self.name))


def words(text: str) -> frozenset[str]:
    """The words of a text in lower case; ``_``, ``+`` and ``-`` part them."""
    return frozenset(_WORD.findall(text.lower()))


def pairs(text: str) -> list[Pair]:
    """The numbers of a line with their names, in order."""
    found: list[Pair] = []
    end = 0
    for match in _PAIR.finditer(text):
        following = _FOLLOWING.match(text, match.end())
        before = text[end : match.start()]
        start = match.start() - len(before.lstrip(" ,;|"))
        number = match["number"] or match["bare"]
        name = text[max(start, match.start() - LONGEST_NAME_CHARS) : match.start()]
        called = following is not None and following[1].lower() in {"bpb", "val_bpb"}
        if called and following is not None and following[2] is None:
            name = f"{name} bpb"  # 1.0821 bpb
        found.append(
            Pair(
                name=name.rstrip(),
                number=number,
                unit=(match["unit"] or "").lower(),
                start=start,
                follows=following[1].lower() if following else "",
                of=text[match.end() : match.end() + 3].lstrip().startswith("/"),
            )
        )
        end = match.end()
        if len(found) == MOST_PAIRS:
            break
    return found

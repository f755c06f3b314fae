"""Lines of a log that can hold a result, recognised by their shape alone.

A shape is a line without its digits. A log has few of them, so that most of its lines are dropped
by a look-up (`stream`); what is decided by shape must therefore hold for
any digits.
"""

from __future__ import annotations

import re
from enum import Enum

from pgolf_sweep.script.logs import dialects
from pgolf_sweep.script.logs.pairs import pairs
from pgolf_sweep.script.logs.scores import names_score, running

_TELLING = re.compile(
    r"val_|final|stopping_early|params|submission|serialized|size|bytes|budget|artifact|model"
    r"|code|total|blob|seed|batch_tokens|peak|start|begin|traceback|segmentation|killed"
    r"|-{60}|={40}|\*{60}",
    re.IGNORECASE,
)
"""Every line that a dialect reads contains one of these, or begins source code, or is a step's, or
calls some number bpb."""
_STEPPING = re.compile(r"loss\s*[:=]|fitness:| t[:=]", re.IGNORECASE)
"""Every line of a training step contains one of these, or a validation's score."""
_MAY_STEP = re.compile(r"step[: =]|/\d*\s+(?:train|val)_loss", re.IGNORECASE)
"""And every one, but for its digits, says so like this."""
_NO_DIGITS = str.maketrans("", "", "0123456789")
_QUOTED = ('"', "'", "#", "|", "`", "{", "}", 'f"', "f'")
"""What comments, strings and tables begin with: quoted, not reported, but for a score in a table or
in JSON."""


class Shape(Enum):
    """What lines of one shape (a line without its digits) can do to a summary."""

    IDLE = 0
    STEP = 1
    """Training steps: of those with nothing else between them a summary needs the last alone."""
    SCORED_STEP = 2
    """The same with a validation's score."""
    TELLING = 3


def shape_of(text: str) -> Shape:
    """What a line, and any other that differs from it in its digits alone, can do to a summary."""
    starts_code = text.translate(_NO_DIGITS).startswith(dialects.CODE_STARTS)
    may_step = _STEPPING.search(text) is not None and _MAY_STEP.search(text) is not None
    if not (may_step or starts_code or _tells(text)):
        return Shape.IDLE
    bare = _bare(text)
    if bare.startswith((*_QUOTED, *dialects.CODE_STARTS)) or training_step(bare, text) is None:
        return Shape.TELLING
    return Shape.SCORED_STEP if "val_" in bare else Shape.STEP


def readable(line: str) -> str | None:
    """A line's own text, without what launchers put before it; None if it can say nothing."""
    if not _tells(line) and _STEPPING.search(line) is None:
        return None
    text = _bare(line)
    return None if text.startswith(_QUOTED) and not _quoted_score(text) else text


def training_step(text: str, line: str) -> re.Match[str] | None:
    """Where a line names a step of the training.

    Args:
        text: As `readable` gives it.
        line: The whole line, whose tag may name another phase.
    """
    if "stopping_early" in text or (step := dialects.STEP.search(text)) is None:
        return None
    tag = dialects.TAG.match(line)
    if tag and tag[1].lower() not in dialects.TRAINING_TAGS:
        return None
    before = text[: step.start()].lower()
    return None if any(word in before for word in dialects.NOT_TRAINING) else step


def _tells(line: str) -> bool:
    """Whether a line may say something other than a step; its digits have no say in that."""
    if _TELLING.search(line) is not None:
        return True
    return dialects.BPB.search(line) is not None and not running(line.translate(_NO_DIGITS))


def _quoted_score(text: str) -> bool:
    """Whether what begins like a quotation is a table's row, or JSON, with a score in it."""
    scored = text.startswith(("{", "|")) or dialects.JSON_MEMBER.match(text) is not None
    return scored and any(map(names_score, pairs(text)))


def _bare(line: str) -> str:
    """A line without colours and without what launchers and loggers put before it."""
    text = dialects.ANSI.sub("", line).strip() if "\x1b" in line else line.strip()
    prefix = dialects.PREFIX.match(text)
    return text[prefix.end() :] if prefix else text

"""Which lines of a log can say anything, and what their shape alone tells.

A shape is a line without its digits. A log has few of them, so that most of its lines are dropped
by a look-up (`stream`); whatever is decided by shape must therefore hold for
any digits.
"""

from __future__ import annotations

import re
from enum import Enum

from pgolf_sweep.script.logs import dialects

_TELLING = re.compile(
    "|".join(
        (
            *(
                "val_",
                "inal",
                "FINAL",
                "stopping_early",
                "params",
                "ubmission",
                "erialized",
                "size",
                "SIZE",
                "_bytes:",
                "budget:",
            ),
            *("artifact:", "model:", "[Ss]eed", "SEED[=:]", "batch_tokens", "eak"),
            *("-{60}", "={40}", r"\*{60}"),
        )
    )
)
"""Every line that a dialect reads contains one of these, or begins source code, or is a step's, or
calls some number bpb."""
_STEPPING = re.compile("loss[:=]|fitness:| t:")
"""Every line of a training step contains one of these, or a validation's score."""
_MAY_STEP = re.compile(r"step[: ]|/\d*\s+(?:train|val)_loss")
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
    if bare.startswith((*_QUOTED, *dialects.CODE_STARTS)) or training_step(bare) is None:
        return Shape.TELLING
    return Shape.SCORED_STEP if "val_" in bare else Shape.STEP


def readable(line: str) -> str | None:
    """A line's own text, without what launchers put before it; None if it can say nothing."""
    if not _tells(line) and _STEPPING.search(line) is None:
        return None
    text = _bare(line)
    return None if text.startswith(_QUOTED) and not _quoted_score(text) else text


def training_step(text: str) -> re.Match[str] | None:
    """Where a line names a step of the training."""
    if "stopping_early" in text or (step := dialects.STEP.search(text)) is None:
        return None
    before = text[: step.start()].lower()
    return None if any(word in before for word in dialects.NOT_TRAINING) else step


def running(text: str) -> bool:
    """Whether what stands before a score says that it is not the last word."""
    return dialects.PROGRESS.search(text) is not None and "final" not in text.lower()


def _tells(line: str) -> bool:
    """Whether a line may say something other than a step; its digits have no say in that."""
    if _TELLING.search(line) is not None:
        return True
    return dialects.BPB.search(line) is not None and not running(line.translate(_NO_DIGITS))


def _quoted_score(text: str) -> bool:
    """Whether what begins like a quotation is a table's row, or JSON, with a score in it."""
    scored = text.startswith(("{", "|")) or dialects.JSON_MEMBER.match(text) is not None
    return scored and dialects.LOOKS_FINAL.search(text) is not None


def _bare(line: str) -> str:
    """A line without colours and without what launchers and loggers put before it."""
    text = dialects.ANSI.sub("", line).strip() if "\x1b" in line else line.strip()
    prefix = dialects.PREFIX.match(text)
    return text[prefix.end() :] if prefix else text

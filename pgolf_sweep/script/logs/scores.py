"""Final scores: what the words of a line say of the number that it calls bpb."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from pgolf_sweep.script.logs.pairs import words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgolf_sweep.script.logs.pairs import Pair


class ScoreKind(StrEnum):
    """What a labelled score is worth."""

    RUNNING = "running"
    """A value in the middle of an evaluation, or a difference of two: nothing."""
    BARRED = "barred"
    """A score that the rules do not count, or of another model or other data: kept by name, never
    the trial's value."""
    PREQUANT = "prequant"
    """Before the round trip."""
    DIAGNOSTIC = "diagnostic"
    """After the round trip, on the way to another evaluation: final if none begins after it."""
    FINAL = "final"
    """After the round trip; the last one is the trial's value."""
    UNKNOWN = "unknown"
    """No word says it: reported, never taken."""


@dataclass(frozen=True, slots=True)
class Score:
    """One score of a line that belongs to no training step.

    Attributes:
        kind: What it is worth.
        label: What stands before it, without settings.
        number: Bits per byte as printed.
        loss: Nats per token as printed, or None.
        eval_time: Duration and its unit, or None.
    """

    kind: ScoreKind
    label: str
    number: str
    loss: str | None
    eval_time: tuple[str, str] | None
    standard: bool = True
    """Whether it is called ``val_bpb``, as in the baseline, and nothing more."""


MOST_WORDS = 12
"""Before a number in a report; more make a sentence about it."""
_BARRED = frozenset({"illegal", "oracle", "cheat", "cheating", "teacher", "subset"})
_TRAINING = frozenset({"train", "training", "trainset"})
_NOT_OF_TRAINING = frozenset({"time", "post", "test", "quant"})
"""``test_time_training`` and ``post_training_quant`` are no scores of training data."""
_UN = r"(?<![a-z])(?:pre|un|non|not|no|before|without)[-_ ]*(?:the[-_ ])?"
_UNQUANTIZED = re.compile(rf"{_UN}(?:quant|round[-_ ]?trip|ptq|gptq|compress)")
_POST_TRAIN = re.compile(r"(?<![a-z])(?:post|after)[-_ ]*(?:train|training)(?![a-z])")
_AFTER = re.compile(
    r"(?:de|post)?quant(?:ized|ised|ization|isation)?|roundtrip|trip|q?int\d+|fp[48]|nf4|ternary"
    r"|binary|gptq|awq|zlib|zstd\d*|lzma|brotli|ttt|sliding|window|slot\d*|ngram\d*|ppm\d*|mixer"
    r"|mix|knn|cache|etlb|legal|distilled|lora|calibrated|realigned|sw|adapted"
)
_BEFORE = words("fp32 fp16 bf16 float float32 raw ema swa average averaged avg")
_FINAL = frozenset({"final", "exact", "submission", "result", "test"})
_DIAGNOSTIC = words(
    "diagnostic diagnostics diag candidate control reference ablation sanity baseline "
    "old prev previous"
)
_DIFFERENCE = words(
    "delta gain gap diff difference improvement improved penalty vs wins by loses beats"
)
_MINUS = ("-", "\N{MINUS SIGN}")
_ALONE = re.compile(r"\W*val[ _]bpb\s*[:=]\s*[\d.]+\W*", re.IGNORECASE)
"""A line that is nothing but its score."""
_RUNNING = re.compile(
    r"\b(?:(?:progress|chunk|batch|(?<!sliding\ )window|warmup|epoch|doc|pass)\b|running"
    r"|(?:ttt_progress|ttt_chunk|sliding_eval|\w+_diagnostics)\b)",
    re.IGNORECASE | re.ASCII,
)
_PARTWAY = re.compile(r"\[\s*\d+(?:\.\d+)?\s*(?:%|/\s*\d+)\s*\]|\b\d+/\d+\b")
_NOISE = re.compile(r"(?:\s+\w+[:=][\w.]+)*[\s:,|>=-]*$")
"""Settings and punctuation between a label and its score, such as ``stride:64``."""
_SCORE_NAME = re.compile(r"(?:val[ _-]?)?(?:bpb|bits[ _/-](?:per[ _-])?byte)\b.*$", re.IGNORECASE)
_BPB = re.compile(r"bpb\b|bits[ _/-](?:per[ _-])?byte", re.IGNORECASE)
_LOSS_NAME = re.compile(r"val[ _]loss$|(?<!train)(?<!train[ _])\bloss$", re.IGNORECASE)
_TIMES = frozenset({"eval_time", "time", "elapsed", "eval"})
_DONE = re.compile(r"[: ](?:done|DONE)\b")


def running(text: str) -> bool:
    """Whether what stands before a score says that it is not the last word."""
    return _RUNNING.search(text) is not None and "final" not in text.lower()


def names_score(pair: Pair) -> bool:
    """Whether a number is called bpb, and is no difference of two."""
    return _BPB.search(pair.name) is not None and not pair.words & _DIFFERENCE


def score(text: str, pairs: Sequence[Pair]) -> Score | None:
    """The score that a line reports; None where it has none, or several of equal right."""
    scores = [pair for pair in pairs if names_score(pair)]
    exact = [p for p in scores if re.search(r"val[ _]bpb$", p.name, re.IGNORECASE)]
    chosen = exact[:1] or (scores if len(scores) == 1 else [])
    if not chosen:
        return None
    found = chosen[0]
    loss = next((p for p in pairs if _LOSS_NAME.search(p.name)), None)
    first = min(found.start, loss.start) if loss is not None else found.start
    head = text[:first] + _head(found if first == found.start else loss or found)
    label = _label(head)
    said = f"{head} {found.name[-80:]}"
    clock = next((p for p in pairs if p.name.rpartition(" ")[2].lower() in _TIMES), None)
    timed = clock is not None and clock.start > found.start
    quoted = text.startswith(("{", "|", '"', "'"))  # a table's row or JSON repeats a score
    kind = _kind(said, timed=timed, named=bool(label), number=found.number)
    if kind is ScoreKind.UNKNOWN and _ALONE.fullmatch(text):
        kind = ScoreKind.DIAGNOSTIC
    if not exact and len(head.split()) > MOST_WORDS:
        kind = ScoreKind.UNKNOWN  # a sentence
    if kind is ScoreKind.FINAL and not (exact or words(said) & _FINAL):
        kind = ScoreKind.DIAGNOSTIC  # sliding_bpb: one of a list, which has its own final score
    return Score(
        kind=ScoreKind.UNKNOWN if quoted else kind,
        label=label or " ".join(found.name.split())[-80:],
        number=found.number,
        loss=None if loss is None else loss.number,
        eval_time=None if clock is None or not timed else (clock.number, clock.unit),
        standard=bool(exact),
    )


def _head(pair: Pair) -> str:
    """What a pair's name holds beside the name of a score or of a loss."""
    return re.sub(r"val[ _]loss$|\bloss$", "", _SCORE_NAME.sub("", pair.name), flags=re.IGNORECASE)


def _label(head: str) -> str:
    bare = _DONE.sub("", _NOISE.sub("", head[-160:]))
    return " ".join(bare.strip(" *=#-|>[](),:_").split())[-80:]


def _kind(said: str, *, timed: bool, named: bool, number: str) -> ScoreKind:
    low = said.lower()
    found = words(low)
    after = any(_AFTER.fullmatch(word) for word in found)
    if running(said) or found & _DIFFERENCE or number.startswith(_MINUS):
        return ScoreKind.RUNNING
    if _PARTWAY.search(said) and not found & _FINAL:
        return ScoreKind.UNKNOWN
    if _POST_TRAIN.search(low) and not after:
        return ScoreKind.PREQUANT
    if found & _BARRED or (found & _TRAINING and not found & _NOT_OF_TRAINING):
        return ScoreKind.BARRED
    if _UNQUANTIZED.search(low):
        return ScoreKind.PREQUANT
    if after or (found & _FINAL and not found & _BEFORE):
        return ScoreKind.DIAGNOSTIC if found & _DIAGNOSTIC else ScoreKind.FINAL
    if found & _BEFORE:
        return ScoreKind.PREQUANT
    if timed and named:
        return ScoreKind.DIAGNOSTIC if found & _DIAGNOSTIC else ScoreKind.FINAL
    return ScoreKind.UNKNOWN

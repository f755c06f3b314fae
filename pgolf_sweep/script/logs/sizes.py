"""Bytes of code, model and both together, by the words with which a script names them."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING

from pgolf_sweep.script.logs.pairs import words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgolf_sweep.script.logs.pairs import Pair


class Part(StrEnum):
    """What a number of bytes is of."""

    CODE = "code"
    PLAIN_CODE = "plain_code"
    """The script before it was packed."""
    MODEL = "model"
    """Compressed, as its name says."""
    ANY_MODEL = "any_model"
    """No codec is named: the checkpoint, unless nothing else comes."""
    CHECKPOINT = "checkpoint"
    """``Serialized model`` without a codec: the checkpoint, in the words of the baseline."""
    TOTAL = "total"
    LOOSE_TOTAL = "loose_total"
    """A total of something: of the submission, if its parts are known and it is no less."""
    CODEC_TOTAL = "codec_total"
    """A total that names its codec."""
    ARTIFACT = "artifact"
    """The model, or all of it: the other numbers of the log decide."""


@dataclass(frozen=True, slots=True)
class Size:
    """So many bytes of a part."""

    part: Part
    bytes: int


_BYTES = frozenset({"bytes", "byte", "b"})
_OTHER = words(
    # Sizes of something else, and numbers that are no sizes.
    "payload raw limit target cap max maximum remaining headroom margin checkpoint cache peak "
    "param params parameters tokens token window windows category bigram ngram table "
    "estimated estimate est over excess saved free wrapper loaded header preview candidate "
    "try tensor unpruned shard vocab memory gpu exit exitcode status return error "
    "uncompressed ratio steps step loss time batch seq proxy hash header frame before under "
    "prefix candidates prune"
)
_OTHER_AFTER = frozenset({"params", "parameters", "param", "tokens", "layers"})
_CODEC = re.compile(
    r"(?:zlib|zstd|zstandard|lzma|xz|brotli|brot|bz2|lrzip|pergroup|r?ans|gzip|deflate"
    r"|u?int|fp|nf|q|ternary|binary|bit|gptq|awq|quant|quantized|mixed|compressed|export)\d*"
)
_CHECKPOINTS = frozenset({"raw", "uncompressed", "checkpoint", "payload", "table"})
_MODEL = frozenset({"model", "blob", "serialized", "weights", "compressed"})
_PLAIN = words("serialized model size sizes bytes byte b file total submission artifact")
"""Words of a size that name no codec."""


def sizes(pairs: Sequence[Pair]) -> list[Size]:
    """The bytes that one line reports, each with its part."""
    named = [(pair, pair.words) for pair in pairs if _whole(pair)]
    roles = [_role(pair, said) for pair, said in named]
    together = len({role for role in roles if role is not None}) > 1
    if together:
        roles = [Part.TOTAL if role is Part.LOOSE_TOTAL else role for role in roles]
    if Part.PLAIN_CODE in roles:  # code: raw=9000 compressed=3000
        squeezed = [said == {"compressed"} for _, said in named]
        roles = [Part.CODE if one else role for one, role in zip(squeezed, roles, strict=True)]
    raw = any(
        role is None and "raw" in said and said & _MODEL
        for role, (_, said) in zip(roles, named, strict=True)
    )
    found: list[Size] = []
    for (pair, said), role in zip(named, roles, strict=True):
        against_cap = pair.of and said & {"budget", "check"}
        sized = bool(pair.unit in _BYTES or said & {"bytes", "byte", "size"} or against_cap)
        last = pair is pairs[-1]
        if role is None or not (sized or together or (role is Part.CODE and last)):
            continue
        part = role
        if part is Part.ARTIFACT and roles.count(Part.TOTAL) + roles.count(Part.CODEC_TOTAL):
            part = Part.MODEL
        if part is Part.TOTAL and raw:
            continue
        found.append(Size(part, int(re.sub("[,_]", "", pair.number)[:18])))
    return found


def _whole(pair: Pair) -> bool:
    return pair.number[0].isdecimal() and not set(pair.number) & set(".eE") and (
        pair.unit in {"", *_BYTES}
    )  # fmt: skip


def _role(  # noqa: C901 - the order in which words overrule each other
    pair: Pair, said: frozenset[str]
) -> Part | None:
    if (pair.follows in _OTHER_AFTER and pair.unit == "") or '"' in pair.name:
        return None
    codec = any(_CODEC.fullmatch(word) for word in said)
    more = any(word not in _PLAIN and not word.isdecimal() for word in said - {"code"})
    if "code" in said and not said & {"total", "submission"}:
        if said & (_OTHER - {"raw", "uncompressed", "before"}) or said & {"artifact"}:
            return None
        return Part.PLAIN_CODE if said & {"raw", "uncompressed", "before"} else Part.CODE
    if "budget" in said and pair.of:
        return Part.CODEC_TOTAL
    if said & (_CHECKPOINTS if "serialized" in said else _OTHER):
        return None
    if said & {"total", "submission"}:
        if not said & {"submission", "artifact", "size"}:
            return Part.LOOSE_TOTAL
        return Part.CODEC_TOTAL if more else Part.TOTAL
    if said == {"size"} and pair.follows == "limit":
        return Part.CODEC_TOTAL
    if {"size", "check"} <= said and pair.of:
        return Part.CODEC_TOTAL
    if "artifact" in said:
        return Part.MODEL if codec else Part.ARTIFACT
    if "blob" in said or (codec and (said & _MODEL or pair.unit)):
        return Part.MODEL
    if "serialized" in said:
        return Part.MODEL if more else Part.CHECKPOINT
    return Part.ANY_MODEL if said & _MODEL else None


LEAST_CHECKPOINT_BYTES = 1.9
"""Bytes a parameter of a checkpoint, 16 bits and more, and above those of any compressed model."""


@dataclass(slots=True)
class SizesSeen:
    """The sizes that a run has reported so far, the last of each part."""

    code: int | None = None
    plain_code: int | None = None
    model: int | None = None
    any_model: int | None = None
    checkpoint: int | None = None
    total: int | None = None
    loose_total: int | None = None
    codec_total: int | None = None
    artifact: int | None = None

    @property
    def empty(self) -> bool:
        """Whether none was reported."""
        return all(getattr(self, field.name) is None for field in fields(self))

    def take(self, line: Sequence[Pair]) -> None:
        """Take what one line reports."""
        for size in sizes(line):
            part = size.part
            if part is Part.TOTAL and self.model is not None:
                part = Part.CODEC_TOTAL  # a compressed model is known: it is no checkpoint's
            setattr(self, part.value, size.bytes)

    def answer(self, model_params: int | None) -> tuple[int | None, int | None, int | None]:
        """Bytes of code, model and both, as far as the log decides them."""
        code = self.plain_code if self.code is None else self.code
        model, total = self.model, self.codec_total
        if total is None and self.total is not None and not self._of_checkpoint(code, model_params):
            total = self.total
        if self.artifact is not None:
            if model is None and total is not None and self.artifact + (code or 0) == total:
                model = self.artifact
            elif total is None:
                total = self.artifact
        if (
            model is None
            and self.any_model is not None
            and not _large(self.any_model, model_params)
        ):
            model = self.any_model
        parts = (code or 0) + (model or 0)
        if total is None and self.loose_total is not None and 0 < parts <= self.loose_total:
            total = None if _large(self.loose_total, model_params) else self.loose_total
        if code is not None:
            if model is None and total is not None:
                model = total - code
            elif total is None and model is not None:
                total = model + code
        return code, model, total

    def _of_checkpoint(self, code: int | None, model_params: int | None) -> bool:
        """Whether the total without a codec is that of the checkpoint."""
        if _large(self.total or 0, model_params):
            return True
        raw = self.checkpoint
        if raw is None or (model_params is not None and not _large(raw, model_params)):
            return False
        return code is None or raw + code == self.total


def _large(model_bytes: int, model_params: int | None) -> bool:
    return model_params is not None and model_bytes >= LEAST_CHECKPOINT_BYTES * model_params

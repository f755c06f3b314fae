"""Bytes per token: the constant that ties bits per byte to nats per token.

``val_loss / (val_bpb ln 2)`` is the mean bytes of a validation token. One tokenizer on one text has
one such number for any model, so that a score whose bytes were counted wrongly shows itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgolf_sweep.core.trial import LogSummary

KNOWN_BYTES_PER_TOKEN = {
    "sp1024": 2.4359,
    "sp4096": 3.3195,
    "sp8192": 3.7265,
    "sp8192 CaseOps": 3.1574,
    "bytes": 1.0,
}
"""On the contest's validation set (150 logs of merged records, each within 0.02 %)."""

VALIDATION_BYTES = 151_080_891
"""Text of that set: a log that prints its tokens ties them to their bytes."""

NEAR = 0.005
"""Relative distance up to which a number is a known one: an older export of the set, 63.8 M tokens
of sp1024 instead of 62.0 M, has 2.4423. Tokenizers lie 15 % and more apart."""

PART_TOLERANCE = 0.08
"""Against a validation that may be of a part of the text."""
TRIAL_TOLERANCE = 0.02
"""Of a trial's own scores, which may come of a part of the validation set, in four digits."""


def bytes_per_token(val_loss_nats: float | None, val_bpb: float | None) -> float | None:
    """Mean bytes of a token that two scores imply; None where they cannot be scores."""
    if val_loss_nats is None or val_bpb is None or not (val_loss_nats > 0 and val_bpb > 0):
        return None
    found = val_loss_nats / (val_bpb * math.log(2))
    return found if math.isfinite(found) else None


def nearest(found: float) -> tuple[str, float] | None:
    """Name and constant of the known tokenizer that a number belongs to; None if it is none's."""
    name, known = min(KNOWN_BYTES_PER_TOKEN.items(), key=lambda item: abs(found / item[1] - 1))
    return (name, known) if abs(found / known - 1) <= NEAR else None


def known_for(dataset: str) -> float | None:
    """The constant of a published data set by its name or path, or None."""
    low = dataset.lower()
    if "fineweb" not in low:
        return None
    if "caseops" in low or "lossless_caps" in low:
        return KNOWN_BYTES_PER_TOKEN["sp8192 CaseOps"] if "8192" in low else None
    found = [name for name in ("sp1024", "sp4096", "sp8192") if name[2:] in low]
    if "byte260" in low or "byte256" in low:
        found.append("bytes")
    return KNOWN_BYTES_PER_TOKEN[found[0]] if len(found) == 1 else None


def inconsistent(summary: LogSummary, expected: float | None = None) -> str:
    """Why a run's final score and loss are not of one measurement; empty where they may be.

    Args:
        summary: What the log says.
        expected: Bytes per token of the data set, where they are known.
    """
    found = bytes_per_token(summary.val_loss_nats, summary.val_bpb)
    before = bytes_per_token(summary.val_loss_nats_prequant, summary.val_bpb_prequant)
    for other, name, tolerance in (
        (expected, "the data set has", TRIAL_TOLERANCE),
        (before, "the score before it has", PART_TOLERANCE),
    ):
        if found is not None and other is not None and abs(found / other - 1) > tolerance:
            return (
                f"val_bpb {summary.val_bpb:g} and val_loss {summary.val_loss_nats:g} ask for "
                f"{found:.4f} bytes per token, {name} {other:.4f}"
            )
    return ""

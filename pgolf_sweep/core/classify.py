"""From how a run ended to what that means for its trial: a pure function, one case a cause."""

from __future__ import annotations

import math
import re
import signal
from typing import TYPE_CHECKING

from pgolf_sweep.core.trial import (
    Completed,
    EndCause,
    Failed,
    FailureCode,
    FailureKind,
    Pruned,
)
from pgolf_sweep.core.yardstick import inconsistent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgolf_sweep.core.trial import Outcome, RunEnd

_OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|MemoryError|Cannot allocate memory|not enough memory"
)
_ASKED_FOR = re.compile(r"tried to allocate ([\d.]+ ?\w+)", re.IGNORECASE)
_DISK_REFUSED = re.compile(r"No space left on device|Disk quota exceeded")
_EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)\b")

# What torchrun says last of all: how the rank that was the first to fail ended.
_RANK_ENDED = re.compile(r"^\s*exitcode\s*:\s*(-?\d+) \(pid")

# Signals that someone else's machinery sends: the kernel's out-of-memory killer, a scheduler that
# preempts, an operator. Any other signal (SIGSEGV, SIGABRT) is the script's own doing.
_OUTSIDE_SIGNALS = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


LEAST_BPB = 0.1
"""No model of text compresses it further; the best large ones are above 0.5."""
BYTES_PER_TOKEN = (0.9, 32.0)
"""Of any tokenizer and text, with room: bytes have 1, vocabularies of 200,000 pieces about 5."""


def impossible_score(val_bpb: float, val_loss_nats: float | None) -> str:
    """Why a score cannot be true, in a sentence; empty where it can.

    Loss and score are the same measurement: their ratio, loss / (bpb ln 2), is the tokenizer's
    bytes per token on the validation text.
    """
    if val_bpb < LEAST_BPB:
        return f"val_bpb {val_bpb:g} cannot be: no model of text is below {LEAST_BPB}"
    if val_loss_nats is None or not math.isfinite(val_loss_nats):
        return ""
    ratio = val_loss_nats / (val_bpb * math.log(2))
    low, high = BYTES_PER_TOKEN
    if low <= ratio <= high:
        return ""
    return (
        f"val_bpb {val_bpb:g} and val_loss {val_loss_nats:g} cannot both be: they ask for "
        f"{ratio:.3g} bytes per token"
    )


def classify(
    end: RunEnd,
    *,
    last_val_bpb: float | None,
    last_step: int | None,
    bytes_per_token: float | None = None,
    contest: bool = True,
) -> Outcome:
    """What the end of a run means.

    Args:
        end: How the run ended.
        last_val_bpb: Last intermediate score that was reported.
        last_step: Its training step.
        bytes_per_token: Of the data set, where it is known.
        contest: Whether the score is bits per byte; any finite number is a score of another metric.

    Returns:
        Completed, Pruned, or Failed with the party to blame.
    """
    match end.cause:
        case EndCause.EXITED:
            return _exited(end, bytes_per_token, contest=contest)
        case EndCause.PRUNED:
            return Pruned(val_bpb=last_val_bpb, step=last_step, reason=end.detail)
        case EndCause.SIGNALED:
            number = -end.exit_code if end.exit_code is not None and end.exit_code < 0 else 0
            return _signaled(end, number)
        case (
            EndCause.TIMEOUT
            | EndCause.SILENT
            | EndCause.MISSING_DEPENDENCY
            | EndCause.FOLDER_REMOVED
        ):
            code = FailureCode(end.cause.value)
            return _failed(FailureKind.DETERMINISTIC, code, end.detail, end)
        case (
            EndCause.CANCELLED
            | EndCause.SETUP
            | EndCause.LOST
            | EndCause.OUTPUT_WRITE_FAILED
            | EndCause.PREEMPTED
        ):
            code = FailureCode(end.cause.value)
            return _failed(FailureKind.INFRASTRUCTURE, code, end.detail or end.cause.value, end)


def infrastructure_failure(end: RunEnd) -> Failed | None:
    """The failure of an end that says nothing of its script, which may run again; else None.

    The one rule of what is tried again: a sweep, a promotion and a rerun ask it.
    """
    outcome = classify(end, last_val_bpb=None, last_step=None)
    blamed = isinstance(outcome, Failed) and outcome.kind is FailureKind.INFRASTRUCTURE
    return outcome if blamed and isinstance(outcome, Failed) else None


def artifact_bytes(end: RunEnd) -> int | None:
    """Bytes of code plus model: what the log claims, else the model file plus the code.

    The larger of two answers counts: a log that claims less than the file on disk is wrong.
    """
    summary = end.summary
    answers = []
    if summary.total_bytes is not None:
        answers.append(summary.total_bytes)
    if summary.code_bytes is not None:
        answers += [
            model + summary.code_bytes
            for model in (summary.model_bytes, end.model_file_bytes)
            if model is not None
        ]
    return max(answers, default=None)


def _exited(end: RunEnd, bytes_per_token: float | None, *, contest: bool) -> Outcome:
    score = end.summary.val_bpb
    if end.exit_code != 0:
        if any(_OUT_OF_MEMORY.search(line) for line in end.log_tail):
            reason = _out_of_memory(end.log_tail)
            return _failed(FailureKind.DETERMINISTIC, FailureCode.OUT_OF_MEMORY, reason, end)
        if end.summary.non_finite:
            return _failed(
                FailureKind.DETERMINISTIC,
                FailureCode.NOT_FINITE,
                "a loss was not finite (NaN or inf)",
                end,
            )
        refusals = [line.strip() for line in end.log_tail if _DISK_REFUSED.search(line)]
        if refusals:
            reason = f"the node's disk refused: {refusals[-1][:300]}"
            return _failed(FailureKind.INFRASTRUCTURE, FailureCode.DISK_FULL, reason, end)
        rank_exit = _first_failed_rank(end)
        if rank_exit < 0:
            return _signaled(end, -rank_exit, who="a rank was killed")
        return _failed(
            FailureKind.DETERMINISTIC,
            FailureCode.EXIT_CODE,
            f"exit code {end.exit_code}: {_last_word(end)}",
            end,
        )
    if score is not None and math.isfinite(score):
        if contest and (why := _impossible(end, score, bytes_per_token)):
            return _failed(FailureKind.DETERMINISTIC, FailureCode.IMPOSSIBLE_SCORE, why, end)
        return Completed(val_bpb=score, artifact_bytes=artifact_bytes(end))
    if end.summary.non_finite or score is not None:
        return _failed(
            FailureKind.DETERMINISTIC,
            FailureCode.NOT_FINITE,
            "a loss was not finite (NaN or inf)",
            end,
        )
    if end.summary.unread_finals:
        line = end.summary.unread_finals[-1]
        reason = f"its final score is on a line that no dialect reads: {line!r}"
        return _failed(FailureKind.DETERMINISTIC, FailureCode.NO_SCORE, reason, end)
    return _failed(
        FailureKind.DETERMINISTIC,
        FailureCode.NO_SCORE,
        "exited without printing a final score",
        end,
    )


def _impossible(end: RunEnd, score: float, bytes_per_token: float | None) -> str:
    why = impossible_score(score, end.summary.val_loss_nats)
    return why or inconsistent(end.summary, bytes_per_token)


def _out_of_memory(lines: Sequence[str]) -> str:
    """What an allocator refused, and what to lower."""
    asked = [found.group(1) for line in lines if (found := _ASKED_FOR.search(line))]
    wanted = f", asked for {asked[0]}" if asked else ""
    return (
        f"out of memory{wanted}: lower the tokens of a step on one GPU (batch tokens, or more "
        "gradient accumulation), the sequence length, width or depth"
    )


def _first_failed_rank(end: RunEnd) -> int:
    """Exit code of the rank that torchrun names as the cause; zero if it names none."""
    found = [match for line in end.log_tail if (match := _RANK_ENDED.match(line))]
    return int(found[-1].group(1)) if found else 0


def _signaled(end: RunEnd, number: int, *, who: str = "killed") -> Failed:
    if _OUT_OF_MEMORY.search(end.detail):
        reason = _out_of_memory((end.detail,))
        return _failed(FailureKind.DETERMINISTIC, FailureCode.OUT_OF_MEMORY, reason, end)
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = "an unknown signal"
    outside = number in _OUTSIDE_SIGNALS
    kind = FailureKind.INFRASTRUCTURE if outside else FailureKind.DETERMINISTIC
    return _failed(kind, FailureCode.SIGNAL, f"{who} by {name}", end)


def _last_word(end: RunEnd) -> str:
    """The line that says most about a crash: the exception's, else the log's last."""
    lines = [line.strip() for line in end.log_tail if line.strip()]
    for line in reversed(lines):
        if _EXCEPTION.match(line):
            return line[:300]
    return lines[-1][:300] if lines else "no output"


def _failed(kind: FailureKind, code: FailureCode, reason: str, end: RunEnd) -> Failed:
    return Failed(kind=kind, code=code, reason=reason, log_tail=end.log_tail)

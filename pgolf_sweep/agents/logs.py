"""A trial's log in a few numbers, and the script's own line where it failed."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from pgolf_sweep.agents.answers import CurvePoint, LogsAnswer
from pgolf_sweep.core.paths import MOST_JSON_BYTES, read_regular
from pgolf_sweep.core.record import State
from pgolf_sweep.core.secrets import visible
from pgolf_sweep.script.logs.stream import read_log
from pgolf_sweep.script.logs.tail import log_tail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgolf_sweep.core.paths import TrialPaths
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.core.trial import StepReport

MOST_POINTS = 24
MOST_TAIL_LINES = 12
MOST_LINE_CHARS = 240
_FRAME = re.compile(r'^\s*(?:\[?\w+\]?:\s*)?File "([^"]+)", line (\d+)')


def summarised(record: TrialRecord, folder: TrialPaths, *, script: str) -> LogsAnswer:
    """What a trial's log says.

    Args:
        record: The trial.
        folder: Its files.
        script: File name of its program.
    """
    log = folder.log if folder.log.is_file() else folder.live_log
    data = b""
    with suppress(OSError):
        data = read_regular(log, MOST_JSON_BYTES)
    summary, reports = read_log(data)
    without_score = record.outcome is State.FAILED or (
        record.outcome.final and record.val_bpb is None
    )
    tail = log_tail(log) if without_score else ()
    line, code = _own_line(tail, folder, script)
    before = summary.val_bpb_prequant
    gap = None if before is None or summary.val_bpb is None else summary.val_bpb - before
    number = record.number
    if line is not None:
        next_step = f"fix line {line} of {script} and propose it again"
    elif without_score:
        next_step = "read `tail`, change the program or the knobs, and propose again"
    else:
        next_step = f"compare trial {number} with its parent"
    return LogsAnswer(
        trial=number,
        outcome=record.outcome.value,
        curve=_thinned(reports),
        steps=summary.steps,
        step_avg_ms=summary.step_avg_ms,
        train_seconds=summary.train_seconds,
        eval_seconds=summary.eval_seconds,
        peak_memory_mib=summary.peak_memory_mib,
        val_bpb=summary.val_bpb,
        val_bpb_prequant=before,
        quantization_gap_bpb=gap,
        model_bytes=summary.model_bytes,
        artifact_bytes=record.artifact_bytes,
        error=_shown(_error(tail) or (record.reason if without_score else "")),
        error_line=line,
        error_code=_shown(code),
        tail=[_shown(text) for text in tail[-MOST_TAIL_LINES:]],
        next_step=next_step,
    )


def _thinned(reports: Sequence[StepReport]) -> list[CurvePoint]:
    """Evenly spaced reports; those of a validation come first where there are too many."""
    chosen = list(reports)
    if len(chosen) > MOST_POINTS:
        validations = [report for report in chosen if report.val_bpb is not None]
        chosen = validations if len(validations) >= MOST_POINTS // 2 else chosen
    if len(chosen) > MOST_POINTS:
        last = len(chosen) - 1
        places = sorted({round(at * last / (MOST_POINTS - 1)) for at in range(MOST_POINTS)})
        chosen = [chosen[place] for place in places]
    return [
        CurvePoint(
            step=report.step,
            train_seconds=report.train_seconds,
            train_loss_nats=report.train_loss_nats,
            val_bpb=report.val_bpb,
        )
        for report in chosen
    ]


def _error(tail: Sequence[str]) -> str:
    """The line that a traceback ends with: the last one without an indent after a frame."""
    frames = [at for at, text in enumerate(tail) if _FRAME.match(text)]
    if not frames:
        return ""
    after = (text for text in tail[frames[-1] + 1 :] if text.strip() and not text.startswith(" "))
    return next(after, "")


def _own_line(tail: Sequence[str], folder: TrialPaths, script: str) -> tuple[int | None, str]:
    """Number and text of the innermost line of the script's own files in a traceback."""
    for text in reversed(tail):
        match = _FRAME.match(text)
        if match is not None and match[1].replace("\\", "/").endswith(f"/{script}"):
            number = int(match[2])
            with suppress(OSError, UnicodeDecodeError, IndexError):
                lines = (folder.root / script).read_text().splitlines()
                return number, lines[number - 1].strip()
            return number, ""
    return None, ""


def _shown(text: str) -> str:
    return visible(text)[:MOST_LINE_CHARS]

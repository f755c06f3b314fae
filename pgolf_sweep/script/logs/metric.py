"""A metric of any name from a script's log, and from what it hands to ``wandb.log``."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.trial import StepReport
from pgolf_sweep.script.logs.dialects import ANSI, NUMBER
from pgolf_sweep.script.logs.stream import LONGEST_LINE_BYTES, LogStream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgolf_sweep.core.trial import LogSummary, Metric

_STEP = re.compile(
    r"\b_?(?:global_)?(?:step|iter(?:ation)?|epoch)s?\b[\"']?\s*[:= ]\s*(\d+)", re.IGNORECASE
)


class MetricStream:
    """Reads one log for one metric: the last number under its name is the trial's value.

    Read are ``name: 1.2``, ``name=1.2`` and JSON members, or the metric's own pattern. What the
    contest's dialects know besides (bytes, parameters, training steps) is kept.

    Args:
        metric: What to look for.
    """

    def __init__(self, metric: Metric) -> None:
        name = re.escape(metric.name)
        text = metric.pattern or rf"(?<![\w./-]){name}[\"']?\s*[:=]\s*((?i:{NUMBER}))(?![\w.]*\()"
        self._pattern = re.compile(text)
        self._needle = b"" if metric.pattern else metric.name.encode()
        self._name = metric.name
        self._log = LogStream()
        self._rest = b""
        self._count = 0
        self._last: float | None = None

    def feed(self, data: bytes) -> list[StepReport]:
        """Take the next bytes, cut anywhere, and report the progress that full lines show."""
        reports = [_unscored(report) for report in self._log.feed(data)]
        data = self._rest + data.replace(b"\r", b"\n")
        cut = data.rfind(b"\n") + 1
        block, self._rest = data[:cut], data[cut:][-LONGEST_LINE_BYTES:]
        return [one for one in reports if one is not None] + self._read(block)

    def logged(self, values: Mapping[str, Any], step: int | None = None) -> StepReport | None:
        """Take what the script handed to ``wandb.log``."""
        value = values.get(self._name)
        if not isinstance(value, int | float):
            return None
        return self._found(float(value), step)

    def end(self, *, complete: bool) -> StepReport | None:
        """Take the last line if it has no end."""
        self._log.end(complete=complete)
        rest, self._rest = self._rest, b""
        found = self._read(rest)
        return found[-1] if found else None

    def summary(self) -> LogSummary:
        """What the log has said so far, the metric in the place of the contest's score."""
        said = self._log.summary()
        lost = self._last is not None and not math.isfinite(self._last)
        return replace(
            said,
            val_bpb=self._last,
            val_loss_nats=None,
            val_bpb_prequant=None,
            val_loss_nats_prequant=None,
            finals={} if self._last is None else {self._name: self._last},
            non_finite=lost or (self._last is None and said.non_finite),
            unread_finals=(),
            over_cap=None,
            exported={},
        )

    def _read(self, block: bytes) -> list[StepReport]:
        if self._needle not in block:
            return []
        reports = []
        for line in block.split(b"\n"):
            if self._needle not in line or len(line) > LONGEST_LINE_BYTES:
                continue
            text = ANSI.sub("", line.decode(errors="replace"))
            found = list(self._pattern.finditer(text))
            number = _number(found[-1][1]) if found else None
            if number is not None:
                step = _STEP.search(text)
                reports.append(self._found(number, int(step[1]) if step else None))
        return reports

    def _found(self, value: float, step: int | None) -> StepReport:
        self._count += 1
        self._last = value
        # A pruner passes over step 0; a metric of any kind may well be logged first at epoch 0.
        return StepReport(step=step or self._count, val_bpb=value)


def logged_line(line: bytes) -> tuple[dict[str, Any], int | None]:
    """Values and step of one line that the script's ``wandb.log`` left; empty if it is none."""
    try:
        document = json.loads(line)
        return dict(document["values"]), document.get("step")
    except (ValueError, KeyError, TypeError):
        return {}, None


def _unscored(report: StepReport) -> StepReport | None:
    """A training step's report without a score of the contest."""
    if report.train_loss_nats is None and report.train_seconds is None:
        return None
    return replace(report, val_bpb=None, val_loss_nats=None)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text.replace(",", ""))
    except ValueError:
        return None

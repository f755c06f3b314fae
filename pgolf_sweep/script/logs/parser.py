"""A script's log as facts: progress while it runs, scores and bytes when it is over.

`LogParser` reads line by line; `pgolf_sweep.script.logs.stream` gives it those that can say
something. What the lines look like is data, in `pgolf_sweep.script.logs.dialects`.

Three rules decide what counts:

* Logs of the contest begin with their script's source. Its format strings hold no numbers, and
  whatever sample output it holds is undone at the rule of ``=`` that ends it. A rule undoes no
  result that was read after the last lines of source: it may as well end a report.
* Of several final scores the last legal one is the run's; an ``_exact`` line refines its twin. A
  score that is not finite is a score: the run has no value then.
* A file with several runs is read as its last run. A model's parameters that are printed again
  begin none by themselves, since an evaluation may have loaded the model: steps that begin anew
  after them do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pgolf_sweep.core.trial import LogSummary, StepReport
from pgolf_sweep.script.logs import dialects
from pgolf_sweep.script.logs.dialects import ScoreKind
from pgolf_sweep.script.logs.lines import readable, running, training_step

if TYPE_CHECKING:
    import re

LONGEST_LINE_CHARS = 4000
"""No dialect's line is longer; of a longer one (packed source, a dumped tensor) nothing is read."""
MOST_UNREAD_FINALS = 20
MOST_FINALS = 200
"""Bounds what a log that prints labels without end can make us hold; the oldest go first."""
LINES_OF_CODE = 3
"""So many different ones make a source; one may be a word of the script's."""


@dataclass(slots=True)
class _Run:
    """What is known so far of one run."""

    finals: dict[str, tuple[str, float]] = field(default_factory=dict)
    """By label: the number as printed, and as a number."""
    last_final: str | None = None
    val_loss_nats: float | None = None
    eval_seconds: float | None = None
    prequant: tuple[float | None, float | None] | None = None
    validation: tuple[float | None, float | None] | None = None
    model_bytes: int | None = None
    code_bytes: int | None = None
    packed_code: bool = False
    total_bytes: int | None = None
    model_params: int | None = None
    steps: int | None = None
    step_avg_ms: float | None = None
    tokens_per_second: float | None = None
    batch_tokens: int | None = None
    train_seconds: float | None = None
    peak_memory_mib: float | None = None
    seed: int | None = None
    later_seed: int | None = None
    """Another one, printed after it."""
    stopped_early: bool = False
    non_finite: bool = False
    unread: dict[str, float] = field(default_factory=dict)
    over_cap: LogSummary | None = None
    exported: dict[str, str] = field(default_factory=dict)


class LogParser:
    """Reads one log, line by line; never raises, whatever the line is."""

    def __init__(self) -> None:
        self._run = _Run()
        self._before_code: _Run | None = None
        self._code: set[str] = set()  # different lines of source since the last result
        self._sample_step: int | None = None  # that the source's end shows
        self._params_again: int | None = None  # printed after steps; the next step decides

    def feed(self, line: str, *, complete: bool = True) -> StepReport | None:
        """Take one line, and report it if it shows progress.

        Args:
            line: Without line breaks and carriage returns.
            complete: False for a last line without its end: a number there may lack digits.
        """
        if len(line) > LONGEST_LINE_CHARS:
            return None
        if line.startswith(dialects.CODE_STARTS) and dialects.CODE_LINE.match(line):
            self._enter_code(line)
            return None
        text = readable(line)
        if text is None:
            return None
        if not complete and dialects.SCORE_END.search(text) is None:
            text = text.rpartition(" ")[0]  # the last word may lack its end, a unit or a digit
        if step := training_step(text):
            return self._step_line(step, text)
        if "val_" in text and (score := dialects.SCORE.search(text)):
            self._score_line(text, score.start(), complete=complete)
        elif dialects.BPB.search(text) and dialects.LOOKS_FINAL.search(text):
            self._unknown_score(text)
        else:
            self._fact_line(text)
        return None

    def summary(self) -> LogSummary:
        """Everything that the lines so far have said."""
        run = self._run
        finals = {label: value for label, (_, value) in run.finals.items()}
        last = None if run.last_final is None else finals[run.last_final]
        scored = last is not None and math.isfinite(last)
        val_loss_before, val_bpb_before = run.prequant or run.validation or (None, None)
        total_bytes, model_bytes = run.total_bytes, run.model_bytes
        if run.code_bytes is not None:
            if model_bytes is None and total_bytes is not None:
                model_bytes = total_bytes - run.code_bytes
            elif total_bytes is None and model_bytes is not None:
                total_bytes = model_bytes + run.code_bytes
        known = {value for value in finals.values() if math.isfinite(value)}
        return LogSummary(
            val_bpb=last if scored else None,
            val_loss_nats=run.val_loss_nats if scored else None,
            val_bpb_prequant=val_bpb_before,
            val_loss_nats_prequant=val_loss_before,
            finals=finals,
            model_bytes=model_bytes,
            code_bytes=run.code_bytes,
            total_bytes=total_bytes,
            model_params=run.model_params,
            steps=run.steps,
            step_avg_ms=_step_avg_ms(run),
            train_seconds=run.train_seconds,
            eval_seconds=run.eval_seconds,
            peak_memory_mib=run.peak_memory_mib,
            seed=run.seed,
            stopped_early=run.stopped_early,
            non_finite=run.non_finite,
            unread_finals=tuple(
                line
                for line, value in run.unread.items()
                if not any(abs(value - other) < 5e-5 for other in known)
            ),
            over_cap=run.over_cap,
            exported=dict(run.exported),
        )

    def _enter_code(self, line: str) -> None:
        """Remember what was known before the source that the log now shows."""
        if self._before_code is None:
            run = self._run
            self._before_code = replace(run, finals=dict(run.finals), unread=dict(run.unread))
        self._sample_step = None
        if len(self._code) < LINES_OF_CODE:
            self._code.add(line)

    def _leave_code(self) -> None:
        """At a rule: forget what the source above it seemed to say."""
        if self._before_code is not None and len(self._code) >= LINES_OF_CODE:
            self._run, self._before_code = self._before_code, None
            self._params_again = None
            self._code.clear()

    def _step_line(self, step: re.Match[str], text: str) -> StepReport | None:
        pairs: dict[str, float] = {}
        for key, number, unit in dialects.PAIR.findall(text, step.end()):
            name, value = key.lower(), float(number)
            if name in {"train_time", "t", "time"}:
                name, value = "seconds", value * dialects.UNIT_SECONDS.get(unit.lower(), 1e-3)
            pairs[name] = value
        val_loss, val_bpb = pairs.get("val_loss"), pairs.get("val_bpb")
        train_loss = pairs.get("train_loss", pairs.get("loss"))
        if not pairs or (val_loss is val_bpb is train_loss is None and "seconds" not in pairs):
            return None
        steps = _whole(step[1] or step[3])
        if self._sample_step not in {None, steps}:
            self._code.clear()  # one step may be a sample, two are a training
        self._sample_step = steps
        if self._params_again is not None and steps <= (self._run.steps or 0):
            self._run = _another(self._run, self._params_again)
        self._params_again = None
        run = self._run
        losses = (val_loss, val_bpb, train_loss)
        run.non_finite |= any(loss is not None and not math.isfinite(loss) for loss in losses)
        run.steps = steps
        run.train_seconds = pairs.get("seconds", run.train_seconds)
        step_avg_ms = pairs.get("step_avg", pairs.get("avg"))
        run.step_avg_ms = run.step_avg_ms if step_avg_ms is None else step_avg_ms
        for name in ("tok/s", "tok_s", "tokens/s"):
            run.tokens_per_second = pairs.get(name, run.tokens_per_second)
        if val_loss is not None or val_bpb is not None:
            run.validation = (val_loss, val_bpb)
        return StepReport(
            step=run.steps,
            total_steps=_whole(step[2] or step[4]) if step[2] or step[4] else None,
            train_seconds=pairs.get("seconds"),
            val_bpb=val_bpb,
            val_loss_nats=val_loss,
            train_loss_nats=train_loss,
            step_avg_ms=step_avg_ms,
        )

    def _score_line(self, text: str, start: int, *, complete: bool) -> None:
        """A validation score that belongs to no training step."""
        shown = {key.lower(): (number, unit) for key, number, unit in dialects.PAIR.findall(text)}
        before = dialects.LABEL_NOISE.sub("", text[max(0, start - 160) : start])
        if running(before):
            return
        kind, label = _labelled(before)
        if kind is None or "val_bpb" not in shown:
            self._unknown_score(text)
            return
        printed = shown["val_bpb"][0]
        value = float(printed)
        exact = "_exact" in label
        if not complete and math.isfinite(value) and _decimals(printed) < (8 if exact else 4):
            return  # the log was cut within this number
        self._code.clear()
        loss = float(shown["val_loss"][0]) if "val_loss" in shown else None
        self._run.non_finite |= not all(math.isfinite(n) for n in (value, loss or 0.0))
        if kind is ScoreKind.PREQUANT:
            self._run.prequant = (loss, value)
        else:
            self._final(label, printed, loss, barred=kind is ScoreKind.BARRED)
            self._eval_time(shown)

    def _final(self, label: str, printed: str, loss: float | None, *, barred: bool) -> None:
        """A score after the round trip."""
        run = self._run
        name = " ".join(label.replace("_exact", "").split())
        if name not in run.finals and len(run.finals) >= MOST_FINALS:
            del run.finals[next(held for held in run.finals if held != run.last_final)]
        more_exact_known = name in run.finals and _refines(run.finals[name][0], printed)
        if not more_exact_known:
            run.finals[name] = (printed, float(printed))
        if barred:
            return
        if not more_exact_known or run.last_final != name:
            run.val_loss_nats = loss
        run.last_final = name

    def _eval_time(self, shown: dict[str, tuple[str, str]]) -> None:
        for key in ("eval_time", "time", "elapsed"):
            if key in shown:
                number, unit = shown[key]
                self._run.eval_seconds = float(number) * dialects.UNIT_SECONDS.get(
                    unit.lower(), 1e-3
                )

    def _unknown_score(self, text: str) -> None:
        """Keep a line that seems to hold a final score in words that no dialect knows."""
        number = dialects.LOOKS_FINAL.search(text)
        if number is None or dialects.SOURCE.search(text) or running(text[:160]):
            return
        value = float(next(group for group in number.groups() if group))
        if 0.2 < value < 20 or not math.isfinite(value):
            unread = self._run.unread
            unread.pop(text[:300], None)
            unread[text[:300]] = value
            if len(unread) > MOST_UNREAD_FINALS:
                del unread[next(iter(unread))]

    def _fact_line(self, text: str) -> None:
        """A line that says a number other than a score."""
        run = self._run
        if dialects.CODE_END.match(text):
            self._leave_code()
        elif match := dialects.SMALLER_EXPORT.match(text):
            self._smaller_export(match[1])
        elif match := dialects.STOPPED.search(text):
            run.stopped_early = True
            if match[1]:
                run.train_seconds = float(match[1]) * dialects.UNIT_SECONDS[match[2]]
            if match[3]:
                run.steps = _whole(match[3])
        else:
            if match := dialects.MODEL_PARAMS.search(text):
                self._params(_whole(match[1] or match[2]), text)
            self._byte_facts(text)
            self._setting(text)

    def _smaller_export(self, setting: str) -> None:
        """The artifact so far was over the cap; what follows is said of a smaller one."""
        run = self._run
        first = run.over_cap or self.summary()
        exported = dict(part.split("=", 1) for part in setting.split(",") if "=" in part)
        self._run = replace(
            run,
            finals={},
            last_final=None,
            val_loss_nats=None,
            eval_seconds=None,
            model_bytes=None,
            total_bytes=None,
            over_cap=first,
            exported=exported,
        )

    def _setting(self, text: str) -> None:
        run = self._run
        if match := dialects.BATCH_TOKENS.search(text):
            run.batch_tokens = _whole(match[1])
        if match := dialects.SEED.search(text):
            seed = _whole(next(group for group in match.groups() if group))
            if run.seed is None:
                run.seed = seed
            elif seed != run.seed:
                run.later_seed = seed
        if match := dialects.PEAK_MEMORY.search(text):
            run.peak_memory_mib = float(match[1]) * dialects.MEMORY_MIB[match[2].lower()]

    def _params(self, count: int, text: str) -> None:
        """The model's parameters; seen again after training steps, another run may have begun."""
        self._code.clear()
        begins = dialects.MODEL_PARAMS.match(text) is not None
        if begins and self._run.steps and self._run.model_params is not None:
            self._params_again = count
        elif self._run.model_params is None or begins:
            self._run.model_params = count

    def _byte_facts(self, text: str) -> None:
        run = self._run
        match = dialects.MODEL_BYTES.search(text)
        if match and (match["codec"] or match["scheme"]):
            run.model_bytes = _whole(match["bytes"])
        if match := dialects.CODE_BYTES.search(text):
            uncompressed = "uncompressed" in (match["form"] or "")
            if not (uncompressed and run.packed_code):
                run.code_bytes = _whole(match["bytes"])
            run.packed_code |= match["form"] is not None and not uncompressed
        if match := dialects.TOTAL_BYTES.search(text):
            # Without a codec's name it is the checkpoint's, until a compressed model is known.
            total = _whole(match["bytes"] or match["artifact"] or match["budget"])
            if match["codec"] or run.model_bytes is not None or not match["bytes"]:
                run.total_bytes = total


def _another(run: _Run, model_params: int) -> _Run:
    """What the log has said of a run that begins after another one's end."""
    seed = run.seed if run.later_seed is None else run.later_seed
    return _Run(seed=seed, batch_tokens=run.batch_tokens, model_params=model_params)


def _labelled(text: str) -> tuple[ScoreKind | None, str]:
    """What kind of score a text announces, and the label by which it does; None if unknown."""
    if dialects.PROGRESS.search(text):
        return None, ""
    for kind, pattern in dialects.SCORE_LABELS:
        if match := pattern.search(text):
            return kind, match["label"]
    return None, ""


def _step_avg_ms(run: _Run) -> float | None:
    """Milliseconds a step: printed, or from the clock, or from the throughput."""
    if run.step_avg_ms is not None:
        return run.step_avg_ms
    if run.steps and run.train_seconds:
        return 1000 * run.train_seconds / run.steps
    if run.tokens_per_second and run.batch_tokens:
        return 1000 * run.batch_tokens / run.tokens_per_second
    return None


def _refines(held: str, new: str) -> bool:
    """Whether the score held already says what the new one says, with more digits."""
    more_digits = _decimals(held) > _decimals(new)
    return more_digits and abs(float(held) - float(new)) <= 0.51 * 10.0 ** -_decimals(new)


def _decimals(number: str) -> int:
    return len(number.partition(".")[2])


def _whole(digits: str) -> int:
    """A number of a log; what no script would print becomes the largest that we take."""
    cleaned = digits.replace(",", "").replace("_", "")[:18]
    return int(cleaned)

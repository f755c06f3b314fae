"""A script's log as facts: progress while it runs, scores and bytes when it is over.

`LogParser` reads line by line; `pgolf_sweep.script.logs.stream` gives it those that can say
something. What the lines look like is data, in `pgolf_sweep.script.logs.dialects`.

Three rules decide what counts:

* Logs of the contest begin with their script's source. Its format strings hold no numbers, and
  any sample output that it holds is undone at the rule of ``=`` that ends it. A rule undoes no
  result that was read after the last lines of source: it may as well end a report.
* Of several final scores the last legal one is the run's; an ``_exact`` line refines its twin. A
  score that is not finite is a score: the run has no value then.
* A file with several runs is read as its last run. A model's parameters that are printed again
  begin none by themselves, since an evaluation may have loaded the model: steps that begin anew
  after them do.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from pgolf_sweep.core.trial import StepReport
from pgolf_sweep.script.logs import dialects
from pgolf_sweep.script.logs.facts import RunFacts
from pgolf_sweep.script.logs.lines import readable, training_step
from pgolf_sweep.script.logs.pairs import pairs
from pgolf_sweep.script.logs.scores import ScoreKind, names_score, running, score
from pgolf_sweep.script.logs.sizes import SizesSeen

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Sequence

    from pgolf_sweep.core.trial import LogSummary
    from pgolf_sweep.script.logs.pairs import Pair
    from pgolf_sweep.script.logs.scores import Score

LONGEST_LINE_CHARS = 4000
"""No dialect's line is longer; of a longer one (packed source, a dumped tensor) nothing is read."""
MOST_UNREAD_FINALS = 20
MOST_FINALS = 200
"""Bounds what a log that prints labels without end can make us hold; the oldest go first."""
LINES_OF_CODE = 3
"""So many different ones make a source; one may be a word of the script's."""


class LogParser:
    """Reads one log, line by line; never raises, regardless of the line."""

    def __init__(self) -> None:
        self._run = RunFacts()
        self._before_code: RunFacts | None = None
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
        step = training_step(text, line)
        if step is not None and (report := self._step_line(step, text)) is not None:
            return report
        if step is None and dialects.BPB.search(text):
            self._score_line(text, complete=complete)
        else:
            self._fact_line(text)
        return None

    def summary(self) -> LogSummary:
        """Everything that the lines so far have said."""
        return self._run.summary()

    def _enter_code(self, line: str) -> None:
        """Remember what was known before the source that the log now shows."""
        if self._before_code is None:
            self._before_code = self._run.copy()
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
        values: dict[str, float] = {}
        for key, number, unit in dialects.PAIR.findall(text, step.end()):
            name, value = key.lower().replace(" ", "_"), float(number)
            if name in {"train_time", "t", "time", "elapsed"}:
                name, value = "seconds", value * dialects.UNIT_SECONDS.get(unit.lower(), 1e-3)
            values[name] = value
        val_loss, val_bpb = values.get("val_loss"), values.get("val_bpb")
        train_loss = values.get("train_loss", values.get("loss"))
        if not values or (val_loss is val_bpb is train_loss is None and "seconds" not in values):
            return None
        steps = _whole(step[1] or step[3])
        self._begin(steps, text[: step.start()])
        run = self._run
        if not run.stream_is(text[: step.start()]):
            return None  # of another phase
        losses = (val_loss, val_bpb, train_loss)
        run.non_finite |= any(loss is not None and not math.isfinite(loss) for loss in losses)
        step_avg_ms = values.get("step_avg", values.get("avg"))
        if run.goes_on(steps):
            run.steps = steps
            run.train_seconds = values.get("seconds", run.train_seconds)
            run.step_avg_ms = run.step_avg_ms if step_avg_ms is None else step_avg_ms
            for name in ("tok/s", "tok_s", "tokens/s"):
                run.tokens_per_second = values.get(name, run.tokens_per_second)
            if val_loss is not None or val_bpb is not None:
                run.validation = (val_loss, val_bpb)
        elif run.stopped_early:
            return None
        return StepReport(
            step=steps,
            total_steps=_whole(step[2] or step[4]) if step[2] or step[4] else None,
            train_seconds=values.get("seconds"),
            val_bpb=val_bpb,
            val_loss_nats=val_loss,
            train_loss_nats=train_loss,
            step_avg_ms=step_avg_ms,
        )

    def _begin(self, steps: int, stream: str) -> None:
        """Whether this step is the first of another run."""
        if self._sample_step not in {None, steps}:
            self._code.clear()  # one step may be a sample, two are a training
        self._sample_step = steps
        if self._params_again is not None and steps <= (self._run.steps or 0):
            if self._run.stream_is(stream):
                self._run = _another(self._run, self._params_again)
                self._params_again = None
        else:
            self._params_again = None

    def _score_line(self, text: str, *, complete: bool) -> None:
        """A line that calls a number bpb and belongs to no training step."""
        shown = pairs(text)
        found = score(text, shown)
        if found is None or found.kind is ScoreKind.UNKNOWN:
            self._unknown_score(text, shown)
            return
        if found.kind is ScoreKind.RUNNING:
            return
        value = float(found.number.replace(",", ""))
        digits = 8 if "_exact" in found.label else 4
        if not complete and math.isfinite(value) and _decimals(found.number) < digits:
            return  # the log was cut within this number
        self._code.clear()
        loss = None if found.loss is None else float(found.loss.replace(",", ""))
        self._run.non_finite |= not all(math.isfinite(n) for n in (value, loss or 0.0))
        if found.kind is ScoreKind.PREQUANT:
            self._run.prequant = (loss, value)
        else:
            self._final(found, value, loss, text)

    def _final(self, found: Score, value: float, loss: float | None, text: str) -> None:
        """A score after the round trip."""
        run = self._run
        name = " ".join(found.label.replace("_exact", "").split())
        if name not in run.finals and len(run.finals) >= MOST_FINALS:
            oldest = next(held for held in run.finals if held != run.label)
            del run.finals[oldest]
            run.counted.pop(oldest, None)
            run.losses.pop(oldest, None)
        repeats = name not in run.finals and _repeats(run.counted.values(), found.number)
        more_exact_known = name in run.finals and _refines(run.finals[name][0], found.number)
        if not more_exact_known:
            run.finals[name] = (found.number, value)
            if loss is not None and math.isfinite(loss):
                run.losses[name] = loss
        if repeats and run.last_final is not None:
            # A report at the end repeats what was measured, perhaps with another clock.
            if _repeats([run.counted[run.last_final]], found.number):
                self._eval_time(found)
                run.val_loss_nats = loss if run.val_loss_nats is None else run.val_loss_nats
            return
        if found.kind is ScoreKind.FINAL:
            known, run.last_final = run.last_final, name
            run.counted[name] = run.finals[name][0]
        elif found.kind is ScoreKind.DIAGNOSTIC and run.last_final is None:
            known, run.last_diagnostic = run.last_diagnostic, name
        else:
            if found.kind is ScoreKind.DIAGNOSTIC and not found.standard:
                self._keep_unread(text, value)
            return
        run.unended = False
        if not more_exact_known or known != name:
            run.val_loss_nats = loss
        self._eval_time(found)

    def _eval_time(self, found: Score) -> None:
        if found.eval_time is not None:
            number, unit = found.eval_time
            seconds = float(number.replace(",", "")) * dialects.UNIT_SECONDS.get(unit, 1e-3)
            self._run.eval_seconds = seconds

    def _unknown_score(self, text: str, shown: Sequence[Pair]) -> None:
        """Keep a line that seems to hold a final score in words that decide nothing."""
        values = [float(p.number.replace(",", "")) for p in shown if names_score(p)]
        if not values or dialects.SOURCE.search(text) or running(text[:160]):
            return
        if 0 < values[0] < 20 or not math.isfinite(values[0]):
            self._keep_unread(text, values[0])

    def _keep_unread(self, text: str, value: float) -> None:
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
        elif dialects.PHASE.match(text) or dialects.DIED.match(text):
            run.unended = True
        elif match := dialects.STOPPED.search(text):
            run.stopped_early = True
            if match[1]:
                run.train_seconds = float(match[1]) * dialects.UNIT_SECONDS[match[2]]
            if match[3]:
                run.steps = _whole(match[3])
        else:
            if match := dialects.MODEL_PARAMS.search(text):
                self._params(_whole(match[1] or match[2]), text)
            run.sizes.take(pairs(text))
            self._setting(text)

    def _smaller_export(self, setting: str) -> None:
        """The artifact so far was over the cap; what follows is said of a smaller one."""
        run = self._run
        first = run.over_cap or self.summary()
        exported = dict(part.split("=", 1) for part in setting.split(",") if "=" in part)
        self._run = replace(
            run,
            finals={},
            counted={},
            losses={},
            last_final=None,
            last_diagnostic=None,
            val_loss_nats=None,
            eval_seconds=None,
            sizes=SizesSeen(),
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
        elif match := dialects.SETTING_SEED.search(text):
            seed = _whole(next(group for group in match.groups() if group))
            if run.setting_seed is None:
                run.setting_seed = seed
            elif seed != run.setting_seed:
                run.later_setting_seed = seed
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


def _another(run: RunFacts, model_params: int) -> RunFacts:
    """What the log has said of a run that begins after another one's end."""
    setting = run.setting_seed if run.later_setting_seed is None else run.later_setting_seed
    return RunFacts(
        seed=run.seed if run.later_seed is None else run.later_seed,
        setting_seed=setting,
        batch_tokens=run.batch_tokens,
        model_params=model_params,
    )


def _refines(held: str, new: str) -> bool:
    """Whether the score held already says what the new one says, with more digits."""
    more_digits = _decimals(held) > _decimals(new)
    return more_digits and abs(float(held) - float(new)) <= 0.51 * 10.0 ** -_decimals(new)


def _repeats(held: Iterable[str], new: str) -> bool:
    """Whether a score is one of those held, with fewer digits."""
    return any(_refines(one, new) for one in held)


def _decimals(number: str) -> int:
    return len(number.partition(".")[2])


def _whole(digits: str) -> int:
    """A number of a log; what no script would print becomes the largest that we take."""
    cleaned = digits.replace(",", "").replace("_", "")[:18]
    return int(cleaned)

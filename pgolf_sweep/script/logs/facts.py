"""Facts of one run in a log so far, and what they add up to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from pgolf_sweep.core.trial import LogSummary
from pgolf_sweep.script.logs.sizes import SizesSeen

_NO_DIGITS = str.maketrans("", "", "0123456789")


@dataclass(slots=True)
class RunFacts:
    """What is known so far of one run."""

    finals: dict[str, tuple[str, float]] = field(default_factory=dict)
    """By label: the number as printed, and as a number."""
    losses: dict[str, float] = field(default_factory=dict)
    """Nats by label of a final."""
    counted: dict[str, str] = field(default_factory=dict)
    """Of these, as printed, the ones that were the run's score when they came."""
    last_final: str | None = None
    last_diagnostic: str | None = None
    """The same of a score that is final only if nothing follows it."""
    unended: bool = False
    """After it the script died, or an evaluation began that has no score yet."""
    val_loss_nats: float | None = None
    eval_seconds: float | None = None
    prequant: tuple[float | None, float | None] | None = None
    validation: tuple[float | None, float | None] | None = None
    sizes: SizesSeen = field(default_factory=SizesSeen)
    model_params: int | None = None
    steps: int | None = None
    step_avg_ms: float | None = None
    tokens_per_second: float | None = None
    batch_tokens: int | None = None
    train_seconds: float | None = None
    peak_memory_mib: float | None = None
    stream: str | None = None
    """What stands before the word step on the training's lines."""
    seed: int | None = None
    setting_seed: int | None = None
    """One that is printed among other settings; a line of its own counts before it."""
    later_seed: int | None = None
    """Another one, printed after it."""
    later_setting_seed: int | None = None
    stopped_early: bool = False
    non_finite: bool = False
    unread: dict[str, float] = field(default_factory=dict)
    over_cap: LogSummary | None = None
    exported: dict[str, str] = field(default_factory=dict)

    def copy(self) -> RunFacts:
        """The same, which further lines leave as it is."""
        return replace(
            self,
            finals=dict(self.finals),
            counted=dict(self.counted),
            losses=dict(self.losses),
            unread=dict(self.unread),
            sizes=replace(self.sizes),
        )

    def stream_is(self, before: str) -> bool:
        """Whether a line of steps is the training's, by what stands before its step.

        The first that comes is the training's, unless one with nothing before it follows.
        """
        bare = before.translate(_NO_DIGITS).strip().lower()
        if self.stream is None or (bare == "" and self.stream):
            self.stream, self.steps, self.train_seconds = bare, None, None
        return self.stream == bare

    def goes_on(self, steps: int) -> bool:
        """Whether a step follows those before it; a fall begins anew only before the cap."""
        if self.steps is None or steps >= self.steps:
            return True
        return steps <= 1 and not self.stopped_early and not self.finals and self.sizes.empty

    @property
    def label(self) -> str | None:
        """Of the score that is the run's; None while there is none."""
        if self.last_final is not None:
            return self.last_final
        return None if self.unended else self.last_diagnostic

    def summary(self) -> LogSummary:
        """Everything that the lines so far have said."""
        finals = {label: value for label, (_, value) in self.finals.items()}
        last = None if self.label is None else finals[self.label]
        scored = last is not None and math.isfinite(last)
        val_loss_before, val_bpb_before = self.prequant or self.validation or (None, None)
        known = {value for value in finals.values() if math.isfinite(value)}
        code_bytes, model_bytes, total_bytes = self.sizes.answer(self.model_params)
        return LogSummary(
            val_bpb=last if scored else None,
            val_loss_nats=self.val_loss_nats if scored else None,
            val_bpb_prequant=val_bpb_before,
            val_loss_nats_prequant=val_loss_before,
            finals=finals,
            final_losses_nats={k: v for k, v in self.losses.items() if k in finals},
            model_bytes=model_bytes,
            code_bytes=code_bytes,
            uncompressed_code_bytes=self.sizes.plain_code,
            total_bytes=total_bytes,
            model_params=self.model_params,
            steps=self.steps,
            step_avg_ms=self._step_avg_ms(),
            train_seconds=self.train_seconds,
            eval_seconds=None if self.label is None else self.eval_seconds,
            peak_memory_mib=self.peak_memory_mib,
            seed=self.setting_seed if self.seed is None else self.seed,
            stopped_early=self.stopped_early,
            non_finite=self.non_finite,
            unread_finals=tuple(
                line
                for line, value in self.unread.items()
                if not any(abs(value - other) < 5e-5 for other in known)
            ),
            over_cap=self.over_cap,
            exported=dict(self.exported),
        )

    def _step_avg_ms(self) -> float | None:
        """Milliseconds a step: printed, or from the clock, or from the throughput."""
        if self.step_avg_ms is not None:
            return self.step_avg_ms
        if self.steps and self.train_seconds:
            return 1000 * self.train_seconds / self.steps
        if self.tokens_per_second and self.batch_tokens:
            return 1000 * self.batch_tokens / self.tokens_per_second
        return None

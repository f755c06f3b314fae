"""Everything that a sweep stands on, and what follows from it for a trial."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pgolf_sweep.config.binding import Binding
from pgolf_sweep.config.blocks import EXPORT_ONLY_KNOBS
from pgolf_sweep.config.types import NO_RULES
from pgolf_sweep.core.trial import Limits, Resources, TrialSpec, Verdict, VerdictKind, knob_text
from pgolf_sweep.core.yardstick import known_for
from pgolf_sweep.gate.exports import SPARE, smaller_exports
from pgolf_sweep.gate.repair import nearest_values, repair
from pgolf_sweep.space.domains import Constant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgolf_sweep.config.rules import Rules
    from pgolf_sweep.config.sweep_file import SweepSpec
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.data import DataSet
    from pgolf_sweep.gate.gate import Gate
    from pgolf_sweep.script.program import Program


def _part(whole: Resources, share: float) -> Resources:
    """A share of what a trial occupies."""
    if share == 1:
        return whole
    return Resources(gpus=round(whole.gpus * share), cpus=whole.cpus * share)


START_SECONDS = 300.0
"""Allowed beyond training and evaluation: imports, compilation, the artifact's compression."""

CAP_KNOB = "ARTIFACT_CAP_BYTES"
"""Our trainer's knob beyond which it exports again."""

SILENT_SECONDS = 600.0
"""Longest silence of a run by default: a full validation or lzma prints nothing for minutes."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """A sweep, loaded and checked.

    Attributes:
        implied: Knobs that follow from the rules and the data set, not from the sweep file.
        learnt: What the gate learnt from the sweep file's store, for people; empty without one.
        prepares: Whether slow answers of the gate are prepared in a thread (`ready`); else the
            caller waits for them.
        variant: Id of its program; empty for the study's own.
        probe: Whether the gate may execute parts of a script that is not ours.
    """

    spec: SweepSpec
    program: Program
    rules: Rules
    dataset: DataSet | None
    gate: Gate
    implied: Mapping[str, KnobValue]
    learnt: str = ""
    prepares: bool = True
    variant: str = ""
    probe: bool = True

    def resolve(self, knobs: Mapping[str, KnobValue]) -> dict[str, KnobValue]:
        """The sweep's knobs with the implied ones, which the sweep file may override."""
        return {**self.implied, **knobs}

    @cached_property
    def defaults(self) -> dict[str, KnobValue]:
        """The program's own values of its knobs."""
        return {k.name: k.default for k in self.program.knobs.values() if k.default is not None}

    def verdict(self, knobs: Mapping[str, KnobValue]) -> Verdict:
        """The gate's word on resolved knobs, after the sweep file's own `require` expressions."""
        if refused := self._refused(knobs):
            return refused
        if not self.spec.pgolf.gate_enabled:
            return self._verdict(VerdictKind.UNKNOWN, "the sweep file switched the gate off")
        return self.gate.verdict(knobs)

    def _refused(self, knobs: Mapping[str, KnobValue]) -> Verdict | None:
        """The verdict on knobs that break a `require` expression of the sweep file."""
        broken = self.spec.space.violations(knobs, self.defaults)
        if not broken:
            return None
        return self._verdict(VerdictKind.INVALID, f"require: {broken[0]} is false")

    def verdict_of(self, knobs: Mapping[str, KnobValue]) -> Verdict:
        """`verdict` of a sweep's knobs, as its space gives them.

        Where a thread prepares the gate's answers, it never waits for a probe.
        """
        resolved = self.resolve(knobs)
        waits = not self.prepares or not self.spec.pgolf.gate_enabled
        if waits or self.gate.answers(resolved):
            return self.verdict(resolved)
        # What needs no probe is answered at once.
        return self._refused(resolved) or self._verdict(
            VerdictKind.UNKNOWN, "its script's probe is under way"
        )

    def recorded(self, record: TrialRecord) -> Verdict:
        """The verdict with which a trial was discarded, by its row."""
        verdict = self._verdict(VerdictKind.TOO_BIG, record.reason)
        return dataclasses.replace(
            verdict, artifact_bytes=record.predicted_bytes, model_params=record.model_params
        )

    def repaired(self, knobs: Mapping[str, KnobValue]) -> dict[str, KnobValue] | None:
        """The nearest configuration that surely fits, by the parameters that the file lets give.

        Args:
            knobs: The sweep's knobs of a configuration that is near the cap or over it.

        Returns:
            The sweep's knobs, changed; None where nothing helps or nothing may give.
        """
        may_give = {}
        for name in self.spec.pgolf.gate_repair:
            if name in knobs:
                may_give[name] = nearest_values(
                    self.spec.space.parameters[name].domain, knobs[name]
                )
        return repair(lambda changed: self.verdict(self.resolve(changed)), knobs, may_give)

    def export_env(self, knobs: Mapping[str, KnobValue], verdict: Verdict) -> dict[str, str]:
        """What has our trainer export smaller what turns out over the cap; empty where it cannot.

        Args:
            knobs: Resolved values.
            verdict: The gate's word on them; one that is far from the cap needs no export.
        """
        interval, cap_bytes = verdict.artifact_bytes, self.rules.artifact_cap_bytes
        far = interval is None or interval.high < (1 - SPARE) * cap_bytes
        if far or not self.program.builtin or CAP_KNOB in knobs:
            return {}
        settings = smaller_exports(self.verdict, knobs, self._may_export(knobs))
        if not settings:
            return {}
        texts = [
            ",".join(f"{name}={knob_text(value)}" for name, value in setting.items())
            for setting in settings
        ]
        return {CAP_KNOB: str(cap_bytes), "SMALLER_EXPORTS": ";".join(texts)}

    def _may_export(self, knobs: Mapping[str, KnobValue]) -> dict[str, list[KnobValue]]:
        """Other values of the knobs that may change after the training.

        The space's own where it has a choice, else those that make the artifact smaller. A knob
        on which the space's other parameters depend stays.
        """
        allowed = self.spec.pgolf.gate_export
        parents = {name for other in self.spec.space.parameters.values() for name in other.when}
        found = {}
        smaller = self.gate.smaller_values(knobs)
        for name in EXPORT_ONLY_KNOBS if allowed is None else allowed:
            if name in parents:
                continue
            parameter = self.spec.space.parameters.get(name)
            if parameter is None or isinstance(parameter.domain, Constant):
                found[name] = smaller.get(name, [])
            elif name in knobs:
                found[name] = nearest_values(parameter.domain, knobs[name])
        return found

    def ready(self, knobs: Mapping[str, KnobValue]) -> bool:
        """Whether `verdict` answers on these knobs, unresolved, at once; if not, it is prepared."""
        if not self.prepares:
            return True
        resolved = self.resolve(knobs)
        if not self.spec.pgolf.gate_enabled or self.spec.space.violations(resolved, self.defaults):
            return True
        return self.gate.ready(resolved)

    def _verdict(self, kind: VerdictKind, reason: str) -> Verdict:
        return Verdict(
            kind=kind,
            reason=reason,
            code_bytes=self.program.code_bytes,
            cap_bytes=self.rules.artifact_cap_bytes,
            confidence=self.spec.pgolf.gate_confidence,
            regime="none",
        )

    def trial_spec(
        self,
        number: int,
        knobs: Mapping[str, KnobValue],
        proposer: str,
        *,
        run_id: str,
        rung: int | None = None,
    ) -> TrialSpec:
        """What a trial runs, from its resolved knobs, on a cheaper rung or on the sweep's own."""
        binding = Binding(self.spec, self.program)
        run = {**knobs, **self.instead(knobs, rung)}
        env = binding.env(run)
        env |= self.dataset.env() if self.dataset is not None else {}
        return TrialSpec(
            study=self.spec.name,
            number=number,
            knobs=knobs,
            env=env | {"RUN_ID": run_id},
            program_name=self.program.name,
            program_sha256=self.program.sha256,
            resources=self.resources_on(rung),
            limits=self.limits_on(rung),
            proposer=proposer,
            argv=binding.argv(run, self.resources_on(rung).gpus),
            config=binding.config(run),
            metric=self.spec.metric,
            passes=self.spec.pgolf.env_pass,
            variant=self.variant,
            rung=rung,
        )

    def instead(self, knobs: Mapping[str, KnobValue], rung: int | None) -> dict[str, KnobValue]:
        """The resolved knobs that are others on a cheaper rung."""
        fidelity = self.spec.pgolf.fidelity
        if rung is None or fidelity is None:
            return {}
        return fidelity.instead(rung, knobs, self.defaults)

    @cached_property
    def bytes_per_token(self) -> float | None:
        """Of the validation set: the known constant, else counted; None without a data set."""
        if self.dataset is None:
            return None
        known = known_for(self.dataset.name)
        if known is not None or not self.dataset.shards("val"):
            return known
        from pgolf_sweep.data.text_bytes import bytes_per_token  # noqa: PLC0415 - numpy

        return bytes_per_token(self.dataset)

    @property
    def data_identity(self) -> str | None:
        """Hash of validation set and tokenizer, without which no two scores compare."""
        if self.dataset is None:
            return None
        from pgolf_sweep.data import identity  # noqa: PLC0415 - numpy

        return identity(self.dataset)

    @property
    def resources(self) -> Resources:
        """What one trial occupies."""
        block = self.spec.pgolf
        cpus = block.cpus if block.cpus is not None else float(max(1, block.gpus))
        return Resources(gpus=block.gpus, cpus=cpus)

    def resources_on(self, rung: int | None) -> Resources:
        """What one trial occupies on a cheaper rung, or on the sweep's own."""
        whole, fidelity = self.resources, self.spec.pgolf.fidelity
        return whole if fidelity is None else _part(whole, fidelity.gpu_share(rung))

    @property
    def slot_resources(self) -> Resources:
        """What a slot has: the part of a trial that its smallest rung occupies."""
        whole, fidelity = self.resources, self.spec.pgolf.fidelity
        return whole if fidelity is None else _part(whole, fidelity.slot_share)

    @property
    def slots_each(self) -> int:
        """Slots that a trial on the sweep's own rung takes."""
        fidelity = self.spec.pgolf.fidelity
        return 1 if fidelity is None else fidelity.slots(None)

    def limits_on(self, rung: int | None) -> Limits:
        """The limits of a trial on a rung: fewer GPUs take as much longer for all that they do."""
        limits, fidelity = self.limits, self.spec.pgolf.fidelity
        share = 1.0 if fidelity is None else fidelity.gpu_share(rung)
        if share == 1:
            return limits
        return dataclasses.replace(
            limits,
            total_seconds=limits.total_seconds / share,
            silent_seconds=limits.silent_seconds / share,
        )

    @property
    def train_seconds(self) -> float | None:
        """The limit on a trial's training: the rules', or without rules the sweep file's if any."""
        if self.rules.name == NO_RULES:
            return self.spec.pgolf.limits.total_seconds
        return self.rules.train_seconds

    @property
    def limits(self) -> Limits:
        """The sweep file's limits, else the rules' times with an allowance for the start."""
        given = self.spec.pgolf.limits
        total = given.total_seconds
        if total is None:
            total = self.rules.train_seconds + self.rules.eval_seconds + START_SECONDS
        silent = given.silent_seconds
        plain = self.rules.name == NO_RULES  # of any program it is not known how quiet it is
        quiet = min(SILENT_SECONDS, total)
        return Limits(
            total_seconds=total,
            silent_seconds=silent if silent is not None else total if plain else quiet,
        )

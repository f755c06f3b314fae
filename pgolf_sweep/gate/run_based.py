"""The artifact of a script that is not ours, predicted from a run of its own export.

The export runs twice on Gaussian weights: at the spread that the physics expects of this training
(`pgolf_sweep.gate.physics.spread`), and with the matrices half an octave narrower. The difference
says how much a spread matters: nothing where the quantizer's scale follows the weights, a bit an
octave where it is fixed. Further configurations of the same structure need no run: what another
rate, decay or number of steps does to the spread, the slope turns into bytes.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from pgolf_sweep.gate.calibration import SEED_SHARE
from pgolf_sweep.gate.families import FAMILIES, OTHER, family_of
from pgolf_sweep.gate.grouped import groups_of, has_few_pieces, numbers_in
from pgolf_sweep.gate.physics.predict import Prediction
from pgolf_sweep.gate.physics.spread import GroupUpdate, trained_sigmas
from pgolf_sweep.gate.scaling import scaled, updates_for
from pgolf_sweep.gate.script_steps import CONTEST_GPUS, ScriptSteps, Steps
from pgolf_sweep.script.probe.runner import Counted, Exported, RunFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.script.probe.prober import ProbedTensor

NARROWER = 0.5
"""Octaves between the two exports. Of a wider one some scripts prune what is over the cap."""
FURTHEST = 0.6
"""Octaves from the spread that was exported at which the export runs again."""
MATRIX_OCTAVES = 0.05
"""Spread of trained matrices about what the random walk says, in octaves, beside that of
`families`. Source: the records with a fixed scale, `bench/gate/foreign.py`."""
EMBED_OCTAVES = 0.2
"""The same of embeddings and tables, which Adam moves."""
UNSEEN_OCTAVES = 0.7
"""The same where no optimizer was seen."""
EVOLVED_STEPS = 1.0
"""Of an optimizer, as which an evolution strategy's count: its weights stay near their start."""
NOISE_SHARE = 0.003
"""Spread between configurations of a program once its own error is known."""
NOISE_OCTAVES = 0.02
SEED_ROOT = math.sqrt(SEED_SHARE)


class RunnerLike(Protocol):
    """What is asked of `pgolf_sweep.script.probe.runner.Runner`."""

    def count(self, knobs: Mapping[str, KnobValue]) -> Counted | RunFailed:
        """The model of a configuration."""

    def knows(self, knobs: Mapping[str, KnobValue]) -> bool:
        """Whether `count` needs no run."""

    def set_lacking(self, packages: frozenset[str]) -> bool:
        """Take in which packages are missing where the script will run; False: nothing changed."""

    def structure(self, knobs: Mapping[str, KnobValue]) -> tuple[str, ...]:
        """What the model and its export depend on."""

    def moved(
        self,
        counted: Counted,
        before: Mapping[str, KnobValue],
        knobs: Mapping[str, KnobValue],
    ) -> Counted | None:
        """A count with the rates of another configuration; None where they cannot be told."""

    def export(
        self, knobs: Mapping[str, KnobValue], sigmas: Mapping[str, float]
    ) -> Exported | RunFailed:
        """What the script's own export makes of Gaussian weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """An export of one structure.

    Attributes:
        sigmas: The spread of each tensor.
        exported: What came of it.
        per_octave: Bytes that an octave more of all matrices' spread brings.
    """

    sigmas: Mapping[str, float]
    exported: Exported
    per_octave: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A configuration whose export was measured, for others of its kind.

    Attributes:
        knobs: The configuration.
        counted: Its model.
    """

    knobs: Mapping[str, KnobValue]
    counted: Counted


class RunBased:
    """Predictions for one program whose `main()` can be run.

    Args:
        runner: Runs it.
        group_of: The tensor group that a parameter's name speaks of.
        gpus: Of a trial; 0 is a CPU.
    """

    def __init__(
        self, runner: RunnerLike, group_of: Callable[[str], str], gpus: int = CONTEST_GPUS
    ) -> None:
        self._runner = runner
        self._group_of = group_of
        self._exports: dict[tuple[str, ...], list[_Measured | RunFailed]] = {}
        self._factors: dict[tuple[str, ...], Mapping[str, float]] = {}
        self.steps = ScriptSteps(gpus)
        self.code_bytes: int | None = None

    def copy(self) -> RunBased:
        """Predictions that share what was run and learn by themselves."""
        other = copy.copy(self)
        other.steps = self.steps.copy()
        return other

    def set_lacking(self, packages: frozenset[str]) -> bool:
        """Take in which packages are missing where the script will run; False: nothing changed."""
        return self._runner.set_lacking(packages)

    def count(self, knobs: Mapping[str, KnobValue]) -> Counted | RunFailed:
        """The model of a configuration."""
        return self._runner.count(knobs)

    def structure(self, knobs: Mapping[str, KnobValue]) -> tuple[str, ...]:
        """What the model and its export depend on, as a key."""
        return self._runner.structure(knobs)

    def counts(self, knobs: Mapping[str, KnobValue]) -> bool:
        """Whether `count` needs no run."""
        return self._runner.knows(knobs)

    def exported(self, knobs: Mapping[str, KnobValue]) -> Exported | RunFailed | None:
        """What the export of a configuration's structure came to; None before it ran."""
        known = self._exports.get(self._runner.structure(knobs))
        if not known:
            return None
        return known[-1] if isinstance(known[-1], RunFailed) else known[-1].exported

    def knows(self, knobs: Mapping[str, KnobValue]) -> bool:
        """Whether a configuration's structure was exported, or failed to be."""
        return bool(self._exports.get(self._runner.structure(knobs)))

    def at_once(self, knobs: Mapping[str, KnobValue], values: Mapping[str, KnobValue]) -> bool:
        """Whether `predict` needs no run for a configuration.

        Args:
            knobs: The configuration.
            values: The same with the script's defaults.
        """
        if not self._runner.knows(knobs):
            return False
        counted = self._runner.count(knobs)
        if isinstance(counted, RunFailed) or counted.incomplete:
            return True
        known = self._exports.get(self._runner.structure(knobs), [])
        if any(isinstance(one, RunFailed) for one in known):
            return True
        counted = self._with_factors(counted, knobs)
        sigmas = self._sigmas(counted, values, self._steps(counted, values, None).made)
        return any(
            isinstance(one, _Measured)
            and abs(self._octaves(counted, one.sigmas, sigmas)) <= FURTHEST
            for one in known
        )

    def _with_factors(self, counted: Counted, knobs: Mapping[str, KnobValue]) -> Counted:
        """A count with the decay that its export has shown."""
        factors = self._factors.get(self._runner.structure(knobs))
        return counted if factors is None else replace(counted, factors=factors)

    def carried_over(
        self,
        reference: Reference,
        tensors: tuple[ProbedTensor, ...],
        knobs: Mapping[str, KnobValue],
        values: Mapping[str, KnobValue],
        steps: float | None = None,
    ) -> Prediction | None:
        """What an export of other shapes says of a configuration; None where there is none.

        Args:
            reference: The configuration that was exported.
            tensors: Those of this configuration's model.
            knobs: The configuration.
            values: The same with the script's defaults.
            steps: As of `predict`.
        """
        key = self._runner.structure(reference.knobs)
        measured = next((m for m in self._exports.get(key, ()) if isinstance(m, _Measured)), None)
        moved = self._runner.moved(reference.counted, reference.knobs, knobs)
        if measured is None or moved is None:
            return None
        counted = replace(
            moved,
            model_params=sum(tensor.params for tensor in tensors),
            tensors=tensors,
            updates=tuple(
                replace(update, members=members)
                for update, members in updates_for(moved.updates, tensors)
            ),
            factors={},
        )
        made = self._steps(counted, values, steps)
        sigmas = self._sigmas(counted, values, made.made)
        ratio = scaled(reference.counted.tensors, measured.exported, tensors)
        octaves = self._octave(counted, sigmas) - self._octave(reference.counted, measured.sigmas)
        size = ratio.factor * (measured.exported.model_bytes + measured.per_octave * octaves)
        carried = replace(measured, per_octave=measured.per_octave * ratio.factor)
        found = self._prediction(counted, carried, size, values, made)
        return replace(found, traits={**found.traits, "foreign scaled": ratio.share * size})

    def predict(
        self,
        counted: Counted,
        knobs: Mapping[str, KnobValue],
        values: Mapping[str, KnobValue],
        steps: float | None = None,
    ) -> Prediction | RunFailed:
        """The artifact's model bytes; why not, where the export did not run.

        Args:
            counted: The configuration's model.
            knobs: The configuration.
            values: The same with the script's defaults.
            steps: Steps of a run that ended; without them they are expected.
        """
        made = self._steps(counted, values, steps)
        counted = self._with_factors(counted, knobs)
        sigmas = self._sigmas(counted, values, made.made)
        measured = self._measured(counted, knobs, sigmas)
        if isinstance(measured, RunFailed):
            return measured
        exported = measured.exported
        if exported.factors and not counted.factors:
            # A decay that the script applies between its steps, where a count does not get to.
            self._factors[self._runner.structure(knobs)] = exported.factors
            return self.predict(counted, knobs, values, steps)
        self.code_bytes = exported.code_bytes
        moved = measured.per_octave * self._octaves(counted, measured.sigmas, sigmas)
        size = exported.model_bytes + moved
        return self._prediction(counted, measured, size, values, made)

    def _steps(
        self, counted: Counted, values: Mapping[str, KnobValue], made: float | None
    ) -> Steps:
        """Those that a run has made, else those to expect."""
        if made is not None:
            return Steps(made, 0.0)
        return self.steps.planned(values, counted.model_params)

    def _sigmas(
        self, counted: Counted, values: Mapping[str, KnobValue], steps: float
    ) -> dict[str, float]:
        updates = [
            GroupUpdate(
                muon=one.is_muon, rate=one.rate, momentum=one.momentum, decay=one.decay,
                members=one.members,
            )
            for one in counted.updates
        ]  # fmt: skip
        shapes = {tensor.name: tensor.shape for tensor in counted.tensors}
        if counted.evolves:
            steps = EVOLVED_STEPS
        return trained_sigmas(shapes, updates, counted.factors, values, steps)

    def _measured(
        self, counted: Counted, knobs: Mapping[str, KnobValue], sigmas: Mapping[str, float]
    ) -> _Measured | RunFailed:
        """An export of this structure at about this spread; run where there is none yet."""
        known = self._exports.setdefault(self._runner.structure(knobs), [])
        for one in known:
            if isinstance(one, RunFailed):
                return one
            if abs(self._octaves(counted, one.sigmas, sigmas)) <= FURTHEST:
                return one
        exported = self._runner.export(knobs, sigmas)
        if isinstance(exported, RunFailed):
            known.append(exported)
            return exported
        factor = 2**-NARROWER
        narrower = {name: sigma * factor if self._is_matrix(name, counted) else sigma
                    for name, sigma in sigmas.items()}  # fmt: skip
        second = self._runner.export(knobs, narrower)
        matrices, _ = numbers_in(counted.tensors, self._group_of)
        per_octave = matrices / 8  # a bit a weight, where nobody knows
        if isinstance(second, Exported):
            per_octave = max(0.0, exported.model_bytes - second.model_bytes) / NARROWER
        found = _Measured(sigmas=dict(sigmas), exported=exported, per_octave=per_octave)
        known.append(found)
        return found

    def _is_matrix(self, name: str, counted: Counted) -> bool:
        shape = next(tensor.shape for tensor in counted.tensors if tensor.name == name)
        return len(shape) >= 2 and self._group_of(name) not in {"embed", "head"}

    def _octaves(
        self, counted: Counted, before: Mapping[str, float], after: Mapping[str, float]
    ) -> float:
        """How many octaves wider the matrices' spread is, weighted by their numbers."""
        return self._octave(counted, after) - self._octave(counted, before)

    def _octave(self, counted: Counted, sigmas: Mapping[str, float]) -> float:
        """The mean logarithm of the matrices' spread."""
        summed, whole = 0.0, 0
        for tensor in counted.tensors:
            embeds = self._group_of(tensor.name) in {"embed", "head"}
            if len(tensor.shape) < 2 or embeds:
                continue
            summed += tensor.params * math.log2(sigmas[tensor.name])
            whole += tensor.params
        return summed / whole if whole else 0.0

    def _prediction(
        self,
        counted: Counted,
        measured: _Measured,
        size: float,
        values: Mapping[str, KnobValue],
        steps: Steps,
    ) -> Prediction:
        exported, per_octave = measured.exported, measured.per_octave
        matrices, vocabulary = numbers_in(counted.tensors, self._group_of)
        few = has_few_pieces(counted.tensors, self._group_of)
        slope = 8 * per_octave / max(1, matrices)
        family = FAMILIES.get(family_of(exported.codec, slope, few_pieces=few), OTHER)
        size *= 1 + family.bias
        octaves = MATRIX_OCTAVES if counted.updates else UNSEEN_OCTAVES
        embed = per_octave * vocabulary / matrices if matrices else 0.0
        traits = {
            "foreign sigma": octaves * per_octave,
            "foreign embed": EMBED_OCTAVES * embed,
            "foreign steps": per_octave * self._octaves_of(counted, values, steps),
            "foreign": family.spread * size,
        }
        noise = math.hypot(
            max(NOISE_SHARE, family.seeds / SEED_ROOT) * size, NOISE_OCTAVES * per_octave
        )
        return Prediction(
            groups=groups_of(counted, exported, size, self._group_of),
            model_bytes=size,
            model_params=counted.model_params,
            ceiling=max(4.2 * counted.model_params, 1.5 * size),
            traits={name: value for name, value in traits.items() if value},
            noise_bytes=noise,
            steps=steps.made,
        )

    def _octaves_of(self, counted: Counted, values: Mapping[str, KnobValue], steps: Steps) -> float:
        """How far the number of steps, where it is not known, moves the matrices' spread."""
        if not steps.spread:
            return 0.0
        made, fewer = (
            self._octave(counted, self._sigmas(counted, values, max(1.0, count)))
            for count in (steps.made, steps.made * math.exp(-steps.spread))
        )
        return abs(made - fewer)

"""The artifact of a script that is not ours, predicted from what a probe of it found.

The script's own `main()` is run (`pgolf_sweep.gate.run_based`): its model, its optimizers and its
export say what they are. Configurations of other shapes need no run where the reading probe
(`pgolf_sweep.script.probe.prober`) counts the same tensors as the run did: the measured export is
carried over. It also counts where a run does not get as far as that.

Where the export did not run, a scheme that the sweep file declares stands in for it; without one,
the first finished trial's bytes a parameter do. Nothing is guessed silently: an `Unknown` says why.
What a finished trial's log says otherwise is reported once, and the probe is not asked again about
configurations of that branch.
"""

from __future__ import annotations

import copy
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

from pgolf_sweep.gate.ahead import Ahead
from pgolf_sweep.gate.declared import Scheme, from_scheme, group_of
from pgolf_sweep.gate.physics.entropy import ScaleRule
from pgolf_sweep.gate.physics.predict import GroupSize, Prediction
from pgolf_sweep.gate.run_based import Reference, RunBased
from pgolf_sweep.gate.script_steps import CONTEST_GPUS, SHORT_STEPS, is_short
from pgolf_sweep.script.knobs.knobs import worded
from pgolf_sweep.script.probe.prober import Probed, Prober, Unprobed
from pgolf_sweep.script.probe.runner import Counted, RunFailed, Runner

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from pgolf_sweep.config.types import SchemeBlock
    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.script.knobs.knobs import Knob
    from pgolf_sweep.script.probe.runner import Exported
    from pgolf_sweep.script.program import Program

INFERRED_SHARE = 0.04
"""Spread of bytes a parameter between configurations of a script whose export is unknown."""
SHORT_SHARE = 0.04
"""Spread of a short run beside all else: below 600 steps errors are 4 to 10 % of the bytes."""
_MAY_MODEL = re.compile(rb"\btorch|\bexec\b|import_|\brunpy\b")
"""Of a program that can make a torch module: it names torch, or runs text that may."""
_PLACE = re.compile(r"_(PATH|DIR|ROOT|FILES?)$|^RUN_ID$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """Nothing can be said of a configuration's bytes.

    Attributes:
        reason: Why, for people.
        model_params: Known if the model could be built.
        invalid: The script itself refuses to build this model, and builds the default one.
    """

    reason: str
    model_params: int | None = None
    invalid: bool = False


Expected: TypeAlias = Prediction | Unknown


class ProberLike(Protocol):
    """What is asked of `pgolf_sweep.script.probe.prober.Prober`."""

    def probe(self, knobs: Mapping[str, KnobValue]) -> Probed | Unprobed:
        """What a configuration's model is."""


@dataclass(frozen=True)
class _Worded:
    """A prober that is asked with the words that the script knows for its booleans."""

    prober: ProberLike
    known: Mapping[str, Knob]

    def probe(self, knobs: Mapping[str, KnobValue]) -> Probed | Unprobed:
        return self.prober.probe(worded(knobs, self.known))


@dataclass(frozen=True)
class _WordedRunner:
    """A runner that is asked with the words that the script knows for its booleans."""

    runner: Runner
    known: Mapping[str, Knob]

    def count(self, knobs: Mapping[str, KnobValue]) -> Counted | RunFailed:
        return self.runner.count(worded(knobs, self.known))

    def knows(self, knobs: Mapping[str, KnobValue]) -> bool:
        return self.runner.knows(worded(knobs, self.known))

    def set_lacking(self, packages: frozenset[str]) -> bool:
        return self.runner.set_lacking(packages)

    def structure(self, knobs: Mapping[str, KnobValue]) -> tuple[str, ...]:
        return self.runner.structure(worded(knobs, self.known))

    def moved(
        self,
        counted: Counted,
        before: Mapping[str, KnobValue],
        knobs: Mapping[str, KnobValue],
    ) -> Counted | None:
        return self.runner.moved(counted, worded(before, self.known), worded(knobs, self.known))

    def export(
        self, knobs: Mapping[str, KnobValue], sigmas: Mapping[str, float]
    ) -> Exported | RunFailed:
        return self.runner.export(worded(knobs, self.known), sigmas)


class Foreign:
    """Predictions for one program that is not ours.

    Args:
        prober: Reads the script for its parameters.
        defaults: The script's own values of its knobs.
        scheme: What the sweep file declares; it wins over the script's export.
        runs: Runs the script's `main()`; without it the script is only read.
    """

    def __init__(
        self,
        prober: ProberLike,
        defaults: Mapping[str, KnobValue],
        scheme: Scheme | None = None,
        runs: RunBased | None = None,
    ) -> None:
        self._runs = runs
        self._references: dict[tuple[str, ...], tuple[Reference, bool]] = {}
        self._ahead = Ahead(self.prepare)
        self._contradicted: dict[tuple[str, ...], str] = {}
        self._prober = prober
        self._defaults = defaults
        self._scheme = scheme
        # Bytes a parameter of finished trials, those of short runs apart.
        self._measured: dict[bool, list[float]] = {False: [], True: []}

    def copy(self) -> Foreign:
        """Predictions that know the same and learn by themselves."""
        other = copy.copy(self)
        learnt: dict[str, object] = {
            "_measured": {short: list(seen) for short, seen in self._measured.items()},
            "_contradicted": dict(self._contradicted),
        }
        if self._runs is not None:
            learnt["_runs"] = self._runs.copy()
        vars(other).update(learnt)
        return other

    def expected(self, knobs: Mapping[str, KnobValue], steps: float | None = None) -> Expected:
        """The prediction for a configuration, or why there is none.

        Args:
            knobs: The configuration.
            steps: Steps of a run that ended; without them they are expected.
        """
        branch = self._branch(knobs)
        if branch in self._contradicted:
            return self._unprobed_branch(branch)
        failed = ""
        if self._runs is not None and self._scheme is None:
            answer = self._from_run(knobs, steps)
            if not isinstance(answer, str):
                return self._by_length(answer, knobs, steps)
            failed = answer
        answer = self._from_reading(knobs, steps)
        if failed and isinstance(answer, Unknown):
            answer = replace(answer, reason=f"{answer.reason}; {failed}")
        return self._by_length(answer, knobs, steps)

    def _by_length(
        self, answer: Expected, knobs: Mapping[str, KnobValue], steps: float | None
    ) -> Expected:
        """A prediction whose traits, of a short run, are those that short runs teach."""
        if self._runs is None or isinstance(answer, Unknown):
            return answer
        values = {**self._defaults, **knobs}
        made = steps or self._runs.steps.planned(values, answer.model_params).made
        return answer if made >= SHORT_STEPS else of_short_run(answer)

    @property
    def code_bytes(self) -> int | None:
        """Bytes of the counted code as a run of the script printed them; None before one."""
        return None if self._runs is None else self._runs.code_bytes

    def learn_time(self, knobs: Mapping[str, KnobValue], steps: int, seconds: float) -> None:
        """Take in how long a finished trial trained."""
        believed = self._believed(knobs)
        if self._runs is not None and believed:
            self._runs.steps.learn({**self._defaults, **knobs}, believed, steps, seconds)

    def state_step_seconds(self, seconds: float) -> None:
        """Take in how long a step takes, as somebody says."""
        if self._runs is not None:
            self._runs.steps.stated = seconds

    def set_lacking(self, packages: frozenset[str]) -> None:
        """Take in which packages of codecs the nodes of the trials lack."""
        if self._runs is not None and self._runs.set_lacking(packages):
            self._references.clear()

    def ran(
        self, knobs: Mapping[str, KnobValue]
    ) -> tuple[Counted, Exported | RunFailed | None] | None:
        """What a run of the script showed of a configuration, for people; None without one."""
        if self._runs is None or self._scheme is not None:
            return None
        counted = self._runs.count(knobs)
        return (counted, self._runs.exported(knobs)) if isinstance(counted, Counted) else None

    def ready(self, knobs: Mapping[str, KnobValue]) -> bool:
        """Whether `expected` answers at once; if not, a thread sees to it."""
        if self.answers(knobs):
            return True
        return self._ahead.ready(_key(knobs), knobs)

    def answers(self, knobs: Mapping[str, KnobValue]) -> bool:
        """Whether `expected` needs no run, if only by an export of other shapes; starts none.

        What was prepared needs none either, in particular where its run has failed.
        """
        if self._runs is None or self._scheme is not None or self._ahead.done(_key(knobs)):
            return True
        branch = self._branch(knobs)
        if branch in self._contradicted:
            return True
        _, read_right = self._references.get(branch, (None, False))
        known = branch in self._references and (read_right or self._runs.counts(knobs))
        return known or self._runs.at_once(knobs, {**self._defaults, **knobs})

    def prepare(self, knobs: Mapping[str, KnobValue], *, thorough: bool = False) -> None:
        """Run the script for a configuration, so that `expected` answers at once.

        Args:
            knobs: The configuration.
            thorough: Whether to run its export even where one of other shapes is known.
        """
        if self._runs is not None and self._branch(knobs) not in self._contradicted:
            answer = self._from_run(knobs, None, thorough=thorough)
            if isinstance(answer, str):
                self._from_reading(knobs, None)

    def _carried_over(
        self, knobs: Mapping[str, KnobValue], steps: float | None
    ) -> Prediction | None:
        """What the export of another configuration of this branch says of this one."""
        reference, read_right = self._references.get(self._branch(knobs), (None, False))
        if self._runs is None or reference is None or self._runs.knows(knobs):
            return None
        found: Probed | Unprobed | Counted | RunFailed
        found = self._prober.probe(knobs) if read_right else self._runs.count(knobs)
        if isinstance(found, Unprobed | RunFailed) or found.incomplete:
            return None
        values = {**self._defaults, **knobs}
        return self._runs.carried_over(reference, found.tensors, knobs, values, steps)

    def _from_run(
        self, knobs: Mapping[str, KnobValue], steps: float | None, *, thorough: bool = False
    ) -> Expected | str:
        """What a run of the script says; why it says nothing.

        Args:
            knobs: The configuration.
            steps: As of `expected`.
            thorough: Whether to run its export even where one of other shapes is known.
        """
        if self._runs is None:
            return "the script is not run"
        carried = None if thorough else self._carried_over(knobs, steps)
        if carried is not None:
            return carried
        counted = self._runs.count(knobs)
        if isinstance(counted, RunFailed):
            return f"its main() does not run without a GPU: {counted.reason}"
        if counted.incomplete:
            return f"its main() ran in part: {'; '.join(counted.notes)}"
        found = self._runs.predict(counted, knobs, {**self._defaults, **knobs}, steps)
        if isinstance(found, Prediction):
            branch = self._branch(knobs)
            if branch not in self._references:
                seen = self._prober.probe(knobs)
                right = isinstance(seen, Probed) and seen.model_params == counted.model_params
                self._references[branch] = Reference(knobs=knobs, counted=counted), right
            return found
        return self._counted_alone(counted.model_params, found.reason, knobs, steps)

    def _counted_alone(
        self, model_params: int, why: str, knobs: Mapping[str, KnobValue], steps: float | None
    ) -> Expected:
        """What is to be said of a model whose parameters are known, and whose export is not."""
        if measured := self._measured[is_short({**self._defaults, **knobs}, steps)]:
            return _inferred(model_params, measured)
        return Unknown(
            reason=f"{model_params:,} parameters; {why}; declare pgolf.gate.scheme, or the first "
            "finished trial tells",
            model_params=model_params,
        )

    def contradict(
        self,
        knobs: Mapping[str, KnobValue],
        *,
        model_params: int | None,
        code_bytes: int | None = None,
    ) -> str:
        """Compare a finished trial's log with what was believed of its configuration.

        Args:
            knobs: The trial's configuration.
            model_params: The parameters that its log prints, or None.
            code_bytes: The counted code's bytes that it prints, or None.

        Returns:
            What differs, once for each branch; an empty string where nothing does.
        """
        branch = self._branch(knobs)
        if branch in self._contradicted:
            return ""
        if self._runs is not None and code_bytes is not None:
            self._runs.code_bytes = code_bytes
        believed = self._believed(knobs)
        if model_params is None or believed is None or believed == model_params:
            return ""
        where = " ".join(branch) or "its configuration"
        text = (
            f"the log prints {model_params:,} parameters, the probe counted {believed:,}: what it "
            f"says of {where} is not used any more"
        )
        self._contradicted[branch] = text
        return text

    def _believed(self, knobs: Mapping[str, KnobValue]) -> int | None:
        """The parameters that the probe counted."""
        if self._runs is not None:
            counted = self._runs.count(knobs)
            if isinstance(counted, Counted):
                return counted.model_params
        found = self._prober.probe(knobs)
        return found.model_params if isinstance(found, Probed) else None

    def _branch(self, knobs: Mapping[str, KnobValue]) -> tuple[str, ...]:
        """What may choose another model by name: values of a configuration that are no numbers."""
        return tuple(
            f"{name}={value}"
            for name, value in sorted({**self._defaults, **knobs}.items())
            if isinstance(value, bool | str) and name in knobs and not _PLACE.search(name)
        )

    def _unprobed_branch(self, branch: tuple[str, ...]) -> Unknown:
        return Unknown(reason=self._contradicted[branch])

    def _from_reading(self, knobs: Mapping[str, KnobValue], steps: float | None) -> Expected:
        found = self.probed(knobs)
        if isinstance(found, Unprobed):
            return self._refused(found, knobs)
        if self._scheme is not None:
            return from_scheme(found, self._scheme)
        if found.incomplete:
            return Unknown(reason=f"the probe saw only a part: {'; '.join(found.notes)}")
        why = "; ".join((*found.notes, "its export did not run"))
        return self._counted_alone(found.model_params, why, knobs, steps)

    def probed(self, knobs: Mapping[str, KnobValue]) -> Probed | Unprobed:
        """What the probe found, for people."""
        return self._prober.probe(knobs)

    def learn(
        self, knobs: Mapping[str, KnobValue], model_bytes: int, steps: int | None = None
    ) -> None:
        """Take in a finished trial's bytes; matters where its export did not run."""
        believed = self._believed(knobs)
        if believed:
            short = is_short({**self._defaults, **knobs}, steps)
            self._measured[short].append(model_bytes / believed)

    def _refused(self, found: Unprobed, knobs: Mapping[str, KnobValue]) -> Unknown:
        default = self._prober.probe({}) if found.refused_by_script and knobs else None
        return Unknown(
            reason=f"the script cannot be probed: {found.reason}",
            invalid=isinstance(default, Probed),
        )


def of_short_run(answer: Prediction) -> Prediction:
    """A prediction for a run of few steps: wider, by traits that short runs alone teach."""
    traits = {f"{name} of short runs": worth for name, worth in answer.traits.items()}
    traits["foreign shortness"] = SHORT_SHARE * answer.model_bytes
    return replace(answer, traits=traits)


def _inferred(model_params: int, measured: Sequence[float]) -> Prediction:
    """What the bytes a parameter of finished trials say of a model."""
    size = math.fsum(measured) / len(measured) * model_params
    group = GroupSize(group="model", params=model_params, bits=0, model_bytes=size)
    return Prediction(
        groups=(group,),
        model_bytes=size,
        model_params=model_params,
        ceiling=4.0 * model_params,
        traits={},
        noise_bytes=INFERRED_SHARE * size,
        steps=0.0,
    )


def foreign_of(
    program: Program,
    scheme: SchemeBlock | None = None,
    env: Mapping[str, str] | None = None,
    gpus: int = CONTEST_GPUS,
) -> Foreign | None:
    """The predictions for a program that is not ours; None where there is nothing to probe.

    That is our own trainer, and a program without a word of torch: a probe of it imports torch,
    which takes seconds, and finds no model to count.

    Args:
        program: The program.
        scheme: ``pgolf.gate.scheme`` of the sweep file.
        env: What the script finds in its environment beside its knobs, as the data set's paths.
        gpus: Of a trial; 0 is a CPU.
    """
    if program.builtin or not any(_MAY_MODEL.search(data) for data in program.files.values()):
        return None
    defaults = {name: k.default for name, k in program.knobs.items() if k.default is not None}
    declared = None
    if scheme is not None:
        declared = Scheme(
            bits=scheme.bits,
            embed_bits=scheme.embed_bits,
            scale=ScaleRule(scheme.scale),
            parameter=scheme.parameter,
            codec=scheme.codec,
            keep_below=scheme.keep_below,
        )
    prober = _Worded(Prober(program, env=env), program.knobs)
    runs = RunBased(_WordedRunner(Runner(program, env=env), program.knobs), group_of, gpus)
    return Foreign(prober, defaults, declared, runs)


def _key(knobs: Mapping[str, KnobValue]) -> Hashable:
    return tuple(sorted(knobs.items(), key=str))

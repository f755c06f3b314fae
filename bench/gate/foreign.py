"""How well the gate predicts other people's artifacts, each record held out in turn.

    python bench/gate/foreign.py FACTS.jsonl [--fit] [--list]

FACTS is what `bench/records/running.py` measured. Each record's runs are predicted with what the
other records' runs teach of codecs and quantizers (`pgolf_sweep.gate.families`): first with nothing
of its own measured and the steps unknown, then after one of its own runs. --fit prints the table
for that module, of all records. Verdicts are judged against caps around each artifact. Exit code 1
when a bar is missed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.trial import VerdictKind
from pgolf_sweep.gate import run_based
from pgolf_sweep.gate.declared import group_of
from pgolf_sweep.gate.families import Family, family_of
from pgolf_sweep.gate.gate import Gate
from pgolf_sweep.gate.grouped import has_few_pieces, numbers_in
from pgolf_sweep.gate.probed import of_short_run
from pgolf_sweep.gate.run_based import RunBased
from pgolf_sweep.gate.script_steps import CONTEST_GPUS, SHORT_STEPS, ScriptSteps
from pgolf_sweep.script.probe.prober import ProbedTensor
from pgolf_sweep.script.probe.runner import Counted, Exported, StoredTensor, Update

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pgolf_sweep.gate.physics.predict import Prediction

CAP_FACTORS = (0.75, 0.85, 0.9, 0.94, 0.97, 1.0, 1.03, 1.06, 1.1, 1.2, 1.35)
"""Caps over an artifact's true size, at which its configuration is judged."""
FAR = 0.05
PRIOR_RECORDS = 1.0
"""Records that the spread of all families counts for in that of one."""
LEAST_SPREAD, LEAST_SEEDS = 0.003, 0.0005
HELD, BEFORE, AFTER, DECIDED = (0.97, 0.999), 0.04, 0.01, 0.5
FURTHER_SECONDS = 0.02
STRANGE = 0.1
"""A record that is farther off, relative, teaches no family: its weights are of another kind."""


@dataclass(frozen=True)
class Case:
    """One logged run.

    Attributes:
        record: Its record.
        runs: Predicts it.
        counted: Its model.
        facts: What was measured.
    """

    record: str
    runs: RunBased
    counted: Counted
    facts: Mapping[str, Any]

    @property
    def model_bytes(self) -> int:
        return int(self.facts["model_bytes"])

    @property
    def code_bytes(self) -> int:
        return int(self.facts["code_bytes"] or 0)

    @property
    def family(self) -> str:
        measured = self.runs._exports[()][-1]
        assert isinstance(measured, run_based._Measured)
        matrices, _ = numbers_in(self.counted.tensors, group_of)
        slope = 8 * measured.per_octave / max(1, matrices)
        few = has_few_pieces(self.counted.tensors, group_of)
        return family_of(measured.exported.codec, slope, few_pieces=few)

    def prediction(self, steps: float | None = None) -> Prediction:
        found = self.runs.predict(self.counted, {}, self.facts["values"], steps)
        assert not isinstance(found, run_based.RunFailed)
        return of_short_run(found) if found.steps < SHORT_STEPS else found


@dataclass
class Probes:
    """Stands for the probe of one record: answers on its current case."""

    case: Case
    code_bytes: int
    steps: ScriptSteps = field(init=False)

    def __post_init__(self) -> None:
        self.steps = ScriptSteps(gpus_of(self.case.facts))

    def expected(self, knobs: object, steps: float | None = None) -> Prediction:
        del knobs
        self.case.runs.steps = self.steps
        return self.case.prediction(steps)

    def learn(self, knobs: object, model_bytes: int, steps: int | None = None) -> None:
        del knobs, model_bytes, steps

    def learn_time(self, knobs: object, steps: int, seconds: float) -> None:
        del knobs
        self.steps.learn(self.case.facts["values"], self.case.counted.model_params, steps, seconds)


@dataclass(frozen=True)
class Script:
    """Stands for a program of the gate's protocol."""

    code_bytes: int
    builtin: bool = False
    sha256: str = ""
    unnamed: tuple[str, ...] = ()
    knobs: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Score:
    """What was found of one regime."""

    errors: list[float] = field(default_factory=list)
    halves: list[float] = field(default_factory=list)
    held: list[bool] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def take(self, gate: Gate, case: Case) -> None:
        found = gate.verdict(case.facts["env"]).model_bytes
        assert found is not None
        true = case.model_bytes
        self.errors.append(abs(found.mid / true - 1))
        self.halves.append((found.high - found.low) / 2 / true)
        self.held.append(found.low <= true <= found.high)
        if not self.held[-1]:
            self.missed.append(f"{case.facts['log']} ({case.family}): {found.mid / true - 1:+.2%}, "
                               f"half width {self.halves[-1]:.2%}")  # fmt: skip

    def __str__(self) -> str:
        errors = sorted(self.errors)
        return (
            f"{len(errors)} runs: median error {statistics.median(errors):.2%}, 95th "
            f"{errors[int(0.95 * len(errors))]:.2%}; median half width "
            f"{statistics.median(self.halves):.2%}; held {statistics.mean(self.held):.1%}"
        )


@dataclass
class Caps:
    """Verdicts under other caps, with nothing measured."""

    far: int = 0
    decided: int = 0
    fitting: int = 0
    discarded: list[str] = field(default_factory=list)

    def take(self, case: Case) -> None:
        size = case.model_bytes + case.code_bytes
        for factor in CAP_FACTORS:
            kind = gate_for(case, round(factor * size)).verdict(case.facts["env"]).kind
            if abs(factor - 1) > FAR:
                self.far += 1
                self.decided += kind is not VerdictKind.NEAR
            if factor >= 1:
                self.fitting += 1
                if kind is VerdictKind.TOO_BIG:
                    self.discarded.append(f"{case.facts['log']} at {factor}")

    def __str__(self) -> str:
        share = self.decided / self.far
        lines = [
            f"{self.decided} of {self.far} verdicts {FAR:.0%} off or more are decided, {share:.0%}",
            f"{len(self.discarded)} of {self.fitting} that fit are discarded",
        ]
        return "\n".join(lines + [f"    {line}" for line in self.discarded])


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("facts", type=Path)
    arguments.add_argument("--list", action="store_true", help="each run's error")
    arguments.add_argument("--fit", action="store_true", help="print the table of families")
    options = arguments.parse_args()
    lines = {f["log"]: f for f in map(json.loads, options.facts.read_text().splitlines())}
    cases = [case for facts in lines.values() if (case := case_of(facts)) is not None]
    records: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        records[case.record].append(case)
    print(f"{len(cases)} runs of {len(records)} records, of {len(lines)} logs")
    if options.list:
        for case in cases:
            told(case)
    if options.fit:
        for name, family in sorted(fitted(cases).items()):
            print(f'    "{name}": Family({family.bias:.4f}, {family.spread:.4f}, '
                  f"{family.seeds:.4f}),")  # fmt: skip
        return 0
    return judged(records)


def judged(records: Mapping[str, Sequence[Case]]) -> int:
    before, after, cross, caps = Score(), Score(), Score(), Caps()
    everything = [case for cases in records.values() for case in cases]
    for record, cases in records.items():
        others = fitted([case for case in everything if case.record != record])
        run_based.FAMILIES.clear()
        run_based.FAMILIES.update(others)
        for case in cases:
            before.take(gate_for(case), case)
            caps.take(case)
        for first, case in itertools.permutations(cases, 2):
            gate = gate_for(first)
            taught(gate, first)
            gate.predictor.foreign.case = case
            (after if plain(first) == plain(case) else cross).take(gate, case)
    print(f"before any: {before}")
    print(f"after one of the same configuration: {after}")
    if cross.errors:
        print(f"after one of another configuration: {cross}")
    for score in (before, after, cross):
        for line in score.missed:
            print(f"    missed: {line}")
    print(caps)
    times = sorted(further_seconds(case) for case in everything)
    middle, longest = 1000 * statistics.median(times), 1000 * times[-1]
    print(
        f"a further configuration of a known structure: median {middle:.1f} ms, "
        f"longest {longest:.1f} ms"
    )
    held = statistics.mean(before.held)
    met = [
        HELD[0] <= held, statistics.median(before.halves) <= BEFORE,
        statistics.median(after.halves) <= AFTER, caps.decided >= DECIDED * caps.far,
        not caps.discarded, times[-1] <= FURTHER_SECONDS,
    ]  # fmt: skip
    return int(not all(met))


def further_seconds(case: Case) -> float:
    """Processor seconds of a prediction for other rates, whose walks are not known yet."""
    updates = tuple(replace(one, rate=1.01 * one.rate) for one in case.counted.updates)
    began = time.process_time()
    case.runs.predict(replace(case.counted, updates=updates), {}, case.facts["values"], None)
    return time.process_time() - began


def gate_for(case: Case, cap: int = 16_000_000) -> Gate:
    probes: Any = Probes(case, case.code_bytes)
    return Gate(Script(case.code_bytes), cap, foreign=probes)


def taught(gate: Gate, case: Case) -> None:
    facts = case.facts
    gate.learn(facts["env"], case.model_bytes, steps=facts["steps"])
    gate.learn_time(facts["env"], steps=facts["steps"], train_seconds=facts["train_seconds"])


def plain(case: Case) -> dict[str, str]:
    return {k: v for k, v in case.facts["env"].items() if k not in {"SEED", "RUN_ID"}}


def fitted(cases: Sequence[Case]) -> dict[str, Family]:
    """Each family's bias and spreads: of records' means, and of runs about their configuration's.

    Short runs, which are given a spread of their own, teach nothing of long ones.
    """
    run_based.FAMILIES.clear()
    errors: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    seeds: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    slopes: dict[str, float] = {}
    for case in cases:
        if case.facts["steps"] < SHORT_STEPS:
            continue
        measured = case.runs._exports[()][-1]
        slopes[case.family] = measured.per_octave / measured.exported.model_bytes
        expected = case.prediction(case.facts["steps"]).model_bytes / (1 + run_based.OTHER.bias)
        error = case.model_bytes / expected - 1
        errors[case.family][case.record].append(error)
        seeds[case.family][f"{case.record} {case.facts['program']} {plain(case)}"].append(error)
    means = {
        family: [mean for one in by_record.values() if abs(mean := statistics.mean(one)) <= STRANGE]
        for family, by_record in errors.items()
    }
    means = {family: found for family, found in means.items() if found}
    squares = [(one - statistics.median(found)) ** 2 for found in means.values() for one in found
               if len(found) > 2]  # fmt: skip
    common = math.fsum(squares) / max(1, len(squares))
    table = {}
    for family, found in means.items():
        bias = statistics.mean(found) * len(found) / (len(found) + 0.5)
        walked = [(run_based.MATRIX_OCTAVES * slopes[family]) ** 2] * len(found)
        own = math.fsum(
            max(0.0, (one - bias) ** 2 - part) for one, part in zip(found, walked, strict=True)
        )
        variance = (PRIOR_RECORDS * common + own) / (PRIOR_RECORDS + len(found) - 1)
        within = [(one - statistics.mean(runs)) ** 2 for runs in seeds[family].values()
                  for one in runs if len(runs) > 1]  # fmt: skip
        free = sum(len(runs) - 1 for runs in seeds[family].values())
        table[family] = Family(
            bias,
            max(LEAST_SPREAD, math.sqrt(variance * (1 + 1 / len(found)))),
            max(LEAST_SEEDS, math.sqrt(math.fsum(within) / free) if free else 0.003),
        )
    return table


def told(case: Case) -> None:
    known, unknown = case.prediction(case.facts["steps"]), case.prediction()
    exports = [one for _, one in case.facts["exports"]]
    print(
        f"{case.facts['log'][:64]:64} {case.family:12} "
        f"known {known.model_bytes / case.model_bytes - 1:+7.2%} planned "
        f"{unknown.model_bytes / case.model_bytes - 1:+7.2%} bits/param "
        f"{8 * case.model_bytes / case.facts['model_params']:.2f} steps {case.facts['steps']} "
        f"for {unknown.steps:.0f} sampled {exports[0]['sampled']}"
    )


class Replayed:
    """Answers as the runs that were kept."""

    def __init__(self, counted: Counted, kept: Sequence[Any]) -> None:
        self.counted, self.kept = counted, kept

    def count(self, knobs: object) -> Counted:
        del knobs
        return self.counted

    def knows(self, knobs: object) -> bool:
        del knobs
        return True

    def structure(self, knobs: object) -> tuple[str, ...]:
        del knobs
        return ()

    def moved(self, *_: object) -> None:
        return None

    def export(self, knobs: object, sigmas: Mapping[str, float]) -> Exported:
        """The first that was kept, moved by its slope to another spread."""
        del knobs
        (kept, *_) = self.kept
        octaves, whole = 0.0, 0
        for tensor in self.counted.tensors:
            if len(tensor.shape) >= 2 and group_of(tensor.name) not in {"embed", "head"}:
                octaves += tensor.params * math.log2(sigmas[tensor.name] / kept.sigmas[tensor.name])
                whole += tensor.params
        moved = kept.per_octave * octaves / max(1, whole)
        return replace(kept.exported, model_bytes=round(kept.exported.model_bytes + moved))


def case_of(facts: Mapping[str, Any]) -> Case | None:
    """A log as a case; None where its size, its steps, its count or its export is missing."""
    if not (facts["exports"] and facts["model_bytes"] and facts["steps"]):
        return None
    counted = counted_of(facts["counted"])
    if counted.model_params != facts["model_params"]:
        return None
    kept = list(measured_of(counted, facts["exports"]))
    runs = RunBased(Replayed(counted, kept), group_of, gpus_of(facts))
    runs._exports[()] = [*kept]
    return Case(facts["log"].partition("/")[0], runs, counted, facts)


def gpus_of(facts: Mapping[str, Any]) -> int:
    """Those that the run had, which whoever asks the gate knows (`--gpus`)."""
    return facts["gpus"] or CONTEST_GPUS


def counted_of(facts: Mapping[str, Any]) -> Counted:
    known = dict(facts)
    known["tensors"] = tuple(
        ProbedTensor(name=one["name"], shape=tuple(one["shape"]), dtype=one["dtype"])
        for one in facts["tensors"]
    )
    known["updates"] = tuple(
        Update(**one | {"members": tuple(one["members"])}) for one in facts["updates"]
    )
    return Counted(**known | {"notes": (), "stand_ins": ()})


def measured_of(counted: Counted, exports: Sequence[Any]) -> Iterable[Any]:
    """The exports in pairs, of which the second has other matrices."""
    done = [(sigmas, exported_of(one)) for sigmas, one in exports]
    if len(done) % 2:
        done.append(done[-1])  # the wider one did not end
    for (sigmas, exported), (others, second) in zip(done[::2], done[1::2], strict=True):
        octaves = max((math.log2(others[n] / sigmas[n]) for n in sigmas), key=abs)
        if octaves:
            per_octave = max(0.0, (second.model_bytes - exported.model_bytes) / octaves)
        else:
            per_octave = numbers_in(counted.tensors, group_of)[0] / 8
        yield run_based._Measured(sigmas=sigmas, exported=exported, per_octave=per_octave)


def exported_of(facts: Mapping[str, Any]) -> Exported:
    stored = tuple(StoredTensor(**one) for one in facts["stored"])
    return Exported(**dict(facts) | {"stored": stored})


if __name__ == "__main__":
    sys.exit(main())

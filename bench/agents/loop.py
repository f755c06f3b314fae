"""A scripted agent with 30 prepared patches: `significant` against keep-if-better, many times over.

The loop proposes each patch once, on the configuration kept so far, in an order of its own, and
decides by the code of `compare`: the same `fit` and `decide`, the same sequence of runs. The scores
are one of

* simulated: each patch has a known effect in units of the noise of one run (its standard deviation
  over seeds), and `--shared` is the share of the noise's variance that a seed gives to all alike;
* replayed (`--replay`): real trainings of each edit on 12 seeds, each loop with them in another
  order; on another base an edit differs from it as it does on the first;
* trained (`--train`): real trainings of what the loop asks for, each loop on seeds of its own.

    PYTHONPATH=. python bench/agents/loop.py [--repetitions 20] [--shared 0.0]
    pgolf-sweep data demo
    PYTHONPATH=. python bench/agents/loop.py --replay scores.jsonl [--seconds 240]
    PYTHONPATH=. python bench/agents/loop.py --train scores.jsonl [--seconds 240]

The two that train go on where they were.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Protocol

import numpy as np
from trained import EDITS, Edit, OutOfTimeError, Trainings

from pgolf_sweep.submission.effects import Accept, Decision, Rule, Run, decide, fit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BASE_SEED = 0
BASELINE_RUNS = 4
KNOWN_SEEDS = range(1, 13)
"""Of an edit's known effect; loop r trains on seeds from 1000 (r + 1)."""
SAME_SEEDS = 2
"""Scores that an edit must share with the base to be the same training."""
CHECK_SEEDS = range(101, 109)
"""Of an edit's effect on what it was tried on, where that is to be looked up."""
RULES = (Accept(), Accept(rule=Rule.GREEDY))
CLEAR = 2.0
"""Standard deviations of a run by which a helpful patch must be better to be missed."""


@dataclass(frozen=True)
class Patch:
    """One patch; its effect is in standard deviations of one run, negative when it helps."""

    name: str
    kind: str
    effect: float = 0.0


SIMULATED = (
    *(Patch(f"{effect:+.1f}", "helpful", effect) for effect in (-2.5, -3.0, -4.0, -6.0)),
    *(Patch(f"none {at}", "none") for at in range(15)),
    *(Patch(f"{effect:+.1f}", "harmful", effect) for effect in (1.0, 2.0, 3.0, 4.0, 6.0)),
    *(Patch(f"broken {at}", "broken") for at in range(2)),  # in their slot
    *(Patch(f"unparsed {at}", "unparsed") for at in range(2)),  # `propose` refuses them: no slot
    *(Patch(f"identical {at}", "identical") for at in range(2)),  # one code twice
)


class Surface(Protocol):
    """Where a loop's scores come from; a configuration is the patches that it holds, in order."""

    def score(self, config: tuple[Patch, ...], seed: int) -> float | None:
        """Of one run; None where it breaks."""


@dataclass
class Simulated:
    """Scores with noise of standard deviation 1, of which a share is the seed's own."""

    number: int
    shared: float

    def score(self, config: tuple[Patch, ...], seed: int) -> float | None:
        """As `Surface` has it."""
        if config and config[-1].kind == "broken":
            return None
        names = [patch.name for patch in config]
        alike = _normal(self.number, "seed", seed) * np.sqrt(self.shared)
        own = _normal(self.number, names, seed) * np.sqrt(1 - self.shared)
        return sum(patch.effect for patch in config) + float(alike + own)


@dataclass
class Trained:
    """Scores of real trainings."""

    first_seed: int
    trainings: Trainings

    def score(self, config: tuple[Patch, ...], seed: int) -> float | None:
        """As `Surface` has it."""
        return self.trainings.score([_edit(patch) for patch in config], self.first_seed + seed)


@dataclass
class Replayed:
    """Scores of real trainings, by edit and seed, and of several edits by their sum."""

    number: int
    table: dict[str, list[float]]

    def score(self, config: tuple[Patch, ...], seed: int) -> float | None:
        """As `Surface` has it."""
        if config and config[-1].kind == "broken":
            return None
        base = self.table[""]
        at = int(np.random.default_rng(self.number).permutation(len(base))[seed % len(base)])
        return base[at] + sum(self.table[patch.name][at] - base[at] for patch in config)


def _edit(patch: Patch) -> Edit:
    return next(edit for edit in EDITS if edit.name == patch.name)


def _normal(*key: object) -> float:
    digest = hashlib.sha256(repr(key).encode()).digest()
    return float(np.random.default_rng(int.from_bytes(digest[:8], "big")).normal())


@dataclass
class Loop:
    """One loop over the patches, in an order of its own.

    Attributes:
        best: The patches that are kept.
        tried: Each patch that was judged: on what, and whether it was kept.
        runs: How many ran, the broken and the baseline's included.
        variants: How many patches took a slot.
        broken: How many of them broke in it.
    """

    surface: Surface
    accept: Accept
    best: tuple[Patch, ...] = ()
    tried: list[tuple[tuple[Patch, ...], Patch, bool]] = field(default_factory=list)
    runs: int = 0
    variants: int = 0
    broken: int = 0
    scores: list[Run] = field(default_factory=list)
    spent: list[Run] = field(default_factory=list)

    def run(self, patches: Sequence[Patch], order: int) -> None:
        """Try each patch once."""
        sequential = self.accept.rule is Rule.SIGNIFICANT
        for seed in range(BASELINE_RUNS if sequential else 1):
            self._run((), BASE_SEED + seed)
        identical = False
        for place in np.random.default_rng(order).permutation(len(patches)):
            patch = patches[place]
            if patch.kind == "unparsed" or (patch.kind == "identical" and identical):
                continue  # refused; the code ran before: that trial is the answer
            identical |= patch.kind == "identical"
            self._try(patch)

    def _try(self, patch: Patch) -> None:
        config = (*self.best, patch)
        self.variants += 1
        first = [run.seed for run in self.scores if run.config == _name(self.best)]
        used = {run.seed for run in self.spent if run.config == _name(self.best)}
        fresh = [seed for seed in range(100) if seed not in used and seed not in first]
        queue = [*first, *fresh]
        if not self._run(config, queue[0]):
            self.broken += 1
            return
        own = 1
        while (verdict := self._verdict(config, own)) is Decision.MORE:
            taken = [run.seed for run in self.scores if run.config == _name(self.best)]
            if own >= len(taken):  # the side that is known worse, the base if neither is
                self._run(self.best, next(seed for seed in queue if seed not in taken))
            else:
                self._run(config, queue[own])
                own += 1
        kept = verdict is Decision.KEEP
        self.tried.append((self.best, patch, kept))
        if kept:
            if self.accept.rule is Rule.SIGNIFICANT:  # its scores until now picked it
                self.spent += [run for run in self.scores if run.config == _name(config)]
                self.scores = [run for run in self.scores if run.config != _name(config)]
            self.best = config

    def _run(self, config: tuple[Patch, ...], seed: int) -> bool:
        self.runs += 1
        score = self.surface.score(config, seed)
        if score is not None:
            self.scores.append(Run(_name(config), seed, score))
        return score is not None

    def _verdict(self, config: tuple[Patch, ...], own: int) -> Decision:
        held = [*self.scores, *(Run(f"{r.config} then", r.seed, r.score) for r in self.spent)]
        counts = Counter(run.config for run in held)
        sides = (_name(self.best), _name(config))
        model = fit([run for run in held if counts[run.config] > 1 or run.config in sides])
        return decide(self.accept, model, *sides, own)


def _name(config: tuple[Patch, ...]) -> str:
    return json.dumps([patch.name for patch in config])


def measured(trainings: Trainings) -> dict[str, list[float]]:
    """Scores of the base and of each edit that has one, on the known seeds."""
    table: dict[str, list[float]] = {"": []}
    edits = {edit.name: [edit] for edit in EDITS if edit.kind not in {"broken", "unparsed"}}
    for place, seed in enumerate(KNOWN_SEEDS):  # all edits on one seed before the next
        for name, wanted in {"": [], **edits}.items():
            own = table.setdefault(name, [])
            same = name and place >= SAME_SEEDS and own == table[""][:place]
            score = table[""][place] if same else trainings.score(wanted, seed)
            assert score is not None, (name, seed)
            own.append(score)
    return table


def known_effects(table: dict[str, list[float]]) -> tuple[tuple[Patch, ...], float]:
    """The edits with their effect on the base, and the noise of one run in bpb."""
    base = table[""]
    noise = stdev(base)
    patches = []
    for edit in EDITS:
        gaps = [
            after - before for before, after in zip(base, table.get(edit.name, base), strict=True)
        ]
        patches.append(Patch(edit.name, edit.kind, fmean(gaps) / noise))
        spread = stdev(gaps) / noise / 2**0.5
        print(f"  {edit.kind:9s} {edit.name:26s} {fmean(gaps) / noise:+6.2f}  pairs {spread:.3f}")
    print(f"  noise of one run: {noise:.4f} bpb, from {len(base)} seeds", flush=True)
    return tuple(patches), noise


def difference(
    trainings: Trainings, base: Sequence[Edit], edit: Edit, seeds: Sequence[int]
) -> tuple[float, float]:
    """An edit's effect on a program in bpb, and its standard error."""
    pairs = [(trainings.score(base, s), trainings.score([*base, edit], s)) for s in seeds]
    found = [after - before for before, after in pairs if before is not None and after is not None]
    return fmean(found), stdev(found) / len(found) ** 0.5


def report(loops: Sequence[Loop], patches: Sequence[Patch]) -> dict[str, object]:
    """What some loops came to; runs are against three seeds for each variant that took a slot."""
    runs = fmean(loop.runs for loop in loops)
    slots = 3 * fmean(loop.variants for loop in loops)
    scored = 3 * fmean(loop.variants - loop.broken for loop in loops)
    false = [[p.name for _, p, kept in one.tried if kept and p.kind != "helpful"] for one in loops]
    return {
        "rule": loops[0].accept.rule.value,
        "repetitions": len(loops),
        "false_keeps": sum(map(len, false)),
        "loops_with_a_false_keep": sum(map(bool, false)),
        "false": Counter(name for names in false for name in names),
        "kept": {
            f"{patch.name} ({patch.effect:+.1f})": fmean(patch in one.best for one in loops)
            for patch in patches
            if patch.kind == "helpful"
        },
        "runs": runs,
        "of_three_seeds_each": runs / slots,
        "without_the_broken": runs / scored,
        "of_three_for_all_30": runs / (3 * len(patches)),
    }


def check(trainings: Trainings, loops: Sequence[Loop], noise: float) -> None:
    """Measure what was decided against an edit's kind on what it was tried on, on fresh seeds."""
    seen = set()
    for loop in loops:
        for base, patch, kept in loop.tried:
            against = kept != (patch.kind == "helpful" and patch.effect < -CLEAR)
            case = (frozenset(base), patch, kept)
            if not against or case in seen or (patch.kind == "helpful" and kept):
                continue
            seen.add(case)
            edits = [_edit(one) for one in base]
            effect, error = difference(trainings, edits, _edit(patch), CHECK_SEEDS)
            names = ", ".join(sorted(one.name for one in base)) or "the base"
            print(
                f"  {loop.accept.rule.value} {'kept' if kept else 'dropped'} {patch.name}: "
                f"{effect / noise:+.2f} +- {error / noise:.2f} on {names}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="number of the first repetition")
    scores = parser.add_mutually_exclusive_group()
    scores.add_argument("--shared", type=float, default=0.0)
    scores.add_argument("--replay", type=Path, help="JSON lines of trainings")
    scores.add_argument("--train", type=Path, help="JSON lines of trainings")
    parser.add_argument("--seconds", type=float, default=240.0, help="start no training after them")
    parser.add_argument("--data", type=Path, default=Path("data"))
    given = parser.parse_args()
    numbers = range(given.first, given.first + given.repetitions)
    file = given.replay or given.train
    if file is None:
        for accept in RULES:
            show(SIMULATED, numbers, accept, lambda number: Simulated(number, given.shared))
        return
    with tempfile.TemporaryDirectory() as name:
        trainings = Trainings(file, given.data, given.seconds, Path(name))
        try:
            table = measured(trainings)
            patches, noise = known_effects(table)
            for accept in RULES:
                if given.replay:
                    show(patches, numbers, accept, lambda number: Replayed(number, table))
                    continue
                loops = show(
                    patches, numbers, accept, lambda at: Trained(1000 * (at + 1), trainings)
                )
                if accept.rule is Rule.SIGNIFICANT:
                    check(trainings, loops, noise)
        except OutOfTimeError:
            print(f"{len(trainings.known)} trainings; the same command goes on", flush=True)


def show(
    patches: Sequence[Patch],
    numbers: Sequence[int],
    accept: Accept,
    surface: Callable[[int], Surface],
) -> list[Loop]:
    """Repeat the loop, and print what it comes to."""
    loops = []
    for number in numbers:
        loop = Loop(surface(number), accept)
        loop.run(patches, number)
        loops.append(loop)
    print(json.dumps(report(loops, patches)), flush=True)
    return loops


if __name__ == "__main__":
    main()

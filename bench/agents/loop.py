"""A scripted agent with 30 prepared patches: `significant` against keep-if-better, simulated.

Every patch has a known effect in units of the noise of one run (its standard deviation over seeds).
The loop proposes each once, on the configuration kept so far, and decides by the code of `compare`:
the same `fit` and `decide`, the same sequence of runs. A fresh order of the patches and fresh noise
for each repetition; no training, so that twenty repetitions take seconds.

    python bench/agents/loop.py [--repetitions 20] [--shared 0.0] [--json FILE]

`--shared` is the share of the noise's variance that a seed gives to all configurations alike.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pgolf_sweep.submission.effects import Accept, Decision, Rule, Run, decide, fit

HELPFUL = (-2.5, -3.0, -4.0, -6.0)
HARMFUL = (1.0, 2.0, 3.0, 4.0, 6.0)
PATCHES = (
    *(("helpful", effect) for effect in HELPFUL),
    *(("none", 0.0) for _ in range(15)),
    *(("harmful", effect) for effect in HARMFUL),
    *(("broken", 0.0) for _ in range(2)),  # in their slot
    *(("unparsed", 0.0) for _ in range(2)),  # `propose` refuses them: no slot
    *(("identical", 0.0) for _ in range(2)),  # one code twice
)
BASE_SEED = 0
BASELINE_RUNS = 5
FRESH_RUNS = 2
"""Of a configuration that was accepted: its scores until then picked it."""


@dataclass
class Surface:
    """Scores with noise of standard deviation 1, of which a share is the seed's own."""

    rng_seed: int
    shared: float
    truth: dict[str, float] = field(default_factory=lambda: {"base": 0.0})
    count: int = 0

    def run(self, config: str, seed: int) -> Run:
        self.count += 1
        alike = _normal(self.rng_seed, "seed", seed) * np.sqrt(self.shared)
        own = _normal(self.rng_seed, config, seed) * np.sqrt(1 - self.shared)
        return Run(config, seed, self.truth[config] + float(alike + own))


@dataclass
class Outcome:
    """What one repetition came to."""

    runs: int = 0
    false_keeps: int = 0
    kept: Counter[float] = field(default_factory=Counter)
    final: float = 0.0


def _normal(*key: object) -> float:
    digest = hashlib.sha256(repr(key).encode()).digest()
    return float(np.random.default_rng(int.from_bytes(digest[:8], "big")).normal())


def repetition(number: int, accept: Accept, shared: float) -> Outcome:
    """One whole loop over the patches, in an order of its own."""
    surface, result = Surface(number, shared), Outcome()
    order = np.random.default_rng(number).permutation(len(PATCHES))
    first = BASELINE_RUNS if accept.rule is Rule.SIGNIFICANT else 1
    runs = [surface.run("base", seed) for seed in range(first)]
    best, spent, identical = "base", [], False
    for place in order:
        kind, effect = PATCHES[place]
        if kind == "identical" and identical:
            continue  # the code ran before: that trial is the answer
        identical |= kind == "identical"
        if kind in {"broken", "unparsed"}:
            surface.count += kind == "broken"
            continue
        config = f"patch {place}"
        surface.truth[config] = surface.truth[best] + effect
        own_seeds = [run.seed for run in runs if run.config == best]
        if accept.rule is Rule.GREEDY:
            runs.append(surface.run(config, BASE_SEED))
            scores = {run.config: run.score for run in runs}
            keep = scores[config] < scores[best]
        else:
            keep = _decided(surface, runs, spent, best, config, own_seeds, accept)
        if keep:
            result.false_keeps += effect >= 0
            result.kept[effect] += 1
            best = config
            if accept.rule is Rule.SIGNIFICANT:
                spent += [run for run in runs if run.config == config]
                runs = [run for run in runs if run.config != config]
                used = {run.seed for run in spent if run.config == config}
                fresh = [seed for seed in range(100) if seed not in used][:FRESH_RUNS]
                runs += [surface.run(config, seed) for seed in fresh]
    result.runs, result.final = surface.count, surface.truth[best]
    return result


def _decided(
    surface: Surface,
    runs: list[Run],
    spent: list[Run],
    best: str,
    config: str,
    seeds: list[int],
    accept: Accept,
) -> bool:
    """Runs of a candidate, and of its base where that is known worse, until the rule decides."""
    queue = [*seeds, *(seed for seed in range(100) if seed not in seeds)]
    own = 0
    while True:
        if own <= sum(run.config == best for run in runs):
            runs.append(surface.run(config, queue[own]))
            own += 1
        else:
            taken = {run.seed for run in (*runs, *spent) if run.config == best}
            seed = next(seed for seed in queue if seed not in taken)
            runs.append(surface.run(best, seed))
        held = [*runs, *(Run(f"{run.config} then", run.seed, run.score) for run in spent)]
        counts = Counter(run.config for run in held)
        kept = [run for run in held if counts[run.config] > 1 or run.config in {best, config}]
        model = fit(kept)
        verdict = decide(accept, model.effect(best, config), model.noise, own)
        if verdict is not Decision.MORE:
            return verdict is Decision.KEEP


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="number of the first repetition")
    parser.add_argument("--shared", type=float, default=0.0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    bar = 3 * len(PATCHES)
    rows = []
    for accept in (Accept(), Accept(rule=Rule.GREEDY)):
        found = [
            repetition(given.first + at, accept, given.shared) for at in range(given.repetitions)
        ]
        runs = float(np.mean([one.runs for one in found]))
        kept = {
            str(effect): sum(one.kept[effect] for one in found) / given.repetitions
            for effect in HELPFUL
        }
        row = {
            "rule": accept.rule.value,
            "shared": given.shared,
            "repetitions": given.repetitions,
            "false_keeps": sum(one.false_keeps for one in found),
            "loops_with_a_false_keep": sum(one.false_keeps > 0 for one in found),
            "runs": runs,
            "share_of_three_seeds_each": runs / bar,
            "kept": kept,
            "final_in_noise": float(np.mean([one.final for one in found])),
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

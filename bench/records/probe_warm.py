"""What a further configuration costs the size probe, and that a kept process finds the same.

    python bench/records/probe_warm.py CHECKOUT [--changes 12] [--only TEXT] [--no-compare]

For each script of the records, and the contest's own: its defaults, then configurations in which
one to three knobs that its size depends on are changed at random, one after the other. Each is
probed in the process that is kept for the script, and again in a fresh one; any
difference is listed, and the exit code is 1 then. Times are of a processor, so that a busy machine
does not count.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.script.probe.prober import Probed, Prober, stop_helper
from pgolf_sweep.script.program import from_files

if TYPE_CHECKING:
    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.script.probe.prober import Unprobed
    from pgolf_sweep.script.program import Program


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("checkout", type=Path)
    arguments.add_argument("--changes", type=int, default=12)
    arguments.add_argument("--only", default="", help="part of the script's path")
    arguments.add_argument("--no-compare", action="store_true", help="time only")
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    medians: dict[str, float] = {}
    every: list[float] = []
    differences: list[str] = []
    for path in scripts(options.checkout, options.only):
        where = str(path.relative_to(options.checkout))
        program = program_of(path)
        if program is None:
            continue
        seconds, different = tried(program, options)
        for knobs in different:
            print(f"differs: {where}: {knobs}", flush=True)
        differences += different
        if not seconds:
            print(f"{'':>38}  {where}: not probed, or no knob decides its size", flush=True)
            continue
        every += seconds[1:]
        medians[where] = statistics.median(seconds[1:])
        print(
            f"first {seconds[0]:6.2f} s, then {1000 * medians[where]:6.1f} ms, "
            f"at most {1000 * max(seconds[1:]):6.0f}  {where}",
            flush=True,
        )
    stop_helper()
    every.sort()
    shares = {q: every[min(len(every) - 1, int(q * len(every)))] for q in (0.5, 0.75, 0.9, 0.99)}
    print(
        f"{len(medians)} scripts, {len(every)} further configurations: "
        + ", ".join(f"{q:.0%} within {1000 * s:.1f} ms" for q, s in shares.items())
    )
    quick = sum(seconds < 0.01 for seconds in medians.values())
    print(f"median below 10 ms: {quick} scripts; {len(differences)} answers differ")
    return int(bool(differences))


def scripts(checkout: Path, only: str) -> list[Path]:
    found = sorted((checkout / "records").rglob("train*.py"))
    return [path for path in (checkout / "train_gpt.py", *found) if only in str(path)]


def program_of(path: Path) -> Program | None:
    siblings = path.parent.glob("*.py") if path.parent.name[:2] == "20" else [path]
    try:
        return from_files(path.name, {p.name: p.read_bytes() for p in siblings}, builtin=False)
    except InputError:
        return None


def tried(program: Program, options: argparse.Namespace) -> tuple[list[float], list[str]]:
    """Seconds of the first probe and of those that were asked after it, and what differed."""
    rng = random.Random(options.seed)
    warm = Prober(program)
    first = warm.probe({})
    seconds, different = [first.cpu_seconds], []
    if not isinstance(first, Probed) or not numbers(program, first.relevant):
        return [], []
    for _ in range(options.changes):
        knobs = changed(program, numbers(program, first.relevant), rng)
        started = time.process_time()
        quick = warm.probe(knobs)
        seconds.append(quick.cpu_seconds + time.process_time() - started)
        if not options.no_compare:
            cold = Prober(program, fresh=True)
            if said(cold.probe(knobs)) != said(quick):
                different.append(f"{knobs}")
    return seconds, different


def numbers(program: Program, names: frozenset[str]) -> list[str]:
    """Of some knobs, those of which another value can be made up."""
    return sorted(
        name for name in names if isinstance(program.knobs[name].default, int | float | bool)
    )


def changed(program: Program, names: list[str], rng: random.Random) -> dict[str, KnobValue]:
    found: dict[str, KnobValue] = {}
    for name in rng.sample(names, min(len(names), rng.randint(1, 3))):
        default = program.knobs[name].default
        if isinstance(default, bool):
            found[name] = not default
        elif isinstance(default, int):
            found[name] = rng.choice([default + 1, max(1, default - 1), 2 * default, default // 2])
        elif isinstance(default, float):
            found[name] = default * rng.choice([0.5, 0.9, 1.1, 2.0])
    return found


def said(result: Probed | Unprobed) -> Probed | Unprobed:
    return replace(result, seconds=0.0, cpu_seconds=0.0)


if __name__ == "__main__":
    sys.exit(main())

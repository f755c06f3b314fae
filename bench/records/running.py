"""Other people's scripts, run without a GPU: counts, exports, time and memory against their logs.

    python bench/records/running.py CHECKOUT --facts FACTS.jsonl [--only TEXT] [--again TEXT]
    python bench/records/running.py --facts FACTS.jsonl

CHECKOUT is a checkout of openai/parameter-golf. Each log that prints `model_params` is a line of
FACTS: its script's `main()` is run with the log's environment (`bench/records/probe.py` says how
that is found), and its export with weights as wide as the logged steps leave them. Lines that are
there already are not measured again, except those whose log's path or reason --again
matches. Without CHECKOUT the table of the facts is printed. `bench/gate/foreign.py` judges the
sizes. Exit code 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe import HEAD_BYTES, environments, logs, program_of, value_of

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.gate.declared import group_of
from pgolf_sweep.gate.run_based import RunBased
from pgolf_sweep.script.logs.stream import parse_log
from pgolf_sweep.script.probe.client import stop_helper
from pgolf_sweep.script.probe.runner import Counted, Exported, RunFailed, Runner

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgolf_sweep.core.trial import LogSummary
    from pgolf_sweep.script.program import Program

LONGEST_SECONDS = 150.0
COUNT_BAR = 153
EXPORT_BAR = 0.9
COUNT_SECONDS, EXPORT_SECONDS, GPTQ_SECONDS, MOST_MIB = 4.0, 10.0, 20.0, 2048.0
GPUS = re.compile(r"world_size\s*[:=]\s*(\d+)")


class Kept(Runner):
    """A runner that keeps what its runs answered."""

    def __init__(self, program: Program, **options: Any) -> None:
        super().__init__(program, **options)
        self.exports: dict[tuple[str, ...], list[tuple[dict[str, float], Exported]]] = {}
        self.costs: dict[tuple[str, ...], tuple[float, float]] = {}

    def count(self, knobs: Mapping[str, Any]) -> Counted | RunFailed:
        found = super().count(knobs)
        cost = found.cpu_seconds, getattr(found, "peak_mib", 0.0)
        key = self.structure(knobs)
        self.costs[key] = max(cost, self.costs.get(key, cost))
        return found

    def export(self, knobs: Mapping[str, Any], sigmas: Mapping[str, float]) -> Exported | RunFailed:
        found = super().export(knobs, sigmas)
        if isinstance(found, Exported):
            self.exports.setdefault(self.structure(knobs), []).append((dict(sigmas), found))
        return found


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("checkout", type=Path, nargs="?")
    arguments.add_argument("--facts", type=Path, required=True)
    arguments.add_argument("--only", default="", help="part of the log's path")
    arguments.add_argument(
        "--again", default="", help="a pattern for the path or the reason of a line"
    )
    arguments.add_argument("--count", action="store_true", help="do not export")
    options = arguments.parse_args()
    known = read(options.facts)
    if options.checkout is None:
        return table(list(known.values()))
    runners: dict[str, tuple[Kept, RunBased]] = {}
    for path in logs(options.checkout, options.only):
        where = path.relative_to(options.checkout / "records").as_posix().partition("/")[2]
        before = known.get(where)
        again = options.again and re.search(
            options.again, f"{where} {(before or {}).get('reason')}"
        )
        if before and not again:
            continue
        log = parse_log(path)
        if log.model_params is None:
            continue
        facts = measured(path, log, runners, export=not options.count)
        known[where] = facts = {"log": where, **facts}
        with options.facts.open("a") as out:
            out.write(json.dumps(facts) + "\n")
        print(line_of(facts), flush=True)
    stop_helper()
    return 0


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Facts by log; the last line of a log counts."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return {facts["log"]: facts for facts in map(json.loads, lines)}


def measured(
    path: Path, log: LogSummary, runners: dict[str, tuple[Kept, RunBased]], *, export: bool
) -> dict[str, Any]:
    gpus = GPUS.search(path.read_bytes()[:HEAD_BYTES].decode(errors="replace"))
    facts: dict[str, Any] = {
        "model_params": log.model_params,
        "model_bytes": log.model_bytes,
        "code_bytes": log.code_bytes,
        "steps": log.steps,
        "train_seconds": log.train_seconds,
        "step_avg_ms": log.step_avg_ms,
        "gpus": int(gpus[1]) if gpus else None,
        "reason": "",
        "exports": [],
    }
    try:
        program, from_log = program_of(path)
    except (InputError, FileNotFoundError) as error:
        return {**facts, "reason": str(error)}
    if program.sha256 not in runners:
        runners.clear()  # logs come record by record
        runner = Kept(program, seconds=LONGEST_SECONDS)
        runners[program.sha256] = runner, RunBased(runner, group_of)
    runner, runs = runners[program.sha256]
    found, env, source = None, {}, ""
    for said, given in environments(path, program, source_in_log=from_log):
        result = runner.count(given)
        right = getattr(result, "model_params", None) == log.model_params
        if found is None or right:
            found, env, source = result, given, said
        if right:
            break
    if not isinstance(found, Counted):
        return {**facts, "reason": "not counted: " + ("" if found is None else found.reason)}
    cost = runner.costs[runner.structure(env)]
    values = {n: k.default for n, k in program.knobs.items() if k.default is not None}
    values |= {name: value_of(text) for name, text in env.items()}
    facts |= {
        "env": env, "environment": source, "values": values, "counted": asdict(found),
        "count_cpu_seconds": cost[0], "count_mib": cost[1], "program": program.sha256,
    }  # fmt: skip
    if export:
        size = runs.predict(found, env, values, log.steps)
        facts["reason"] = size.reason if isinstance(size, RunFailed) else ""
        found = replace(found, factors=runs._factors.get(runner.structure(env), found.factors))
        facts["counted"] = asdict(found)
        exports = runner.exports.get(runner.structure(env), [])
        facts["exports"] = [[sigmas, asdict(one)] for sigmas, one in exports]
        facts["predicted"] = None if isinstance(size, RunFailed) else size.model_bytes
    return facts


def line_of(facts: Mapping[str, Any]) -> str:
    counted = facts.get("counted")
    if counted is None:
        return f"    {facts['log']}: {facts['reason']}"
    text = f"    {facts['log']}: run {counted['model_params']:,}, log {facts['model_params']:,}"
    if counted["model_params"] != facts["model_params"]:
        text += " (less sure)" if counted["incomplete"] else " (SURE)"
    if facts["reason"]:
        text += f"; {facts['reason']}"
    if facts.get("predicted") and facts["model_bytes"]:
        error = facts["predicted"] / facts["model_bytes"] - 1
        text += f"; {facts['predicted']:,.0f} bytes, log {facts['model_bytes']:,}: {error:+.2%}"
    spent = [one["cpu_seconds"] for _, one in facts["exports"]]
    return (
        f"{text}; count {facts['count_cpu_seconds']:.1f} CPU-s {facts['count_mib']:.0f} MiB, "
        f"exports {', '.join(f'{one:.1f}' for one in spent)}"
    )


def table(everything: list[dict[str, Any]]) -> int:
    counted = [facts for facts in everything if facts.get("counted")]
    right = [f for f in counted if f["counted"]["model_params"] == f["model_params"]]
    others = [f for f in counted if f not in right]
    unnamed = [
        f for f in others if f["counted"].get("printed_params") == f["counted"]["model_params"]
    ]
    sure = [f for f in others if f not in unnamed and not f["counted"]["incomplete"]]
    print(f"{len(everything)} logs, {len(counted)} counted; {len(right)} equal, bar {COUNT_BAR}")
    for facts in everything:
        if facts not in right:
            print(line_of(facts))
    scripts: dict[str, list[dict[str, Any]]] = {}
    for facts in everything:
        scripts.setdefault(facts.get("program", facts["log"]), []).append(facts)
    done = [all_ for all_ in scripts.values() if any(f["exports"] for f in all_)]
    share = len(done) / len(scripts)
    print(f"{len(done)} of {len(scripts)} scripts export: {share:.0%}, bar {EXPORT_BAR:.0%}")
    for all_ in scripts.values():
        if all_ not in done:
            print(line_of(all_[0]))
    counts = sorted(facts["count_cpu_seconds"] for facts in counted)
    spent, gptq = [], []
    for all_ in done:
        seconds = max(one["cpu_seconds"] for f in all_ for _, one in f["exports"])
        (gptq if is_gptq(all_[0]) else spent).append(seconds)
    most = max((one["peak_mib"] for f in counted for _, one in f["exports"]), default=0.0)
    most = max(most, *(facts["count_mib"] for facts in counted))
    slow = 0
    for name, bar, seconds in (
        ("count", COUNT_SECONDS, counts),
        ("export", EXPORT_SECONDS, sorted(spent)),
        ("export with GPTQ", GPTQ_SECONDS, sorted(gptq)),
    ):
        if seconds:
            over = sum(one > bar for one in seconds)
            slow += over
            print(
                f"{name}: median {seconds[len(seconds) // 2]:.1f} CPU-s, longest "
                f"{seconds[-1]:.1f}, bar {bar:.0f}: {over} of {len(seconds)} over"
            )
    print(f"memory: at most {most:.0f} MiB, bar {MOST_MIB:.0f}")
    met = len(right) >= COUNT_BAR and share >= EXPORT_BAR and not slow and most <= MOST_MIB
    met = met and not sure
    print(f"{len(unnamed)} differ as the script's own print does: knobs that nothing names")
    print(f"{len(sure)} counts differ and are stated as sure")
    return int(not met)


def is_gptq(facts: Mapping[str, Any]) -> bool:
    return any("GPTQ" in name or "gptq" in name for name in [facts["log"], *facts["values"]])


if __name__ == "__main__":
    sys.exit(main())

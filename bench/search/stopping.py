"""Early stopping, replayed over real curves: what it saves, and what it stops.

    python bench/search/stopping.py records REPO [--kinds halving median ...]
    python bench/search/stopping.py table [--curves FILE]
    python bench/search/stopping.py smooth
    python bench/search/stopping.py train --data DATA --curves FILE [--seconds 240]

`records` takes the logs of the contest's repository (a checkout, or its git directory): runs of ten
minutes with five validations or more after a third of them. `table` takes trainings of our trainer
(`curves.csv`, made by `train`: random configurations of `table.yaml`, validated twelve times).
Each study is a sample of them in a random order, eight at a time on a simulated clock, judged by
the product's own `Pruner`. The loss is how much worse the best that ran to its end is than the best
of all. Trials that the rule spares run on, and count as such.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import random
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from compare import open_sweep
from smooth import SEED_NOISE, Smooth

from pgolf_sweep.config.types import EarlyTerminate
from pgolf_sweep.script.logs.stream import read_log
from pgolf_sweep.search.forecast import Forecast
from pgolf_sweep.search.halving import FIRST, Curve, Pruner
from pgolf_sweep.space.domains import RandomSuggester

HERE = Path(__file__).resolve().parent
CURVES = HERE / "curves.csv"
SLOTS = 8
LEAST_POINTS = 5
"""Validations after the first rung without which a log says nothing."""
TEN_MINUTES = (580.0, 615.0)


@dataclass
class Run:
    """A training.

    Attributes:
        points: Fraction of the schedule and `val_bpb` before quantization.
        final: The final score.
        takes: Time, in any unit.
        export: Knobs of the export.
        row: Inputs of a forecast.
    """

    points: list[tuple[float, float]]
    final: float
    takes: float
    export: dict[str, Any] = field(default_factory=dict)
    row: Any = None


def of_records(repository: Path) -> list[Run]:
    """Runs of the contest's records."""
    git = ["git", f"--git-dir={repository}"]
    if (repository / ".git").exists():
        git = ["git", "-C", str(repository)]
    listed = _output([*git, "ls-tree", "-r", "--name-only", "-z", "HEAD"]).decode().split("\0")
    logs = [n for n in listed if n.startswith("records/") and n.endswith((".log", ".txt"))]
    runs, seen = [], set()
    for name in logs:
        summary, reports = read_log(_output([*git, "show", f"HEAD:{name}"]))
        whole = summary.train_seconds
        points = [
            (r.train_seconds / whole, r.val_bpb)
            for r in reports
            if whole and r.val_bpb is not None and r.train_seconds
        ]
        points = sorted({at: value for at, value in points if 0 < at <= 1.001}.items())
        late = [at for at, _ in points if at >= FIRST]
        if summary.val_bpb is None or not whole or len(late) < LEAST_POINTS:
            continue
        if not TEN_MINUTES[0] <= whole <= TEN_MINUTES[1] or tuple(points) in seen:
            continue
        seen.add(tuple(points))
        runs.append(Run(points, points[-1][1], whole))
    return runs


def _output(command: list[str]) -> bytes:
    return subprocess.run(command, check=True, capture_output=True).stdout


def of_table(path: Path, *, exported: bool) -> list[Run]:
    """Trainings of `train`; `exported` has the score after quantization, and its bits as knobs."""
    runs: list[Run] = []
    with path.open() as file:
        for row in csv.DictReader(file):
            columns = [name for name in row if name.startswith("at_")]
            points = [(float(name[3:]) / 60, float(row[name])) for name in columns]
            final = float(row["bpb"]) if exported else points[-1][1]
            knobs = {name: row[name] for name in ("MATRIX_BITS", "EMBED_BITS")}
            runs.append(Run(points, final, float(row["seconds"]), knobs if exported else {}))
    return runs


def of_smooth(seed: int, count: int) -> list[Run]:
    """Random configurations of `smooth.yaml` that fit."""
    session = open_sweep(HERE / "smooth.yaml", "random", 1)
    surface = Smooth(session, seed)
    suggester: Any = RandomSuggester(random.Random(seed))
    forecast = Forecast(session.spec.space, SEED_NOISE)
    runs: list[Run] = []
    while len(runs) < count:
        knobs = session.resolve(session.spec.space.suggest(suggester))
        if surface.size(knobs) > session.rules.artifact_cap_bytes:
            continue
        answer = surface(knobs)
        export = {name: knobs[name] for name in ("MATRIX_BITS", "EMBED_BITS")}
        row = forecast.row(knobs)
        runs.append(Run(answer["curve"], answer["val_bpb"], answer["minutes"], export, row))
    return runs


def study(
    runs: list[Run], rule: EarlyTerminate, rng: random.Random, forecast: Forecast | None = None
) -> dict[str, float]:
    """One study: what was saved, lost, and whether the best was stopped."""
    order = rng.sample(runs, len(runs))
    pruner = Pruner(rule, forecast)
    curves: dict[int, Curve] = {}
    events: list[tuple[float, int, int]] = []
    trained = 0.0
    waiting = list(range(len(order)))

    def begin(now: float) -> None:
        if waiting:
            number = waiting.pop(0)
            run = order[number]
            curves[number] = Curve(number, export=run.export, row=run.row)
            heapq.heappush(events, (now + run.points[0][0] * run.takes, number, 0))

    for _ in range(SLOTS):
        begin(0.0)
    ended: list[int] = []
    while events:
        now, number, place = heapq.heappop(events)
        run = order[number]
        points, whole = run.points, run.takes
        curve = curves[number]
        if place == len(points):
            curve.final, curve.settled = run.final, True
            trained += whole
            ended.append(number)
            begin(now)
            continue
        curve.points.append(points[place])
        pruner.follow(curve)
        judgement = pruner.judge(number)
        if judgement is not None:
            curve.settled = curve.behind = True
            if not judgement.spared:
                trained += points[place][0] * whole
                begin(now)
                continue
        following = points[place + 1][0] if place + 1 < len(points) else 1.0
        heapq.heappush(
            events, (now + max(0.0, following - points[place][0]) * whole, number, place + 1)
        )
    finals = [run.final for run in order]
    best = min(range(len(order)), key=finals.__getitem__)
    return {
        "saved": 1 - trained / sum(run.takes for run in order),
        "loss": 1000 * (min(finals[n] for n in ended) - finals[best]),
        "stopped": float(best not in ended),
    }


def shown(
    name: str, sets: list[list[Run]], rule: EarlyTerminate, options: argparse.Namespace
) -> str:
    """A line of the table, of as many studies of each set."""
    rng = random.Random(0)
    found = []
    for runs in sets:
        size = min(options.size, len(runs))
        for _ in range(options.studies):
            forecast = Forecast(options.space, SEED_NOISE) if name == "smooth" else None
            found.append(study(rng.sample(runs, size), rule, rng, forecast))
    saved, loss, stopped = ([one[k] for one in found] for k in ("saved", "loss", "stopped"))
    return (
        f"{name:24} {rule.kind:9} saved {statistics.mean(saved):4.0%}  loss "
        f"{statistics.mean(loss):6.2f} (90 % of studies: {sorted(loss)[int(0.9 * len(loss))]:.2f})"
        f"  best stopped in {statistics.mean(stopped):.1%}"
    )


def train(data: Path, path: Path, seconds: float, count: int) -> None:
    """Train random configurations of the table with a validation at each twelfth; resumable."""
    import contextlib
    import io
    import os
    import tempfile

    import torch
    from table import SWEEP, shortened

    from pgolf_sweep.core.trial import knob_text
    from trainer.config import read_config
    from trainer.runtime import Log
    from trainer.train import Run as Training

    torch.set_num_threads(1)
    done = sum(1 for _ in path.open()) - 1 if path.exists() else 0
    session = open_sweep(SWEEP, "random", 1)
    rng = random.Random(7)
    suggester: Any = RandomSuggester(rng)
    with tempfile.TemporaryDirectory(prefix="pgolf-curves-") as name, path.open("a") as file:
        folder = Path(name)
        writer = csv.writer(file, lineterminator="\n")
        where = {
            "DATA_PATH": str(shortened(data, folder).resolve()),
            "TOKENIZER_PATH": str(data.resolve() / "tokenizers" / "demo_512_bpe.model"),
        }
        for at in range(count):
            knobs = session.resolve(session.spec.space.suggest(suggester))
            knobs |= {"SEED": at, "VAL_LOSS_EVERY": 5}
            if at < done:
                continue
            if time.process_time() > seconds:
                return
            texts = {one: knob_text(value) for one, value in knobs.items()}
            os.environ.update(texts | {"MAX_WALLCLOCK_SECONDS": "0"} | where)
            began = time.process_time()
            config = read_config()
            with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as out:
                run = Training(config, torch.device("cpu"), Log(config))
                run.train()
                weights = {
                    one: parameter.detach().float().numpy().copy()
                    for one, parameter in run.model.named_parameters()
                }
                from trainer.runtime import Stopwatch

                run.products, run.stopwatch = {}, Stopwatch(run.device, run.seconds)
                run.export(config, weights)
            taken = time.process_time() - began
            summary, reports = read_log(out.getvalue().encode())
            points = {r.step: r.val_bpb for r in reports if r.val_bpb is not None and r.step}
            searched = [
                parameter.name
                for parameter in session.spec.space.parameters.values()
                if parameter.searched
            ]
            if not done and at == 0:
                writer.writerow([*searched, *(f"at_{s}" for s in points), "bpb", "seconds"])
            writer.writerow(
                [*(knobs[n] for n in searched), *points.values(), summary.val_bpb, f"{taken:.3f}"]
            )
            file.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["records", "table", "smooth", "train"])
    parser.add_argument("repository", type=Path, nargs="?")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--curves", type=Path, default=CURVES)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--count", type=int, default=160)
    parser.add_argument("--kinds", nargs="+", default=["halving", "median"])
    parser.add_argument("--eta", type=float, default=3.0)
    parser.add_argument("--studies", type=int, default=100, help="of each set of runs")
    parser.add_argument("--size", type=int, default=64, help="trials of a study")
    parser.add_argument("--sets", type=int, default=4, help="surfaces of smooth")
    options = parser.parse_args()
    if options.what == "train":
        train(options.data, options.curves.resolve(), options.seconds, options.count)
        return
    options.space = open_sweep(HERE / "smooth.yaml", "random", 1).spec.space
    if options.what == "records":
        found = {"records": [of_records(options.repository)]}
    elif options.what == "smooth":
        seeds = range(500, 500 + options.sets)
        found = {"smooth": [of_smooth(seed, options.size) for seed in seeds]}
    else:
        found = {
            "trainings": [of_table(options.curves, exported=False)],
            "trainings, with bits": [of_table(options.curves, exported=True)],
        }
    for name, sets in found.items():
        print(f"{name}: {len(sets)} of {len(sets[0])} runs")
        for kind in options.kinds:
            rule = EarlyTerminate(kind=kind, eta=options.eta)
            print(shown(name, sets, rule, options), flush=True)


if __name__ == "__main__":
    main()

"""What it costs to watch a study of many trials: `watch`, `status`, `trials`, `report`.

    python bench/track/watching.py [--trials 100 1000 5000] [--looks 10]

A journal with finished trials, 64 that run and a driver that lives. Between two looks of `watch`
one trial ends. Processor seconds and memory; every command line is a process of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "search"))

from ask import SWEEP, fill

from pgolf_sweep.cli.live import line
from pgolf_sweep.cli.study import live_document, status_page
from pgolf_sweep.config.sweep_file import load_spec
from pgolf_sweep.core.paths import StudyPaths, write_json
from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.core.trial import Interval
from pgolf_sweep.driver.control import DriverLock
from pgolf_sweep.report.watching import StudyWatch
from pgolf_sweep.search.study import Study, open_study

RUNNING = 64
COMMANDS = (("status", "--json"), ("status",), ("trials", "--csv"), ("best",), ("report",))


def prepare(folder: Path, trials: int) -> tuple[Study, StudyPaths]:
    paths = StudyPaths(folder / "runs" / "night")
    paths.root.mkdir(parents=True)
    paths.sweep.write_text(SWEEP.format(method="tpe", conditional="", early=""))
    (paths.root / "train_gpt.py").write_text("")
    spec = dataclasses.replace(load_spec(paths.sweep), name="night")
    study = open_study(spec, paths, write=True)
    fill(study, trials, random.Random(0), dressed)
    begin(study, RUNNING)
    write_json(paths.status, {"state": "running", "run_cap": 20_000, "slots": RUNNING})
    return study, paths


def dressed(row: TrialRecord) -> TrialRecord:
    """A row with what a real trial of ten minutes on eight nodes leaves."""
    middle = 15_000_000 + 300 * row.number
    predicted = Interval(low=0.99 * middle, mid=middle, high=1.01 * middle)
    if row.outcome is State.DISCARDED:
        reason = f"the artifact would be over the cap by about {row.number} B: 15.9 MB of weights"
        return dataclasses.replace(row, predicted_bytes=predicted, val_bpb=None, reason=reason)
    at = 1.7e9 + 600.0 * (row.number // 64) + row.number / 7
    return dataclasses.replace(
        row,
        predicted_bytes=predicted,
        artifact_bytes=middle + row.number % 997,
        headroom_bytes=16_000_000 - middle,
        model_bytes=middle - 50_000,
        code_bytes=50_000,
        slot_seconds=590.0 + row.number % 17,
        started_at=at,
        ended_at=at + 600.0,
        steps=9_000 + row.number % 50,
        step_avg_ms=65.123,
        val_loss_nats=2.1,
        node=f"h100-{row.number % 8}.cluster.internal",
        attempts=1,
        proposer="tpe",
        expected_bpb=(row.val_bpb or 1.2) + 0.01,
        expected_sd=0.02,
        reason="behind the median of the others" if row.outcome is State.PRUNED else "",
    )


def begin(study: Study, trials: int) -> None:
    for _ in range(trials):
        proposal = study.ask()
        assert proposal is not None
        study.note(TrialRecord(number=proposal.number, outcome=State.RUNNING, knobs=proposal.knobs))


def end_one(study: Study) -> None:
    row = next(row for row in study.open_rows() if row.outcome is State.RUNNING)
    study.report(row.number, 1, 1.3)
    study.tell(dataclasses.replace(row, outcome=State.COMPLETED, val_bpb=1.19 + row.number / 1e6))
    begin(study, 1)


def watch(paths: StudyPaths, study: Study, looks: int) -> str:
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True)
    spent = []
    with StudyWatch(paths) as watched:
        for _ in range(looks + 1):
            end_one(study)
            began = time.process_time()
            found = watched.look()
            document = live_document(found)
            console.print(status_page(found, document, height=23))
            line(document)
            spent.append(time.process_time() - began)
    first, *rest = spent
    typical, most = 1000 * statistics.median(rest), 1000 * max(rest)
    return f"watch: the first look {first:.2f} s, each further {typical:.0f} ms, at most {most:.0f}"


def command(paths: StudyPaths, *words: str) -> str:
    argv = [sys.executable, "-m", "pgolf_sweep", words[0], "night", *words[1:]]
    argv += ["--runs", str(paths.root.parent)]
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, code, usage = os.wait4(process.pid, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    said = f"{' '.join(words)}: {cpu:.2f} s of the processor, {time.monotonic() - began:.1f} s, "
    said += f"{usage.ru_maxrss / 1000:.0f} MB"
    pages = [file.stat().st_size for file in paths.root.glob("*.html")]
    return (
        said
        + "".join(f", {size / 1e6:.1f} MB of HTML" for size in pages)
        + f" ({code})" * bool(code)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 5000])
    parser.add_argument("--looks", type=int, default=10)
    options = parser.parse_args()
    for trials in options.trials:
        with tempfile.TemporaryDirectory() as name:
            study, paths = prepare(Path(name), trials)
            size = paths.journal.stat().st_size / 1e6
            print(f"{trials} trials, a journal of {size:.1f} MB", flush=True)
            with DriverLock(paths):
                before = psutil.Process().memory_info().rss
                print(f"  {watch(paths, study, options.looks)}", end="", flush=True)
                print(f", {(psutil.Process().memory_info().rss - before) / 1e6:.0f} MB")
                for words in COMMANDS:
                    print(f"  {command(paths, *words)}", flush=True)


if __name__ == "__main__":
    main()

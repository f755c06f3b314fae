"""Whole sweeps through the true driver: what each policy spends on artifacts over the cap.

    python bench/gate/policies.py bench/gate/trainings.csv --trials 200

Only the training is simulated. An artifact's size is what the gate expects before it learns,
moved by the relative error of one of the trainings that its constants never saw: the one that the
trial's training knobs draw, so that all exports of the same weights share it. The score prefers
larger models of the right rate, so that a sampler that learns is drawn to the cap. Half of the
space is over it. Launches and seconds are those that took a slot; "unusable" ones are over the cap
and left no smaller export either.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import math
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.gate.table import HELD, read_rows
from pgolf_sweep.core.paths import StudyPaths, write_json
from pgolf_sweep.core.record import State
from pgolf_sweep.core.trial import LogSummary
from pgolf_sweep.driver.control import Request
from pgolf_sweep.driver.opening import open_session
from pgolf_sweep.gate.gate import Gate
from pgolf_sweep.gate.physics.inventory import read_config
from pgolf_sweep.gate.resources import step_flops
from pgolf_sweep.launch.inline import Finish, InlineLauncher, SimulatedClock
from pgolf_sweep.search.study import open_study
from pgolf_sweep.track.mode import ResolvedMode
from pgolf_sweep.workflows.launch_support import make_driver
from trainer.export import EXPORT_KNOBS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SWEEP = """
name: {name}
program: trainer
method: {method}
run_cap: {trials}
parameters:
  NUM_LAYERS: {{distribution: int_uniform, min: 1, max: 6}}
  MODEL_DIM: {{distribution: q_uniform, min: 32, max: 160, q: 16}}
  MLP_MULT: {{values: [2, 3, 4]}}
  MATRIX_BITS: {{values: [4, 5, 6, 8]}}
  EMBED_BITS: {{values: [5, 6, 8]}}
  CODEC: {{values: [zlib, zstd, lzma, brotli]}}
  MATRIX_LR: {{distribution: log_uniform_values, min: 0.005, max: 0.08}}
  ITERATIONS: {{value: 200}}
  QUANT_SCALE: {{value: mse}}
  NUM_HEADS: {{value: 4}}
  NUM_KV_HEADS: {{value: 2}}
  VOCAB_SIZE: {{value: 512}}
  TRAIN_BATCH_TOKENS: {{value: 1024}}
  TRAIN_SEQ_LEN: {{value: 128}}
  MAX_WALLCLOCK_SECONDS: {{value: 0}}
  SEED: {{value: 1}}
pgolf:
  rules: rules.yaml
  resources: {{gpus: 0, cpus: 1}}
  seed: {seed}
  gate: {gate}
"""
POLICIES = {
    "without the gate": "{enabled: false}",
    "gate alone": "{export: []}",
    "gate and exports (the default)": "{}",
    "gate and repair": "{repair: [MATRIX_BITS, EMBED_BITS, MODEL_DIM, NUM_LAYERS], export: []}",
    "gate, repair and exports": "{repair: [MATRIX_BITS, EMBED_BITS, MODEL_DIM, NUM_LAYERS]}",
}
SLOTS = 8


class Silent:
    """An observer that looks away."""

    def turn(self, snapshot: Any) -> None:
        """Nothing."""

    def event(self, event: Any) -> None:
        """Nothing."""


class Truth:
    """How large artifacts come out, and how good models are."""

    def __init__(self, program: Any, table: Path) -> None:
        self.fresh = Gate(program, 10**9)
        rows = [row for row in read_rows(table) if row.half == HELD]
        bare = Gate(dataclasses.replace(program), 10**9)
        self.errors = []
        for row in rows:
            expected = bare.verdict(row.knobs).model_bytes
            assert expected is not None
            self.errors.append(row.model_bytes / expected.mid)

    def model_bytes(self, knobs: Any) -> int:
        """Of the compressed model."""
        training = sorted((k, str(v)) for k, v in knobs.items() if k not in EXPORT_KNOBS)
        digest = hashlib.sha256(repr(training).encode()).digest()
        error = self.errors[int.from_bytes(digest[:4]) % len(self.errors)]
        expected = self.fresh.verdict(knobs).model_bytes
        assert expected is not None
        return int(expected.mid * error)

    def summary(self, knobs: Any, code_bytes: int) -> LogSummary:
        """What the log would say."""
        size = self.model_bytes(knobs)
        rate = math.log(knobs["MATRIX_LR"] / 0.02)
        score = 3.2 - 0.25 * math.log(size / 60_000) + 0.05 * rate * rate
        return LogSummary(
            val_bpb=score,
            val_loss_nats=2 * score,
            model_bytes=size,
            code_bytes=code_bytes,
            total_bytes=size + code_bytes,
        )


def trainer(truth: Truth, code_bytes: int, cap_bytes: int) -> Callable[[Any], Iterator[Any]]:
    """What a simulated trial does: train, export, export again where it was told how."""

    def simulate(job: Any) -> Iterator[Any]:
        knobs = dict(job.spec.knobs)
        config = read_config({**truth.fresh.defaults, **knobs})
        params = 12 * config.num_layers * config.model_dim**2
        seconds = 3.0 + step_flops(config, params) * config.iterations / 4e10
        summary = truth.summary(knobs, code_bytes)
        settings = job.spec.env.get("SMALLER_EXPORTS", "").split(";")
        for setting in settings if (summary.total_bytes or 0) > cap_bytes else ():
            changes = dict(part.split("=") for part in setting.split(",") if part)
            typed = {k: type(truth.fresh.defaults[k])(v) for k, v in changes.items()}
            smaller = truth.summary({**knobs, **typed}, code_bytes)
            if changes and (smaller.total_bytes or 0) <= cap_bytes:
                summary = dataclasses.replace(smaller, over_cap=summary, exported=changes)
                break
        yield seconds, Finish(summary=summary, model_file_bytes=summary.model_bytes)

    return simulate


def sweep(folder: Path, method: str, gate: str, trials: int, seed: int, table: Path) -> list[Any]:
    """The rows of one study."""
    file = folder / "sweep.yaml"
    file.write_text(SWEEP.format(name="sweep", method=method, trials=trials, seed=seed, gate=gate))
    session = open_session(file, data_root=folder, need_data=False)
    truth = Truth(session.program, table)
    paths = StudyPaths(folder / "runs" / "sweep")
    write_json(paths.origin, {"created_at": 0.0})
    clock = SimulatedClock()
    simulate = trainer(truth, session.program.code_bytes, session.rules.artifact_cap_bytes)
    driver = make_driver(
        session,
        open_study(session.spec, paths, write=True),
        InlineLauncher(SLOTS, simulate, clock),
        paths,
        mode=ResolvedMode(mode="disabled", note=None),
        clock=clock,
        observer=Silent(),
        request=lambda: Request.CONTINUE,
    )
    driver.run()
    return driver.study.records()


def main() -> None:
    """Run the sweeps and print a row for each policy and sampler."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=["random", "bayes", "qmc"])
    parser.add_argument("--cap", type=int, default=190_000, help="bytes; half are over it")
    options = parser.parse_args()
    print("| sampler | policy | trained | over the cap, after ten | slot-seconds over "
          "| unusable, after ten | unusable slot-seconds | best legal score |")  # fmt: skip
    print("| --- | --- " + "| --: " * 6 + "|")
    for method in options.methods:
        for policy, gate in POLICIES.items():
            results = [
                measured(method, gate, options.trials, seed, options)
                for seed in range(options.seeds)
            ]
            cells = [statistics.mean(column) for column in zip(*results, strict=True)]
            print(
                f"| {method} | {policy} | {cells[0]:.0f} | {cells[1]:.1f} % | {cells[2]:.1f} % "
                f"| {cells[3]:.1f} % | {cells[4]:.1f} % | {cells[5]:.4f} |",
                flush=True,
            )


def measured(method: str, gate: str, trials: int, seed: int, options: Any) -> tuple[float, ...]:
    """The cells of one study."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rules.yaml").write_text(f"extends: demo\nartifact_cap_bytes: {options.cap}\n")
        rows = sweep(folder, method, gate, trials, seed, options.table.resolve())
    exported = {row.export_of for row in rows}
    ran = sorted((row for row in rows if row.attempts), key=lambda row: row.ended_at)
    over = [row for row in ran if (row.headroom_bytes or 0) < 0]
    lost = [row for row in over if row.number not in exported]
    seconds = sum(row.slot_seconds for row in ran)
    late = ran[10:]
    best = min(row.val_bpb for row in rows if row.outcome is State.COMPLETED and row.submittable)
    return (
        len(ran),
        100 * sum(row in over for row in late) / len(late),
        100 * sum(row.slot_seconds for row in over) / seconds,
        100 * sum(row in lost for row in late) / len(late),
        100 * sum(row.slot_seconds for row in lost) / seconds,
        best,
    )


if __name__ == "__main__":
    main()

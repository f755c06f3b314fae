"""Every configuration of `table.yaml`, trained and exported on one core: `trainings.csv`.

    python bench/search/table.py --data DATA --rows rows.jsonl --seconds 1200 [--csv FILE]

DATA is the folder that `pgolf-sweep data demo` fills. The driver of `pgolf-sweep` proposes each
training of the grid (`pgolf_sweep.simulate`, one slot); the trainer runs in this process, since an
import of torch costs more than one training. From the weights of each the trainer then exports all
twelve pairs of bits. The gate is off: what is over the cap is trained, too. Validation is the first
4,096 tokens of the demo's. Each training of a third of the steps is a rung, and comes last.

ROWS holds what was trained, so that a run that was stopped goes on; `--csv` writes the table.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import io
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from pgolf_sweep.core.trial import knob_text
from pgolf_sweep.driver.opening import open_session
from pgolf_sweep.script.logs.stream import read_log
from pgolf_sweep.space.domains import Choices, Constant
from pgolf_sweep.space.space import Space
from pgolf_sweep.workflows.simulate import simulate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgolf_sweep.driver.session import Session

HERE = Path(__file__).resolve().parent
SWEEP = HERE / "table.yaml"
TABLE = HERE / "trainings.csv"
TRAINED = ("MODEL_DIM", "NUM_LAYERS", "MLP_MULT", "MATRIX_LR", "TIED_EMBED_LR")
MATRIX_BITS, EMBED_BITS = (4, 5, 6), (4, 5, 6, 8)
SEEDS = (1, 2)
RUNG = 20
"""Steps of the short trainings."""
VALIDATION_TOKENS = 4096


class OutOfTimeError(Exception):
    """The processor time that was given is used up."""


def shortened(data: Path, folder: Path) -> Path:
    """The demo's data set with a short validation set."""
    source = data / "datasets" / "demo_sp512"
    shutil.copy(source / "fineweb_train_000000.bin", folder)
    name = "fineweb_val_000000.bin"
    header = np.fromfile(source / name, dtype="<i4", count=256)
    tokens = np.fromfile(source / name, dtype="<u2", offset=header.nbytes)
    header[2] = VALIDATION_TOKENS + 1
    (folder / name).write_bytes(header.tobytes() + tokens[: header[2]].tobytes())
    return folder


class Trainings:
    """Trains what the driver proposes, and keeps each training's row.

    Args:
        rows: JSON lines, one a training.
        env: Where the data lie.
        seconds: Processor time after which it stops.
    """

    def __init__(self, rows: Path, env: Mapping[str, str], seconds: float) -> None:
        self._rows = rows
        self._env = env
        self._seconds = seconds
        lines = rows.read_text().splitlines() if rows.exists() else []
        self.known = {key_of(row): row for row in map(json.loads, lines)}

    def __call__(self, knobs: Mapping[str, Any]) -> dict[str, Any]:
        row = self.known.get(key_of(knobs))
        if row is None:
            if time.process_time() > self._seconds:
                raise OutOfTimeError
            row = trained(knobs, self._env)
            self.known[key_of(row)] = row
            with self._rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
        val_bpb, size, _ = row["exports"]["5-6"]
        return {"val_bpb": val_bpb, "artifact_bytes": size, "minutes": row["train_seconds"] / 60}


def key_of(knobs: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells a training from another."""
    return tuple(float(knobs[name]) for name in (*TRAINED, "ITERATIONS", "SEED"))


def trained(knobs: Mapping[str, Any], env: Mapping[str, str]) -> dict[str, Any]:
    """One training and its exports; seconds are of the processor."""
    import torch

    from trainer.config import read_config
    from trainer.runtime import Log, Stopwatch
    from trainer.train import Run

    texts = {name: knob_text(value) for name, value in knobs.items()}
    os.environ.update(texts | {"MAX_WALLCLOCK_SECONDS": "0"} | dict(env))
    config = read_config()
    began = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()) as out:
        run = Run(config, torch.device("cpu"), Log(config))
        run.train()
    seconds = time.process_time() - began
    weights = {
        name: parameter.detach().float().numpy().copy()
        for name, parameter in run.model.named_parameters()
    }
    run.products, run.stopwatch = {}, Stopwatch(run.device, run.seconds)
    row: dict[str, Any] = {name: knobs[name] for name in (*TRAINED, "ITERATIONS", "SEED")}
    summary, reports = read_log(out.getvalue().encode())
    row |= {"train_seconds": round(seconds, 3), "prequant": reports[-1].val_bpb, "exports": {}}
    for matrix, embed in itertools.product(MATRIX_BITS, EMBED_BITS):
        began = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()) as out:
            changed = dataclasses.replace(config, matrix_bits=matrix, embed_bits=embed)
            run.export(changed, weights)
        summary, _ = read_log(out.getvalue().encode())
        exported = time.process_time() - began
        row["exports"][f"{matrix}-{embed}"] = [
            round(summary.val_bpb or 0.0, 5),
            summary.total_bytes,
            round(exported, 3),
        ]
    return row


def of_seed(session: Session, seed: int, steps: int) -> Session:
    """The grid of all trainings with one seed and number of steps, without a gate."""
    fixed: dict[str, Any] = {
        "SEED": seed,
        "ITERATIONS": steps,
        "MUON_MOMENTUM_WARMUP_STEPS": steps // 2,
        "MATRIX_BITS": 5,
        "EMBED_BITS": 6,
    }
    space = session.spec.space
    parameters = dict(space.parameters)
    for name, value in fixed.items():
        parameters[name] = dataclasses.replace(parameters[name], domain=Constant(value))
    spec = dataclasses.replace(
        session.spec,
        method="grid",
        run_cap=None,
        space=Space(parameters.values(), space.require),
        pgolf=dataclasses.replace(session.spec.pgolf, gate_enabled=False),
    )
    return dataclasses.replace(session, spec=spec)


def write_table(trainings: Trainings, path: Path) -> None:
    """The rows as a CSV, a line for each training, with columns for each export."""
    pairs = [f"{m}-{e}" for m, e in itertools.product(MATRIX_BITS, EMBED_BITS)]
    heads = [f"{what}_{pair}" for pair in pairs for what in ("bpb", "bytes")]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        own = (*TRAINED, "ITERATIONS", "SEED", "train_seconds", "prequant")
        writer.writerow([*own, "export_seconds", *heads])
        for key in sorted(trainings.known):
            row = trainings.known[key]
            exports = [row["exports"][pair] for pair in pairs]
            seconds = sum(one[2] for one in exports) / len(exports)
            cells = [cell for one in exports for cell in one[:2]]
            writer.writerow([*(row[name] for name in own), f"{seconds:.3f}", *cells])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=1200.0, help="of the processor")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    session = open_session(SWEEP, data_root=options.data)
    free = [p for p in session.spec.space.parameters.values() if isinstance(p.domain, Choices)]
    assert {p.name for p in free} == {*TRAINED, "MATRIX_BITS", "EMBED_BITS"}
    with tempfile.TemporaryDirectory(prefix="pgolf-table-") as name:
        folder = Path(name)
        env = {
            "DATA_PATH": str(shortened(options.data, folder).resolve()),
            "TOKENIZER_PATH": str(options.data.resolve() / "tokenizers" / "demo_512_bpe.model"),
        }
        trainings = Trainings(options.rows.resolve(), env, options.seconds)
        with contextlib.chdir(folder), contextlib.suppress(OutOfTimeError):
            for steps, seed in ((60, 1), (60, 2), (RUNG, 1)):
                simulate(of_seed(session, seed, steps), trainings, slots=1)
                said = f"{time.process_time():.0f} s"
                print(f"{steps} steps, seed {seed}: {len(trainings.known)} trainings, {said}")
    if options.csv is not None:
        write_table(trainings, options.csv)


if __name__ == "__main__":
    main()

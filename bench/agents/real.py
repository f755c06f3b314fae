"""A scripted agent on the project's trainer, trained for real: eight edits of known kind.

The study's program is the trainer with two defaults spoilt. Two edits mend them (helpful), two
change what hardly matters, one of them proposed twice in other formatting (identical), one only
adds a constant (the same training: exactly no effect), one spoils another default (harmful), one
helps by about 1.5 standard deviations of a run (small: neither answer is wrong), one raises while
it trains (broken). The loop is docs/agents.md's: propose on what is kept, compare,
run the seeds that the rule asks for; each life of the driver ends when nothing waits. Slots are
simulated, their runs are not: each is a process of its own.

    pgolf-sweep data demo
    PYTHONPATH=tests python bench/agents/real.py FOLDER [--loops 2] [--first 0] [--steps 60]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from support.real_runs import run_script
from support.sweeps import Bench, Watcher

from pgolf_sweep.core.errors import PgolfError
from pgolf_sweep.core.paths import StudyPaths
from pgolf_sweep.driver.opening import open_session
from pgolf_sweep.driver.proposals import look, pending
from pgolf_sweep.launch.inline import SimulatedClock
from pgolf_sweep.report.compare import noise_of
from pgolf_sweep.script.bundle import bundle
from pgolf_sweep.submission.effects import Decision
from pgolf_sweep.variants.store import plain_files
from pgolf_sweep.workflows.compare import compare, request_runs
from pgolf_sweep.workflows.propose import propose
from pgolf_sweep.workflows.study_folder import begin_study, prepare_folder
from pgolf_sweep.workflows.variants import program_of

if TYPE_CHECKING:
    from pgolf_sweep.core.record import TrialRecord

SOFTCAP, NEWTON = '"LOGIT_SOFTCAP", {}', '"MUON_BACKEND_STEPS", {}'
EPS, MOMENTUM = '"ADAM_EPS", {}', '"MUON_MOMENTUM", {}'
SPOILT = ((SOFTCAP, "30.0", "3.0"), (NEWTON, "5", "1"))
LAST = 'if __name__ == "__main__":'
EDITS = (
    ("softcap", "helpful", SOFTCAP.format("3.0"), SOFTCAP.format("30.0")),
    ("newton", "helpful", NEWTON.format("1"), NEWTON.format("5")),
    ("eps", "none", EPS.format("1e-8"), EPS.format("2e-8")),
    ("eps again", "identical", EPS.format("1e-8"), "# smaller\n" + EPS.format("2e-8")),
    ("constant", "none", LAST, f"UNUSED = 3\n\n{LAST}"),
    ("momentum", "small", MOMENTUM.format("0.95"), MOMENTUM.format("0.0")),
    ("embedding", "harmful", '"TIED_EMBED_LR", 0.05', '"TIED_EMBED_LR", 0.0005'),
    ("raises", "broken", 'return f"train_time:', 'return [][1] or f"train_time:'),
)
SWEEP = """
program: train_gpt.py
method: random
metric: {{name: val_bpb, goal: minimize}}
run_cap: 500
parameters:
  MODEL_DIM: {{value: 64}}
  NUM_LAYERS: {{value: 2}}
  MATRIX_LR: {{value: 0.02}}
  ITERATIONS: {{value: {steps}}}
  TRAIN_BATCH_TOKENS: {{value: 1024}}
  TRAIN_SEQ_LEN: {{value: 128}}
  WARMUP_STEPS: {{value: 0}}
  WARMDOWN_FRAC: {{value: 0.5}}
  MUON_MOMENTUM_WARMUP_STEPS: {{value: 0}}
  VAL_LOSS_EVERY: {{value: 0}}
  VAL_BATCH_SIZE: {{value: 16384}}
  NUM_HEADS: {{value: 4}}
  NUM_KV_HEADS: {{value: 2}}
  VOCAB_SIZE: {{value: 512}}
  SEED: {{value: {seed}}}
pgolf:
  rules: demo
  data: demo
  resources: {{gpus: 0, cpus: 1}}
  gate: {{enabled: false}}
  noise_floor: 4
"""


@dataclass
class Loop:
    """One study and what an agent did with it."""

    bench: Bench
    began: float = field(default_factory=time.monotonic)

    @property
    def records(self) -> list[TrialRecord]:
        return self.bench.study().records()

    def drive(self) -> None:
        """Run what waits and nothing else."""
        records = self.records
        ended = sum(r.outcome.final and r.duplicate_of is None for r in records)
        waits = sum(not r.outcome.final for r in records) + len(pending(self.bench.paths))
        self.bench.driver(slots=1, simulate=run_script, run_cap=ended + waits).run()

    def tried(self, base: int, name: str, before: str, after: str) -> tuple[str, int]:
        """What became of an edit of a trial's program, and the trial that is gone on from."""
        paths, rows = self.bench.paths, {record.number: record for record in self.records}
        files = plain_files(program_of(paths, rows[base].variant))
        text = files["train_gpt.py"].decode()
        if before not in text:
            return "its change is accepted already", base
        script = self.bench.folder / "idea.py"
        script.write_text(text.replace(before, after, 1))
        try:
            asked = propose(paths, [], by="agent", base=str(base), program=script, idea=name)
        except PgolfError as error:
            return f"refused: {error.what}", base
        if not asked.requests:
            return f"ran before as trial {asked.earlier[0].number}", base
        self.drive()
        number = look(paths, asked.requests[0].id).number
        record = self.records[number]
        if record.val_bpb is None:
            return f"{record.outcome.value}: {record.reason}", base
        while True:
            found = compare(paths, base, number)
            if found.decision is not Decision.MORE:
                effect = 0.0 if found.effect is None else found.effect.value
                text = f"{found.decision.value} {effect:+.4f}, {len(found.candidate.trials)} runs"
                return text, number if found.decision is Decision.KEEP else base
            request_runs(paths, found, by="agent")
            self.drive()


def made(folder: Path, data: Path, number: int, steps: int) -> Loop:
    """A study of the spoilt trainer that has measured its noise."""
    program = bundle().decode()
    for key, good, bad in SPOILT:
        assert key.format(good) in program, key
        program = program.replace(key.format(good), key.format(bad), 1)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train_gpt.py").write_text(program)
    sweep = folder / f"loop-{number}.yaml"
    sweep.write_text(SWEEP.format(steps=steps, seed=1000 + number))
    session = open_session(sweep, data_root=data)
    paths = StudyPaths(folder / "runs" / session.spec.name)
    bench = Bench(folder, session, paths, SimulatedClock(), Watcher())
    prepare_folder(session, paths, sweep=sweep, data_root=data)
    begin_study(session, bench.study(), paths.root.parent)
    loop = Loop(bench)
    loop.drive()
    return loop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--loops", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="number of the first loop")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--data", type=Path, default=Path("data"))
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for number in range(given.first, given.first + given.loops):
        loop = made(given.folder.resolve(), given.data.resolve(), number, given.steps)
        base, false, kept = 0, 0, Counter[str]()
        pairs: list[tuple[int, int]] = []
        for at in np.random.default_rng(number).permutation(len(EDITS)):
            name, kind, before, after = EDITS[at]
            said, now = loop.tried(base, name, before, after)
            false += now != base and kind not in {"helpful", "small"}
            kept[kind] += now != base
            pairs += [(base, now)] * (now != base)
            base = now
            print(f"  {name} ({kind}): {said}", flush=True)
        for first, now in pairs:
            again = compare(loop.bench.paths, first, now).remeasured
            if again is not None:
                ends = f"{again.low:+.4f} to {again.high:+.4f}"
                print(f"  trial {now} on {first}, measured again: {again.value:+.4f} ({ends})")
        noise = noise_of(loop.records)
        runs = sum(record.attempts > 0 for record in loop.records)
        row = {
            "loop": number,
            "false_keeps": false,
            "helpful_kept": kept["helpful"],
            "runs": runs,
            "share_of_three_seeds_each": runs / (3 * len(EDITS)),
            "noise_bpb": None if noise is None else noise.std,
            "seconds": round(time.monotonic() - loop.began, 1),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

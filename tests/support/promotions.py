"""A candidate, a script, and seeds that a simulated launcher runs."""

from __future__ import annotations

import random
import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from pgolf_sweep.config.rules import load_rules
from pgolf_sweep.core.trial import Limits, Resources, TrialSpec
from pgolf_sweep.launch.base import Job
from pgolf_sweep.launch.inline import Finish, InlineLauncher, SimulatedClock
from pgolf_sweep.promote.candidate import About, broken_by_runs
from pgolf_sweep.promote.promote import Promotion, plan, promote
from pgolf_sweep.submission.evidence import Candidate, Provenance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pgolf_sweep.config.rules import Rules
    from pgolf_sweep.promote.seeds import PromotionPlan
    from pgolf_sweep.submission.evidence import SeedRun

SCRIPT = b"""\
import os
import random
import torch

layers = int(os.environ.get("NUM_LAYERS", 9))
rate = float(os.environ.get("MATRIX_LR", "0.04"))
random.seed(int(os.environ.get("SEED", "1337")))
data_path = os.environ.get("DATA_PATH", "./data")
train_files = os.path.join(data_path, "fineweb_train_*.bin")
val_files = os.path.join(data_path, "fineweb_val_*.bin")
"""
BLOCK_BYTES = 65535
RATIO = 0.59226
"""val_bpb / val_loss of sp1024."""


def stored(size: int, seed: int) -> bytes:
    """A zlib stream of exactly so many bytes: stored blocks of noise."""
    blocks = -(-(size - 6) // (BLOCK_BYTES + 5))
    noise = random.Random(seed).randbytes(size - 6 - 5 * blocks)
    out = b"\x78\x01"
    for start in range(0, len(noise), BLOCK_BYTES):
        block = noise[start : start + BLOCK_BYTES]
        last = start + BLOCK_BYTES >= len(noise)
        out += struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF) + block
    return out + struct.pack(">I", zlib.adler32(noise))


def log_text(
    seed: int,
    *,
    code_bytes: int,
    model_bytes: int = 200_000,
    val_bpb: float = 1.2,
    train_ms: int = 50_000,
) -> str:
    """A log in the words of the contest's baseline."""
    loss = val_bpb / RATIO
    raw = len(zlib.decompress(stored(model_bytes, seed)))
    curve = "".join(
        f"step:{step}/500 train_loss:{loss + 0.1 - step / 1e4 + seed % 97 / 1e3:.4f} "
        f"train_time:{train_ms * step // 500}ms step_avg:{train_ms / 500:.2f}ms\n"
        for step in (100, 200, 300, 400)
    )
    return (
        "val_bpb:enabled tokenizer_path=./data/tokenizers/fineweb_1024_bpe.model\n"
        "train_loader:dataset:fineweb10B_sp1024 train_shards:80\n"
        "model_params:190000\n"
        "num_layers:11 model_dim:64 train_batch_tokens:8192\n"
        f"seed:{seed}\n"
        f"{curve}"
        f"step:500/500 val_loss:{loss:.4f} val_bpb:{val_bpb:.4f} "
        f"train_time:{train_ms}ms step_avg:{train_ms / 500:.2f}ms\n"
        f"Code size: {code_bytes} bytes\n"
        f"Serialized model int8+zlib: {model_bytes} bytes (payload:{raw} raw_torch:{raw})\n"
        f"Total submission size int8+zlib: {code_bytes + model_bytes} bytes\n"
        f"final_int8_zlib_roundtrip val_loss:{loss:.4f} val_bpb:{val_bpb:.4f} eval_time:4000ms\n"
        f"final_int8_zlib_roundtrip_exact val_loss:{loss:.8f} val_bpb:{val_bpb:.8f}\n"
    )


@dataclass
class Bench:
    """Promotions in a temporary folder; `results` overrides what a seed's run does."""

    root: Path
    rules: Rules
    results: dict[int, list[Finish]] = field(default_factory=dict)
    log_options: dict[str, Any] = field(default_factory=dict)
    started: list[tuple[int, int]] = field(default_factory=list)
    clock: SimulatedClock = field(default_factory=SimulatedClock)
    slots: int = 2
    script: bytes = SCRIPT
    launch: Callable[[], InlineLauncher] | None = None

    def candidate(self, number: int = 7) -> Candidate:
        return Candidate(
            study="toy",
            number=number,
            knobs={"NUM_LAYERS": 11, "MATRIX_LR": 0.02, "SEED": 1337},
            proposer="tpe",
            val_bpb=1.19,
            artifact_bytes=200_100,
        )

    def plan(self, number: int = 7, **options: Any) -> PromotionPlan:
        options = {"rules": self.rules, "root": self.root / "promotion", **options}
        files = {"train.py": self.script}
        return plan(self.candidate(number), files=files, program_name="train.py", **options)

    def finish(self, seed: int, code_bytes: int) -> Finish:
        """A seed that does well, a little worse for larger seeds."""
        options = {"val_bpb": 1.2 + seed / 1e8, "model_bytes": 200_000 + seed % 7}
        options |= self.log_options
        text = log_text(seed, code_bytes=code_bytes, **options)
        model = stored(options["model_bytes"], seed)
        return Finish(files={"train.log": text.encode(), "final_model.int8.ptz": model})

    def job(
        self, *, key: str, attempt: int, seed: int, files: Mapping[str, bytes], folder: Path
    ) -> Job:
        spec = TrialSpec(
            study="toy",
            number=7,
            knobs={},
            env={"SEED": str(seed)},
            program_name="train_gpt.py",
            program_sha256="0" * 64,
            resources=Resources(gpus=0, cpus=1),
            limits=Limits(total_seconds=600, silent_seconds=60),
            proposer="promote",
        )
        return Job(key=key, attempt=attempt, spec=spec, files=files, folder=folder)

    def launcher(self) -> InlineLauncher:
        def simulate(job: Job) -> Iterator[tuple[float, Finish]]:
            seed = int(job.spec.env["SEED"])
            self.started.append((seed, job.attempt))
            planned = self.results.get(seed)
            good = self.finish(seed, len(job.files["train_gpt.py"]))
            yield 60.0, planned.pop(0) if planned else good

        return InlineLauncher(self.slots, simulate, self.clock)

    about: ClassVar = About(name="A toy", author="Ada", github_id="ada", blurb="Toy.")
    provenance: ClassVar = Provenance(
        sweep_text="method: bayes\n",
        sampler="TPE, seed 1",
        trials={"completed": 12, "discarded": 5},
        slot_seconds=720.0,
        gpus=0,
        hardware="2 CPU cores",
        dataset="demo_sp512",
        program_sha256="0" * 64,
        versions={"torch": "2.13.0+cpu"},
    )

    def broken(self, planned: PromotionPlan, runs: Sequence[SeedRun]) -> list[str]:
        return broken_by_runs(planned, runs, about=self.about, provenance=self.provenance)

    def promote(self, planned: PromotionPlan | None = None, **options: Any) -> Promotion:
        options = {"about": self.about, **options}
        return promote(
            planned or self.plan(),
            launcher=self.launch() if self.launch is not None else self.launcher(),
            make_job=self.job,
            clock=self.clock,
            provenance=self.provenance,
            submissions=self.root / "submissions",
            **options,
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(root=tmp_path, rules=load_rules("demo", base=tmp_path))

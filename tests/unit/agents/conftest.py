"""A study of real script runs, as far as its driver ran."""

from __future__ import annotations

import numpy as np
import pytest
from support.sweeps import SCRIPT, build_bench

from pgolf_sweep.agents.tools import StudyTools
from pgolf_sweep.core.trial import LogSummary
from pgolf_sweep.launch.inline import Finish
from pgolf_sweep.workflows.study_folder import prepare_folder

TRACEBACK = b"""step:0/20 val_loss:2.0 val_bpb:1.3 train_time:0ms step_avg:0.00ms
Traceback (most recent call last):
  File "/node/work/train_gpt.py", line 3, in <module>
    WIDTH = int(os.environ.get("MODEL_DIM", 64))
  File "/usr/lib/python3.11/os.py", line 700, in get
    raise KeyError(key)
ValueError: invalid literal for int()
"""
LOG = b"".join(
    f"step:{step}/400 val_loss:{3 - step / 400:.4f} val_bpb:{2 - step / 800:.4f} "
    f"train_time:{step * 50}ms step_avg:50.00ms\n".encode()
    for step in range(0, 401, 4)
)


def simulate(job):
    """A score of the width with noise by seed; a width of 192 fails, as its log tells."""
    width, seed = int(job.spec.knobs["MODEL_DIM"]), int(job.spec.knobs["SEED"])
    if width == 192:
        tail = tuple(TRACEBACK.decode().splitlines())
        yield 1.0, Finish(exit_code=1, log_tail=tail, files={"train.log": TRACEBACK})
        return
    score = 1.2 - 0.02 * (width == 96) + np.random.default_rng([seed, width]).normal(0, 0.001)
    yield (
        10.0,
        Finish(
            summary=LogSummary(val_bpb=score, val_loss_nats=2 * score, total_bytes=100),
            files={"train.log": LOG},
        ),
    )


class Served:
    """A study, the tools of a proposer, and a driver that runs when it is told to."""

    def __init__(self, bench):
        self.bench, self.paths = bench, bench.paths
        self.tools = StudyTools(bench.paths, "ada")

    def drive(self, count):
        """Run up to so many trials over all."""
        self.bench.driver(slots=2, run_cap=count, simulate=simulate).run()


@pytest.fixture
def served(tmp_path):
    bench = build_bench(
        tmp_path,
        method="random",
        run_cap=40,
        block="  proposers: {ada: {gpu_hours: 1, concurrent: 4}, bob: {gpu_hours: 0.001}}\n"
        "  accept: {false_keep: 0.01}\n",
    )
    (tmp_path / "train_gpt.py").write_bytes(SCRIPT)
    prepare_folder(bench.session, bench.paths, sweep=tmp_path / "study.yaml", data_root=tmp_path)
    return Served(bench)

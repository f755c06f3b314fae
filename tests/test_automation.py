"""The loop of docs/automation.md, as it stands there, with a real driver on a real cluster."""

from __future__ import annotations

import json
import subprocess

import pytest
from support import loops

from pgolf_sweep.core.paths import StudyPaths
from pgolf_sweep.driver.proposals import pending
from pgolf_sweep.report.read import study_records
from pgolf_sweep.verify.verify import verify

SWEEP = """
program: good.py
method: random
metric: {name: val_bpb, goal: minimize}
parameters:
  MATRIX_LR:    {distribution: log_uniform_values, min: 0.01, max: 0.08}
  MODEL_DIM:    {values: [32, 64]}
  STEP_SECONDS: {value: 0.02}
  SEED:         {value: 1337}
pgolf:
  rules: demo
  resources: {gpus: 0, cpus: 1}
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)  # three Ray starts, on a machine that may be busy
def test_loop_of_the_documentation_ends_in_a_verified_submission(tmp_path):
    block = loops.block_of("automation.md", "set -eu")
    assert len(block.splitlines()) <= 25
    env = loops.desk(tmp_path, SWEEP)
    said = loops.typed(block, tmp_path, env, seconds=400)
    paths = StudyPaths(tmp_path / "runs" / "mine")
    assert pending(paths) == []
    proposed = [r for r in study_records(paths.root) if r.proposer == "propose:loop"]
    assert [r.knobs["MATRIX_LR"] for r in proposed] == [0.012, 0.02, 0.035]
    assert all(r.val_bpb is not None for r in proposed)
    assert said.count("best so far") == 3
    (submission,) = paths.submissions.iterdir()
    assert verify(submission).ok
    assert (submission / "train_gpt.py").stat().st_size < len(
        (submission / "readable" / "train_gpt.py").read_bytes()
    )
    assert "search only" in said
    came = json.loads(paths.trial(proposed[0].number).spec.read_text())
    assert came["proposer"] == "propose:loop"
    assert came["provenance"]["sampler"] == {"method": "random", "seed": 0}
    assert {"python", "torch", "optuna"} <= came["provenance"]["versions"].keys()
    again = subprocess.run(
        ["pgolf-sweep", "verify", str(submission), "--rerun", "--json"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert again.returncode == 0, again.stdout + again.stderr
    check = json.loads(again.stdout)["checks"][-1]
    assert (check["rule"], check["verdict"]) == ("rerun", "pass")
    assert "the same score to the last digit" in check["detail"]

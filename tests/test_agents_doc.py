"""The loops of docs/agents.md as they stand there, on a real driver; a stand-in edits scripts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support import loops

from pgolf_sweep.core.ledger import check_chain, read_ledger
from pgolf_sweep.core.paths import StudyPaths
from pgolf_sweep.report.read import study_records

SWEEP = """
program: good.py
method: random
metric: {name: val_bpb, goal: minimize}
parameters:
  MATRIX_LR:    {distribution: log_uniform_values, min: 0.01, max: 0.08}
  STEP_SECONDS: {value: 0.02}
  SEED:         {value: 1337}
pgolf:
  rules: demo
  resources: {gpus: 0, cpus: 1}
  proposers: {agent: {gpu_hours: 1, concurrent: 2}}
"""


def edited(text: str, before: str, after: str) -> str:
    """What the stand-in writes: a script with one line changed."""
    assert text.count(before) == 1
    return text.replace(before, after)


BETTER = edited(loops.SCRIPT.read_text(), "curve = 1.5 / math.sqrt", "curve = 1.45 / math.sqrt")
IDEAS = {  # the later ones change what is kept by then
    "1_helps.py": BETTER,
    "2_nothing.py": edited(BETTER, "BYTES_PER_PARAM = 0.9", "BYTES_PER_PARAM = 0.9\nUNUSED = 3"),
    "3_breaks.py": edited(BETTER, "    curve = 1.45 /", "    curve = VOCAB_SIZE[step] + 1.45 /"),
}
BROKEN_LINE = next(
    number
    for number, line in enumerate(IDEAS["3_breaks.py"].splitlines(), start=1)
    if "VOCAB_SIZE[step]" in line
)


@pytest.fixture
def desk(tmp_path):
    """A folder with a sweep, the script and three edits of it, and its environment."""
    for name, text in IDEAS.items():
        (tmp_path / "ideas").mkdir(exist_ok=True)
        (tmp_path / "ideas" / name).write_text(text)
    return tmp_path, loops.desk(tmp_path, SWEEP)


def outcomes(folder):
    paths = StudyPaths(folder / "runs" / "mine")
    rows = study_records(paths.root)
    ideas = {Path(row.idea).name: row for row in rows if row.idea and row.seed is None}
    decided = {
        entry.body["candidate"]: entry.body["decision"]
        for entry in read_ledger(paths)
        if entry.kind == "decision"
    }
    assert check_chain(read_ledger(paths)) == []
    return ideas, decided


def check(folder):
    ideas, decided = outcomes(folder)
    assert ideas.keys() == IDEAS.keys()
    assert decided[ideas["1_helps.py"].number] == "keep"
    assert decided[ideas["2_nothing.py"].number] == "drop"
    assert ideas["3_breaks.py"].outcome.value == "failed"
    assert ideas["2_nothing.py"].parent == ideas["1_helps.py"].number


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_loop_by_shell_keeps_what_helps_and_says_what_breaks(desk):
    folder, env = desk
    said = loops.typed(loops.block_of("agents.md", "set -eu"), folder, env, seconds=800)
    assert "1_helps.py kept" in said
    assert "2_nothing.py kept" not in said
    assert "not distinguishable" in said
    assert "3_breaks.py broke:" in said
    assert f"line {BROKEN_LINE}" in said
    check(folder)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_loop_by_mcp_keeps_what_helps_and_says_what_breaks(desk):
    folder, env = desk
    (folder / "loop.py").write_text(loops.block_of("agents.md", "import asyncio", "python"))
    launch = [sys.executable, "-m", "pgolf_sweep", "launch", "sweeps/mine.yaml"]
    with subprocess.Popen(launch, cwd=folder, env=env, stderr=subprocess.PIPE) as driver:
        try:
            until = "until pgolf-sweep best mine >/dev/null 2>&1; do sleep 1; done"
            subprocess.run(["bash", "-c", until], cwd=folder, env=env, timeout=300, check=True)
            ideas = [f"ideas/{name}" for name in IDEAS]
            done = subprocess.run(
                [sys.executable, "loop.py", "mine", "0", *ideas],
                cwd=folder,
                env=env,
                capture_output=True,
                text=True,
                timeout=400,
                check=False,
            )
        finally:
            subprocess.run(
                ["pgolf-sweep", "stop", "mine"], cwd=folder, env=env, timeout=60, check=False
            )
            driver.communicate(timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    helps, nothing, breaks = done.stdout.splitlines()
    assert helps.startswith("ideas/1_helps.py: keep: ")
    assert nothing.startswith("ideas/2_nothing.py: drop: not distinguishable")
    assert breaks.startswith(f"ideas/3_breaks.py: line {BROKEN_LINE}: ")
    check(folder)

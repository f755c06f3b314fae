"""The GPU bench's CPU path: every part runs, and the table has its numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_bench_runs_every_part_on_a_cpu(tmp_path):
    done = subprocess.run(
        ["bash", str(ROOT / "bench/trainer/hopper.sh"), str(tmp_path / "out")],
        env={
            "PATH": os.environ["PATH"],
            "PYTHON": sys.executable,
            "PYTHONPATH": str(ROOT),
            "DEVICE": "cpu",
            "STEPS": "10",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    logs = [path.read_text()[-800:] for path in (tmp_path / "out").glob("*.log")]
    assert done.returncode == 0, (done.stderr, logs)
    header, *rows = (line.split() for line in done.stdout.splitlines())
    assert header == ["part", "step_ms", "train_loss", "peak_mib", "params", "seconds"]
    assert [row[0] for row in rows] == ["frontier_cold", "frontier_warm", "ours_1", "ours_2"]
    assert all("-" not in row for row in rows)
    assert rows[0][2] == rows[1][2]
    assert rows[2][2] == rows[3][2]

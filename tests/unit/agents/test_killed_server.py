"""An MCP server killed -9 at each step of the protocol loses no proposal and doubles none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import dies_serving
from support.dies_serving import STEPS

from pgolf_sweep.core.ledger import check_chain, read_ledger
from pgolf_sweep.core.paths import StudyPaths
from pgolf_sweep.driver.ledger import contradictions, decisions
from pgolf_sweep.driver.proposals import readable
from pgolf_sweep.report.read import study_records

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


def test_proposals_survive_every_death_of_the_server_once(tmp_path):
    done = subprocess.run(
        [sys.executable, dies_serving.__file__, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lives = [json.loads(line) for line in done.stdout.splitlines()]
    assert {one["signal"] for one in lives} == {signal.SIGKILL}
    answers = {one["step"]: one["answer"] for one in lives}
    assert answers.keys() == STEPS.keys()
    died = {name for name, (_, step) in STEPS.items() if step is not None}
    assert {name for name, answer in answers.items() if answer is None} == died | {
        dies_serving.HALF
    }

    paths = StudyPaths(tmp_path / "runs" / "study")
    requests, rows = readable(paths), study_records(paths.root)
    asked = [one for one in requests if one.by == "ada"]
    assert [one.id for one in asked[:2]] == answers["proposal answered"]["proposals"]
    assert asked[2].id in answers["run of a comparison answered"]["proposals"]
    heard = [name for one in lives if one["answer"] for name in one["answer"].get("proposals", [])]
    assert {one.id for one in asked} == set(heard)
    assert answers["end waited for"]["state"] == "ended"
    runs = [(one.change.variant, one.change.seed) for one in requests]
    assert len(set(runs)) == len(runs)
    assert sorted(one.number for one in requests) == [row.number for row in rows[3:]]
    assert len({row.identity for row in rows}) == len(rows)
    assert {row.outcome.value for row in rows} == {"completed"}

    (decision,) = decisions(paths)
    assert decision.body["decision"] == answers["decision answered"]["decision"]
    entries = read_ledger(paths)
    assert check_chain(entries) == []
    assert contradictions(entries, rows) == []

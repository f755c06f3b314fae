"""Drivers and proposers killed -9 at one step after another lose no proposal and double none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from support import dies_proposing
from support.dies_proposing import DRIVER_STEPS, PROPOSER_STEPS, RAN

from pgolf_sweep.core.ledger import check_chain, read_ledger
from pgolf_sweep.core.paths import StudyPaths
from pgolf_sweep.driver.ledger import contradictions
from pgolf_sweep.driver.proposals import readable
from pgolf_sweep.report.read import study_records

ROOT = Path(__file__).parents[3]


def test_proposals_survive_every_death_of_driver_and_proposer_once(tmp_path):
    done = subprocess.run(
        [sys.executable, dies_proposing.__file__, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lives = [json.loads(line) for line in done.stdout.splitlines()]
    killed = [one["step"] for one in lives if one["signal"] == signal.SIGKILL]
    assert {name for name, *_ in (*DRIVER_STEPS, *PROPOSER_STEPS)} < set(killed)
    assert len(killed) == len(DRIVER_STEPS) + len(PROPOSER_STEPS) + 2
    assert all(one["code"] == 0 for one in lives), done.stderr

    paths = StudyPaths(tmp_path / "runs" / "study")
    requests, rows = readable(paths), study_records(paths.root)
    assert len(requests) == len(DRIVER_STEPS) + 4  # two seeds of a program, two of the baseline
    assert [one for one in requests if one.refused or one.number is None] == []
    numbers = [one.number for one in requests]
    assert len(set(numbers)) == len(numbers)
    assert len(rows) == len(requests) + 3  # the baseline's three
    assert {row.outcome.value for row in rows} == {"completed"}
    assert [row.number for row in rows if row.duplicate_of is not None] == []
    assert len({row.identity for row in rows}) == len(rows)

    ended = Counter(map(int, (tmp_path / RAN).read_text().split()))
    assert ended.keys() == {row.number for row in rows}
    again = [number for number, count in ended.items() if count > 1]
    assert len(again) <= 1  # one ended, and its driver died before it wrote the result
    told = [json.loads(line)["number"] for line in paths.rows.read_text().splitlines()]
    assert max(Counter(told).values()) == 1

    entries = read_ledger(paths)
    assert check_chain(entries) == []
    assert contradictions(entries, rows) == []
    kinds = Counter(entry.kind for entry in entries)
    assert (kinds["proposal"], kinds["result"]) == (len(requests), len(rows))

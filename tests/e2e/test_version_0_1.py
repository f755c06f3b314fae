"""A study that version 0.1 made is read, and resumed under its numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.terminal import lasting

if TYPE_CHECKING:
    from support.terminal import Terminal

pytestmark = [pytest.mark.ray, pytest.mark.slow]

KEPT = Path(__file__).parent.parent / "data" / "studies" / "version_0_1"


def rows(terminal: Terminal) -> dict[int, dict[str, Any]]:
    return {
        row["number"]: row for row in terminal.run("trials", "older", "--json").json()["trials"]
    }


def test_study_of_version_0_1_is_read_and_resumed(terminal: Terminal) -> None:
    shutil.copytree(KEPT, terminal.folder, dirs_exist_ok=True)
    before = rows(terminal)
    assert [row["outcome"] for row in before.values()] == ["completed"] * 5 + ["pruned", "queued"]
    status = terminal.run("status", "older", "--json").json()
    assert (status["state"], status["best"]["number"]) == ("stopped", 3)
    best = terminal.run("best", "older", "--json")
    assert best.code == 0
    kept = {path: path.read_bytes() for path in terminal.folder.glob("runs/older/trials/[0-5]/*")}

    done = terminal.launch("older.yaml", "--json", "--events", "events.jsonl")
    assert done.code == 0, done.err
    assert done.json()["state"] == "finished"
    after = rows(terminal)
    own = [row for row in after.values() if row["duplicate_of"] is None]
    assert sum(row["outcome"] in {"completed", "pruned"} for row in own) == 9
    for number in range(6):
        assert lasting(after[number]) == lasting(before[number])
        assert after[number]["excused"] == after[number]["uncounted_attempts"] == 0
    assert after[6]["knobs"] == before[6]["knobs"]
    assert after[6]["outcome"] in {"completed", "pruned"}
    for path, content in kept.items():
        assert path.read_bytes() == content
    events = [
        json.loads(line) for line in (terminal.folder / "events.jsonl").read_text().splitlines()
    ]
    ended = [event["trial"]["number"] for event in events if event["event"] == "trial_ended"]
    assert sorted(ended) == [row["number"] for row in own if row["number"] >= 6]
    log = terminal.run("logs", "older", "--driver").out
    assert "resuming older: 3 knobs" in log
    assert all(event["message"] in log and event["message"] in done.err for event in events)
    document = json.loads((terminal.folder / "runs/older/trials/6/result.json").read_text())
    assert document["record"]["number"] == 6

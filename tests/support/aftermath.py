"""Invariants after any fault, read from the disk, not from a driver."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from support.terminal import Terminal

FINAL = {"completed", "pruned", "failed", "discarded"}


def ends(study: Path) -> Counter[int]:
    """How often each trial was told, from the raw journal, by Optuna's id of the trial."""
    from optuna.storages.journal._storage import JournalOperation
    from optuna.trial import TrialState

    told: Counter[int] = Counter()
    for line in (study / "study.journal").read_text().splitlines():
        entry = json.loads(line)
        if entry["op_code"] == JournalOperation.SET_TRIAL_STATE_VALUES:
            told[entry["trial_id"]] += TrialState(entry["state"]).is_finished()
    return told


def check_whole(terminal: Terminal, name: str) -> list[dict[str, Any]]:
    """A study after its sweep: every trial told once, none open, folders complete; its rows."""
    study = terminal.study(name)
    rows = terminal.trials(name)
    assert {row["outcome"] for row in rows} <= FINAL
    told = ends(study)
    assert set(told.values()) == {1}
    assert len(told) == len(rows)
    for row in rows:
        folder = study / "trials" / str(row["number"])
        if row["outcome"] == "discarded" or row["duplicate_of"] is not None:
            continue
        stored = json.loads((folder / "result.json").read_text())["record"]
        assert {key: stored[key] for key in ("outcome", "val_bpb", "attempts")} == {
            key: row[key] for key in ("outcome", "val_bpb", "attempts")
        }
        assert not (folder / ".train.log.part").exists()
        if row["outcome"] == "completed":
            assert f"val_bpb:{row['val_bpb']:.8f}" in (folder / "train.log").read_text()
        # An attempt that was lost keeps its log.
        lost = len(list(folder.glob("train.attempt*.log")))
        assert lost <= row["attempts"] - 1
    status = terminal.run("status", name, "--json").json()
    assert status["state"] == "finished"
    assert status["trials"]["running"] == status["trials"]["queued"] == 0
    return rows


RESOURCES = """
import json, sys, ray
ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
print(json.dumps([ray.cluster_resources(), ray.available_resources()]))
"""


def check_slots_are_back(terminal: Terminal, seconds: float = 60.0) -> None:
    """Wait until all CPUs and GPUs of the terminal's cluster are free again."""
    command = [sys.executable, "-c", RESOURCES, str(terminal.address)]
    if terminal.machine is not None:
        command = terminal.machine.holder.inside(*command)
    deadline = time.monotonic() + seconds
    while True:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env=terminal.environment()
        )
        total, free = json.loads(done.stdout.splitlines()[-1])
        if all(_close(total, free, kind) for kind in ("CPU", "GPU")):
            return
        assert time.monotonic() < deadline, (total, free)


def _close(total: Mapping[str, float], free: Mapping[str, float], kind: str) -> bool:
    return total.get(kind, 0.0) - free.get(kind, 0.0) < 0.01

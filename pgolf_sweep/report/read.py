"""Reading a study without driving it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgolf_sweep.control import live_driver
from pgolf_sweep.record import State, TrialRecord, counts, ranked
from pgolf_sweep.report.noops import no_op_knobs
from pgolf_sweep.spec import load_spec
from pgolf_sweep.trialdir import StudyPaths, read_json

if TYPE_CHECKING:
    from pathlib import Path


def study_records(folder: Path) -> list[TrialRecord]:
    """A row for every trial of the study in a folder, by number."""
    from pgolf_sweep.search.study import open_study  # noqa: PLC0415 - optuna loads late

    paths = StudyPaths(folder)
    spec = dataclasses.replace(load_spec(paths.sweep), name=paths.name)
    return open_study(spec, paths).records()


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A study as ``status`` shows it.

    Attributes:
        state: ``running`` or ``draining`` while a driver lives; else how the last one ended, or
            ``interrupted`` if it died without a word.
        driver: Process and host of the live driver, or None.
        last: The driver's last snapshot as plain data.
    """

    name: str
    state: str
    driver: str | None
    records: list[TrialRecord]
    last: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The document of ``status --json``; keys stay stable."""
        tally = counts(self.records)
        best = next(iter(ranked(self.records)), None)
        seconds = {
            "trained": sum(record.slot_seconds for record in self.records),
            "idle": self.last.get("idle_seconds", 0.0),
            "saved_by_gate": self.last.get("saved_by_gate_seconds", 0.0),
        }
        return {
            "study": self.name,
            "state": self.state,
            "trials": tally,
            "run_cap": self.last.get("run_cap"),
            "best": None
            if best is None
            else {
                "number": best.number,
                "val_bpb": best.val_bpb,
                "artifact_bytes": best.artifact_bytes,
                "headroom_bytes": best.headroom_bytes,
                "knobs": dict(best.knobs),
            },
            "slot_seconds": seconds,
            "seconds_left": self.last.get("seconds_left"),
            "slots": self.last.get("slots", 0),
            "reason": self.last.get("reason", ""),
            "driver": self.driver,
            "nodes": self.last.get("nodes", []),
            "no_op_knobs": [dataclasses.asdict(found) for found in no_op_knobs(self.records)],
            "running": [
                {"number": r.number, "node": r.node, "knobs": dict(r.knobs)}
                for r in self.records
                if r.outcome is State.RUNNING
            ],
        }


def study_status(paths: StudyPaths) -> Status:
    """Read a study's status from its folder."""
    driver = live_driver(paths)
    last = read_json(paths.status) if paths.status.is_file() else {}
    state = str(last.get("state", "running"))
    if driver is None and state in {"running", "draining"}:
        state = "interrupted"
    return Status(
        name=paths.name,
        state=state,
        driver=None if driver is None else str(driver),
        records=study_records(paths.root),
        last=last,
    )

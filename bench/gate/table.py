"""The table of trainings: `trainings.py` writes it, `fit.py` and `replay.py` read it."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pgolf_sweep.gate.physics.inventory import read_config
from pgolf_sweep.script.program import load_program

FIT, HELD = "fit", "held"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One training."""

    index: int
    knobs: dict[str, Any]
    model_bytes: int
    config: Any

    @property
    def half(self) -> str:
        """Even ones are for fitting constants, odd ones for judging."""
        return HELD if self.index % 2 else FIT


def read_rows(path: Path) -> list[Row]:
    """All trainings of a CSV, or of the JSON lines that `trainings.py` leaves."""
    defaults = {
        knob.name: knob.default
        for knob in load_program("trainer", base=Path(), extra_files=()).knobs.values()
        if knob.default is not None
    }
    rows = []
    for document in _documents(path):
        knobs = document["knobs"]
        rows.append(
            Row(
                index=int(document["index"]),
                knobs=knobs,
                model_bytes=int(document["model_bytes"]),
                config=read_config({**defaults, **knobs}),
            )
        )
    return rows


def _documents(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {
            "index": row.pop("index"),
            "model_bytes": row.pop("model_bytes"),
            "knobs": {name: _value(text) for name, text in row.items()},
        }
        for row in rows
    ]


def _value(text: str) -> int | float | str:
    for reader in (int, float):
        try:
            return reader(text)
        except ValueError:
            continue
    return text


def write_csv(rows: list[Row], path: Path) -> None:
    """The table in the form that is kept in the repository."""
    names = sorted({name for row in rows for name in row.knobs})
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["index", "model_bytes", *names])
        for row in sorted(rows, key=lambda row: row.index):
            writer.writerow([row.index, row.model_bytes, *(row.knobs[name] for name in names)])

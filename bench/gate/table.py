"""The table of trainings: `trainings.py` writes it, `fit.py` and `replay.py` read it.

    python bench/gate/table.py bench/gate/trainings.csv runs/knobs

adds a study's trials to it: one of each configuration, since seeds alone hardly move the size.
Trials that differ in the evaluation alone have one artifact, and are one configuration.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pgolf_sweep.core.trial import knob_text
from pgolf_sweep.gate.physics.inventory import read_config
from pgolf_sweep.report.read import study_records
from pgolf_sweep.script.program import load_program
from trainer.roles import ROLES

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
    return [
        _row(int(found["index"]), found["knobs"], int(found["model_bytes"]))
        for found in _documents(path)
    ]


def read_study(root: Path, first: int, *, seeds: bool = False) -> list[Row]:
    """The artifacts of a study's completed trials.

    Args:
        root: The study's folder.
        first: Index of the first row.
        seeds: Whether each seed of a configuration is a row, not the first alone.
    """
    seen: set[str] = set()
    rows = []
    for record in study_records(root):
        knobs = {n: v for n, v in record.knobs.items() if ROLES.get(n) in {"train", "export"}}
        key = repr(sorted((knobs if seeds else {**knobs, "SEED": 0}).items()))
        if record.model_bytes is not None and key not in seen:
            seen.add(key)
            rows.append(_row(first + len(rows), knobs, record.model_bytes))
    return rows


def _row(index: int, knobs: dict[str, Any], model_bytes: int) -> Row:
    config = read_config({**_defaults(), **knobs})
    return Row(index=index, knobs=knobs, model_bytes=model_bytes, config=config)


@cache
def _defaults() -> dict[str, Any]:
    knobs = load_program("trainer", base=Path(), extra_files=()).knobs.values()
    return {knob.name: knob.default for knob in knobs if knob.default is not None}


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
            values = {**_defaults(), **row.knobs}
            writer.writerow(
                [row.index, row.model_bytes, *(knob_text(values[name]) for name in names)]
            )


def main() -> None:
    """Add a study's trials to the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("study", type=Path)
    options = parser.parse_args()
    rows = read_rows(options.table)
    first = max(row.index for row in rows) + 1
    write_csv([*rows, *read_study(options.study, first)], options.table)


if __name__ == "__main__":
    main()

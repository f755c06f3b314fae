"""Results read from logs that others wrote, against a table read by people.

    python bench/records/logs.py CHECKOUT --table runs.csv

CHECKOUT is a checkout of openai/parameter-golf. Prints agreement by field and every disagreement;
exit code 1 when a field with a bar is below it.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from pgolf_sweep.script.logs.stream import parse_log

BAR = 0.97
# field of LogSummary: (column of the table, factor to the table's unit, tolerance, has the bar)
FIELDS = {
    "val_bpb": ("val_bpb_final", 1, 1e-6, True),
    "val_loss_nats": ("val_loss_final", 1, 1e-6, False),
    "total_bytes": ("total_bytes", 1, 0, True),
    "code_bytes": ("code_bytes", 1, 0, True),
    "model_bytes": ("model_bytes", 1, 0, False),
    "step_avg_ms": ("step_avg_ms", 1, 0.011, True),
    "seed": ("seed", 1, 0, True),
    "model_params": ("model_params", 1, 0, False),
    "steps": ("iterations_done", 1, 0, False),
    "train_seconds": ("train_time_ms", 1000, 1, False),
    "eval_seconds": ("eval_time_ms", 1000, 1, False),
    "peak_memory_mib": ("peak_mem_mib", 1, 0.5, False),
    "val_bpb_prequant": ("val_bpb_prequant", 1, 1e-6, False),
}


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("checkout", type=Path)
    arguments.add_argument("--table", type=Path, required=True)
    options = arguments.parse_args()
    runs: dict[Path, list[dict[str, str]]] = defaultdict(list)
    with options.table.open(newline="") as file:
        for row in csv.DictReader(file):
            path = options.checkout / "records" / row["track"] / row["record"] / row["log_file"]
            runs[path].append(row)
    right: dict[str, int] = dict.fromkeys(FIELDS, 0)
    wrong: dict[str, list[str]] = {name: [] for name in FIELDS}
    unread: list[str] = []
    for path, rows in runs.items():
        summary = parse_log(path)
        row = rows[-1]  # a file with several runs is read as its last
        where = f"{row['record']}/{row['log_file']}"
        unread += [f"{where}: {line}" for line in summary.unread_finals]
        for name, (column, factor, tolerance, _) in FIELDS.items():
            if row[column]:
                got: Any = getattr(summary, name)
                want = float(row[column])
                if got is not None and math.isclose(
                    got * factor, want, rel_tol=0, abs_tol=tolerance
                ):
                    right[name] += 1
                else:
                    wrong[name].append(f"{where}: read {got}, a person {row[column]}")
    print(f"{sum(map(len, runs.values()))} runs in {len(runs)} logs")
    low = False
    for name, (_, _, _, barred) in FIELDS.items():
        count = right[name] + len(wrong[name])
        share = right[name] / count if count else math.nan
        low |= barred and share < BAR
        print(f"{name:18} {right[name]:4}/{count:<4} {share:7.1%}{'  bar 97 %' if barred else ''}")
        for failure in wrong[name]:
            print(f"    {failure}")
    print(f"{len(unread)} final scores that no dialect reads")
    for line in unread:
        print(f"    {line}")
    return int(low)


if __name__ == "__main__":
    sys.exit(main())

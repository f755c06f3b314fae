"""Peak device memory as the gate expects it against what the contest's logs say.

    python bench/gate/memory.py RUNS.csv

RUNS.csv is the table of the contest's logs, one a row; it is not kept here. A row counts where it
says peak memory, shape, batch and number of GPUs. The formula is that of our trainer
(`size/resources.py`); the scripts are others', with options of their own, so the error says how
far the formula may be off for whatever is not written as ours is.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from pgolf_sweep.gate.resources import MEMORY_SURE, peak_bytes

NEEDED = (
    "peak_mem_mib",
    "model_params",
    "num_layers",
    "model_dim",
    "mlp_mult",
    "vocab_size",
    "train_batch_tokens",
    "world_size",
)


def ratios(rows: list[dict[str, str]]) -> dict[str, list[float]]:
    """Expected over logged peak memory, by record."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["duplicate_of"] or row["eval_only"] == "1" or not all(row[n] for n in NEEDED):
            continue
        config = SimpleNamespace(
            grad_accum_steps=0,
            train_batch_tokens=int(row["train_batch_tokens"]),
            mlp_mult=float(row["mlp_mult"]),
            model_dim=int(float(row["model_dim"])),
            num_layers=int(row["num_layers"]),
            vocab_size=int(row["vocab_size"]),
        )
        needed = peak_bytes(config, int(row["model_params"]), int(row["world_size"]))
        logged = float(row["peak_mem_mib"]) * 2**20
        found.setdefault(row["record"], []).append(needed / logged)
    return found


def main() -> None:
    """Print the distribution, and the rows where the formula is furthest off."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--verbose", action="store_true", help="each record")
    options = parser.parse_args()
    with options.table.open(newline="") as file:
        found = ratios(list(csv.DictReader(file)))
    each = {record: float(np.median(values)) for record, values in found.items()}
    if options.verbose:
        for record, ratio in sorted(each.items(), key=lambda item: item[1]):
            print(f"{ratio:6.2f}  {record}")
    values = np.array(list(each.values()))
    runs = np.array([ratio for several in found.values() for ratio in several])
    low, median, high = np.percentile(values, (5, 50, 95))
    print(f"{len(runs)} runs of {len(each)} records; expected over logged peak memory by record:")
    print(f"5th {low:.2f}, median {median:.2f}, 95th {high:.2f}, {values.min():.2f} to "
          f"{values.max():.2f}")  # fmt: skip
    wrong = int((MEMORY_SURE * runs > 1).sum())
    print(f"A card of the very size logged would have been refused {wrong} of {len(runs)} runs.")


if __name__ == "__main__":
    main()

"""Fit the first guesses of `pgolf_sweep/gate/priors.py` on trainings with an even index.

    python bench/gate/fit.py bench/gate/trainings.csv

Prints the table that goes there, and how far off the prediction is on the two halves, before and
after. The other half is never looked at in fitting: it is what `replay.py` reports on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from bench.gate.table import FIT, Row, read_rows
from pgolf_sweep.gate.physics import predict as physics
from pgolf_sweep.gate.physics.layouts import Layouts
from pgolf_sweep.gate.priors import prior_spread


def predictions(rows: list[Row]) -> list[tuple[Row, physics.Prediction]]:
    """What the physics says of each training."""
    return [
        (row, physics.predict(row.config, Layouts().of(row.config), row.config.iterations))
        for row in rows
    ]


def design(pairs: list[Any], names: list[str]) -> tuple[Any, Any]:
    """Traits and errors, in units of noise."""
    x = [[p.traits.get(name, 0.0) / p.noise_bytes for name in names] for _, p in pairs]
    y = [(row.model_bytes - p.model_bytes) / p.noise_bytes for row, p in pairs]
    return np.array(x), np.array(y)


def percent(pairs: list[Any], errors: Any) -> str:
    """Median and 95th percentile of the absolute error."""
    sizes = [100 * p.noise_bytes / row.model_bytes for row, p in pairs]
    share = np.abs(errors) * np.array(sizes)
    return f"median {np.median(share):.2f} %, 95th percentile {np.percentile(share, 95):.2f} %"


def main() -> None:
    """Fit, print, and say how good it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    options = parser.parse_args()
    rows = read_rows(options.table)
    fitted = predictions([row for row in rows if row.half == FIT])
    held = predictions([row for row in rows if row.half != FIT])
    names = sorted({name for _, p in fitted for name in p.traits})
    spreads = np.array([prior_spread(name) for name in names])
    x, y = design(fitted, names)
    weights = np.ones(len(y))
    for _ in range(20):  # outliers count less: Student's t with four degrees of freedom
        precision = np.diag(1 / spreads**2) + (x.T * weights) @ x
        mean = np.linalg.solve(precision, (x.T * weights) @ y)
        rest = y - x @ mean
        scale = max(0.5, float(np.sqrt(np.average(rest**2, weights=weights))))
        weights = 5 / (4 + (rest / scale) ** 2)
    spread = np.sqrt(np.diag(np.linalg.inv(precision))) * max(1.0, scale)
    for name, at, sure in zip(names, mean, spread, strict=True):
        if "/" not in name and abs(at) > 0.3 * sure:
            print(f'    "{name}": ({at:.2g}, {sure:.2g}),')
    for label, pairs in (("fitted half", fitted), ("held-out half", held)):
        x, y = design(pairs, names)
        print(f"# {label}, {len(pairs)}: physics alone {percent(pairs, y)}")
        print(f"# {label}, with the table: {percent(pairs, y - x @ mean)}")
        print(f"# noise came out at {float(np.std(y - x @ mean)):.2f} of its unit")


if __name__ == "__main__":
    main()

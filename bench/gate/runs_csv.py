"""Accuracy of the physics on the contest's logs, cross-validated by record.

    python bench/gate/runs_csv.py RUNS.csv

RUNS.csv is the table of the contest's logs, one a row; it is not kept here. For each record the
constants are learnt from all other records (`Calibration` over `published` traits), then each of
its runs is predicted: knowing nothing of the record; knowing the other records of its family; and
after one run of the very configuration; that bar is one for all regimes, so the last row pools
them. Steps are the logged ones, as the bars ask. `--verbose`
prints each row with what the physics alone says.

    python bench/gate/runs_csv.py --codecs

measures what codecs add to Gaussian codes of one byte each, by their entropy: the constants
`published.EXCESS_BY_BITS`.
"""

from __future__ import annotations

import argparse
import csv
import lzma
import sys
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import brotli
import numpy as np
import zstandard

from bench.gate.published import predict_run
from bench.gate.published_rows import PublishedRun, complete, read_run
from pgolf_sweep.gate.calibration import Calibration

BARS = {
    ("R1 brotli", "other families"): (0.10, 0.20),
    ("R1 brotli", "with its family"): (0.03, 0.08),
    ("R2", "with its family"): (0.4, 1.5),
    ("R2f", "with its family"): (0.4, 1.5),
    ("R3", "with its family"): (0.6, 3.0),
}
ONE_RUN = (0.2, 1.0)


def learn(calibration: Calibration, run: PublishedRun) -> None:
    """Teach one run."""
    size = predict_run(run)
    error = run.model_bytes - size.model_bytes
    calibration.learn(size.traits, size.noise_bytes, run.configuration, error)


def miss(calibration: Calibration, run: PublishedRun, *, family: bool = True) -> tuple[float, bool]:
    """Error in percent, and whether the 99 % interval holds the truth."""
    size = predict_run(run)
    traits = {n: w for n, w in size.traits.items() if family or not n.startswith("family")}
    shift = calibration.shift(traits, size.noise_bytes, run.configuration)
    low, high = (size.model_bytes + shift.quantile(p) for p in (0.005, 0.995))
    error = 100 * ((size.model_bytes + shift.mean) / run.model_bytes - 1)
    return error, low <= run.model_bytes <= high


def cross_validated(runs: list[PublishedRun], *, verbose: bool) -> dict[Any, Any]:
    """Errors in percent by regime and by what was known, each record held out in turn."""
    found: dict[Any, list[tuple[float, bool]]] = defaultdict(list)
    for record in sorted({run.record for run in runs}):
        own = [run for run in runs if run.record == record]
        rest = [run for run in runs if run.record != record]
        families = {(run.scheme, run.codec) for run in own}
        strangers, cousins = Calibration(), Calibration()
        for run in rest:
            learn(cousins, run)
            if (run.scheme, run.codec) not in families:
                learn(strangers, run)
        first: dict[str, Calibration] = {}
        for run in own:
            regime = predict_run(run).regime
            regime += f" {run.codec}" if regime == "R1" else ""
            alone = miss(strangers, run)
            found[regime, "other families"].append(alone)
            found[regime, "with its family"].append(miss(cousins, run))
            if verbose:
                physics = 100 * (predict_run(run).model_bytes / run.model_bytes - 1)
                cousin = miss(cousins, run)[0]
                print(f"{record[:40]:40} {regime:10} {physics:7.3f} {alone[0]:7.3f} {cousin:7.3f}")
            if run.configuration in first:
                found[regime, "after one run"].append(miss(first[run.configuration], run))
                continue
            known = Calibration()
            for other in rest:
                learn(known, other)
            learn(known, run)
            first[run.configuration] = known
    return found


def print_excess(codes: int = 1_000_000) -> None:
    """What the codecs at their usual level add to the entropy of Gaussian codes."""
    compress = {
        "zlib": lambda data: zlib.compress(data, 9),
        "zstd": zstandard.ZstdCompressor(level=22).compress,
        "lzma": lambda data: lzma.compress(data, preset=6),
        "brotli": lambda data: brotli.compress(data, quality=11),
    }
    print("| entropy |", *(f"{name} |" for name in compress))
    print("| --- " * (1 + len(compress)) + "|")
    rng = np.random.default_rng(0)
    for wanted in (2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.3):
        drawn = rng.standard_normal(codes) * 2 ** (wanted - 2.047)
        data = np.clip(np.round(drawn), -127, 127).astype(np.int8)
        shares = np.bincount(data.view(np.uint8), minlength=256) / codes
        entropy = -float(shares[shares > 0] @ np.log2(shares[shares > 0]))
        floor = entropy * codes / 8
        excess = (len(call(data.tobytes())) / floor - 1 for call in compress.values())
        print(f"| {entropy:.2f} |", *(f"{share:.4f} |" for share in excess))


def main() -> None:
    """Cross-validate and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path, nargs="?")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--codecs", action="store_true", help="measure the codecs instead")
    options = parser.parse_args()
    if options.codecs:
        print_excess()
        return
    if options.table is None:
        parser.error("which table?")
    with options.table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    runs = [run for row in complete(rows) if (run := read_run(row)) is not None]
    found = cross_validated(runs, verbose=options.verbose)
    print(f"{len(runs)} of {len(rows)} rows can be read")
    print("| regime | knowing | runs | median | 95th | in 99 % | bar | met |")
    print("| --- " * 8 + "|")
    for (_, knowing), errors in list(found.items()):
        if knowing == "after one run":
            found["all", knowing] = found.get(("all", knowing), []) + errors
    for regime in ("R1 brotli", "R1 lrzip", "R2", "R2f", "R3", "R3 short", "all"):
        for knowing in ("other families", "with its family", "after one run"):
            errors = found.get((regime, knowing))
            if not errors:
                continue
            size = np.abs([error for error, _ in errors])
            median, tail = np.median(size), np.percentile(size, 95)
            bar = ONE_RUN if knowing == "after one run" else BARS.get((regime, knowing))
            met = "" if bar is None else "yes" if median <= bar[0] and tail <= bar[1] else "no"
            limits = "" if bar is None else f"{bar[0]} / {bar[1]}"
            inside = 100 * np.mean([held for _, held in errors])
            print(
                f"| {regime} | {knowing} | {len(size)} | {median:.3f} | {tail:.3f} "
                f"| {inside:.0f} % | {limits} | {met} |"
            )


if __name__ == "__main__":
    main()

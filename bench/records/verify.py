"""Verify every submission folder of a checkout and say what was found.

Usage: python bench/records/verify.py CHECKOUT [--failures]

CHECKOUT is a checkout of openai/parameter-golf. Ends with 1 if any folder crashed the program;
what the folders fail is a finding, not a fault.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

from pgolf_sweep.ship.check import CheckVerdict
from pgolf_sweep.ship.verify import Verification, verify


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--failures", action="store_true", help="list every failed check")
    arguments = parser.parse_args()
    folders = sorted(p for p in arguments.checkout.glob("records/track_*/*") if p.is_dir())
    counts: dict[str, Counter[str]] = {}
    crashed = passed = 0
    for folder in folders:
        started = time.perf_counter()
        try:
            found = verify(folder)
        except Exception:  # noqa: BLE001 - a crash is counted and the other folders still run
            crashed += 1
            print(f"CRASH {folder.name}\n{traceback.format_exc()}")
            continue
        passed += found.ok
        for check in found.checks:
            counts.setdefault(check.rule, Counter())[check.verdict] += 1
        seconds = time.perf_counter() - started
        names = ", ".join(check.rule for check in found.failures)
        print(f"{'ok  ' if found.ok else 'FAIL'} {seconds:5.1f} s  {folder.name[:60]}  {names}")
        if arguments.failures:
            print_failures(found)
    print(f"\n{len(folders)} folders, {passed} ok, {crashed} crashed\n")
    print(f"{'rule':<20}" + "".join(f"{verdict.value:>9}" for verdict in CheckVerdict))
    for rule, verdicts in counts.items():
        print(f"{rule:<20}" + "".join(f"{verdicts[verdict]:>9}" for verdict in CheckVerdict))
    return 1 if crashed or not folders else 0


def print_failures(found: Verification) -> None:
    for check in found.failures:
        print(f"       {check.rule}: {check.observed} | {check.limit} | {check.detail[:300]}")


if __name__ == "__main__":
    sys.exit(main())

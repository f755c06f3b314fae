"""Verify every submission folder of a checkout, and measure how well the folders are read.

    python bench/records/verify.py CHECKOUT [--reference FOLDER] [--write FILE] [--failures]

CHECKOUT is a checkout of openai/parameter-golf. FOLDER holds runs.csv and submissions.csv, tables
of the same folders that were read by people; a folder is read correctly when every number of its
manifest and of its logs that the tables have is the one that was read here. Ends with 1 if a folder
crashed the program or fewer than 95 % are read correctly; what folders fail is a finding, no fault.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import time
import traceback
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from pgolf_sweep.submission.folder import Folder, read_folder
from pgolf_sweep.verify.check import CheckVerdict
from pgolf_sweep.verify.verify import Verification, check_folder, rules_for

BAR = 0.95
# column of runs.csv: (field of LogSummary, tolerance); bpb to the digits that both have
LOG_FIELDS = {
    "val_bpb_final": ("val_bpb", 1e-6),
    "total_bytes": ("total_bytes", 0),
    "code_bytes": ("code_bytes", 0),
    "seed": ("seed", 0),
}
MANIFEST_FIELDS = ("name", "val_bpb", "val_loss", "bytes_total", "bytes_code", "val_bpb_std")


@dataclass
class Found:
    folder: Folder
    verification: Verification
    compared: int = 0
    misread: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--reference", type=Path, help="folder of runs.csv and submissions.csv")
    parser.add_argument("--write", type=Path, help="write the table of findings to this file")
    parser.add_argument("--failures", action="store_true", help="list every failed check")
    arguments = parser.parse_args()
    folders = sorted(p for p in arguments.checkout.glob("records/track_*/*") if p.is_dir())
    found: list[Found] = []
    crashed = 0
    for path in folders:
        started = time.perf_counter()
        try:
            folder = read_folder(path)
            one = Found(folder, check_folder(folder, rules_for(folder)))
        except Exception:  # noqa: BLE001 - a crash is counted and the other folders still run
            crashed += 1
            print(f"CRASH {path.name}\n{traceback.format_exc()}")
            continue
        found.append(one)
        names = ", ".join(check.rule for check in one.verification.failures)
        seconds = time.perf_counter() - started
        ok = "ok  " if one.verification.ok else "FAIL"
        print(f"{ok} {seconds:5.1f} s  {path.name[:60]}  {names}")
        if arguments.failures:
            for check in one.verification.failures:
                print(
                    f"       {check.rule}: {check.observed} | {check.limit} | {check.detail[:300]}"
                )
    share = 1.0
    if arguments.reference is not None:
        compare(found, arguments.reference)
        share = report_reading(found)
    text = "\n".join(totals(found))
    print(
        f"\n{len(folders)} folders, {sum(f.verification.ok for f in found)} ok, {crashed} crashed\n"
    )
    print(text)
    if arguments.write is not None:
        arguments.write.write_text(document(found, crashed, share))
        write_failures(found, arguments.write.with_suffix(".csv"))
    return 1 if crashed or not folders or share < BAR else 0


# -- reading ------------------------------------------------------------------------------------


def compare(found: list[Found], reference: Path) -> None:
    runs: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in csv.DictReader((reference / "runs.csv").open(newline="")):
        runs[row["record"]].append(row)
    manifests = {
        row["record"]: row
        for row in csv.DictReader((reference / "submissions.csv").open(newline=""))
    }
    for one in found:
        name = one.folder.root.name
        _compare_manifest(one, manifests.get(name))
        rows: dict[str, dict[str, str]] = {}
        for row in runs.get(name, []):
            rows[row["log_file"]] = row  # a log of several runs is read as its last
        for row in rows.values():
            _compare_log(one, row)


def _compare_manifest(one: Found, row: dict[str, str] | None) -> None:
    for key in MANIFEST_FIELDS if row is not None else ():
        if row[key]:
            one.compared += 1
            said = one.folder.manifest.get(key)
            if not _same(row[key], said, 1e-9):
                one.misread.append(f"{one.folder.manifest_name} {key}: {said}, a person {row[key]}")


def _compare_log(one: Found, row: dict[str, str]) -> None:
    log = next((log for log in one.folder.logs if log.name == row["log_file"]), None)
    path = one.folder.root / row["log_file"]
    if log is None and path.is_file():  # a copy of a log that was read under another name
        text = path.read_bytes().decode(errors="replace")
        log = next((log for log in one.folder.logs if log.text == text), None)
    if log is None:
        if row["val_bpb_final"] and not row["duplicate_of"]:
            one.compared += 1
            one.misread.append(f"{row['log_file']}: no score read, a person {row['val_bpb_final']}")
        return
    for column, (name, tolerance) in LOG_FIELDS.items():
        if row[column]:
            one.compared += 1
            said = getattr(log.summary, name) if name != "seed" else log.seed
            if not _same(row[column], said, tolerance):
                one.misread.append(f"{log.name} {name}: {said}, a person {row[column]}")


def _same(text: str, said: object, tolerance: float) -> bool:
    if isinstance(said, int | float) and not isinstance(said, bool):
        return math.isclose(float(text), said, rel_tol=0, abs_tol=tolerance)
    return text == str(said)


def report_reading(found: list[Found]) -> float:
    compared = [one for one in found if one.compared]
    right = [one for one in compared if not one.misread]
    numbers = sum(one.compared for one in compared)
    wrong = sum(len(one.misread) for one in compared)
    print(f"\nread correctly: {len(right)} of {len(compared)} folders that people read as well")
    print(f"numbers: {numbers - wrong} of {numbers} agree")
    for one in compared:
        for text in one.misread:
            print(f"  {one.folder.root.name[:50]}: {text}")
    return len(right) / len(compared) if compared else 0.0


# -- the document -------------------------------------------------------------------------------


def totals(found: list[Found]) -> list[str]:
    counts: dict[str, Counter[str]] = {}
    for one in found:
        for check in one.verification.checks:
            counts.setdefault(check.rule, Counter())[check.verdict] += 1
    lines = ["| rule | " + " | ".join(v.value for v in CheckVerdict) + " |"]
    lines.append("| --- |" + " --: |" * len(CheckVerdict))
    for rule, verdicts in counts.items():
        cells = " | ".join(str(verdicts[verdict]) for verdict in CheckVerdict)
        lines.append(f"| {rule} | {cells} |")
    return lines


def document(found: list[Found], crashed: int, share: float) -> str:
    compared = [one for one in found if one.compared]
    misread = [(one, text) for one in compared for text in one.misread]
    numbers = sum(one.compared for one in compared)
    passed = sum(one.verification.ok for one in found)
    right = sum(not one.misread for one in compared)
    introduction = f"""\
# What `verify` finds in the contest's own records

Written by `python bench/records/verify.py CHECKOUT --reference TABLES --write FILE`, FILE being
this page, over a checkout of openai/parameter-golf; not edited by hand. TABLES are two CSV files in
which people noted what the same folders say.

{len(found) + crashed} folders, {crashed} crashes, {passed} that break no rule. The rules are
today's presets: many early records have one run, since three seeds were not asked for then. A
broken rule is a finding about the folder, not a verdict on its idea.

## Is it read correctly?

{right} of {len(compared)} folders ({share:.1%}) are read as people read them, in every number of
`submission.json` and of each log that the tables have; {numbers - len(misread)} of {numbers}
numbers agree.
"""
    parts = [
        introduction,
        *[f"* `{one.folder.root.name}`: {_cell(text)}" for one, text in misread],
        "",
        "## Verdicts by rule",
        "",
        *totals(found),
        "",
        "## Known oddities, found",
        "",
        *_oddities(found),
        "",
        "Every broken rule, with what was seen: [verify.csv](verify.csv).",
    ]
    return "\n".join(parts) + "\n"


def write_failures(found: list[Found], path: Path) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["folder", "rule", "observed", "limit", "detail"])
        for one in found:
            for check in one.verification.failures:
                cells = (check.observed, check.limit, check.detail)
                rows.writerow([one.folder.root.name[:48], check.rule, *map(_cell, cells)])


_ODDITIES = {
    "totals over the cap": lambda c: c.rule == "logged_artifact" and c.verdict == "fail",
    "a seed in a file's name that is not the one that ran": lambda c: (
        c.rule == "log_seeds" and c.verdict == "fail"
    ),
    "seed_results that differ from the logs": lambda c: (
        c.rule == "seed_results" and c.verdict == "fail"
    ),
    "val_bpb or val_loss that no log gives": lambda c: (
        c.rule in {"val_bpb", "val_loss"} and c.verdict == "fail"
    ),
    "val_bpb of one seed, or of another evaluation, for the mean": lambda c: (
        c.rule == "val_bpb" and c.verdict == "warn"
    ),
    "population std where the sample's is customary": lambda c: (
        c.rule == "val_bpb_std" and c.verdict == "warn"
    ),
    "bytes_total that is not the largest of the logs": lambda c: (
        c.rule == "bytes_total" and c.verdict in {"warn", "fail"}
    ),
    "a log whose source is not the shipped script": lambda c: (
        c.rule == "log_source" and c.verdict == "fail"
    ),
    "a log that goes on to an evaluation that the others lack": lambda c: (
        c.rule == "final_score" and c.verdict == "warn"
    ),
}


def _oddities(found: list[Found]) -> list[str]:
    checks = [check for one in found for check in one.verification.checks]
    return [f"* {name}: {sum(map(shows, checks))}" for name, shows in _ODDITIES.items()]


def _cell(text: str) -> str:
    return text.replace("|", "/")[:160]


if __name__ == "__main__":
    sys.exit(main())

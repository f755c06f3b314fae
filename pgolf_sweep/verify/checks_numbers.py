"""Checks of submission.json: its form, and its numbers against the logs."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from statistics import fmean, pstdev, stdev
from typing import TYPE_CHECKING, Any

from pgolf_sweep.verify.check import Check, CheckVerdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pgolf_sweep.submission.folder import Folder, ShippedLog

_WANTED = ("author", "github_id", "name", "date", "val_bpb")
LARGEST = 10**15
"""No number of a manifest is larger; Python's have no end."""
LOOSEST = 5e-4
"""No rounding excuses more than this, in bits per byte or nats."""


def number_checks(folder: Folder) -> Iterator[Check]:
    """The manifest's form, then its numbers; nothing but the form where it cannot be read."""
    yield _schema(folder)
    if not folder.manifest:
        return
    yield _score("val_bpb", folder, [(log.name, log.summary.val_bpb) for log in folder.logs])
    if "val_loss" in folder.manifest:
        losses = [(log.name, log.summary.val_loss_nats) for log in folder.logs]
        yield _score("val_loss", folder, losses)
    if isinstance(folder.manifest.get("seed_results"), dict):
        yield _seed_results(folder)
    if _number(folder.manifest.get("val_bpb_std")) is not None:
        yield _std(folder)
    yield from _bytes(folder)


def agrees(claimed: float, measured: float) -> bool:
    """Whether a number is the measured one, rounded or cut to as many digits as it has."""
    if isinstance(claimed, int):
        return claimed == measured
    text = f"{claimed:.12f}".rstrip("0")
    digits = len(text.partition(".")[2])
    return abs(claimed - measured) <= min(LOOSEST, 10.0**-digits) + 1e-12


def _schema(folder: Folder) -> Check:
    said = folder.manifest
    limit = f"an object with {', '.join(_WANTED)}"
    if folder.manifest_problem is not None:
        return Check(
            rule="submission_json",
            verdict=CheckVerdict.FAIL,
            observed=folder.manifest_problem,
            limit=limit,
        )
    wrong: list[str] = []
    odd: list[str] = []
    for key in _WANTED:
        if key not in said:
            (wrong if key in {"name", "val_bpb"} else odd).append(f"{key} is missing")
        elif said[key] in ("", None):
            odd.append(f"{key} is empty")
    if said.get("val_bpb") is not None and _number(said["val_bpb"]) is None:
        wrong.append(f"val_bpb is {said['val_bpb']!r}, no number")
    wrong += [
        f"{key} is {said[key]!r}, no whole number"
        for key in ("bytes_total", "bytes_code")
        if said.get(key) is not None and not isinstance(said[key], int)
    ]
    if not isinstance(said.get("seeds", []), list):
        odd.append("seeds is no list")
    verdict = CheckVerdict.WARN if odd else CheckVerdict.PASS
    return Check(
        rule="submission_json",
        verdict=CheckVerdict.FAIL if wrong else verdict,
        observed=f"{len(said)} keys",
        limit=limit,
        detail="; ".join([*wrong, *odd]),
    )


def _score(key: str, folder: Folder, values: Sequence[tuple[str, float | None]]) -> Check:
    """A mean over seeds, against the logs in each folder and against seed_results."""
    limit = "the mean over the logs"
    claimed = _number(folder.manifest.get(key))
    known = [(name, value) for name, value in values if value is not None]
    if claimed is None or not known:
        observed = "not claimed" if claimed is None else "no log gives it"
        return Check(rule=key, verdict=CheckVerdict.UNKNOWN, observed=observed, limit=limit)
    groups: dict[str, list[float]] = defaultdict(list)
    for name, value in known:
        groups[name.rpartition("/")[0]].append(value)
    listed = _listed(folder.manifest, key)
    means = [fmean(group) for group in groups.values()] + [fmean(v for _, v in known)]
    one = [name for name, value in known if agrees(claimed, value)]
    verdict, detail = CheckVerdict.PASS, ""
    if any(agrees(claimed, mean) for mean in means):
        pass
    elif listed and agrees(claimed, fmean(listed)):
        detail = "the mean of seed_results"
    elif one:
        verdict, detail = CheckVerdict.WARN, f"the score of {one[0]} alone, not the mean"
    elif label := _other_final(claimed, folder.logs):
        verdict, detail = CheckVerdict.WARN, f"another score of the log: {label}"
    elif key == "val_bpb" and (line := _unread(claimed, folder.logs)):
        verdict, detail = CheckVerdict.WARN, f"on a line that is not taken for final: {line}"
    else:
        verdict = CheckVerdict.FAIL
        detail = "; ".join(f"{name}: {value:.8g}" for name, value in known)
    return Check(
        rule=key,
        verdict=verdict,
        observed=f"{claimed:.8g}, logs {means[-1]:.8g}",
        limit=limit,
        detail=detail,
    )


def _other_final(claimed: float, logs: Sequence[ShippedLog]) -> str | None:
    for log in logs:
        for label, value in log.summary.finals.items():
            if agrees(claimed, value):
                return f"{label} in {log.name}"
    return None


def _unread(claimed: float, logs: Sequence[ShippedLog]) -> str | None:
    """A line with the claimed score that says in no word that it is a final one."""
    for log in logs:
        for line in log.summary.unread_finals:
            numbers = (float(text) for text in re.findall(r"\d+\.\d+", line))
            if any(agrees(claimed, number) for number in numbers):
                return f"{log.name}: {line[:120]}"
    return None


def _seed_results(folder: Folder) -> Check:
    """Each seed's numbers against a log of that seed."""
    by_seed: dict[str, list[ShippedLog]] = defaultdict(list)
    for log in folder.logs:
        by_seed[str(log.seed)].append(log)
    wrong: list[str] = []
    odd: list[str] = []
    unseen: list[str] = []
    agreed = 0
    for seed, said in folder.manifest["seed_results"].items():
        logs = by_seed.get(str(seed).removeprefix("seed_").removeprefix("s"), [])
        if not isinstance(said, dict) or not logs:
            unseen.append(str(seed))
            continue
        measured: dict[str, list[float | None]] = {
            "val_bpb": [log.summary.val_bpb for log in logs],
            "val_loss": [log.summary.val_loss_nats for log in logs],
            "artifact_bytes": [log.summary.total_bytes for log in logs],
            "steps": [log.summary.steps for log in logs],
        }
        for key, values in measured.items():
            claimed = _number(said.get(key))
            known = [value for value in values if value is not None]
            if claimed is None or not known:
                continue
            if any(agrees(claimed, value) for value in known):
                agreed += 1
            else:
                shown = ", ".join(f"{value:.10g}" for value in known)
                # No rule hangs on the number of steps.
                (odd if key == "steps" else wrong).append(
                    f"seed {seed} {key}: {claimed:.10g}, log {shown}"
                )
    verdict = CheckVerdict.UNKNOWN if unseen or not agreed else CheckVerdict.PASS
    if odd:
        verdict = CheckVerdict.WARN
    missing = f"no log for {', '.join(unseen)}" if unseen else ""
    return Check(
        rule="seed_results",
        verdict=CheckVerdict.FAIL if wrong else verdict,
        observed=f"{agreed} numbers agree, {len(wrong) + len(odd)} do not",
        limit="each seed's numbers are its log's",
        detail="; ".join(filter(None, [*wrong, *odd, missing])),
    )


def _std(folder: Folder) -> Check:
    claimed = float(folder.manifest["val_bpb_std"])
    groups = [*_by_folder(folder.logs), _listed(folder.manifest, "val_bpb")]
    groups = [values for values in groups if len(values) > 1]
    samples = [stdev(values) for values in groups]
    if not groups:
        verdict, detail = CheckVerdict.UNKNOWN, "fewer than two logs"
    elif any(_rounds_to(claimed, value) for value in samples):
        verdict, detail = CheckVerdict.PASS, ""
    elif any(_rounds_to(claimed, pstdev(values)) for values in groups):
        verdict, detail = CheckVerdict.WARN, "the population's (ddof 0), sample is customary"
    else:
        shown = ", ".join(f"{value:.8f}" for value in samples)
        verdict, detail = CheckVerdict.FAIL, f"logs give {shown}"
    return Check(
        rule="val_bpb_std",
        verdict=verdict,
        observed=f"{claimed:.8g}",
        limit="sample std (ddof 1) over the logs",
        detail=detail,
    )


def _rounds_to(claimed: float, std: float) -> bool:
    """`agrees`, with room for a std that was computed from rounded scores."""
    return agrees(claimed, std) or math.isclose(claimed, std, rel_tol=0.02)


def _by_folder(logs: Sequence[ShippedLog]) -> list[list[float]]:
    """Scores by folder of the logs, then all of them."""
    groups: dict[str, list[float]] = defaultdict(list)
    for log in logs:
        if log.summary.val_bpb is not None:
            groups[log.name.rpartition("/")[0]].append(log.summary.val_bpb)
    return [*groups.values(), [value for group in groups.values() for value in group]]


def _bytes(folder: Folder) -> Iterator[Check]:
    total = _number(folder.manifest.get("bytes_total"))
    totals = [log.summary.total_bytes for log in folder.logs if log.summary.total_bytes is not None]
    if total is not None and totals:
        verdict, detail = CheckVerdict.FAIL, f"logs: {', '.join(f'{t:,}' for t in totals)}"
        if total == max(totals):
            verdict, detail = CheckVerdict.PASS, ""
        elif total in totals or round(fmean(totals)) == total:
            verdict, detail = CheckVerdict.WARN, f"not the largest, {max(totals):,}"
        elif total > max(totals):
            verdict, detail = CheckVerdict.WARN, f"more than any log, {max(totals):,}"
        yield Check(
            rule="bytes_total",
            verdict=verdict,
            observed=f"{total:,.0f}",
            limit="the largest total of the logs",
            detail=detail,
        )
    code = _number(folder.manifest.get("bytes_code"))
    if code is not None and folder.script:
        logged = {log.summary.code_bytes for log in folder.logs} - {None}
        same = code == len(folder.script)
        yield Check(
            rule="bytes_code",
            verdict=CheckVerdict.PASS
            if same
            else (CheckVerdict.WARN if code in logged else CheckVerdict.FAIL),
            observed=f"{code:,.0f}",
            limit=f"{len(folder.script):,}, the script's bytes",
            detail="" if same or code not in logged else "what the logs say",
        )


def _listed(manifest: Mapping[str, Any], key: str) -> list[float]:
    """A key's numbers in seed_results."""
    results = manifest.get("seed_results")
    if not isinstance(results, dict):
        return []
    found = [_number(said.get(key)) for said in results.values() if isinstance(said, dict)]
    return [value for value in found if value is not None]


def _number(value: object) -> float | None:
    """A finite number, whole ones kept whole; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int):
        return value if abs(value) < LARGEST else None
    return value if math.isfinite(value) else None

"""Nothing is left out: every seed that ran is counted, also one that crashed or did worse."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from pgolf_sweep.verify.check import Check, CheckVerdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgolf_sweep.submission.folder import Folder

_LEFT_OUT = re.compile(
    r"crash|diverg|fail|\bnan\b|\boom\b|exclu|discard|dropp?ed|left out|omit|abort|unstable|outlier"
    r"|not (?:counted|included)",
    re.IGNORECASE,
)
_SEED = re.compile(r"\bseeds?\b\W{0,6}(\d{1,10})\b", re.IGNORECASE)
_ROW = re.compile(r"^\s*\|\s*\W*(?:seed\s*)?(\d{1,10})\W*\|(.*)$", re.IGNORECASE)
_HEADER = re.compile(r"^\s*\|\s*\W*seed\W*\|", re.IGNORECASE)
_CLAUSES = re.compile(r"[.;:](?:\s|$)")
_SCORE = re.compile(r"\b\d\.\d{3,}\b")
_OUT_KEYS = re.compile(r"exclu|drop|fail|crash|diverg|discard|omit|outlier|skipped", re.IGNORECASE)
MOST_NAMED = 4


def evidence(folder: Folder) -> Check:
    """Seeds that a log, the README or submission.json knows, and the claimed mean does not."""
    wrong = [*_logs(folder), *_manifest(folder), *_readme(folder)]
    return Check(
        rule="evidence",
        verdict=CheckVerdict.FAIL if wrong else CheckVerdict.PASS,
        observed=f"{len(_counted(folder))} seeds counted",
        limit="every seed that ran is counted, also one that crashed or did worse",
        detail="; ".join(dict.fromkeys(wrong[:MOST_NAMED])),
    )


def _counted(folder: Folder) -> set[str]:
    """Seeds of the logs that stand for the score, by what they say and by their names."""
    both = [seed for log in folder.logs for seed in (log.summary.seed, log.name_seed)]
    return {str(seed) for seed in both if seed is not None}


def _claimed(folder: Folder) -> set[str]:
    """Seeds that submission.json lists; empty where it lists none."""
    seeds = folder.manifest.get("seeds")
    results = folder.manifest.get("seed_results")
    found = [str(seed) for seed in seeds] if isinstance(seeds, list) else []
    found += [_bare(key) for key in results] if isinstance(results, dict) else []
    return set(found)


def _bare(key: str) -> str:
    return re.sub(r"^s(?:eed)?[_-]?(?=\d)", "", key)


def _logs(folder: Folder) -> Iterator[str]:
    claimed, counted = _claimed(folder), _counted(folder)
    named = {log.name for log in folder.logs if log.name_seed is not None}
    folders = {PurePosixPath(name).parent for name in named}
    for log in folder.logs:
        known = {str(seed) for seed in (log.seed, log.name_seed) if seed is not None}
        here = PurePosixPath(log.name).parent in folders and log.name_seed is not None
        if claimed and known and here and not known & claimed and "/" not in log.name:
            yield f"{log.name}: seed {log.seed} has a score that submission.json does not count"
    for log in folder.unscored:
        seed = log.name_seed if log.summary.seed is None else log.summary.seed
        if seed is None or str(seed) in counted or PurePosixPath(log.name).parent not in folders:
            continue
        if log.reports or log.summary.model_params is not None:
            yield f"{log.name}: seed {seed} ran and has no final score"


def _manifest(folder: Folder) -> Iterator[str]:
    for key, value in folder.manifest.items():
        about_runs = isinstance(value, list | dict) and "seed" in f"{key}{value}"[:2000].lower()
        if _OUT_KEYS.search(key) and value and (about_runs or "seed" in key.lower()):
            yield f"submission.json: {key}"
    results: Any = folder.manifest.get("seed_results")
    if not isinstance(results, dict):
        return
    seeds = folder.manifest.get("seeds")
    listed = {str(seed) for seed in seeds} if isinstance(seeds, list) else set()
    for seed, said in results.items():
        if isinstance(said, dict) and any(
            isinstance(value, str) and _LEFT_OUT.search(value) for value in said.values()
        ):
            yield f"submission.json: seed {seed} did not finish"
        elif listed and _bare(str(seed)) not in listed:
            yield f"submission.json: seed {seed} has results and is not in seeds"


def _readme(folder: Folder) -> Iterator[str]:
    known = _counted(folder) | _claimed(folder)
    if not known:
        return
    table = False
    for line in folder.readme.splitlines():
        if not line.lstrip().startswith("|"):
            table = False
        elif _HEADER.match(line):
            table = True
        elif table and (row := _ROW.match(line)):
            text = row[2]
            if row[1] not in known and (_SCORE.search(text) or _LEFT_OUT.search(text)):
                yield f"README.md: seed {row[1]} is in the table and has no log"
            continue
        for clause in _CLAUSES.split(line):
            for seed in _SEED.findall(clause) if _LEFT_OUT.search(clause) else ():
                if seed not in known:
                    yield f"README.md: seed {seed}: {clause.strip()[:80]}"

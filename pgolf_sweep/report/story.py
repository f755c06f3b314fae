"""All that a study's page says, read once from its folder."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pgolf_sweep.config.sweep_file import load_spec
from pgolf_sweep.core.errors import PgolfError
from pgolf_sweep.core.paths import read_json
from pgolf_sweep.core.record import State
from pgolf_sweep.report.lineage import lineage
from pgolf_sweep.report.read import Status, reading, study_status
from pgolf_sweep.report.text import duration
from pgolf_sweep.variants.store import kept_all

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pgolf_sweep.config.types import SweepSpec
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.report.lineage import Lineage


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoted:
    """A submission folder of the study.

    Attributes:
        folder: Its name.
        trial: Number of the trial that was promoted, or None where the folder does not say.
        val_bpb: Mean over its seeds.
        std: Sample standard deviation over its seeds, or None for one seed.
        seeds: The seeds that ran.
        p_value: One-sided, against the record of its rules; None where there is none.
        artifact_bytes: Largest of its runs.
        ok: Whether `verify` passes it.
        failures: Names of the rules that it breaks.
        against: How it compares with another trial of the study; empty where that was not asked.
    """

    folder: str
    trial: int | None
    val_bpb: float
    std: float | None
    seeds: tuple[int, ...]
    p_value: float | None
    artifact_bytes: int | None
    ok: bool
    failures: tuple[str, ...]
    against: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A study for people.

    Attributes:
        status: State and trials.
        question: The sweep file's first comment, or its description; empty if it has neither.
        facts: Label and text of what the sweep was: method, rules, program, dates, cost.
        cap_bytes: The rules' cap, or None where the rules cannot be read any more.
        curves: Intermediate scores of each trial, in the order of their validations.
        importance: Share of the score's spread that a knob explains, largest first.
        promoted: Its submission folders.
        lineage: What was proposed on what; None where nothing was.
    """

    status: Status
    question: str = ""
    facts: Sequence[tuple[str, str]] = ()
    cap_bytes: int | None = None
    curves: Mapping[int, Sequence[float]] = field(default_factory=dict)
    importance: Mapping[str, float] = field(default_factory=dict)
    promoted: Sequence[Promoted] = ()
    lineage: Lineage | None = None


def read_story(paths: StudyPaths) -> Story:
    """Read a study's folder; nothing in it is changed.

    Raises:
        InputError: There is no study, or its sweep file cannot be read.
    """
    found = study_status(paths)
    spec = load_spec(paths.sweep)
    curves: dict[int, list[float]] = {}
    importance: dict[str, float] = {}
    if found.records:
        with reading(paths.root) as study:
            curves = {n: [score for _, score in seen] for n, seen in study.curves().items()}
            importance = study.importances()
    origin = read_json(paths.origin) if paths.origin.is_file() else {}
    return Story(
        status=found,
        question=spec.description or _first_comment(spec.text),
        facts=_facts(spec, origin, found.records),
        cap_bytes=_cap(spec),
        curves=curves,
        importance=importance,
        promoted=[one for folder in _submissions(paths) if (one := _promoted(folder, paths))],
        lineage=lineage(found.name, found.records, kept_all(paths)),
    )


def _first_comment(text: str) -> str:
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").strip())
    return " ".join(line for line in lines if not line.startswith("yaml-language-server"))


def _facts(
    spec: SweepSpec, origin: Mapping[str, Any], records: Sequence[TrialRecord]
) -> list[tuple[str, str]]:
    gpus = spec.pgolf.gpus
    seconds = sum(record.slot_seconds for record in records)
    gpu_hours = seconds * gpus / 3600
    price = spec.pgolf.budget.usd_per_gpu_hour
    cost = f"{gpu_hours:.2f} GPU-hours" if gpus else f"{duration(seconds)} of slots, no GPU"
    if gpus and price is not None:
        cost += f", {gpu_hours * price:,.2f} dollars"
    facts = [
        ("method", spec.method),
        ("rules", spec.pgolf.rules),
        ("program", spec.program),
        ("cost", cost),
    ]
    ends = [record.ended_at for record in records if record.ended_at]
    if created := origin.get("created_at"):
        facts.append(("begun", _date(created)))
    if ends:
        facts.append(("last result", _date(max(ends))))
    if version := origin.get("versions", {}).get("pgolf-sweep"):
        facts.append(("pgolf-sweep", str(version)))
    return facts


def _date(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def _cap(spec: SweepSpec) -> int | None:
    from pgolf_sweep.config.rules import load_rules  # noqa: PLC0415 - next to its use

    try:
        return load_rules(spec.pgolf.rules, base=spec.source.parent).artifact_cap_bytes
    except PgolfError:
        return None  # a rules file that has gone since the launch


def _submissions(paths: StudyPaths) -> list[Path]:
    if not paths.submissions.is_dir():
        return []
    return sorted(path for path in paths.submissions.iterdir() if path.is_dir())


def _promoted(folder: Path, paths: StudyPaths) -> Promoted | None:
    """A submission folder as its own manifest and the referee see it; None if it is none."""
    from pgolf_sweep.verify.verify import verify  # noqa: PLC0415 - scipy takes 0.3 s

    try:
        said = json.loads((folder / "submission.json").read_text())
        seeds = tuple(int(seed) for seed in said.get("seeds", ()))
        val_bpb = float(said["val_bpb"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    found = verify(folder)
    trial = said.get("provenance", {}).get("trial")
    compared = paths.promotion / str(trial) / "against.json"
    return Promoted(
        folder=folder.name,
        trial=trial,
        against=str(read_json(compared).get("text", "")) if compared.is_file() else "",
        val_bpb=val_bpb,
        std=said.get("val_bpb_std"),
        seeds=seeds,
        p_value=said.get("p_value"),
        artifact_bytes=said.get("bytes_total"),
        ok=found.ok,
        failures=tuple(check.rule for check in found.failures),
    )


def in_order_of_their_end(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Completed trials with a score of their own, oldest result first."""
    done = [
        record
        for record in records
        if record.outcome is State.COMPLETED
        and record.duplicate_of is None
        and record.val_bpb is not None
    ]
    return sorted(done, key=lambda record: (record.ended_at or 0.0, record.number))

"""Studies and submission folders in one ranking, each with the evidence behind its score."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from pgolf_sweep.core.record import ranked
from pgolf_sweep.submission.folder import read_folder
from pgolf_sweep.submission.stats import compare, same_yardstick
from pgolf_sweep.verify.verify import check_folder, rules_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from pgolf_sweep.config.rules import Rules
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.submission.folder import Folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the leaderboard.

    Attributes:
        kind: ``submission``, or ``study`` for the best trial of a search that is not promoted.
        name: Of the folder or study.
        rules: By which it was judged.
        val_bpb: Mean over the seeds.
        std: Of the seeds (ddof 1); None for one.
        seeds: Distinct seeds behind the score.
        p_value: Against the rules' record; None where it cannot be compared.
        artifact_bytes: The largest of the seeds'.
        headroom_bytes: Cap minus artifact.
        verified: Whether no rule is broken; None for a study, whose score is the search's own.
        broken: Rules that are broken.
        where: The folder.
        detail: The trial and who proposed it, or the author.
    """

    kind: str
    name: str
    rules: str
    val_bpb: float | None
    std: float | None
    seeds: int
    p_value: float | None
    artifact_bytes: int | None
    headroom_bytes: int | None
    verified: bool | None
    broken: tuple[str, ...]
    where: Path
    detail: str = ""


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Best first; those that break a rule, then those without a score, come last."""
    return sorted(
        rows,
        key=lambda row: (row.val_bpb is None, row.verified is False, row.val_bpb or 0.0, row.name),
    )


def study_row(name: str, where: Path, records: Sequence[TrialRecord], rules: Rules) -> Row:
    """The best trial of a study that fits the cap, on the one seed of the search."""
    cap = rules.artifact_cap_bytes
    fitting = [r for r in ranked(records) if r.artifact_bytes is None or r.artifact_bytes <= cap]
    best = fitting[0] if fitting else None
    size = None if best is None else best.artifact_bytes
    return Row(
        kind="study",
        name=name,
        rules=rules.name,
        val_bpb=None if best is None else best.val_bpb,
        std=None,
        seeds=0 if best is None else 1,
        p_value=None,
        artifact_bytes=size,
        headroom_bytes=None if size is None else cap - size,
        verified=None,
        broken=(),
        where=where,
        detail="no completed trial within the cap"
        if best is None
        else f"trial {best.number} of {len(records)}, by {best.proposer}",
    )


def submission_row(where: Path, rules: Rules | None = None) -> Row:
    """A submission folder, verified.

    Raises:
        InputError: There is no such folder.
    """
    folder = read_folder(where)
    rules = rules or rules_for(folder)
    verification = check_folder(folder, rules)
    by_seed = _by_seed(folder)
    scores = [bpb for bpb, _ in by_seed]
    sizes = [log.summary.total_bytes for log in folder.logs if log.summary.total_bytes is not None]
    size = max(sizes, default=None)
    author = folder.manifest.get("author") or folder.manifest.get("github_id") or ""
    return Row(
        kind="submission",
        name=where.resolve().name,
        rules=rules.name,
        val_bpb=fmean(scores) if scores else None,
        std=stdev(scores) if len(scores) > 1 else None,
        seeds=len(scores),
        p_value=_p_value(by_seed, rules),
        artifact_bytes=size,
        headroom_bytes=None if size is None else rules.artifact_cap_bytes - size,
        verified=verification.ok,
        broken=tuple(check.rule for check in verification.failures),
        where=where,
        detail=str(author),
    )


def _by_seed(folder: Folder) -> list[tuple[float, float | None]]:
    """Score and loss of each distinct seed; logs that name none count one each."""
    found: dict[object, tuple[float, float | None]] = {}
    for log in folder.logs:
        if log.summary.val_bpb is not None:
            key = log.name if log.seed is None else log.seed
            found[key] = (log.summary.val_bpb, log.summary.val_loss_nats)
    return list(found.values())


def _p_value(by_seed: Sequence[tuple[float, float | None]], rules: Rules) -> float | None:
    record = rules.record
    pairs = [(bpb, loss) for bpb, loss in by_seed if loss is not None]
    if record is None or len(pairs) < 2:
        return None
    if not all(same_yardstick(bpb, loss, record) for bpb, loss in pairs):
        return None
    return compare([loss for _, loss in pairs], record, rules.margin_nats).p_value

"""Showing in a run that a packed script is the same program: the artifact, bit for bit.

A time limit makes two runs of one script differ, so the proof goes by a few steps, on the seed of
the search; it is no evidence of a score.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import shutil
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import PromotionError
from pgolf_sweep.core.event_text import event_text
from pgolf_sweep.core.paths import TrialPaths, read_json, write_json
from pgolf_sweep.core.record import SEED_KNOB
from pgolf_sweep.core.trial import EndCause, LogSummary
from pgolf_sweep.launch.batch import GIVE_UP_SECONDS, Work, run_jobs
from pgolf_sweep.script.knobs.knobs import read_knobs
from pgolf_sweep.script.logs.stream import parse_log
from pgolf_sweep.submission.evidence import SCRIPT_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pgolf_sweep.core.clock import Clock
    from pgolf_sweep.core.trial import RunEnd
    from pgolf_sweep.launch.base import Job, Launcher
    from pgolf_sweep.promote.seeds import JobFactory, PromotionPlan

logger = logging.getLogger(__name__)

PROOF_STEPS = 20
"""Steps of a proof: every part of a script runs, from the optimizer to the packer."""

_DEFAULT_SEED = 1337
_NO_LIMIT = "0"


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one run left."""

    artifact_sha256: str | None
    val_bpb: float | None
    problem: str | None


def prove(
    planned: PromotionPlan,
    *,
    launcher: Launcher,
    make_job: JobFactory,
    clock: Clock,
    give_up_seconds: float = GIVE_UP_SECONDS,
    report: Callable[[str], None] = logger.info,
) -> None:
    """Run the plain and the packed script and compare what they leave; a proof is kept.

    Raises:
        PromotionError: They differ, or the script does not repeat itself, or leaves no model:
            the pack is refused.
        InfraError: A run was lost for good, or no node came for it.
    """
    if planned.plain is None:
        return
    root = planned.root / "pack"
    hashes = {
        "plain_sha256": hashlib.sha256(planned.plain).hexdigest(),
        "packed_sha256": hashlib.sha256(planned.script).hexdigest(),
    }
    proof = root / "proof.json"
    if proof.is_file():
        earlier = read_json(proof)
        if earlier["identical"] and all(earlier[key] == hashes[key] for key in hashes):
            report("the packed script was shown before to give the same artifact")
            return
    report(f"proof of the pack: the plain and the packed script, {PROOF_STEPS} steps each")
    env = _short_run(planned.plain)
    scripts = {"plain": planned.plain, "packed": planned.script}

    def run(scripts: Mapping[str, bytes]) -> dict[str, _Seen]:
        jobs = _jobs(scripts, planned, root, env, make_job)
        works = [Work(key=job.key, prepare=partial(_fresh, job)) for job in jobs.values()]
        ends = run_jobs(
            works,
            launcher,
            clock=clock,
            give_up_seconds=give_up_seconds,
            notify=lambda event: report(event_text(event)),
        )
        return {name: _seen(job, ends[job.key]) for name, job in jobs.items()}

    seen = run(scripts)
    identical = seen["plain"] == seen["packed"] and seen["plain"].problem is None
    why = ""
    if not identical:
        again = run({"again": planned.plain})
        why = _reason(seen["plain"], seen["packed"], again["again"])
    write_json(proof, {**hashes, "env": env, "identical": identical, "why": why, "seen": {
        name: dataclasses.asdict(one) for name, one in seen.items()
    }})  # fmt: skip
    if not identical:
        raise PromotionError(
            "the pack is refused: the packed script was not shown to be the same program",
            where=str(root),
            got=why,
            expected="the same artifact from both, bit for bit",
            next_step="promote without --pack",
        )
    digest = (seen["plain"].artifact_sha256 or "")[:16]
    report(f"the packed script gives the same artifact, sha256 {digest}...")


def _short_run(script: bytes) -> dict[str, str]:
    """Settings that make a run short and its end a matter of steps, where the script knows them."""
    knobs = read_knobs(script.decode())
    if "ITERATIONS" not in knobs:
        return {}
    limit = {"MAX_WALLCLOCK_SECONDS": _NO_LIMIT} if "MAX_WALLCLOCK_SECONDS" in knobs else {}
    return {"ITERATIONS": str(PROOF_STEPS), **limit}


def _jobs(
    scripts: Mapping[str, bytes],
    planned: PromotionPlan,
    root: Path,
    env: Mapping[str, str],
    make_job: JobFactory,
) -> dict[str, Job]:
    """The job of each script, by name, all on the seed of the search."""
    seed = planned.candidate.knobs.get(SEED_KNOB)
    made = {
        name: make_job(
            key=f"{planned.candidate.number}-pack-{name}",
            attempt=0,
            seed=seed if isinstance(seed, int) else _DEFAULT_SEED,
            files={**planned.files, SCRIPT_NAME: script},
            folder=root / name,
        )
        for name, script in scripts.items()
    }
    return {name: _with_env(job, env) for name, job in made.items()}


def _fresh(job: Job, attempt: int) -> Job:
    """A job's attempt, its folder empty."""
    if job.folder.exists():
        shutil.rmtree(job.folder)
    job.folder.mkdir(parents=True)
    return dataclasses.replace(job, attempt=attempt)


def _seen(job: Job, end: RunEnd) -> _Seen:
    files = TrialPaths(job.folder)
    summary = parse_log(files.log) if files.log.is_file() else LogSummary()
    artifact = files.artifact()
    problem = None
    if end.cause is not EndCause.EXITED or end.exit_code != 0:
        problem = end.detail or f"{end.cause} with exit code {end.exit_code}"
    elif artifact is None:
        problem = "it left no final_model.* file"
    digest = None if artifact is None else hashlib.sha256(artifact.read_bytes()).hexdigest()
    return _Seen(digest, summary.val_bpb, problem)


def _with_env(job: Job, env: Mapping[str, str]) -> Job:
    spec = dataclasses.replace(job.spec, env={**job.spec.env, **env})
    return dataclasses.replace(job, spec=spec, tracking=None)


def _reason(plain: _Seen, packed: _Seen, again: _Seen) -> str:
    if plain.problem is not None:
        return f"the plain script: {plain.problem}"
    if packed.problem is not None:
        return f"the packed script: {packed.problem}"
    if plain != again:
        return (
            "two runs of the plain script differ on this hardware, so that nothing can be shown; "
            "on one CPU slot, or with deterministic algorithms, they may not"
        )
    shown = [
        f"{one.artifact_sha256 or ''}"[:16] + f" val_bpb {one.val_bpb}" for one in (plain, packed)
    ]
    return f"plain {shown[0]}, packed {shown[1]}"

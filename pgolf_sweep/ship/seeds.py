"""Running a candidate on fresh seeds, resumably; what lies on disk is the evidence.

``promotion/<trial>/declared.json`` names the seeds before any of them runs, and a seed whose
script ended is never run again, however it ended.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pgolf_sweep.errors import InfraError
from pgolf_sweep.launch.base import Ended, Started
from pgolf_sweep.script.logstream import parse_log
from pgolf_sweep.ship.evidence import SCRIPT_NAME, SeedRun
from pgolf_sweep.trial import EndCause, LogSummary, RunEnd
from pgolf_sweep.trialdir import TrialPaths, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from pgolf_sweep.clock import Clock
    from pgolf_sweep.launch.base import Job, Launcher
    from pgolf_sweep.rules import Rules
    from pgolf_sweep.script.pack import Packed
    from pgolf_sweep.ship.evidence import Candidate

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
_INFRASTRUCTURE = frozenset({EndCause.LOST, EndCause.UNKEPT, EndCause.SETUP, EndCause.PREEMPTED})
_UNFINISHED = frozenset({*_INFRASTRUCTURE, EndCause.CANCELLED})
"""Ends that say nothing of the script: such a seed may run again."""


class JobFactory(Protocol):
    """Makes the job of one seed; the study's data, resources and limits are its business."""

    def __call__(
        self, *, key: str, attempt: int, seed: int, files: Mapping[str, bytes], folder: Path
    ) -> Job:
        """A job that runs `files`' ``train_gpt.py`` with SEED set and no knob of the sweep."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionPlan:
    """What a promotion will run, fixed before it runs.

    Attributes:
        candidate: The trial.
        seeds: Fresh seeds.
        script: The script that runs and ships, with the winning values as defaults.
        files: Further files that run beside it.
        root: Folder of the evidence.
        rules: What the result must meet.
        used_seeds: Seeds that are not fresh: the search's and the script's own.
        plain: The script before it was packed; None where it is not packed.
        pack: What packing made of it, or None.
    """

    candidate: Candidate
    seeds: tuple[int, ...]
    script: bytes
    files: Mapping[str, bytes]
    root: Path
    rules: Rules
    used_seeds: frozenset[int] = frozenset()
    plain: bytes | None = None
    pack: Packed | None = None

    @property
    def script_sha256(self) -> str:
        """Hash of the script and of what runs beside it."""
        digest = hashlib.sha256(self.script)
        for name in sorted(self.files):
            digest.update(f"\0{name}\0".encode() + self.files[name])
        return digest.hexdigest()

    def seed_folder(self, seed: int) -> TrialPaths:
        """Where a seed's log, artifact and result lie."""
        return TrialPaths(self.root / f"seed-{seed}")


@dataclass(frozen=True, slots=True)
class _Seed:
    """One seed of one plan, with the maker of its job."""

    planned: PromotionPlan
    make_job: JobFactory
    seed: int

    @property
    def key(self) -> str:
        return f"{self.planned.candidate.number}-seed-{self.seed}"


@dataclass(slots=True)
class _Progress:
    """Seeds that wait, run and have run; the only mutable state of a promotion."""

    waiting: deque[tuple[_Seed, int]]
    live: dict[str, tuple[_Seed, int]] = field(default_factory=dict)
    attempts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def fresh_seeds(study: str, number: int, count: int, used: Collection[int]) -> tuple[int, ...]:
    """Seeds that nobody chose: a function of study and trial, none of them used before."""
    seeds: list[int] = []
    index = 0
    while len(seeds) < count:
        digest = hashlib.sha256(f"{study}/{number}/{index}".encode()).digest()
        seed = 1 + int.from_bytes(digest[:4], "big") % 99_999
        if seed not in used and seed not in seeds:
            seeds.append(seed)
        index += 1
    return tuple(seeds)


def declared_seeds(planned: PromotionPlan) -> tuple[int, ...]:
    """Seeds that earlier promotions of the same script declared, in their order."""
    path = planned.root / "declared.json"
    earlier = read_json(path)["declarations"] if path.is_file() else []
    same = [old for old in earlier if old["script_sha256"] == planned.script_sha256]
    return tuple(dict.fromkeys(seed for old in same for seed in old["seeds"]))


def run_seeds(
    planned: PromotionPlan,
    *,
    launcher: Launcher,
    make_job: JobFactory,
    clock: Clock,
    max_retries: int = 2,
    report: Callable[[str], None] = logger.info,
) -> tuple[SeedRun, ...]:
    """`run_plans` for one candidate."""
    return run_plans(
        [(planned, make_job)],
        launcher=launcher,
        clock=clock,
        max_retries=max_retries,
        report=report,
    )[0]


def run_plans(
    plans: Sequence[tuple[PromotionPlan, JobFactory]],
    *,
    launcher: Launcher,
    clock: Clock,
    max_retries: int = 2,
    report: Callable[[str], None] = logger.info,
) -> list[tuple[SeedRun, ...]]:
    """Declare the seeds of all plans, run those without a result, return the evidence of all.

    Raises:
        InfraError: A seed was lost more than `max_retries` times; the others are kept.
    """
    progress = _Progress(waiting=deque())
    for planned, make_job in plans:
        _declare(planned, clock)
        missing = [seed for seed in planned.seeds if not _has_result(planned, seed)]
        progress.waiting.extend((_Seed(planned, make_job, seed), 0) for seed in missing)
        listed, kept = ", ".join(map(str, planned.seeds)), len(planned.seeds) - len(missing)
        number = planned.candidate.number
        report(f"trial {number}, seeds {listed}: {kept} of {len(planned.seeds)} have run")
    lost: list[str] = []
    while progress.waiting or progress.live:
        while progress.waiting and launcher.free() > 0:
            _start(progress, launcher)
        for event in launcher.poll(POLL_SECONDS):
            task, attempt = progress.live.get(event.key, (None, None))
            if task is None or attempt != event.attempt:
                continue  # a late word of a lost attempt
            if isinstance(event, Started):
                report(f"seed {task.seed} runs on {event.node}")
            elif isinstance(event, Ended):
                del progress.live[event.key]
                again = _ended(progress, task, event, max_retries, report)
                if again is not None:
                    lost.append(again)
    if lost:
        raise InfraError(
            "; ".join(lost),
            where=", ".join(str(planned.root) for planned, _ in plans),
            next_step="run the same promote again: seeds that finished are kept",
        )
    return [tuple(read_seed(planned, seed) for seed in planned.seeds) for planned, _ in plans]


def read_seed(planned: PromotionPlan, seed: int) -> SeedRun:
    """The evidence of a seed that ended; the log itself says what it measured."""
    folder = planned.seed_folder(seed)
    stored = read_json(folder.result)
    summary = parse_log(folder.log) if folder.log.is_file() else LogSummary()
    end = RunEnd(
        cause=EndCause(stored["cause"]),
        exit_code=stored["exit_code"],
        detail=stored["detail"],
        summary=summary,
        node=stored["node"],
        started_at=stored["started_at"],
        ended_at=stored["ended_at"],
    )
    return SeedRun(
        seed=seed,
        end=end,
        summary=summary,
        log=folder.log,
        artifact=folder.artifact(),
        code_bytes=len(planned.script),
    )


def _declare(planned: PromotionPlan, clock: Clock) -> None:
    """Write down the seeds before they run; an older declaration of other seeds is kept."""
    path = planned.root / "declared.json"
    earlier = read_json(path)["declarations"] if path.is_file() else []
    entry = {
        "trial": planned.candidate.number,
        "rules": planned.rules.name,
        "seeds": list(planned.seeds),
        "script_sha256": planned.script_sha256,
    }
    if any(all(old.get(key) == entry[key] for key in entry) for old in earlier):
        return
    write_json(path, {"declarations": [*earlier, {**entry, "declared_at": clock.now()}]})


def _has_result(planned: PromotionPlan, seed: int) -> bool:
    path = planned.seed_folder(seed).result
    if not path.is_file():
        return False
    stored = read_json(path)
    same_script = stored.get("script_sha256") == planned.script_sha256
    return same_script and EndCause(stored["cause"]) not in _UNFINISHED


def _start(progress: _Progress, launcher: Launcher) -> None:
    task, attempt = progress.waiting.popleft()
    planned, seed = task.planned, task.seed
    folder = planned.seed_folder(seed).root
    _make_room(planned, seed)
    files = {**planned.files, SCRIPT_NAME: planned.script}
    job = task.make_job(key=task.key, attempt=attempt, seed=seed, files=files, folder=folder)
    launcher.start(job)
    progress.live[task.key] = (task, attempt)


def _ended(
    progress: _Progress,
    task: _Seed,
    event: Ended,
    max_retries: int,
    report: Callable[[str], None],
) -> str | None:
    """Record an end; queue the seed again if infrastructure took it; a message if for good."""
    end, planned, seed = event.end, task.planned, task.seed
    tries = progress.attempts.setdefault(task.key, [])
    tries.append({"cause": end.cause.value, "node": end.node, "detail": end.detail})
    write_json(
        planned.seed_folder(seed).result,
        {
            "seed": seed,
            "script_sha256": planned.script_sha256,
            "cause": end.cause.value,
            "exit_code": end.exit_code,
            "detail": end.detail,
            "node": end.node,
            "started_at": end.started_at,
            "ended_at": end.ended_at,
            "attempts": tries,
        },
    )
    if end.cause not in _UNFINISHED:
        score = end.summary.val_bpb
        report(f"seed {seed} ended: {f'val_bpb {score:.5f}' if score else end.detail or end.cause}")
        return None
    counted = sum(one["cause"] != EndCause.PREEMPTED.value for one in tries)
    if end.cause in _INFRASTRUCTURE and counted <= max_retries:
        report(f"seed {seed} was lost on {end.node} ({end.detail}); running it again")
        progress.waiting.append((task, event.attempt + 1))
        return None
    return f"seed {seed}: {end.cause} on {end.node}, attempt {event.attempt + 1}: {end.detail}"


def _make_room(planned: PromotionPlan, seed: int) -> None:
    """An empty folder for a seed; the evidence of another script on it moves aside."""
    folder = planned.seed_folder(seed)
    if folder.result.is_file():
        stored = read_json(folder.result)
        other = str(stored.get("script_sha256"))
        if other != planned.script_sha256 and EndCause(stored["cause"]) not in _UNFINISHED:
            folder.root.replace(folder.root.with_name(f"{folder.root.name}-of-{other[:8]}"))
    if folder.root.exists():
        shutil.rmtree(folder.root)
    folder.root.mkdir(parents=True)

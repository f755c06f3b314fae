"""Running a candidate on fresh seeds, resumably; what lies on disk is the evidence.

``promotion/<trial>/declared.json`` names the seeds before any of them runs, and a seed whose
script ended is never run again, however it ended.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pgolf_sweep.core.classify import infrastructure_failure
from pgolf_sweep.core.event_text import event_text
from pgolf_sweep.core.paths import TrialPaths, read_json, write_json
from pgolf_sweep.core.trial import EndCause, LogSummary, RunEnd
from pgolf_sweep.launch.batch import GIVE_UP_SECONDS, Work, run_jobs
from pgolf_sweep.script.logs.stream import parse_log
from pgolf_sweep.script.logs.tail import log_tail
from pgolf_sweep.submission.evidence import SCRIPT_NAME, SeedRun

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from pgolf_sweep.config.rules import Rules
    from pgolf_sweep.core.clock import Clock
    from pgolf_sweep.launch.base import Job, Launcher
    from pgolf_sweep.script.pack import Packed
    from pgolf_sweep.submission.evidence import Candidate

logger = logging.getLogger(__name__)


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

    def job(self, attempt: int) -> Job:
        """The job of one attempt, its folder empty."""
        planned, seed = self.planned, self.seed
        _make_room(planned, seed)
        return self.make_job(
            key=self.key,
            attempt=attempt,
            seed=seed,
            files={**planned.files, SCRIPT_NAME: planned.script},
            folder=planned.seed_folder(seed).root,
        )


@dataclass(frozen=True, slots=True)
class _Scribe:
    """Writes down how each attempt of the seeds ended, and tells of it.

    Attributes:
        seeds: By key of their jobs.
        report: Hears of progress, one line a call.
        tries: Attempts so far, by key.
    """

    seeds: Mapping[str, _Seed]
    report: Callable[[str], None]
    tries: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def started(self, key: str, node: str) -> None:
        """An attempt runs."""
        self.report(f"seed {self.seeds[key].seed} runs on {node}")

    def ended(self, key: str, end: RunEnd, *, again: bool) -> None:
        """An attempt ended; whether another one follows."""
        planned, seed = self.seeds[key].planned, self.seeds[key].seed
        tries = self.tries.setdefault(key, [])
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
        if again:
            self.report(f"seed {seed} was lost on {end.node} ({end.detail}); running it again")
        elif infrastructure_failure(end) is None:
            score = end.summary.val_bpb
            told = f"val_bpb {score:.5f}" if score else end.detail or end.cause
            self.report(f"seed {seed} ended: {told}")


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
    give_up_seconds: float = GIVE_UP_SECONDS,
    report: Callable[[str], None] = logger.info,
) -> tuple[SeedRun, ...]:
    """`run_plans` for one candidate."""
    return run_plans(
        [(planned, make_job)],
        launcher=launcher,
        clock=clock,
        max_retries=max_retries,
        give_up_seconds=give_up_seconds,
        report=report,
    )[0]


def run_plans(
    plans: Sequence[tuple[PromotionPlan, JobFactory]],
    *,
    launcher: Launcher,
    clock: Clock,
    max_retries: int = 2,
    give_up_seconds: float = GIVE_UP_SECONDS,
    report: Callable[[str], None] = logger.info,
) -> list[tuple[SeedRun, ...]]:
    """Declare the seeds of all plans, run those without a result, return the evidence of all.

    Raises:
        InfraError: A seed was lost more than `max_retries` times, or no node came to run it for
            `give_up_seconds`; the others are kept.
    """
    tasks: dict[str, _Seed] = {}
    for planned, make_job in plans:
        _declare(planned, clock)
        missing = [seed for seed in planned.seeds if not _has_result(planned, seed)]
        found = (_Seed(planned, make_job, seed) for seed in missing)
        tasks |= {task.key: task for task in found}
        listed, kept = ", ".join(map(str, planned.seeds)), len(planned.seeds) - len(missing)
        number = planned.candidate.number
        report(f"trial {number}, seeds {listed}: {kept} of {len(planned.seeds)} have run")
    run_jobs(
        [Work(key=key, prepare=task.job) for key, task in tasks.items()],
        launcher,
        clock=clock,
        max_retries=max_retries,
        give_up_seconds=give_up_seconds,
        listener=_Scribe(tasks, report),
        notify=lambda event: report(event_text(event)),
    )
    return [tuple(read_seed(planned, seed) for seed in planned.seeds) for planned, _ in plans]


def read_seed(planned: PromotionPlan, seed: int) -> SeedRun:
    """The evidence of a seed that ended; the log itself says what it measured."""
    folder = planned.seed_folder(seed)
    end = _end_of(planned, seed)
    return SeedRun(
        seed=seed,
        end=end,
        summary=end.summary,
        log=folder.log,
        artifact=folder.artifact(),
        code_bytes=len(planned.script),
    )


def _end_of(planned: PromotionPlan, seed: int) -> RunEnd:
    """How a seed's run ended, as its result and its log say."""
    folder = planned.seed_folder(seed)
    stored = read_json(folder.result)
    return RunEnd(
        cause=EndCause(stored["cause"]),
        exit_code=stored["exit_code"],
        detail=stored["detail"],
        summary=parse_log(folder.log) if folder.log.is_file() else LogSummary(),
        node=stored["node"],
        started_at=stored["started_at"],
        ended_at=stored["ended_at"],
        log_tail=log_tail(folder.log),
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
    return same_script and infrastructure_failure(_end_of(planned, seed)) is None


def _make_room(planned: PromotionPlan, seed: int) -> None:
    """An empty folder for a seed; the evidence of another script on it moves aside."""
    folder = planned.seed_folder(seed)
    if folder.result.is_file():
        stored = read_json(folder.result)
        other = str(stored.get("script_sha256"))
        unfinished = infrastructure_failure(_end_of(planned, seed)) is not None
        if other != planned.script_sha256 and not unfinished:
            folder.root.replace(folder.root.with_name(f"{folder.root.name}-of-{other[:8]}"))
    if folder.root.exists():
        shutil.rmtree(folder.root)
    folder.root.mkdir(parents=True)

"""Scoring a folder's model, training its script again, and holding both against its logs."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import PurePosixPath
from statistics import stdev
from typing import TYPE_CHECKING, Any

from pgolf_sweep.config.rules import SEED_NOISE_BPB
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.paths import TrialPaths
from pgolf_sweep.core.trial import EndCause, Limits, LogSummary, Resources, TrialSpec
from pgolf_sweep.launch.base import Job
from pgolf_sweep.launch.batch import Work, run_jobs
from pgolf_sweep.script.knobs.knobs import survey
from pgolf_sweep.script.logs.stream import parse_log
from pgolf_sweep.submission.evidence import SCRIPT_NAME
from pgolf_sweep.submission.folder import MOST_MODEL_BYTES
from pgolf_sweep.verify.check import Check, CheckVerdict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pgolf_sweep.config.rules import Rules
    from pgolf_sweep.core.clock import Clock
    from pgolf_sweep.core.trial import RunEnd
    from pgolf_sweep.launch.base import Launcher
    from pgolf_sweep.submission.folder import Folder, ShippedLog

SPREADS = 4
"""A run again may be this many standard deviations off: time limits make steps differ."""

SAME_MODEL_BPB = 0.0005
"""Between two evaluations of one model: other kernels and other batches."""

_START_SECONDS = 300.0
MOST_INPUT_BYTES = 64_000_000
_NO_INPUT = {".log", ".md", ".ptz", ".bin", ".pt"}


def resources_for(folder: Folder, rules: Rules) -> Resources:
    """What the folder's runs had: as its provenance says, else as the rules do."""
    provenance = folder.manifest.get("provenance")
    said = provenance.get("gpus") if isinstance(provenance, dict) else None
    gpus = said if isinstance(said, int) else rules.gpus or 0
    return Resources(gpus=gpus, cpus=float(max(1, gpus)))


def dataset_name(folder: Folder) -> str | None:
    """The data set that the folder's provenance names, or None."""
    provenance = folder.manifest.get("provenance")
    name = provenance.get("dataset") if isinstance(provenance, dict) else None
    return name if isinstance(name, str) and name != "unknown" else None


def rerun(
    folder: Folder,
    rules: Rules,
    *,
    seed: int | None,
    env: Mapping[str, str],
    launcher: Launcher,
    clock: Clock,
    work: Path,
) -> Check:
    """Train the folder's script again on one of its seeds.

    Args:
        folder: As read.
        rules: For the cap and the times.
        seed: Which; None for the first log's.
        env: Where data and tokenizer are.
        launcher: With slots of `resources_for`.
        clock: For waiting.
        work: An empty folder is made here for the run.

    Raises:
        InputError: There is no script, or no log of that seed.
        InfraError: The run was lost for good, or no node came for it.
    """
    log = _log_of(folder, seed)
    target = work / f"seed-{log.seed}"
    job = _job(folder, rules, log, env, target)
    end, summary, artifact = _run(job, launcher, clock, target)
    return _judged(folder, rules, log, end, summary, artifact)


@dataclass(frozen=True, slots=True)
class EvaluationSwitch:
    """How a script is told to score a model that lies there, without training.

    Attributes:
        name: Environment variable.
        value: What it is set to; ``{model}`` stands for the model's file name.
    """

    name: str
    value: str


SWITCHES = (
    EvaluationSwitch("START_AT", "eval"),  # our own trainer
    EvaluationSwitch("EVAL_ONLY_QUANTIZED_PATH", "{model}"),
    EvaluationSwitch("EVAL_ARTIFACT_PATH", "{model}"),
    EvaluationSwitch("EVAL_ONLY", "1"),
    EvaluationSwitch("TTT_EVAL_ONLY", "1"),
    EvaluationSwitch("TTT_ONLY_EVAL", "1"),
)
"""Names that scripts of the contest read; one with a path to unquantized weights is none."""


def evaluation_switch(folder: Folder) -> EvaluationSwitch | None:
    """The switch that the folder's script reads, or None."""
    try:
        knobs = survey({SCRIPT_NAME: folder.code}).knobs
    except SyntaxError:
        return None
    return next((switch for switch in SWITCHES if switch.name in knobs), None)


def score_artifact(
    folder: Folder,
    rules: Rules,
    *,
    env: Mapping[str, str],
    launcher: Launcher,
    clock: Clock,
    work: Path,
) -> Check:
    """Let the folder's script score the model that ships, without training.

    Args:
        folder: As read.
        rules: For the times.
        env: Where data and tokenizer are.
        launcher: With slots of `resources_for`.
        clock: For waiting.
        work: An empty folder is made here for the run.

    Returns:
        Unknown where no model ships, or where the script cannot be asked for that.

    Raises:
        InfraError: The run was lost for good, or no node came for it.
    """
    limit = f"a log's val_bpb within {SAME_MODEL_BPB}"

    def answer(verdict: CheckVerdict, observed: str, detail: str = "") -> Check:
        return Check(
            rule="rerun_artifact", verdict=verdict, observed=observed, limit=limit, detail=detail
        )

    scored = [log for log in folder.logs if log.summary.val_bpb is not None]
    switch = evaluation_switch(folder)
    model = None if folder.model is None else folder.reader.read(folder.model, MOST_MODEL_BYTES)
    if folder.model is None or model is None:
        return answer(CheckVerdict.UNKNOWN, "no compressed model in the folder")
    if switch is None or not folder.script or not scored:
        names = ", ".join(one.name for one in SWITCHES)
        return answer(
            CheckVerdict.UNKNOWN, "the script scores no model alone", f"it reads none of {names}"
        )
    target = work / "artifact"
    told = {switch.name: switch.value.format(model=folder.model)}
    job = _job(folder, rules, scored[0], {**env, **told}, target)
    job = dataclasses.replace(job, key="rerun-artifact", files={**job.files, folder.model: model})
    end, summary, _ = _run(job, launcher, clock, target)
    if end.cause is not EndCause.EXITED or end.exit_code != 0 or summary.val_bpb is None:
        why = end.detail or f"{end.cause}, exit code {end.exit_code}"
        return answer(CheckVerdict.FAIL, f"{folder.model} gives no score", f"{why}; on {end.node}")
    if summary.steps:
        return answer(
            CheckVerdict.UNKNOWN, f"{switch.name} did not keep it from training", f"on {end.node}"
        )
    score = summary.val_bpb
    nearest = min(scored, key=lambda log: abs((log.summary.val_bpb or 0.0) - score))
    off = score - (nearest.summary.val_bpb or 0.0)
    return answer(
        CheckVerdict.PASS if abs(off) <= SAME_MODEL_BPB else CheckVerdict.FAIL,
        f"{folder.model}: val_bpb {score:.5f} ({off:+.5f} from {nearest.name})",
        f"by {switch.name}; on {end.node}",
    )


def _run(
    job: Job, launcher: Launcher, clock: Clock, target: Path
) -> tuple[RunEnd, LogSummary, Path | None]:
    """How one run ended, what its log says, and its model file."""

    def prepare(attempt: int) -> Job:
        if target.exists():
            shutil.rmtree(target)
        target.mkdir(parents=True)
        return dataclasses.replace(job, attempt=attempt)

    end = run_jobs([Work(key=job.key, prepare=prepare)], launcher, clock=clock)[job.key]
    files = TrialPaths(target)
    summary = parse_log(files.log) if files.log.is_file() else LogSummary()
    return end, summary, files.artifact()


def _log_of(folder: Folder, seed: int | None) -> ShippedLog:
    known = [log for log in folder.logs if log.seed is not None]
    chosen = next((log for log in known if seed is None or log.seed == seed), None)
    if not folder.script or chosen is None:
        seeds = ", ".join(str(log.seed) for log in known)
        raise InputError(
            "there is nothing to run again",
            where=str(folder.root),
            got="no script" if not folder.script else f"no log of seed {seed}",
            expected=f"one of the seeds {seeds}" if seeds else "a script and a log with its seed",
        )
    return chosen


def _job(
    folder: Folder, rules: Rules, log: ShippedLog, env: Mapping[str, str], target: Path
) -> Job:
    files = {
        name: data
        for name in folder.reader.sizes
        if PurePosixPath(name).suffix not in _NO_INPUT
        and not PurePosixPath(name).name.startswith("final_")
        and (data := folder.reader.read(name, MOST_INPUT_BYTES)) is not None
    }
    files[SCRIPT_NAME] = folder.script
    total = rules.train_seconds + rules.eval_seconds + _START_SECONDS
    spec = TrialSpec(
        study="rerun",
        number=0,
        knobs={},
        env={**env, "SEED": str(log.seed), "RUN_ID": f"rerun-{log.seed}"},
        program_name=SCRIPT_NAME,
        program_sha256=hashlib.sha256(folder.script).hexdigest(),
        resources=resources_for(folder, rules),
        limits=Limits(total_seconds=total, silent_seconds=total),
        proposer="verify",
    )
    return Job(key=f"rerun-{log.seed}", attempt=0, spec=spec, files=files, folder=target)


def _judged(
    folder: Folder,
    rules: Rules,
    log: ShippedLog,
    end: RunEnd,
    summary: LogSummary,
    artifact: Path | None,
) -> Check:
    scores = [one.summary.val_bpb for one in folder.logs if one.summary.val_bpb is not None]
    spread = max(SEED_NOISE_BPB, stdev(scores) if len(scores) > 1 else 0.0)
    tolerance = SPREADS * spread
    limit = f"the log's val_bpb within {tolerance:.4f}, at most {rules.artifact_cap_bytes:,} bytes"

    def answer(verdict: CheckVerdict, observed: str, detail: Any = "") -> Check:
        return Check(
            rule="rerun", verdict=verdict, observed=observed, limit=limit, detail=str(detail)
        )

    if end.cause is not EndCause.EXITED or end.exit_code != 0 or summary.val_bpb is None:
        why = end.detail or f"{end.cause}, exit code {end.exit_code}"
        return answer(CheckVerdict.FAIL, "it gave no score", f"{why}; on {end.node}")
    said = log.summary.val_bpb or 0.0
    off = summary.val_bpb - said
    total = None if artifact is None else len(folder.script) + artifact.stat().st_size
    size = "unknown size" if total is None else f"{total:,} bytes"
    observed = f"seed {log.seed}: val_bpb {summary.val_bpb:.5f} ({off:+.5f}), {size}"
    over = total is not None and total > rules.artifact_cap_bytes
    good = abs(off) <= tolerance and not over
    same = "the same score to the last digit" if off == 0 else f"the log says {said:.5f}"
    return answer(
        CheckVerdict.PASS if good else CheckVerdict.FAIL, observed, f"{same}; on {end.node}"
    )

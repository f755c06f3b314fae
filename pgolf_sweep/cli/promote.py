"""`promote`: from the best trial to a submission."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgolf_sweep.cli.common import (
    DEFAULT_RUNS,
    JsonOption,
    RunsOption,
    StudyArgument,
    app,
    emit,
    out,
    say,
)

if TYPE_CHECKING:
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.promote.promote import Promotion
    from pgolf_sweep.promote.race import RacePlan
    from pgolf_sweep.promote.seeds import PromotionPlan
    from pgolf_sweep.submission.evidence import Candidate


@app.command()
def promote(
    study: StudyArgument,
    trial: Annotated[
        int | None, typer.Option("--trial", help="Number; else the best that fits.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Fresh seeds; else what the rules ask for.")
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(min=2, help="Race the best K trials; seeds are added until one leads."),
    ] = None,
    confidence: Annotated[
        float, typer.Option(min=0.5, max=0.9999, help="Of a race: that its winner is the best.")
    ] = 0.9,
    max_seeds: Annotated[
        int | None, typer.Option(min=2, help="Of one contender in a race; else twice the rules'.")
    ] = None,
    pack: Annotated[
        bool, typer.Option("--pack", help="Ship the script minified and compressed.")
    ] = False,
    rules: Annotated[
        str | None, typer.Option(help="A preset or a rules file instead of the study's.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="YAML of the record to beat, with its date and source.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run, and run nothing.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="Title of the submission; else the study's name.")
    ] = None,
    author: Annotated[str, typer.Option(help="Author, for submission.json.")] = "",
    github_id: Annotated[str, typer.Option(help="GitHub id, for submission.json.")] = "",
    blurb: Annotated[str, typer.Option(help="One paragraph on what is submitted.")] = "",
    model: Annotated[
        bool, typer.Option("--model/--no-model", help="Whether the compressed model goes along.")
    ] = True,
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of submissions; else runs/STUDY/submission."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="An existing Ray cluster; else a local one.")
    ] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="At most that many seeds at once.")
    ] = None,
    wandb: Annotated[str | None, typer.Option(help="online, offline or disabled.")] = None,
    hardware: Annotated[
        str | None, typer.Option(help="What the seeds run on, for the README; else as observed.")
    ] = None,
    runs: RunsOption = DEFAULT_RUNS,
    json_output: JsonOption = False,
) -> None:
    """Run the best trial on fresh seeds, hold it against the rules, write the submission folder.

    The seeds are declared before they run; the same command again resumes. Exit code 1 if a rule
    is not met: each is listed, and the evidence stays.

    Example: pgolf-sweep promote demo

    Example: pgolf-sweep promote lr --top 3 --pack --record records/latest.yaml
    """
    from pgolf_sweep.core.clock import SystemClock
    from pgolf_sweep.core.errors import InputError
    from pgolf_sweep.core.paths import StudyPaths, on_disk
    from pgolf_sweep.driver.control import DriverLock
    from pgolf_sweep.driver.session import reopen_session
    from pgolf_sweep.launch.remote.dashboard import refuse_copies
    from pgolf_sweep.promote.promote import About, best, choose
    from pgolf_sweep.promote.promote import promote as run_promotion
    from pgolf_sweep.promote.race import plan_race, race
    from pgolf_sweep.report.read import study_records
    from pgolf_sweep.track.mode import resolve_mode
    from pgolf_sweep.workflows.launch_support import ray_launcher
    from pgolf_sweep.workflows.promote import (
        candidates,
        plan_maker,
        promotion_rules,
        provenance,
        run_seconds,
        seed_jobs,
        slot_hardware,
    )

    if top is not None and trial is not None:
        raise InputError("--top races trials, --trial names one: give only one of them")
    paths = StudyPaths.existing(runs, study)
    refuse_copies(paths, "promote")
    session = reopen_session(paths, need_data=address is None and not dry_run)
    records = study_records(paths.root)
    held = promotion_rules(session, rules, record, contenders=top or 1)
    pool = candidates(session, records)
    asked = seeds if seeds is not None else session.spec.pgolf.promote_seeds
    make_plan = plan_maker(session, paths, records, held, pack=pack)
    mode = resolve_mode(wandb, os.environ)
    racing = None
    if top is not None:
        racing = plan_race(
            best(pool, held, top),
            confidence=confidence,
            most_seeds=max_seeds,
            min_seeds=max(asked or 0, held.min_seeds),
            seconds_each=run_seconds(records, held),
            gpus=session.resources.gpus,
        )
        say(str(racing))
        chosen = racing.contenders[0]
    else:
        chosen = choose(pool, held, trial)
        say(spending(chosen, make_plan(chosen, asked), records, session))
    if dry_run:
        if json_output:
            emit(planned_document(racing, make_plan(chosen, asked)))
        return
    with (
        on_disk(paths.root),
        DriverLock(paths, job="promote"),
        resumable(study),
        ray_launcher(session, address=address, slots=slots, report=say) as launcher,
    ):
        raced = None
        if racing is not None:
            raced = race(
                racing,
                make_plan=make_plan,
                jobs=lambda contender: seed_jobs(session, paths, contender, mode),
                launcher=launcher,
                clock=SystemClock(),
                evidence=paths.promotion / "race.json",
                max_retries=session.spec.pgolf.max_retries,
                give_up_seconds=session.spec.pgolf.nodes.give_up_seconds,
                report=say,
            )
            chosen, asked = raced.winner, max(raced.seeds, asked or 0, held.min_seeds)
            for line in raced.summary:
                say(line)
        result = run_promotion(
            make_plan(chosen, asked),
            launcher=launcher,
            make_job=seed_jobs(session, paths, chosen, mode),
            clock=SystemClock(),
            provenance=provenance(
                session, records, chosen, hardware=hardware or slot_hardware(session)
            ),
            about=About(
                name=name or session.spec.name,
                author=author,
                github_id=github_id,
                blurb=blurb,
                include_model=model,
            ),
            submissions=folder if folder is not None else paths.submissions,
            race=raced,
            max_retries=session.spec.pgolf.max_retries,
            give_up_seconds=session.spec.pgolf.nodes.give_up_seconds,
            report=say,
        )
    if json_output:
        emit(document(result))
    else:
        show(result)


def spending(
    chosen: Candidate, planned: PromotionPlan, records: Sequence[TrialRecord], session: Session
) -> str:
    """What a promotion of one trial will run, in a line."""
    from pgolf_sweep.cli.render import duration
    from pgolf_sweep.workflows.promote import run_seconds

    count, gpus = len(planned.seeds), session.resources.gpus
    seconds = count * run_seconds(records, planned.rules)
    cost = f"{seconds * gpus / 3600:.2f} GPU-hours" if gpus else f"{duration(seconds)} of a slot"
    return (
        f"promoting trial {chosen.number} (val_bpb {chosen.val_bpb:.4f}) on {count} fresh seeds, "
        f"rules {planned.rules.name}; about {cost} where none has run yet"
    )


def planned_document(racing: RacePlan | None, planned: PromotionPlan) -> dict[str, Any]:
    """The document of ``promote --dry-run --json``."""
    shown = {
        "trial": planned.candidate.number,
        "seeds": list(planned.seeds),
        "rules": planned.rules.name,
        "code_bytes": len(planned.script),
    }
    if racing is None:
        return shown
    return {
        "contenders": [contender.number for contender in racing.contenders],
        "confidence": racing.confidence,
        "least_runs": racing.least_runs,
        "most_runs": racing.most_runs,
        "seconds_each": racing.seconds_each,
        "rules": planned.rules.name,
    }


@contextmanager
def resumable(study: str) -> Iterator[None]:
    """Turns Ctrl-C into an error that says how to go on."""
    from pgolf_sweep.core.errors import InterruptedSweepError

    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedSweepError(
            "the promotion was interrupted; seeds that finished are kept",
            next_step=f"resume with: pgolf-sweep promote {study}",
        ) from None


def document(result: Promotion) -> dict[str, Any]:
    """The document of ``promote --json``; keys stay stable."""
    found: dict[str, Any] = {
        "folder": str(result.folder),
        "trial": result.trial,
        "val_bpb": result.val_bpb,
        "val_loss_nats": result.val_loss_nats,
        "val_loss_nats_interval": {
            "low": result.loss.low,
            "high": result.loss.high,
            "confidence": result.loss.confidence,
        },
        "std": result.std,
        "p_value": result.p_value,
        "margins": result.margins,
        "seeds": list(result.seeds),
        "artifact_bytes": result.artifact_bytes,
        "headroom_bytes": result.headroom_bytes,
        "checks": result.verification.checks,
    }
    if result.pack is not None:
        found["pack"] = {
            "before_bytes": result.pack.before_bytes,
            "after_bytes": len(result.pack.script),
            "freed_bytes": result.pack.freed_bytes,
            "codec": result.pack.codec,
        }
    if result.race is not None:
        found["race"] = {
            "confident": result.race.confident,
            "runs": result.race.runs,
            "tied": list(result.race.tied),
            "summary": list(result.race.summary),
        }
    return found


def show(result: Promotion) -> None:
    """A promotion for people."""
    from pgolf_sweep.workflows.launch import shown

    spread = "" if result.std is None else f" +- {result.std:.4f}"
    p_value = "" if result.p_value is None else f", p = {result.p_value:.2g} against the record"
    out.print(
        f"trial {result.trial}: val_bpb {result.val_bpb:.4f}{spread} over seeds "
        f"{', '.join(map(str, result.seeds))}{p_value}; artifact {result.artifact_bytes:,} B, "
        f"headroom {result.headroom_bytes:,} B",
        soft_wrap=True,
    )
    for margin in result.margins:
        out.print(str(margin), soft_wrap=True, markup=False)
    if result.pack is not None:
        out.print(f"pack: {result.pack}", soft_wrap=True, markup=False)
    out.print(f"submission: {shown(result.folder)}", soft_wrap=True, markup=False)
    say(f"next: pgolf-sweep verify {shown(result.folder)}")

"""`promote`: from the best trial to a submission."""

from __future__ import annotations

import os
from collections.abc import Iterator
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
    from pgolf_sweep.ship.promote import Promotion


@app.command()
def promote(
    study: StudyArgument,
    trial: Annotated[
        int | None, typer.Option("--trial", help="Number; else the best that fits.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Fresh seeds; else what the rules ask for.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Title of the submission; else the study's name.")
    ] = None,
    author: Annotated[str, typer.Option(help="Author, for submission.json.")] = "",
    github_id: Annotated[str, typer.Option(help="GitHub id, for submission.json.")] = "",
    blurb: Annotated[str, typer.Option(help="One paragraph on what is submitted.")] = "",
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of submissions; else runs/STUDY/submission."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="An existing Ray cluster; else a local one.")
    ] = None,
    slots: Annotated[int | None, typer.Option(min=1, help="At most so many seeds at once.")] = None,
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
    """
    from pgolf_sweep.cli.launch import ray_launcher
    from pgolf_sweep.clock import SystemClock
    from pgolf_sweep.control import DriverLock
    from pgolf_sweep.promotion import (
        candidates,
        provenance,
        seed_jobs,
        slot_hardware,
        used_seeds,
    )
    from pgolf_sweep.report.read import study_records
    from pgolf_sweep.session import reopen_session
    from pgolf_sweep.ship.promote import About, choose, plan
    from pgolf_sweep.ship.promote import promote as run_promotion
    from pgolf_sweep.track.mode import resolve_mode
    from pgolf_sweep.trialdir import StudyPaths

    paths = StudyPaths.existing(runs, study)
    session = reopen_session(paths, need_data=address is None)
    records = study_records(paths.root)
    chosen = choose(candidates(session, records), session.rules, trial)
    planned = plan(
        chosen,
        files=session.program.files,
        program_name=session.program.name,
        rules=session.rules,
        root=paths.promotion,
        seeds=seeds if seeds is not None else session.spec.pgolf.promote_seeds,
        used_seeds=used_seeds(records),
    )
    mode = resolve_mode(wandb, os.environ)
    say(
        f"promoting trial {chosen.number} (val_bpb {chosen.val_bpb:.4f}) "
        f"on {len(planned.seeds)} fresh seeds, rules {session.rules.name}"
    )
    with (
        DriverLock(paths),
        resumable(study),
        ray_launcher(session, address=address, slots=slots) as launcher,
    ):
        result = run_promotion(
            planned,
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
            ),
            submissions=folder if folder is not None else paths.submissions,
            max_retries=session.spec.pgolf.max_retries,
            report=say,
        )
    if json_output:
        emit(document(result))
    else:
        show(result)


@contextmanager
def resumable(study: str) -> Iterator[None]:
    """Turns Ctrl-C into an error that says how to go on."""
    from pgolf_sweep.errors import InterruptedSweepError

    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedSweepError(
            "the promotion was interrupted; seeds that finished are kept",
            next_step=f"resume with: pgolf-sweep promote {study}",
        ) from None


def document(result: Promotion) -> dict[str, Any]:
    """The document of ``promote --json``; keys stay stable."""
    return {
        "folder": str(result.folder),
        "val_bpb": result.val_bpb,
        "val_loss_nats": result.val_loss_nats,
        "std": result.std,
        "p_value": result.p_value,
        "seeds": list(result.seeds),
        "artifact_bytes": result.artifact_bytes,
        "checks": result.verification.checks,
    }


def show(result: Promotion) -> None:
    """A promotion for people."""
    from pgolf_sweep.cli.launch import shown

    spread = "" if result.std is None else f" +- {result.std:.4f}"
    p_value = "" if result.p_value is None else f", p = {result.p_value:.2g} against the record"
    out.print(
        f"val_bpb {result.val_bpb:.4f}{spread} over seeds {', '.join(map(str, result.seeds))}"
        f"{p_value}; artifact {result.artifact_bytes:,} B",
        soft_wrap=True,
    )
    out.print(f"submission: {shown(result.folder)}", soft_wrap=True, markup=False)
    say(f"next: pgolf-sweep verify {shown(result.folder)}")

"""`promote`: from the best trial to a submission."""

from __future__ import annotations

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
    from pgolf_sweep.promote.promote import Promotion


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
    against: Annotated[
        str | None,
        typer.Option(
            metavar="TRIAL",
            help="Run this trial on fresh seeds, too, and say how sure the promoted one is better: "
            "a number, or baseline for the program's own configuration.",
        ),
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

    Example: pgolf-sweep promote demo --against baseline

    Example: pgolf-sweep promote lr --top 3 --pack --record records/latest.yaml
    """
    from pgolf_sweep.promote.candidate import About
    from pgolf_sweep.workflows.promote import promote as run
    from pgolf_sweep.workflows.promotion_plan import prepare_promotion

    choice: Any = {
        "runs": runs,
        "trial": trial,
        "seeds": seeds,
        "top": top,
        "confidence": confidence,
        "max_seeds": max_seeds,
        "pack": pack,
        "rules": rules,
        "record": record,
        "against": against,
    }
    if dry_run:
        ready = prepare_promotion(study, **choice)
        say(ready.cost)
        if json_output:
            emit(ready.to_json())
        return
    about = About(
        name=name or Path(study).name,
        author=author,
        github_id=github_id,
        blurb=blurb,
        include_model=model,
    )
    result = run(
        study,
        **choice,
        about=about,
        out=folder,
        address=address,
        slots=slots,
        wandb=wandb,
        hardware=hardware,
        report=say,
    )
    if json_output:
        emit(document(result))
    else:
        show(result)


def document(result: Promotion) -> dict[str, Any]:
    """The document of ``promote --json``; keys stay stable."""
    from pgolf_sweep.promote.against import document as against_document

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
    if result.against is not None:
        found["against"] = against_document(result.against)
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
    if result.against is not None:
        out.print(str(result.against), soft_wrap=True, markup=False)
    for margin in result.margins:
        out.print(str(margin), soft_wrap=True, markup=False)
    if result.pack is not None:
        out.print(f"pack: {result.pack}", soft_wrap=True, markup=False)
    out.print(f"submission: {shown(result.folder)}", soft_wrap=True, markup=False)
    say(f"next: pgolf-sweep verify {shown(result.folder)}")

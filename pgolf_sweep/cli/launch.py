"""`launch`: the main job."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgolf_sweep.cli.common import (
    DEFAULT_DATA,
    DEFAULT_RUNS,
    DataRootOption,
    JsonOption,
    NoProbeOption,
    RunsOption,
    SweepArgument,
    app,
    emit,
    out,
    say,
)

if TYPE_CHECKING:
    from pgolf_sweep.workflows.launch import LaunchedStudy, LaunchPreview


@app.command()
def launch(
    context: typer.Context,
    sweep: SweepArgument,
    address: Annotated[
        str | None,
        typer.Option(help="An existing Ray cluster (`auto` or HOST:PORT); else a local one."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            envvar="PGOLF_STORAGE",
            help="Optuna storage URL that shares the study; else a file of its own. Its password "
            "is not kept: for the other commands, set the variable.",
        ),
    ] = None,
    wandb: Annotated[
        str | None, typer.Option(help="online, offline or disabled; else what the key allows.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the study; else the sweep file's.")
    ] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="At most that many trials at a time.")
    ] = None,
    run_cap: Annotated[
        int | None, typer.Option(min=1, help="Trials that may take a slot, instead of the file's.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="K=V", help="Fix a parameter, searched or not; repeatable."),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="K=V",
            help="A key of pgolf.budget, as gpu_hours=40 or deadline=36h; repeatable.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check all, say what it would cost, and start nothing."),
    ] = False,
    events: Annotated[
        Path | None,
        typer.Option(help="File that gets each event of the sweep as a JSON line."),
    ] = None,
    no_probe: NoProbeOption = False,
    detach: Annotated[
        bool,
        typer.Option("--detach", help="Drive it on the cluster at --address, as a Ray job there."),
    ] = False,
    home: Annotated[
        str | None,
        typer.Option(
            help="With --detach: the cluster's folder of runs/ and data/; else ~/pgolf-sweep."
        ),
    ] = None,
    runs: RunsOption = DEFAULT_RUNS,
    data_root: DataRootOption = DEFAULT_DATA,
    json_output: JsonOption = False,
) -> None:
    """Run a sweep: propose, gate, train, score, until its cap; the same command again resumes.

    Ctrl-C once lets the running trials finish, twice ends them; both can be resumed. A terminal
    that closes counts as the first Ctrl-C; under nohup it changes nothing.

    Example: pgolf-sweep launch sweeps/demo.yaml

    Example: pgolf-sweep launch sweeps/lr.yaml --set MODEL_DIM=512 --run-cap 8 --dry-run

    Example: pgolf-sweep launch sweeps/lr.yaml --detach --address http://HEAD:8265
    """
    from pgolf_sweep.workflows.settings import parse_overrides

    overrides = parse_overrides(run_cap=run_cap, settings=settings or (), budget=budget or ())
    if dry_run:
        from pgolf_sweep.workflows.launch import preview

        checked = preview(
            sweep,
            name=name,
            runs=runs,
            data_root=data_root,
            wandb=wandb,
            slots=slots,
            overrides=overrides,
            need_data=not detach,
            probe=not no_probe,
        )
        _show_preview(checked, slots=slots, json_output=json_output)
        return
    if detach:
        from pgolf_sweep.report.read import study_status
        from pgolf_sweep.workflows.detach import Sending, launch_detached

        source = context.get_parameter_source("data_root")
        sending = Sending(
            address=address,
            home=home,
            # What the environment says of data is of this machine.
            data_root=data_root if source and source.name == "COMMANDLINE" else None,
            storage=storage,
            wandb=wandb,
            slots=slots,
            overrides=overrides,
            probe=not no_probe,
        )
        paths = launch_detached(sweep, sending, name=name, runs=runs, report=say)
        if json_output:
            emit(study_status(paths).to_json())
        else:
            say(f"next: pgolf-sweep watch {paths.name}")
        return
    from pgolf_sweep.cli.screen import Display
    from pgolf_sweep.cli.streams import steadfast_output
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.driver.proposals import left_over, left_over_text
    from pgolf_sweep.report.read import study_status
    from pgolf_sweep.track.mode import sync_command
    from pgolf_sweep.workflows.launch import conclude, shown
    from pgolf_sweep.workflows.launch import launch as run

    context.with_resource(steadfast_output())
    found = run(
        sweep,
        name=name,
        runs=runs,
        data_root=data_root,
        address=address,
        storage=storage,
        wandb=wandb,
        slots=slots,
        events=events,
        overrides=overrides,
        probe=not no_probe,
        report=say,
        view=Display,
        rebuild=_agrees_to_rebuild,
    )
    paths = StudyPaths(found.folder)
    if json_output:
        emit(study_status(paths).to_json())
    else:
        _show_result(found)
    if any(paths.wandb.glob("offline-run-*")):
        say(f"W&B: the runs are offline; upload them with: {sync_command(shown(paths.wandb))}")
    if left := left_over(paths, found.records):
        say(left_over_text(left))
    named = [] if name is None else ["--name", name]
    again = shlex.join(["pgolf-sweep", "launch", str(sweep), *named, *overrides.words()])
    if found.state in {"stopped", "cancelled"} and not found.interrupted:
        say(f"resume with: {again}")
    conclude(found.snapshot, paths, again, interrupted=found.interrupted)


def _show_preview(found: LaunchPreview, *, slots: int | None, json_output: bool) -> None:
    """What a launch would begin with, and that it has not begun."""
    from pgolf_sweep.workflows.plan import plan

    for text in found.lines:
        say(text)
    if json_output:
        document = plan(found.session, slots=slots or 1).to_json()
        emit({"study": found.session.spec.name, "resumes": found.resumed, **document})
    say("nothing was started (--dry-run)")


def _agrees_to_rebuild(reason: str) -> bool:
    """Whether the user at the terminal wants a study rebuilt from its folder."""
    say(reason)
    return sys.stdin.isatty() and typer.confirm("Rebuild it from its folder?", err=True)


def _show_result(found: LaunchedStudy) -> None:
    """The best trials, what the gate saved, and what to type next."""
    from pgolf_sweep.cli.render import bytes_text, duration, trials_table
    from pgolf_sweep.config.types import NO_RULES
    from pgolf_sweep.core.record import ranked
    from pgolf_sweep.workflows.launch import varying

    session, final = found.session, found.snapshot
    best = ranked(found.records, found.posteriors)[:5]
    if best:
        varied, known = varying(session), found.posteriors
        out.print(trials_table(best, varied, title="best trials", posteriors=known))
    count = final.counts
    unit = "GPU" if session.resources.gpus else "CPU"
    each = max(1, session.resources.gpus)
    saved = ""
    if final.saved_by_gate_seconds:
        saved = (
            f", which saved about {final.saved_by_gate_seconds * each:,.0f} {unit}-seconds "
            f"({duration(final.saved_by_gate_seconds)} of a slot)"
        )
    plain = session.spec.pgolf.rules == NO_RULES
    gated = (
        f"; {count['discarded']} discarded by the gate before they took a slot, {final.redrawn} "
        f"passed over by the sampler because they cannot fit{saved}"
    )
    screened = count.get("screened", 0)
    short = f", {screened} screened on cheaper rungs" if screened else ""
    out.print(
        f"{count['completed']} completed{short}, {count['pruned']} pruned, {count['failed']} failed"
        + ("" if plain else gated),
        soft_wrap=True,
    )
    if best and plain:
        say(f"next: pgolf-sweep report {session.spec.name}    # every trial as one page")
    elif best:
        name = session.spec.name
        say(
            f"next: pgolf-sweep promote {name}    # trial {best[0].number} on fresh seeds, then "
            f"the submission folder (headroom {bytes_text(best[0].headroom_bytes)})"
        )

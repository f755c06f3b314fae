"""Commands on a study that exists: status, watch, logs, stop, cancel."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgolf_sweep.cli.common import (
    DEFAULT_RUNS,
    AnyStudyArgument,
    JsonOption,
    RunsOption,
    StudyArgument,
    app,
    emit,
    out,
    say,
)

if TYPE_CHECKING:
    from rich.console import Group

    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.report.read import Status


@app.command()
def status(
    study: AnyStudyArgument = None, runs: RunsOption = DEFAULT_RUNS, json_output: JsonOption = False
) -> None:
    """How a study stands: counts of outcomes, the best trial, what the gate saved.

    Example: pgolf-sweep status demo --json
    """
    from pgolf_sweep.cli.detached import look
    from pgolf_sweep.report.read import study_status
    from pgolf_sweep.workflows.remote import check_reached

    found = study_status(look(runs, study))
    if json_output:
        emit(found.to_json())
    else:
        out.print(status_view(found))
    check_reached(found)


@app.command()
def watch(
    study: AnyStudyArgument = None,
    seconds: Annotated[float, typer.Option(help="Between two looks.", min=0.2)] = 2.0,
    runs: RunsOption = DEFAULT_RUNS,
) -> None:
    """Follow a study until its driver ends; a cluster that does not answer for a while is no end.

    Example: pgolf-sweep watch demo
    """
    from rich.live import Live

    from pgolf_sweep.cli.detached import look
    from pgolf_sweep.report.read import study_status

    with Live(console=out, auto_refresh=False) as live:
        while True:
            found = study_status(look(runs, study, quiet=True))
            live.update(status_view(found), refresh=True)
            if found.driver is None and found.state != "unreachable":
                return
            time.sleep(seconds)


@app.command()
def logs(
    study: AnyStudyArgument = None,
    trial: Annotated[
        int | None, typer.Option("--trial", "-t", help="Number; else the newest that ran.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on while it runs.")] = False,
    driver: Annotated[
        bool, typer.Option("--driver", help="What the study's driver said, instead of a trial's.")
    ] = False,
    parse: Annotated[
        Path | None, typer.Option(help="Read the figures of any script's log FILE instead.")
    ] = None,
    runs: RunsOption = DEFAULT_RUNS,
    json_output: JsonOption = False,
) -> None:
    """Print a trial's log, or what a log says.

    Example: pgolf-sweep logs demo --trial 3 -f

    Example: pgolf-sweep logs --parse train.log --json
    """
    from pgolf_sweep.cli.detached import look, print_driver_log

    if parse is not None:
        _parse_log(parse, json_output=json_output)
        return
    paths = look(runs, study)
    if driver:
        print_driver_log(paths, follow=follow)
        return
    number = _fetched(paths, trial)
    if json_output:
        _parse_log(_log_file(paths, number), json_output=True)
        return
    _print_log(paths, number, follow=follow)


AllOption = Annotated[
    bool, typer.Option("--all", help="All drivers of a shared study, not only this folder's.")
]


@app.command()
def stop(
    study: StudyArgument, all_drivers: AllOption = False, runs: RunsOption = DEFAULT_RUNS
) -> None:
    """Drain a running sweep: what runs may finish, nothing more starts; `launch` resumes.

    Example: pgolf-sweep stop demo
    """
    from pgolf_sweep.cli.detached import passed_on
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.workflows.control import stop_study

    paths = StudyPaths.existing(runs, study)
    more = ("--all",) if all_drivers else ()
    if passed_on(paths, "stop", paths.name, *more, to_driver=True, opens_study=all_drivers):
        return
    if all_drivers:
        _ask_all(paths, "drain")
    elif stop_study(paths):
        say(f"study {paths.name!r} drains; see: pgolf-sweep watch {paths.name}")
    else:
        say(f"study {paths.name!r} has no running driver: nothing to stop")


@app.command()
def cancel(
    study: StudyArgument,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the end.", min=0)] = 60.0,
    all_drivers: AllOption = False,
    runs: RunsOption = DEFAULT_RUNS,
) -> None:
    """End a running sweep and its trials now; `launch` runs the ended ones again.

    Example: pgolf-sweep cancel demo
    """
    from pgolf_sweep.cli.detached import passed_on
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.workflows.control import cancel_study

    paths = StudyPaths.existing(runs, study)
    more = ("--timeout", str(timeout), *(("--all",) if all_drivers else ()))
    if passed_on(paths, "cancel", paths.name, *more, to_driver=True, opens_study=all_drivers):
        return
    if all_drivers:
        _ask_all(paths, "cancel")
    elif cancel_study(paths, timeout_seconds=timeout):
        say(f"study {paths.name!r} is cancelled; its finished trials are kept")
    else:
        say(f"study {paths.name!r} has no running driver: nothing to cancel")


def _ask_all(paths: StudyPaths, request: str) -> None:
    """Leave a request for every driver of a shared study."""
    from pgolf_sweep.driver.control import Request
    from pgolf_sweep.workflows.control import ask_every_driver

    asked = ask_every_driver(paths, Request(request))
    for name in asked:
        say(f"asked the driver in {name} to {request}")
    if not asked:
        say(f"study {paths.name!r} is shared by no driver now: nothing to {request}")


def status_view(found: Status) -> Group:
    """A study's status for people."""
    from rich.console import Group
    from rich.text import Text

    from pgolf_sweep.cli.live import progress_text
    from pgolf_sweep.cli.render import bytes_text, duration, score, troubled_nodes
    from pgolf_sweep.core.record import SCORE, score_name
    from pgolf_sweep.driver.proposals import left_over_text
    from pgolf_sweep.report.noops import no_op_knobs
    from pgolf_sweep.report.search import evidence, search_document, search_lines
    from pgolf_sweep.report.text import budget_text, program_text

    document = found.to_json()
    count = document["trials"]
    cap = f", run_cap {document['run_cap']}" if document["run_cap"] is not None else ""
    lines = [
        f"{found.name}: {found.state}" + (f" ({document['reason']})" if document["reason"] else ""),
        (
            f"trials    {count['completed']} completed, {count['pruned']} pruned, "
            f"{count['discarded']} discarded, {count['failed']} failed, "
            f"{count['running']} running, {count['queued']} queued{cap}"
        ),
    ]
    if document["best"] is not None:
        top, name = document["best"], score_name(found.records)
        room = top["headroom_bytes"]
        own = (r for r in found.records if r.number == top["number"])
        programs = [text for r in own if (text := program_text(r))]
        lines.append(
            f"best      trial {top['number']}: {name} {score(top[name])}"
            + (f", headroom {bytes_text(room)}" if room is not None or name == SCORE else "")
            + "".join(f", program {text}" for text in programs)
        )
        lines += [f"          {text}" for text in evidence(found.records, found.posteriors)]
    seconds = document["slot_seconds"]
    saved = seconds["saved_by_gate"]
    lines.append(
        f"slots     trained {duration(seconds['trained'])}, idle {duration(seconds['idle'])}"
        + (f", saved by the gate {duration(saved)}" if saved or document["metric"] == SCORE else "")
    )
    if document["budget"] is not None:
        lines.append(f"budget    {budget_text(document['budget'])}")
    lines += [f"search    {text}" for text in search_lines(search_document(found.records))]
    lines += [f"warning   {one.sentence}" for one in no_op_knobs(found.records)]
    lines += [f"node      {text}" for text in troubled_nodes(document["nodes"], time.time())]
    if found.proposals_left:
        lines.append(f"warning   {left_over_text(found.proposals_left)}")
    if found.place is not None and found.state == "interrupted":
        lines.append(f"resume    {found.place.again}")
    lines += [
        f"sharing   process {entry['pid']} on {entry['host']}, {entry['folder']}: "
        f"trials {', '.join(map(str, entry['trials'])) or 'none'}"
        for entry in document["drivers"]
    ]
    if found.driver is not None:
        lines.append(f"driver    {found.driver}")
        running = {row["number"] for row in document["running"]}
        lines += [
            f"running   trial {live['number']}: {progress_text(live['step'], live['total_steps'])}"
            f" {score(live['val_bpb'])} on {live['node'] or '?'}"
            for live in found.last.get("running", [])
            if live["number"] in running  # the driver's last word is older than the study
        ]
    return Group(*(Text(line) for line in lines))


def _parse_log(path: Path, *, json_output: bool) -> None:

    from pgolf_sweep.cli.render import value_text
    from pgolf_sweep.core.errors import AnswerNoError, InputError
    from pgolf_sweep.script.logs.stream import parse_log

    if not path.is_file():
        raise InputError("no such log", where=str(path))
    summary = dataclasses.asdict(parse_log(path))
    if json_output:
        emit(summary)
    else:
        for key, value in summary.items():
            if value is not None and value not in ({}, ()):
                out.print(f"{key:24} {value_text(value)}", markup=False, soft_wrap=True)
    if summary["val_bpb"] is None:
        raise AnswerNoError("the log has no final score", where=str(path))


def _fetched(paths: StudyPaths, trial: int | None) -> int:
    """A trial's number, else the newest's; of a detached study its log is here from now on."""
    from pgolf_sweep.core.errors import InputError
    from pgolf_sweep.launch.remote.dashboard import fetch_log, read_place

    place = read_place(paths)
    numbers = [int(folder.name) for folder in paths.trials.glob("*") if folder.name.isdigit()]
    if place is not None:
        found = fetch_log(paths, place, trial)
        numbers = [] if found is None else [found]
    elif trial is not None:
        return trial
    if not numbers:
        raise InputError(f"no trial of {paths.name!r} has run yet", where=str(paths.root))
    return max(numbers)


def _log_file(paths: StudyPaths, number: int) -> Path:
    """A trial's log: the final one, or the part that has come so far."""
    from pgolf_sweep.core.errors import InputError

    files = paths.trial(number)
    for candidate in (files.log, files.live_log):
        if candidate.is_file():
            return candidate
    raise InputError(
        f"trial {number} of {paths.name!r} has no log here: it was discarded, or has not started, "
        "or another driver of a shared study runs it in its folder",
        where=str(files.root),
        next_step=f"pgolf-sweep trials {paths.name}",
    )


def _print_log(paths: StudyPaths, number: int, *, follow: bool) -> None:
    import sys

    files = paths.trial(number)
    position = 0
    path = _log_file(paths, number)
    while True:
        _fetched(paths, number)
        over = files.log.is_file()
        # The live log is renamed at the end: same bytes, another name.
        path = files.log if over else path
        with path.open("rb") as file:
            file.seek(position)
            while chunk := file.read(1 << 16):
                position += len(chunk)
                sys.stdout.write(chunk.decode(errors="replace"))
        sys.stdout.flush()
        if over or not follow:
            return
        time.sleep(0.5)

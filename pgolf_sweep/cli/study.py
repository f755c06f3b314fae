"""Commands on a study that exists: status, watch, logs, stop, cancel."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    from pgolf_sweep.cli.live import Page
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
        out.print(status_page(found))
    check_reached(found)


@app.command()
def watch(
    study: AnyStudyArgument = None,
    seconds: Annotated[float, typer.Option(help="Between two looks.", min=0.2)] = 2.0,
    runs: RunsOption = DEFAULT_RUNS,
) -> None:
    """Follow a study until its driver ends; a cluster that does not answer for a while is no end.

    `q` or Ctrl-C ends the watching, never the sweep.

    Example: pgolf-sweep watch demo
    """
    from pgolf_sweep.cli.detached import look
    from pgolf_sweep.cli.live import line
    from pgolf_sweep.cli.screen import Screen, keys_at_once, wait_or_quit
    from pgolf_sweep.report.watching import StudyWatch
    from pgolf_sweep.workflows.remote import refresh_copies

    paths = look(runs, study, quiet=True)  # once: of several studies another may change next
    with StudyWatch(paths) as watched, keys_at_once(), Screen(out) as screen:
        while True:
            found = watched.look()
            over = found.driver is None and found.state != "unreachable"
            document = live_document(found)
            screen.show(status_page(found, document, height=screen.height), line(document))
            if over:
                break
            if wait_or_quit(seconds, screen.resized):
                break
            refresh_copies(paths)
    if not over:
        say(f"no longer watching; {found.name} goes on")
    elif not out.is_terminal:
        out.print(status_page(found))


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


def live_document(found: Status) -> dict[str, Any]:
    """A study as its driver last said, its trials as the study itself has them."""
    from pgolf_sweep.core.record import counts, ranked, score_name
    from pgolf_sweep.driver.table import counted
    from pgolf_sweep.report.text import program_text

    progress = {row["number"]: row for row in found.last.get("running", [])}
    best = next(iter(ranked(found.records, found.posteriors)), None)
    last = max(
        (r for r in found.records if r.outcome.final and r.slot_seconds),
        key=lambda record: (record.ended_at or 0.0, record.number),
        default=None,
    )
    return found.last | {
        "study": found.name,
        "state": found.state,
        "reason": found.reason,
        "metric": score_name(found.records),
        "counts": counts(found.records),
        "counted": counted(found.records),
        "redrawn": sum(record.redrawn for record in found.records),
        "held_seconds": found.held_seconds,
        "best": None if best is None else dataclasses.asdict(best),
        "best_program": "" if best is None else program_text(best),
        "last": None if last is None else dataclasses.asdict(last),
        "proposals": found.proposals_left,
        "seconds_left": found.seconds_left,
        # The driver's last word is older than the study, and of other drivers' trials it has none.
        "running": [
            {"curve": (), **row, **progress.get(row["number"], {"step_text": "elsewhere"})}
            for row in found.running
        ],
    }


def status_page(
    found: Status, document: dict[str, Any] | None = None, *, height: int | None = None
) -> Page:
    """A study's status for people; all of it where the page may have any height.

    Args:
        found: It.
        document: Its `live_document`, where that is made already.
        height: Lines that the page may have.
    """
    from pgolf_sweep.cli.live import Page
    from pgolf_sweep.cli.render import varied_knobs
    from pgolf_sweep.core.record import State

    shown = live_document(found) if document is None else document
    best = shown["best"]
    # One that waits may not have all its knobs yet.
    resolved = [r for r in found.records if r.outcome is not State.QUEUED]
    return Page(
        shown,
        varied=varied_knobs(resolved),
        now=time.time(),
        posterior=None if best is None else found.posteriors.get(best["number"]),
        alive=found.driver is not None,
        more=_details(found) if height is None else (),
        height=height,
    )


def _details(found: Status) -> list[tuple[str, str]]:
    """What is said of a study to one who asks once."""
    from pgolf_sweep.driver.proposals import left_over_text
    from pgolf_sweep.report.compare import noise_floor
    from pgolf_sweep.report.noops import no_op_knobs
    from pgolf_sweep.report.search import evidence, search_document, search_lines

    document = found.to_json()
    said = evidence(found.records, found.posteriors)
    lines = [("", text) for text in said[1:]]
    lines += [("search", text) for text in search_lines(search_document(found.records))]
    if noise := noise_floor(found.records).text:
        lines.append(("noise", noise))
    lines += [("warning", one.sentence) for one in no_op_knobs(found.records)]
    if found.proposals_left and found.driver is None:
        lines.append(("warning", left_over_text(found.proposals_left)))
    if found.place is not None and found.state == "interrupted":
        lines.append(("resume", found.place.again))
    for entry in document["drivers"]:
        trials = ", ".join(map(str, entry["trials"])) or "none"
        where = f"process {entry['pid']} on {entry['host']}, {entry['folder']}"
        lines.append(("sharing", f"{where}: trials {trials}"))
    if found.driver is not None:
        lines.append(("driver", found.driver))
    return lines


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

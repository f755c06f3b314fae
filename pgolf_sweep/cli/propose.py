"""``pgolf-sweep propose``: a trial of one's own into a study."""

from __future__ import annotations

import getpass
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
    from collections.abc import Sequence

    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.driver.proposals import ProposalRequest
    from pgolf_sweep.workflows.propose import Proposal


@app.command()
def propose(
    study: StudyArgument,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="K=V", help="A parameter's value; repeatable."),
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Who proposes; the trial carries it. Else the user's name.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--from",
            "--parent",
            metavar="N|best",
            help="A trial: its program, its seed, and the values that are not set.",
        ),
    ] = None,
    program: Annotated[
        Path | None, typer.Option(help="A script to run instead of that program.")
    ] = None,
    patch: Annotated[
        Path | None, typer.Option(help="A diff against that program, which is run instead.")
    ] = None,
    idea: Annotated[str, typer.Option(help="What is tried and why, in one line.")] = "",
    seeds: Annotated[int, typer.Option(min=1, max=32, help="How many, from the base's on.")] = 1,
    wait: Annotated[bool, typer.Option("--wait", help="Until the trials have ended.")] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Most seconds to wait; else no limit.")
    ] = None,
    runs: RunsOption = DEFAULT_RUNS,
    json_output: JsonOption = False,
) -> None:
    """Have a trial of your own run in a study, ahead of what the sampler draws.

    The values are checked against the space, `require` and the gate at once. A running driver
    takes the proposal up within a second; a stopped study's next `launch` does. What is neither
    set nor taken over by --from, the sampler chooses. A proposal counts against run_cap.

    With --program or --patch the trial runs another program than the study's. It must keep the
    study's protocol (score, seed, clock, data) and the contest's rules on code. The same code, but
    for comments and formatting, with the same knobs is not run again: the answer is the earlier
    trial.

    Exit code 2: outside the space, or no Python. 1: the gate says that it cannot fit, the program
    breaks a rule, or with --wait a trial did not complete.

    Example: pgolf-sweep propose demo --set MATRIX_LR=0.02 --from best --by ada --wait --json
    Example: pgolf-sweep propose demo --program idea.py --parent 7 --idea "cautious Muon" --by ada
    """
    from pgolf_sweep.cli.detached import passed_on
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.workflows.propose import propose as submit
    from pgolf_sweep.workflows.variants import sent_along

    paths = StudyPaths.existing(runs, study)
    by, settings = by or getpass.getuser(), settings or []
    words = words_again(settings, by, base, timeout, wait=wait, json_output=json_output)
    words += [f"--idea={idea}"] * bool(idea) + [f"--seeds={seeds}"] * (seeds > 1)
    files: dict[str, bytes] = {}
    if paths.detached.is_file():
        more, files = sent_along(program, patch)
        words += more
    if passed_on(paths, "propose", paths.name, *words, opens_study=True, files=files):
        return
    asked = submit(
        paths,
        settings,
        by=by,
        base=base,
        program=program,
        patch=patch,
        idea=idea,
        seeds=seeds,
    )
    answer(paths, asked, wait=wait, timeout=timeout, json_output=json_output)


def answer(
    paths: StudyPaths,
    asked: Proposal,
    *,
    wait: bool,
    timeout: float | None,
    json_output: bool,
) -> None:
    """Print what became of a proposal.

    Raises:
        AnswerNoError: The gate refuses it; or a trial of it ended, and did not complete.
    """
    from pgolf_sweep.core.errors import AnswerNoError

    for note in asked.notes:
        say(note)
    if not asked.requests and not asked.earlier:
        if json_output:
            emit(document(asked))
        reason = "" if asked.verdict is None else asked.verdict.reason
        raise AnswerNoError(
            f"the gate refuses this configuration: {reason}", next_step=asked.refusal
        )
    if asked.open_names:
        say(f"the sampler chooses {', '.join(asked.open_names)}; the gate judges when it has")
    say(asked.follows)
    requests, trials = asked.requests, asked.earlier
    if wait:
        requests, trials = _waited(paths, asked, timeout)
    if json_output:
        emit(document(asked, requests, trials))
    else:
        _show(trials, () if wait else requests)
    broken = [r for r in trials if r.outcome.final and r.outcome.value != "completed"]
    if broken:
        raise AnswerNoError(
            f"trial {broken[0].number} is {broken[0].outcome.value}: {broken[0].reason}",
            where=str(paths.trial(broken[0].number).root),
        )


def _waited(
    paths: StudyPaths, asked: Proposal, timeout: float | None
) -> tuple[tuple[ProposalRequest, ...], tuple[TrialRecord, ...]]:
    """A proposal's requests with their trials' numbers, and all of its trials at their end."""
    from pgolf_sweep.workflows.propose import ended, wait_for_trial

    trials = [ended(paths, one.number, timeout_seconds=timeout) for one in asked.earlier]
    requests = []
    for request in asked.requests:
        answered, record = wait_for_trial(paths, request, timeout_seconds=timeout, report=say)
        requests.append(answered)
        trials.append(record)
    return tuple(requests), tuple(trials)


def words_again(
    settings: Sequence[str],
    by: str,
    base: str | None,
    timeout: float | None,
    *,
    wait: bool,
    json_output: bool,
) -> list[str]:
    """The options of a proposal as they are typed."""
    words = [f"--by={by}", *(f"--set={setting}" for setting in settings)]
    words += [f"--from={base}"] if base is not None else []
    words += [f"--timeout={timeout}"] if timeout is not None else []
    return words + ["--wait"] * wait + ["--json"] * json_output


def document(
    asked: Proposal,
    requests: Sequence[ProposalRequest] = (),
    trials: Sequence[TrialRecord] = (),
) -> dict[str, Any]:
    """The document of ``propose --json``; keys stay stable.

    Args:
        asked: The proposal.
        requests: Its requests as they stand.
        trials: Those that ran before, and those that were waited for.
    """
    from pgolf_sweep.core.record import named

    verdict, request = asked.verdict, next(iter(requests), None)
    numbers = [r.number for r in (request, next(iter(trials), None)) if r is not None]
    rows = [named(record.to_json(), record.metric) for record in trials]
    return {
        "study": asked.study,
        "proposal": None if request is None else request.id,
        "proposals": [one.id for one in requests],
        "by": None if request is None else request.by,
        "number": numbers[0] if numbers else None,
        "knobs": dict(asked.knobs),
        "sampler_chooses": list(asked.open_names),
        "verdict": None if verdict is None else verdict.kind,
        "reason": "" if verdict is None else verdict.reason,
        "predicted_bytes": None if verdict is None else verdict.artifact_bytes,
        "variant": asked.change.variant,
        "parent": asked.change.parent,
        "idea": asked.change.idea,
        "notes": list(asked.notes),
        "ran_before": [record.number for record in asked.earlier],
        "trial": rows[0] if rows else None,
        "trials": rows,
    }


def _show(trials: Sequence[TrialRecord], requests: Sequence[ProposalRequest]) -> None:
    for record in trials:
        name = record.metric or "val_bpb"
        score = "" if record.val_bpb is None else f" {name} {record.val_bpb:.4f}"
        size = "" if record.artifact_bytes is None else f", {record.artifact_bytes:,} B"
        text = f"trial {record.number}: {record.outcome.value}{score}{size}"
        out.print(text, markup=False)
    for request in requests:
        out.print(request.id, markup=False)

"""``pgolf-sweep propose``: a trial of one's own into a study."""

from __future__ import annotations

import getpass
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
        typer.Option("--from", help="`best`, or a trial's number: the values that are not set."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until the trial has ended.")] = False,
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

    Exit code 2: outside the space. 1: the gate says that it cannot fit, or with --wait the trial
    did not complete.

    Example: pgolf-sweep propose demo --set MATRIX_LR=0.02 --from best --by ada --wait --json
    """
    from pgolf_sweep.cli.detached import passed_on
    from pgolf_sweep.core.errors import AnswerNoError
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.workflows.propose import propose as submit
    from pgolf_sweep.workflows.propose import wait_for_trial

    paths = StudyPaths.existing(runs, study)
    by, settings = by or getpass.getuser(), settings or []
    words = words_again(settings, by, base, timeout, wait=wait, json_output=json_output)
    if passed_on(paths, "propose", paths.name, *words, opens_study=True):
        return
    asked = submit(paths, settings, by=by, base=base)
    request, record = asked.request, None
    if request is None:
        if json_output:
            emit(_document(asked, None, None))
        reason = "" if asked.verdict is None else asked.verdict.reason
        raise AnswerNoError(
            f"the gate refuses this configuration: {reason}", next_step=asked.refusal
        )
    if asked.open_names:
        say(f"the sampler chooses {', '.join(asked.open_names)}; the gate judges when it has")
    say(asked.follows)
    if wait:
        request, record = wait_for_trial(paths, request, timeout_seconds=timeout, report=say)
    if json_output:
        emit(_document(asked, request, record))
    elif record is not None:
        _show(record)
    else:
        out.print(request.id, markup=False)
    if record is not None and record.outcome.value != "completed":
        raise AnswerNoError(
            f"trial {record.number} is {record.outcome.value}: {record.reason}",
            where=str(paths.trial(record.number).root),
        )


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


def _document(
    asked: Proposal, request: ProposalRequest | None, record: TrialRecord | None
) -> dict[str, Any]:
    """The document of ``propose --json``; keys stay stable."""
    verdict = asked.verdict
    from pgolf_sweep.core.record import named

    return {
        "study": asked.study,
        "proposal": None if request is None else request.id,
        "by": None if request is None else request.by,
        "number": None if request is None else request.number,
        "knobs": dict(asked.knobs),
        "sampler_chooses": list(asked.open_names),
        "verdict": None if verdict is None else verdict.kind,
        "reason": "" if verdict is None else verdict.reason,
        "predicted_bytes": None if verdict is None else verdict.artifact_bytes,
        "trial": None if record is None else named(record.to_json(), record.metric),
    }


def _show(record: TrialRecord) -> None:
    name = record.metric or "val_bpb"
    score = "" if record.val_bpb is None else f" {name} {record.val_bpb:.4f}"
    size = "" if record.artifact_bytes is None else f", {record.artifact_bytes:,} B"
    out.print(f"trial {record.number}: {record.outcome.value}{score}{size}", markup=False)

"""``pgolf-sweep compare`` and ``repeat``: is a change real, and the further seeds that show it."""

from __future__ import annotations

import getpass
from enum import StrEnum
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
    plain,
    say,
)

if TYPE_CHECKING:
    from pgolf_sweep.report.alone import Alone, OneAtATime
    from pgolf_sweep.report.compare import Compared, Side

ByOption = Annotated[
    str | None, typer.Option(help="Who asks; the trials carry it. Else the user's name.")
]


class RuleName(StrEnum):
    """Choices of ``--accept``."""

    SIGNIFICANT = "significant"
    GREEDY = "greedy"
    NONE = "none"


@app.command()
def compare(
    study: StudyArgument,
    base: Annotated[
        int | None, typer.Argument(metavar="[A]", help="A trial: what is compared to.")
    ] = None,
    candidate: Annotated[
        int | None, typer.Argument(metavar="[B]", help="A trial: what is judged.")
    ] = None,
    accept: Annotated[
        RuleName | None,
        typer.Option(help="Decide by this rule; else by the sweep file's `accept`."),
    ] = None,
    run: Annotated[
        bool, typer.Option("--run", help="Run the seeds that the rule asks for until it decides.")
    ] = False,
    by: ByOption = None,
    runs: RunsOption = DEFAULT_RUNS,
    json_output: JsonOption = False,
) -> None:
    """Say whether trial B is better than trial A, with all seeds on which either ran.

    The noise is pooled over all configurations that ran on two seeds or more; `repeat` measures it.
    A p below 0.05 tells two apart; else the answer is how many further seeds would, with 80 %
    power, if the difference is as large as measured. With --accept or --run the rule decides:
    `significant` spends seeds one by one and drops a clear loser after one, `greedy` keeps any
    better mean, `none` never decides. Runs on which A was accepted before are not counted again.

    Without A and B: the paired effect of each change in a study of `one_at_a_time`.

    Exit code 1: with --accept or --run, B is not kept.

    Example: pgolf-sweep compare demo 3 7 --run

    Example: pgolf-sweep compare knobs
    """
    from pgolf_sweep.cli.detached import passed_on
    from pgolf_sweep.core.errors import AnswerNoError, InputError
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.workflows.compare import compare as compare_trials
    from pgolf_sweep.workflows.compare import decide, each_change

    paths = StudyPaths.existing(runs, study)
    if base is None and candidate is None and not run and accept is None:
        if not passed_on(paths, "compare", paths.name, *["--json"] * json_output, opens_study=True):
            changes = each_change(paths)
            emit(plain(changes)) if json_output else _show_each(changes)
        return
    if base is None or candidate is None:
        raise InputError(
            "compare takes two trials, or none in a study of one_at_a_time",
            next_step=f"pgolf-sweep compare {paths.name} A B",
        )
    by = by or getpass.getuser()
    words = [str(base), str(candidate), f"--by={by}", *["--run"] * run, *["--json"] * json_output]
    words += [f"--accept={accept.value}"] if accept is not None else []
    if passed_on(paths, "compare", paths.name, *words, opens_study=True):
        return
    rule = None if accept is None else accept.value
    if run:
        found = decide(paths, base, candidate, by=by, rule=rule, report=say)
    else:
        found = compare_trials(paths, base, candidate, rule=rule)
    if json_output:
        emit(document(found))
    else:
        _show(found)
    if (run or accept is not None) and found.decision.value not in {"keep", "open"}:
        raise AnswerNoError(
            f"trial {candidate} is not kept: {found.decision.value}", next_step=found.next_step
        )


@app.command()
def repeat(
    study: StudyArgument,
    trial: Annotated[int, typer.Argument(metavar="N", help="A trial.")],
    seeds: Annotated[int, typer.Option(min=1, help="How many further seeds.")] = 1,
    wait: Annotated[bool, typer.Option("--wait", help="Until all have ended.")] = False,
    by: ByOption = None,
    runs: RunsOption = DEFAULT_RUNS,
    json_output: JsonOption = False,
) -> None:
    """Run a trial again on further seeds, to measure it; repeats of the baseline are the noise.

    The seeds are the study's own sequence, the same for every trial, so that runs pair. Repeats
    run to their end, count against run_cap, and are never `best` themselves. Runs of the trial
    that have not ended are counted among those that are asked for.

    Exit code 1: with --wait, a run has no score.

    Example: pgolf-sweep repeat demo 0 --seeds 4 --wait
    """
    from pgolf_sweep.cli.detached import passed_on
    from pgolf_sweep.core.errors import AnswerNoError
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.core.record import SCORE
    from pgolf_sweep.workflows.propose import wait_for_run
    from pgolf_sweep.workflows.repeats import repeat as leave

    paths = StudyPaths.existing(runs, study)
    by = by or getpass.getuser()
    words = [str(trial), f"--seeds={seeds}", f"--by={by}"]
    words += ["--wait"] * wait + ["--json"] * json_output
    if passed_on(paths, "repeat", paths.name, *words, opens_study=True):
        return
    found = leave(paths, trial, seeds, by=by)
    ended = [wait_for_run(paths, one, report=say) for one in found] if wait else []
    if json_output:
        emit(
            {
                "study": paths.name,
                "repeat_of": trial,
                "proposals": [{"proposal": one.name, "seed": one.seed} for one in found],
                "trials": [record.to_json() for record in ended],
            }
        )
    elif ended:
        for record in ended:
            score = (
                "no score"
                if record.val_bpb is None
                else f"{record.metric or SCORE} {record.val_bpb:.5f}"
            )
            out.print(f"trial {record.number}: seed {record.seed}, {score}")
    else:
        for one in found:
            out.print(f"{one.name}: seed {one.seed}")
    if any(record.val_bpb is None for record in ended):
        raise AnswerNoError("a run has no score", next_step=f"pgolf-sweep trials {paths.name}")


def document(found: Compared) -> dict[str, Any]:
    """The document of ``compare --json``; keys stay stable."""
    noise = found.noise
    return {
        "study": found.study,
        "base": found.base,
        "candidate": found.candidate,
        "pairs": found.pairs,
        "noise_bpb": None if noise is None else noise.std,
        "noise": noise,
        "effect_bpb": None if found.effect is None else found.effect.value,
        "effect": found.effect,
        "metric": found.metric,
        "p_value": None if found.effect is None else found.effect.p_value,
        "distinguishable": found.distinguishable,
        "seeds_more": found.seeds_more,
        "remeasured": found.remeasured,
        "rule": found.rule,
        "decision": found.decision,
        "next_runs": found.next_runs,
        "text": found.text,
        "next_step": found.next_step,
    }


def _show(found: Compared) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    mean = f"mean {found.metric}"
    for name in ("", "trial", "seeds", mean, "artifact", "step ms", "train s", "cost"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for name, side in (("A", found.base), ("B", found.candidate)):
        table.add_row(name, *(Text(cell) for cell in _cells(side)))
    out.print(table)
    for pair in found.pairs:
        out.print(
            f"seed {pair.seed}: {pair.base_bpb:.5f} -> {pair.candidate_bpb:.5f} "
            f"({pair.difference_bpb:+.5f})"
        )
    if found.noise is not None:
        noise = found.noise
        out.print(
            f"noise of one run: {noise.std:.5f} {found.metric}, from {noise.runs} runs of "
            f"{noise.configs} configuration{'s' if noise.configs != 1 else ''}"
        )
    out.print(found.text)
    if found.remeasured is not None:
        again = found.remeasured
        out.print(
            f"measured again since it was accepted: {again.value:+.5f} ({again.low:+.5f} to "
            f"{again.high:+.5f})"
        )
    say(f"{found.rule.value}: {found.decision.value}; next: {found.next_step}")


def _show_each(found: OneAtATime) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("change", "seeds", found.metric, "effect", "95 % interval", "p", "bytes"):
        left = name == "change"
        table.add_column(name, justify="left" if left else "right", no_wrap=not left)
    for change in found.changes:
        table.add_row(*(Text(cell) for cell in _change_cells(change)))
    out.print(table)
    shown = [change for change in found.changes if change.effect is not None]
    say(
        f"paired by seed; of {len(shown)} changes without effect {len(shown) * 0.05:.1f} have a p "
        f"below 0.05 by chance; {'high' if found.maximize else 'low'} {found.metric} is better"
    )


def _change_cells(change: Alone) -> tuple[str, ...]:
    beside = "".join(f", {name}={value}" for name, value in change.beside.items())
    effect = change.effect
    sizes = (change.artifact_bytes, change.base_artifact_bytes)
    grown = None if None in sizes else (sizes[0] or 0) - (sizes[1] or 0)
    return (
        f"{change.knob}={change.value}{beside and f' (at{beside[1:]})'}",
        str(len(change.seeds)),
        "" if change.val_bpb is None else f"{change.val_bpb:.4f}",
        "" if effect is None else f"{effect.value:+.4f}",
        "" if effect is None else f"{effect.low:+.4f} to {effect.high:+.4f}",
        "" if effect is None else f"{effect.p_value:.2g}",
        "" if grown is None else f"{grown:+,.0f}",
    )


def _cells(side: Side) -> tuple[str, ...]:
    from pgolf_sweep.cli.render import bytes_text

    cost = f"{side.gpu_hours:.2f} GPU-h" if side.gpu_hours else f"{side.slot_seconds:.0f} slot-s"
    return (
        str(side.number),
        str(len(side.val_bpb)),
        "" if side.mean_bpb is None else f"{side.mean_bpb:.5f}",
        bytes_text(side.artifact_bytes),
        "" if side.step_avg_ms is None else f"{side.step_avg_ms:.1f}",
        "" if side.train_seconds is None else f"{side.train_seconds:.1f}",
        cost,
    )

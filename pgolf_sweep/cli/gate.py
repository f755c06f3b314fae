"""``pgolf-sweep gate`` and ``pgolf-sweep plan``: what fits and what it costs, before spending."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgolf_sweep.cli.common import (
    DEFAULT_DATA,
    DataRootOption,
    JsonOption,
    NoProbeOption,
    SweepArgument,
    app,
    emit,
    out,
    say,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgolf_sweep.core.trial import KnobValue, Verdict
    from pgolf_sweep.gate.plan import Bin, Cost
    from pgolf_sweep.workflows.gate import GateAnswer
    from pgolf_sweep.workflows.measure import Compared
    from pgolf_sweep.workflows.plan import SweepPlan

BAR_WIDTH = 40
STYLES = {"fits": "green", "near": "yellow", "too_big": "red", "invalid": "red", "unknown": "cyan"}


@app.command()
def gate(
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="K=V", help="A knob's value; repeatable.")
    ] = None,
    program: Annotated[
        str | None, typer.Option(help="A script's path instead of our trainer.")
    ] = None,
    rules: Annotated[
        str | None, typer.Option(help="A preset or a rules file [default: parameter-golf-2026].")
    ] = None,
    sweep: Annotated[
        Path | None,
        typer.Option(help="Ask the gate that `launch` would ask, with the file's fixed values."),
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(min=0.5, max=0.9999, help="Probability that the interval holds the truth."),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(help="A store of measured sizes to learn from: user, or a file's path."),
    ] = None,
    step_ms: Annotated[
        float | None,
        typer.Option(help="Milliseconds of a training step, for a script that is not ours."),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(min=0, help="GPUs of a trial of such a script [default: 8]; 0 is a CPU."),
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Run this program (a script's path, or trainer) for a few steps on this machine "
            "and learn its export's true bytes.",
        ),
    ] = None,
    no_probe: NoProbeOption = False,
    data_root: DataRootOption = DEFAULT_DATA,
    json_output: JsonOption = False,
) -> None:
    """One configuration: will its artifact fit?

    Knobs that are not set have the program's defaults. With --sweep alone the answer is the one
    that `launch` would give before its first trial: `require`, the file's calibration, memory and
    steps included. --program and --rules ask about the artifact's size only. Exit code 1: too big,
    or invalid.

    --measure runs the real script, on a GPU if there is one, until its log has told the artifact's
    bytes: about a minute. What it measured is kept, and later `gate`, `plan` and `launch` of this
    program learn from it. It keeps the run short by the knobs that the script reads (ITERATIONS,
    MAX_WALLCLOCK_SECONDS, VAL_LOSS_EVERY), unless --set says otherwise.

    Example: pgolf-sweep gate --set MODEL_DIM=576 --set MATRIX_BITS=6
    """
    from pgolf_sweep.workflows.gate import gate as ask
    from pgolf_sweep.workflows.settings import parse_settings

    answer = ask(
        parse_settings(settings or []),
        sweep=sweep,
        program=program,
        rules=rules,
        confidence=confidence,
        calibration=calibration,
        step_ms=step_ms,
        gpus=gpus,
        data_root=data_root,
        probe=not no_probe,
        measure=measure,
    )
    if answer.measured is not None:
        say(_measured_text(answer.measured))
    for line in answer.learnt:
        say(line)
    if json_output:
        emit(answer.to_json())
    else:
        _show_verdict(answer.verdict)
        _show_groups(answer)
        _show_probe(answer.probe)
        _show_suggestions(answer)
    if answer.verdict.discards:
        raise typer.Exit(1)


def _measured_text(found: Compared) -> str:
    """A measured run beside what was predicted of it."""
    run, error = found.run, found.error_percent
    where = f"{run.gpus} GPU{'s' * (run.gpus > 1)}" if run.gpus else "the CPU"
    steps = "an unknown number of" if run.steps is None else run.steps
    text = (
        f"measured: {run.model_bytes:,} bytes of model after {steps} steps on {where}, "
        f"{run.seconds:.0f} s"
    )
    if found.predicted is None or error is None:
        return f"{text}; nothing was predicted of them"
    known = found.predicted
    return (
        f"{text}; predicted {known.mid:,.0f} ({error:+.1f} %), "
        f"between {known.low:,.0f} and {known.high:,.0f}"
    )


@app.command()
def plan(
    sweep: SweepArgument,
    draws: Annotated[int, typer.Option(min=1, help="Configurations to sample.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    slots: Annotated[int, typer.Option(min=1, help="Trials that run at a time.")] = 1,
    deadline_hours: Annotated[
        float | None,
        typer.Option(min=0, help="Say how many slots end the sweep within that many hours."),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(help="A store of measured sizes to learn from: user, or a file's path."),
    ] = None,
    no_probe: NoProbeOption = False,
    data_root: DataRootOption = DEFAULT_DATA,
    json_output: JsonOption = False,
) -> None:
    """What a sweep would cost and how much of its space fits, before anything is spent.

    Needs no GPU and no data. Exit code 1: nothing of the space fits; what comes nearest is named.

    Example: pgolf-sweep plan sweeps/lr.yaml --slots 4
    """
    from pgolf_sweep.workflows.plan import plan as make_plan

    found = make_plan(
        sweep,
        draws=draws,
        seed=seed,
        slots=slots,
        deadline_hours=deadline_hours,
        calibration=calibration,
        data_root=data_root,
        probe=not no_probe,
    )
    for line in found.learnt:
        say(line)
    if json_output:
        emit(found.to_json())
    else:
        _show_plan(found)
    if found.infeasible:
        say(found.infeasible)
        raise typer.Exit(1)


def _show_plain(found: SweepPlan) -> None:
    """The space, and how a trial starts, of a sweep that no gate judges."""
    import shlex

    count = "a continuous space"
    if found.configurations is not None:
        count = f"{found.configurations:,} configuration{'s' * (found.configurations != 1)}"
    out.print(f"{count}; {found.metric['goal']} {found.metric['name']}", markup=False)
    share = found.share
    if share.invalid:
        out.print(f"{share.draws} draws: invalid {share.invalid:.1%}")
    if found.example:
        settings = [f"{name}={shlex.quote(text)}" for name, text in found.example["env"].items()]
        words = " ".join([*settings, *map(shlex.quote, found.example["command"])])
        out.print(f"a trial runs: {words}", markup=False, soft_wrap=True)


def _show_plan(found: SweepPlan) -> None:
    from pgolf_sweep.cli.render import duration, value_text

    if found.containment is not None:
        say(f"probed: contained by {found.containment}")
    if found.plain:
        _show_plain(found)
    else:
        _show_sizes(found)
    _show_cost(found.cost, found.gpus, found.budget)
    if found.noise_floor:
        seconds = found.cost.trial_seconds
        hours = 0.0 if seconds is None else found.noise_floor * seconds * found.gpus / 3600
        cost = f": {hours:.1f} GPU-hours" if hours else ""
        runs = f"{found.noise_floor} of them run the baseline, each on a seed of its own"
        out.print(f"{runs}, to measure the noise{cost}.")
    for rung in found.rungs:
        seconds = rung["trial_seconds"]
        each = "" if seconds is None else f" of about {duration(seconds)}"
        each += f" on {rung['gpus']} GPU{'s' * (rung['gpus'] != 1)}" if rung["gpus"] else ""
        sets = ", ".join(f"{name} {value_text(value)}" for name, value in rung["instead"].items())
        begun = f"{round(rung['begun'], 1):g} trials{each} begin on rung {rung['rung']}"
        out.print(f"For each of them {begun}: {sets}.", markup=False)
    if found.deadline_hours is not None:
        slots = found.slots_needed
        answer = "no number of slots would do" if slots is None else f"{slots} slots at a time"
        if found.cost.trial_seconds is None:
            answer = "unknown, since a trial's time is"
        elif found.cost.trials is None:
            answer = "set run_cap or a budget; without either the sweep has no end"
        out.print(f"To end within {found.deadline_hours:g} hours: {answer}.")


def _show_sizes(found: SweepPlan) -> None:
    """How much of the space fits under the contest's cap."""
    from pgolf_sweep.gate.plan import LEAST_SPREAD

    share = found.share
    kinds = ("fits", "near", "too_big", "invalid", "unknown")
    parts = [f"{kind} {getattr(share, kind):.1%}" for kind in kinds if getattr(share, kind)]
    out.print(f"{share.draws} draws: " + ", ".join(parts))
    spread = found.size_spread
    if spread is not None and spread < LEAST_SPREAD:
        middle = found.histogram[len(found.histogram) // 2]
        out.print(
            f"\nThe size hardly varies: about {_count(middle.low_bytes)} bytes, {spread:.1%} apart "
            f"(cap {_count(found.cap_bytes)})."
        )
    else:
        _show_histogram(found.histogram, found.cap_bytes)
    if found.deciding_knobs:
        listed = ", ".join(f"{one.knob} {one.variance_share:.0%}" for one in found.deciding_knobs)
        out.print(f"\nWhat decides the size (share of its variance): {listed}")
    if found.largest_that_fits:
        out.print("\nLargest model that surely fits, by bits of the blocks:")
        for one in found.largest_that_fits:
            values = " ".join(f"{k}={_short(v)}" for k, v in one.knobs.items())
            size = f"{one.model_params:,} parameters, {_count(one.artifact_bytes)} bytes"
            out.print(f"  {one.bits} bits: {size}  {values}")


def _show_probe(found: Mapping[str, Any] | None) -> None:
    """Where the numbers of a script that is not ours come from."""
    if found is None or not found["ok"]:
        return
    export = f"{found['quantizer'] or 'no export'}{found['codec'] and ', '}{found['codec']}"
    say(f"probed in {found['seconds']:.2f} s: {found['how'][:70]}; {export}")
    say(f"  contained by {found['containment']}")
    for note in found["notes"]:
        say(f"  {note}")


def _show_verdict(verdict: Verdict) -> None:
    kind = verdict.kind.value
    out.print(kind.replace("_", " ").upper(), style=STYLES[kind], end="  ")
    out.print(verdict.reason)


def _show_suggestions(answer: GateAnswer) -> None:
    if answer.suggestions:
        out.print("\nIt would fit with any one of:")
        for one in answer.suggestions:
            also = "".join(f" {name}={value}" for name, value in one.also.items())
            note = ", needs a tokenizer of that size" if one.knob == "VOCAB_SIZE" else ""
            size = _count(one.artifact_bytes.mid)
            out.print(f"  {one.knob}={one.value}{also}  (about {size} bytes{note})")
    elif answer.verdict.kind.value == "too_big":
        say(
            "no single knob makes it fit; lower two, for example NUM_LAYERS and MATRIX_BITS"
            if answer.builtin
            else "which knob would make it fit is only tried for the builtin trainer"
        )


def _show_groups(answer: GateAnswer) -> None:
    from rich.table import Table

    if not answer.groups:
        return
    verdict = answer.verdict
    table = Table("group", box=None, pad_edge=False)
    for heading in ("params", "bits", "bytes"):
        table.add_column(heading, justify="right")
    for size in answer.groups:
        bits = str(size.bits) if size.bits else ""
        params = _count(size.params) if size.params else ""
        table.add_row(size.group, params, bits, _count(size.model_bytes))
    table.add_row("code", "", "", _count(verdict.code_bytes))
    artifact, headroom = verdict.artifact_bytes, verdict.headroom_bytes
    if artifact is None or headroom is None:
        return
    table.add_row("artifact", _count(verdict.model_params or 0), "", _count(artifact.mid))
    table.add_row("cap", "", "", _count(verdict.cap_bytes))
    table.add_row("headroom", "", "", _count(headroom))
    out.print(table)
    out.print(
        f"{verdict.confidence:.0%} interval: {_count(artifact.low)} to {_count(artifact.high)} "
        f"bytes ({verdict.regime})",
        markup=False,
    )


def _show_histogram(bins: Sequence[Bin], cap_bytes: int) -> None:
    if not bins:
        return
    out.print("\nPredicted artifact bytes:")
    most = max(one.count for one in bins)
    shown = False
    for one in bins:
        if one.low_bytes > cap_bytes and not shown:
            shown = True
            out.print(f"  {'-' * 13} cap {cap_bytes:,} {'-' * 20}", style="red")
        bar = "#" * round(BAR_WIDTH * one.count / most)
        out.print(f"  {_count(one.high_bytes):>13} {bar} {one.count}")
    if not shown:
        out.print(f"  {'-' * 13} cap {cap_bytes:,} {'-' * 20}", style="red")


def _show_cost(cost: Cost, gpus: int, budget: str) -> None:
    from pgolf_sweep.cli.render import duration

    what = f"{gpus} GPU{'s' if gpus > 1 else ''}" if gpus else "the CPU"
    if cost.trial_seconds is None:
        trials = "" if cost.trials is None else f"{cost.trials} trials on {what}: "
        out.print(f"\n{trials}cost unknown; pgolf.limits.total_seconds would bound a trial.")
        return
    each = duration(cost.trial_seconds)
    if cost.trials is None:
        out.print(
            f"\nA trial takes about {each} on {what}; no run_cap or budget, so it has no end."
        )
        return
    out.print(f"\n{cost.trials} trials of about {each} on {what}", end="")
    if cost.gpu_hours is not None:
        out.print(f": {cost.gpu_hours:.1f} GPU-hours", end="")
    if cost.usd is not None:
        out.print(f", about ${cost.usd:,.0f}", end="")
    out.print(f"; {duration(cost.wall_seconds)} with {cost.slots} at a time, pruning not counted.")
    _show_budget(cost, budget)


def _show_budget(cost: Cost, budget: str) -> None:
    if cost.ended_by_budget:
        of = "" if cost.asked_trials is None else f" of {cost.asked_trials}"
        out.print(f"The budget, {budget}, ends it after about {cost.trials}{of} trials.")
    elif budget:
        out.print(f"That is within the budget, {budget}.")
    if not cost.reserved_runs:
        return
    amounts = [f"{cost.reserved_runs} runs"]
    if cost.reserved_gpu_hours is not None:
        amounts.append(f"{cost.reserved_gpu_hours:.1f} GPU-hours")
    if cost.reserved_usd is not None:
        amounts.append(f"${cost.reserved_usd:,.0f}")
    verb = "is kept back of it" if budget else "comes on top"
    out.print(f"A promotion, {', '.join(amounts)}, {verb}.")


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _short(value: KnobValue) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

"""``pgolf-sweep gate`` and ``pgolf-sweep plan``: what fits and what it costs, before spending."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgolf_sweep.cli.common import (
    DEFAULT_DATA,
    DataRootOption,
    JsonOption,
    SweepArgument,
    app,
    emit,
    out,
    say,
)
from pgolf_sweep.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgolf_sweep.core.trial import Interval, KnobValue, Verdict
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.gate.gate import Gate, ProgramLike
    from pgolf_sweep.gate.plan import Bin, Cost, Draw
    from pgolf_sweep.script.probe.runner import Counted, Exported, RunFailed

DEFAULT_CONFIDENCE = 0.99
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
    data_root: DataRootOption = DEFAULT_DATA,
    json_output: JsonOption = False,
) -> None:
    """One configuration: will its artifact fit?

    Knobs that are not set have the program's defaults. With --sweep alone the answer is the one
    that `launch` would give before its first trial: `require`, the file's calibration, memory and
    steps included. --program and --rules ask about the artifact's size only. Exit code 1: too big,
    or invalid.

    Example: pgolf-sweep gate --set MODEL_DIM=576 --set MATRIX_BITS=6
    """
    from pgolf_sweep.gate.physics.inventory import SIZE_KNOBS

    session = None if sweep is None else _session(sweep, confidence, data_root)
    whole = session if program is None and rules is None else None
    judge = whole.gate if whole else _gate_of(program, rules, session, confidence)
    if calibration is not None:
        teach_from(calibration, judge, whole)
    knobs = parsed_settings(settings or [], judge.program)
    if session is not None:
        knobs = session.resolve({**_constants(session, knobs), **knobs})
    ask = whole.verdict if whole else judge.verdict
    verdict = ask(knobs)
    given = frozenset(session.implied if session else ())
    groups, suggestions = judge.groups(knobs), judge.suggestions(knobs, ask, given=given)
    if json_output:
        document = _document(verdict)
        names = SIZE_KNOBS if judge.program.builtin else sorted(knobs)
        values = {**judge.defaults, **knobs}
        document |= {"groups": groups, "suggestions": suggestions, "probe": _probe(judge, knobs)}
        emit(document | {"knobs": {name: values[name] for name in names if name in values}})
    else:
        _show_verdict(verdict)
        if groups:
            _show_groups(judge, verdict, knobs)
        _show_probe(_probe(judge, knobs))
        if suggestions:
            out.print("\nIt would fit with any one of:", highlight=False)
            for one in suggestions:
                also = "".join(f" {name}={value}" for name, value in one.also.items())
                note = ", needs a tokenizer of that size" if one.knob == "VOCAB_SIZE" else ""
                size = _count(one.artifact_bytes.mid)
                shown = f"  {one.knob}={one.value}{also}  (about {size} bytes{note})"
                out.print(shown, markup=False)
        elif verdict.kind.value == "too_big":
            say(
                "no single knob makes it fit; lower two, for example NUM_LAYERS and MATRIX_BITS"
                if judge.program.builtin
                else "which knob would make it fit is only tried for the builtin trainer"
            )
    if verdict.discards:
        raise typer.Exit(1)


@app.command()
def plan(
    sweep: SweepArgument,
    draws: Annotated[int, typer.Option(min=1, help="Configurations to sample.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    slots: Annotated[int, typer.Option(min=1, help="Trials that run at a time.")] = 1,
    deadline_hours: Annotated[
        float | None,
        typer.Option(min=0, help="Say how many slots end the sweep within so many hours."),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(help="A store of measured sizes to learn from: user, or a file's path."),
    ] = None,
    data_root: DataRootOption = DEFAULT_DATA,
    json_output: JsonOption = False,
) -> None:
    """What a sweep would cost and how much of its space fits, before anything is spent.

    Needs no GPU and no data.

    Example: pgolf-sweep plan sweeps/lr.yaml --slots 4
    """
    from pgolf_sweep.driver.session import open_session
    from pgolf_sweep.gate import plan as planning

    session = open_session(sweep, data_root=data_root, need_data=False)
    if session.learnt:
        say(session.learnt)
    if calibration is not None:
        teach_from(calibration, session.gate, session)
    sampled = planning.sample_space(session, session.spec.space, draws=draws, seed=seed)
    share = planning.fit_share(sampled)
    bins = planning.histogram(sampled)
    deciding = planning.deciding_knobs(sampled)
    largest = planning.largest_by_bits(sampled, session.gate)
    cost = planning.expected_cost(
        sampled,
        session.gate,
        trials=planning.most_trials(session, session.spec.space, sampled, session.spec.run_cap),
        gpus=session.resources.gpus,
        slots=slots,
        train_seconds=session.rules.train_seconds,
        budget=session.spec.pgolf.budget,
    )
    needed = None if deadline_hours is None else planning.slots_needed(cost, 3600 * deadline_hours)
    varied = {name for name in session.spec.space.parameters if _varies(sampled, name)}
    largest = [
        dataclasses.replace(one, knobs={k: v for k, v in one.knobs.items() if k in varied})
        for one in largest
    ]
    if json_output:
        emit({
            "sweep": str(sweep),
            "cap_bytes": session.rules.artifact_cap_bytes,
            "code_bytes": session.program.code_bytes,
            "share": share,
            "histogram": bins,
            "deciding_knobs": deciding,
            "largest_that_fits": largest,
            "cost": cost,
            "deadline_hours": deadline_hours,
            "slots_needed": needed,
        })  # fmt: skip
        return
    kinds = ("fits", "near", "too_big", "invalid", "unknown")
    parts = [f"{kind} {getattr(share, kind):.1%}" for kind in kinds if getattr(share, kind)]
    out.print(f"{share.draws} draws: " + ", ".join(parts), markup=False)
    _show_histogram(bins, session.rules.artifact_cap_bytes)
    if deciding:
        listed = ", ".join(f"{one.knob} {one.variance_share:.0%}" for one in deciding)
        out.print(f"\nWhat decides the size (share of its variance): {listed}", markup=False)
    if largest:
        out.print("\nLargest model that surely fits, by bits of the blocks:")
        for one in largest:
            values = " ".join(f"{k}={_short(v)}" for k, v in one.knobs.items())
            size = f"{one.model_params:,} parameters, {_count(one.artifact_bytes)} bytes"
            out.print(f"  {one.bits} bits: {size}  {values}", markup=False)
    _show_cost(cost, session.resources.gpus)
    if deadline_hours is not None:
        answer = "no number of slots would do" if needed is None else f"{needed} slots at a time"
        if cost.trials is None:
            answer = "set run_cap or a budget; without either the sweep has no end"
        out.print(f"To end within {deadline_hours:g} hours: {answer}.", markup=False)


def _session(sweep: Path, confidence: float | None, data_root: Path) -> Session:
    """A sweep file's session, with another confidence where one is asked for."""
    from pgolf_sweep.driver.session import open_session

    session = open_session(sweep, data_root=data_root, need_data=False)
    if session.learnt:
        say(session.learnt)
    if confidence is None:
        return session
    session.gate.confidence = confidence
    block = dataclasses.replace(session.spec.pgolf, gate_confidence=confidence)
    return dataclasses.replace(session, spec=dataclasses.replace(session.spec, pgolf=block))


def _constants(session: Session, knobs: Mapping[str, KnobValue]) -> dict[str, KnobValue]:
    """What a sweep file fixes, where its condition holds beside the knobs that are set."""
    from pgolf_sweep.driver.proposals import adapted
    from pgolf_sweep.space.domains import Constant

    parameters = session.spec.space.parameters
    fixed = {n: p.domain.value for n, p in parameters.items() if isinstance(p.domain, Constant)}
    return adapted(session.spec.space, fixed, knobs)


def _gate_of(
    program: str | None, rules: str | None, session: Session | None, confidence: float | None
) -> Gate:
    """A gate on the size alone, of what the options name, else the sweep file, else our trainer."""
    from pgolf_sweep.config.rules import load_rules
    from pgolf_sweep.gate.gate import Gate
    from pgolf_sweep.gate.probed import foreign_of
    from pgolf_sweep.script.program import BUILTIN, load_program

    loaded, scheme = None, None
    if session is not None and program is None:
        loaded, scheme = session.program, session.spec.pgolf.gate_scheme
    if loaded is None:
        loaded = load_program(program or BUILTIN, base=Path.cwd(), extra_files=())
    if session is not None and rules is None:
        cap_bytes = session.rules.artifact_cap_bytes
    else:
        preset = load_rules(rules or "parameter-golf-2026", base=Path.cwd())
        cap_bytes = preset.artifact_cap_bytes
    if confidence is None and session is not None:
        confidence = session.spec.pgolf.gate_confidence
    return Gate(
        loaded,
        cap_bytes=cap_bytes,
        confidence=confidence or DEFAULT_CONFIDENCE,
        foreign=foreign_of(loaded, scheme),
    )


def teach_from(name: str, judge: Gate, session: Session | None) -> None:
    """Let a gate learn from a store, unless the session's gate has learnt from that one."""
    from pgolf_sweep.driver.session import calibration_store
    from pgolf_sweep.gate.store import USER, store_path, teach_store

    path = store_path(name, base=Path.cwd())
    if session is not None:
        own = calibration_store(session.spec, base=session.spec.source.resolve().parent)
        if own is not None and own.resolve() == path.resolve():
            return
    if not path.is_file():
        raise InputError(
            "there is no such calibration store",
            where=str(path),
            expected=f"{USER}, or a file that `pgolf-sweep calibrate --store` wrote",
            next_step="pgolf-sweep calibrate STUDY",
        )
    say(teach_store(judge, name, base=Path.cwd()))


def parsed_settings(settings: list[str], program: ProgramLike) -> dict[str, KnobValue]:
    """``K=V`` texts as knobs, numbers where they are numbers."""
    from pgolf_sweep.config.sweep_file import unnamed_hint
    from pgolf_sweep.script.knobs.knobs import nearest_knob

    values: dict[str, KnobValue] = {}
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator:
            raise InputError(
                "--set needs a name and a value", got=setting, expected="K=V, as MODEL_DIM=576"
            )
        if name not in program.knobs:
            nearest = nearest_knob(name, program.knobs)
            raise InputError(
                f"the program reads no knob {name}{unnamed_hint(name, program.unnamed)}",
                got=setting,
                expected=f"did you mean {nearest}?" if nearest else None,
                next_step="pgolf-sweep knobs trainer" if program.builtin else None,
            )
        values[name] = value_of(text)
        knob = program.knobs[name]
        if not knob.takes(values[name]):
            raise InputError(
                f"the program reads {name} as {knob.kind}",
                got=setting,
                expected=knob.asks_for(),
            )
    return values


def value_of(text: str) -> KnobValue:
    """A text as the number that it is, or as text."""
    for reader in (int, float):
        try:
            return reader(text)
        except ValueError:
            continue
    return text


def _probe(judge: Gate, knobs: Mapping[str, KnobValue]) -> dict[str, Any] | None:
    """What the size probe found in a script that is not ours, as plain data."""
    from pgolf_sweep.script.probe.prober import Unprobed

    if judge.foreign is None:
        return None
    ran = judge.foreign.ran(knobs)
    if ran is not None:
        return _run(*ran)
    found = judge.foreign.probed(knobs)
    if isinstance(found, Unprobed):
        return {"ok": False, "reason": found.reason, "seconds": found.seconds}
    document = {"ok": True} | dataclasses.asdict(found)
    document["relevant"] = sorted(found.relevant)
    document["tensors"] = [dataclasses.asdict(one) for one in found.tensors]
    document["classes"] = [
        dataclasses.asdict(one)
        | {"bytes_by_sigma": {str(s): round(n) for s, n in one.bytes_by_sigma.items()}}
        for one in found.classes
    ]
    return document


def _run(counted: Counted, exported: Exported | RunFailed | None) -> dict[str, Any]:
    """What a run of the script's `main()` showed, as plain data."""
    from pgolf_sweep.script.probe.runner import Exported

    document: dict[str, Any] = {
        "ok": True,
        "how": "its main() ran without a GPU",
        "quantizer": "",
        "codec": "",
        "seconds": counted.cpu_seconds,
        "notes": list(counted.notes),
        "model_params": counted.model_params,
        "tensors": [dataclasses.asdict(one) for one in counted.tensors],
        "optimizers": [
            dataclasses.asdict(one) | {"members": len(one.members)} for one in counted.updates
        ],
        "stand_ins": list(counted.stand_ins),
    }
    if isinstance(exported, Exported):
        document["quantizer"] = "its own export"
        document["codec"] = exported.codec
        document["seconds"] += exported.cpu_seconds
    elif exported is not None:
        document["notes"].append(exported.reason)
    return document


def _show_probe(found: dict[str, Any] | None) -> None:
    """Where the numbers of a script that is not ours come from."""
    if found is None or not found["ok"]:
        return
    quantizer = found["quantizer"] or "no quantizer recognised"
    codec = found["codec"] or "no codec recognised"
    say(f"probed in {found['seconds']:.2f} s: {found['how'][:70]}; {quantizer}, {codec}")
    for note in found["notes"]:
        say(f"  {note}")


def _document(verdict: Verdict) -> dict[str, Any]:
    return {
        "verdict": verdict.kind,
        "reason": verdict.reason,
        "model_params": verdict.model_params,
        "code_bytes": verdict.code_bytes,
        "model_bytes": _whole(verdict.model_bytes),
        "artifact_bytes": _whole(verdict.artifact_bytes),
        "cap_bytes": verdict.cap_bytes,
        "headroom_bytes": None if verdict.headroom_bytes is None else round(verdict.headroom_bytes),
        "confidence": verdict.confidence,
        "fit_probability": verdict.fit_probability,
        "regime": verdict.regime,
    }


def _whole(interval: Interval | None) -> dict[str, int] | None:
    if interval is None:
        return None
    return {"low": round(interval.low), "mid": round(interval.mid), "high": round(interval.high)}


def _show_verdict(verdict: Verdict) -> None:
    kind = verdict.kind.value
    out.print(kind.replace("_", " ").upper(), style=STYLES[kind], end="  ")
    out.print(verdict.reason, markup=False)


def _show_groups(judge: Gate, verdict: Verdict, knobs: Mapping[str, KnobValue]) -> None:
    from rich.table import Table

    table = Table("group", box=None, pad_edge=False)
    for heading in ("params", "bits", "bytes"):
        table.add_column(heading, justify="right")
    for size in judge.groups(knobs):
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


def _show_histogram(bins: list[Bin], cap_bytes: int) -> None:
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
        out.print(f"  {_count(one.high_bytes):>13} {bar} {one.count}", markup=False)
    if not shown:
        out.print(f"  {'-' * 13} cap {cap_bytes:,} {'-' * 20}", style="red")


def _show_cost(cost: Cost, gpus: int) -> None:
    from pgolf_sweep.cli.render import duration

    what = f"{gpus} GPU{'s' if gpus > 1 else ''}" if gpus else "the CPU"
    each = duration(cost.trial_seconds)
    if cost.trials is None:
        out.print(
            f"\nA trial takes about {each} on {what}; no run_cap or budget, so it has no end."
        )
        return
    out.print(f"\n{cost.trials} trials of about {each} on {what}", end="", markup=False)
    if cost.gpu_hours is not None:
        out.print(f": {cost.gpu_hours:.1f} GPU-hours", end="")
    if cost.usd is not None:
        out.print(f", about ${cost.usd:,.0f}", end="")
    out.print(f"; {duration(cost.wall_seconds)} with {cost.slots} at a time, pruning not counted.")
    if cost.ended_by_budget:
        out.print("The budget of GPU-hours ends it there.")


def _varies(sampled: list[Draw], name: str) -> bool:
    return len({draw.knobs.get(name) for draw in sampled}) > 1


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _short(value: KnobValue) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

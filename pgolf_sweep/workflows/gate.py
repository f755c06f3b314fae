"""One configuration before it is trained: will its artifact fit?"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pgolf_sweep.config.rules import load_rules
from pgolf_sweep.config.sweep_file import unnamed_hint
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.trial import VerdictKind
from pgolf_sweep.driver.opening import calibration_store, open_session
from pgolf_sweep.driver.proposals import adapted
from pgolf_sweep.gate.gate import Gate
from pgolf_sweep.gate.physics.inventory import SIZE_KNOBS
from pgolf_sweep.gate.probed import foreign_of
from pgolf_sweep.gate.script_predictor import ScriptPredictor
from pgolf_sweep.gate.script_steps import CONTEST_GPUS
from pgolf_sweep.gate.store import (
    USER,
    append,
    measured_store,
    store_path,
    teach_measured,
    teach_store,
)
from pgolf_sweep.script.knobs.knobs import nearest_knob
from pgolf_sweep.script.pack import as_counted
from pgolf_sweep.script.probe.client import contained_by
from pgolf_sweep.script.probe.prober import Probed, Unprobed
from pgolf_sweep.script.probe.runner import Counted, Exported, RunFailed
from pgolf_sweep.script.program import BUILTIN, load_program
from pgolf_sweep.space.domains import Constant
from pgolf_sweep.workflows.measure import Compared
from pgolf_sweep.workflows.measure import measure as measure_run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pgolf_sweep.core.trial import Interval, KnobValue, Verdict
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.gate.physics.predict import GroupSize
    from pgolf_sweep.gate.predictor import ProgramLike
    from pgolf_sweep.gate.suggest import Suggestion
    from pgolf_sweep.script.program import Program

DEFAULT_CONFIDENCE = 0.99
DEFAULT_RULES = "parameter-golf-2026"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateAnswer:
    """What the gate says of one configuration.

    Attributes:
        verdict: Its word, with the reason and the interval of bytes.
        knobs: The configuration, of our trainer with the defaults that decide the size.
        groups: The predicted bytes by tensor group; they add up to the interval's middle.
        suggestions: Single changes with which it would surely fit.
        probe: What the size probe found in a script that is not ours; None for our trainer.
        builtin: Whether the program is our trainer.
        learnt: What the gate learnt from stores, for people.
        measured: What a few steps of the real script came to, where it was asked for.
    """

    verdict: Verdict
    knobs: Mapping[str, KnobValue]
    groups: Sequence[GroupSize]
    suggestions: Sequence[Suggestion]
    probe: Mapping[str, Any] | None
    builtin: bool
    learnt: Sequence[str] = ()
    measured: Compared | None = None

    @property
    def fits(self) -> bool:
        """Whether the whole interval of bytes is within the cap."""
        return self.verdict.kind is VerdictKind.FITS

    @property
    def artifact_bytes(self) -> Interval | None:
        """Predicted bytes of code plus model; None where nothing is known."""
        return self.verdict.artifact_bytes

    def to_json(self) -> dict[str, Any]:
        """The document of ``gate --json``; keys stay stable."""
        verdict = self.verdict
        headroom = verdict.headroom_bytes
        return {
            "verdict": verdict.kind,
            "reason": verdict.reason,
            "model_params": verdict.model_params,
            "code_bytes": verdict.code_bytes,
            "model_bytes": _whole(verdict.model_bytes),
            "artifact_bytes": _whole(verdict.artifact_bytes),
            "cap_bytes": verdict.cap_bytes,
            "headroom_bytes": None if headroom is None else round(headroom),
            "confidence": verdict.confidence,
            "fit_probability": verdict.fit_probability,
            "regime": verdict.regime,
            "groups": self.groups,
            "suggestions": self.suggestions,
            "probe": self.probe,
            "knobs": self.knobs,
            "measured": None if self.measured is None else self.measured.to_json(),
        }


def gate(
    knobs: Mapping[str, KnobValue] | None = None,
    *,
    sweep: str | Path | None = None,
    program: str | Path | None = None,
    rules: str | None = None,
    confidence: float | None = None,
    calibration: str | None = None,
    step_ms: float | None = None,
    gpus: int | None = None,
    data_root: str | Path = "data",
    probe: bool = True,
    measure: str | Path | None = None,
) -> GateAnswer:
    """Predict the artifact of one configuration; nothing is trained, unless to `measure`.

    With a sweep file alone the answer is the one that its launch would give before the first
    trial: its fixed values, `require`, calibration, memory and steps included. A program or rules
    beside it ask about the size only.

    Args:
        knobs: Values by name; the program's defaults for the rest.
        sweep: A sweep file.
        program: A script's path instead of our trainer.
        rules: A preset or a rules file, else the sweep file's, else the contest's.
        confidence: Probability that the interval holds the truth; 0.99 where nothing says more.
        calibration: A store of measured sizes to learn from: ``user``, or a file's path.
        step_ms: Milliseconds of a training step of a script that is not ours, else unknown: with
            the wallclock it says how many steps a run makes.
        gpus: GPUs of a trial of such a script, else the contest's eight: with the arithmetic of a
            step they say how long one takes. A sweep file says it for its own trials.
        data_root: Folder of datasets and tokenizers.
        probe: Whether parts of a script that is not ours may be executed, contained as
            `probe["containment"]` of the answer says; else only measured runs count.
        measure: The program, as `program`, to run for a few steps on this machine: its export's
            bytes are compared with the prediction and kept for later gates of it.

    Returns:
        The answer; `fits` is the short one.

    Raises:
        InputError: The program reads no such knob, or not such a value, or the sweep never tries
            it, or a file is missing; a program that is measured fails, or has no data.
        InfraError: A program that is measured needs a GPU that is not here.
        SpecError: The sweep file has problems, all of them listed.

    >>> from pgolf_sweep import gate
    >>> gate({"MODEL_DIM": 512, "MATRIX_BITS": 6}).fits
    True
    >>> print(gate({"MODEL_DIM": 1024}).verdict.kind)
    too_big
    """
    session = None
    program = program if measure is None else measure
    if sweep is not None:
        session = _session(Path(sweep), confidence, Path(data_root), probe=probe)
    learnt = [session.learnt] if session is not None and session.learnt else []
    whole = session if program is None and rules is None else None
    judge = (
        whole.gate if whole else _size_gate(program, rules, session, confidence, gpus, probe=probe)
    )
    if calibration is not None:
        learnt += teach(calibration, judge, whole)
    if step_ms is not None:
        _time_steps(judge, step_ms)
    values = checked_knobs(knobs or {}, judge.program)
    if whole is not None:
        _check_inside(values, whole)
    if session is not None:
        values = session.resolve({**_constants(session, values), **values})
    found = None
    if measure is not None:
        found, said = _measured(judge, values, knobs or {}, session, gpus, Path(data_root))
        learnt += said
    elif whole is None and (taught := teach_measured(judge, values)):
        learnt.append(taught)
    ask: Callable[[Mapping[str, KnobValue]], Verdict] = whole.verdict if whole else judge.verdict
    given = frozenset(session.implied if session else ())
    everything = {**judge.defaults, **values}
    names = SIZE_KNOBS if judge.program.builtin else sorted(values)
    return GateAnswer(
        verdict=ask(values),
        knobs={name: everything[name] for name in names if name in everything},
        groups=judge.groups(values),
        suggestions=judge.suggestions(values, ask, given=given),
        probe=_probe(judge, values),
        builtin=judge.program.builtin,
        learnt=learnt,
        measured=found,
    )


def _measured(
    judge: Gate,
    values: Mapping[str, KnobValue],
    given: Mapping[str, KnobValue],
    session: Session | None,
    gpus: int | None,
    data_root: Path,
) -> tuple[Compared, list[str]]:
    """A few steps of a gate's program beside what was predicted of them, and what is learnt."""
    wanted = gpus if gpus is not None else 1 if session is None else session.spec.pgolf.gpus
    run = measure_run(
        cast("Program", judge.program),  # loaded by `_size_gate` or the session
        values,
        given={name: values[name] for name in given if name in values},
        dataset=None if session is None else session.dataset,
        gpus=wanted,
        data_root=data_root,
    )
    found = Compared(run=run, predicted=judge.verdict(run.as_ran).model_bytes)
    try:
        append(measured_store(), [run.stored(judge.program)])
        kept = f"kept in {measured_store()}"
    except InputError as error:  # what was measured is told all the same
        kept = f"not kept in {measured_store()}: {error.what}, {error.finding.got}"
    return found, [teach_measured(judge, values), kept]


def _time_steps(judge: Gate, step_ms: float) -> None:
    """Tell a gate how long a step takes.

    Raises:
        InputError: The program is our trainer, or no time is given.
    """
    if step_ms <= 0 or not judge.predictor.set_step_seconds(step_ms / 1000):
        raise InputError(
            "a step's time is for scripts that are not ours, in milliseconds",
            got=f"--step-ms {step_ms:g}",
            expected="--program PATH and a positive number; our trainer's gate learns from trials",
        )


def checked_knobs(knobs: Mapping[str, KnobValue], program: ProgramLike) -> dict[str, KnobValue]:
    """Values that the program reads under these names.

    Raises:
        InputError: It reads no such knob, or not such a value.
    """
    for name, value in knobs.items():
        if name not in program.knobs:
            nearest = nearest_knob(name, program.knobs)
            raise InputError(
                f"the program reads no knob {name}{unnamed_hint(name, program.unnamed)}",
                got=f"{name}={value}",
                expected=f"did you mean {nearest}?" if nearest else None,
                next_step="pgolf-sweep knobs trainer" if program.builtin else None,
            )
        knob = program.knobs[name]
        if not knob.takes(value):
            raise InputError(
                f"the program reads {name} as {knob.kind}",
                got=f"{name}={value}",
                expected=knob.asks_for(),
            )
    return dict(knobs)


def _check_inside(knobs: Mapping[str, KnobValue], session: Session) -> None:
    """Refuse values that a sweep never tries: its launch judges no such configuration.

    Raises:
        InputError: A parameter's value is outside its range.
    """
    outside = []
    for name, value in knobs.items():
        parameter = session.spec.space.parameters.get(name)
        if parameter is None:
            continue
        try:
            parameter.domain.encode(value)
        except ValueError:
            outside.append((name, value, parameter.domain.describe()))
    if outside:
        raise InputError(
            "the sweep never tries this configuration",
            where=str(session.spec.source),
            got=", ".join(f"{name}={value}" for name, value, _ in outside),
            expected=", ".join(f"{name} {described}" for name, _, described in outside),
            next_step="without --sweep the gate answers for any configuration",
        )


def teach(name: str, judge: Gate, session: Session | None) -> list[str]:
    """Let a gate learn from a store, unless the session's gate has learnt from that one.

    Returns:
        What it learnt, for people.

    Raises:
        InputError: There is no such store.
    """
    path = store_path(name, base=Path.cwd())
    if session is not None:
        own = calibration_store(session.spec, base=session.spec.source.resolve().parent)
        if own is not None and own.resolve() == path.resolve():
            return []
    if not path.is_file():
        raise InputError(
            "there is no such calibration store",
            where=str(path),
            expected=f"{USER}, or a file that `pgolf-sweep calibrate --store` wrote",
            next_step="pgolf-sweep calibrate STUDY",
        )
    return [teach_store(judge, name, base=Path.cwd())]


def _session(sweep: Path, confidence: float | None, data_root: Path, *, probe: bool) -> Session:
    """A sweep file's session, with another confidence where one is asked for."""
    session = open_session(sweep, data_root=data_root, need_data=False, probe=probe)
    if confidence is None:
        return session
    session.gate.confidence = confidence
    block = dataclasses.replace(session.spec.pgolf, gate_confidence=confidence)
    return dataclasses.replace(session, spec=dataclasses.replace(session.spec, pgolf=block))


def _constants(session: Session, knobs: Mapping[str, KnobValue]) -> dict[str, KnobValue]:
    """What a sweep file fixes, where its condition holds beside the knobs that are set."""
    parameters = session.spec.space.parameters
    fixed = {n: p.domain.value for n, p in parameters.items() if isinstance(p.domain, Constant)}
    return adapted(session.spec.space, fixed, knobs)


def _size_gate(
    program: str | Path | None,
    rules: str | None,
    session: Session | None,
    confidence: float | None,
    gpus: int | None,
    *,
    probe: bool,
) -> Gate:
    """A gate on the size alone, of what is named, else the sweep file's, else our trainer."""
    loaded, scheme = None, None
    if session is not None and program is None:
        loaded, scheme = session.program, session.spec.pgolf.gate_scheme
    if loaded is None:
        wanted = None if session is None else session.spec.pgolf.pack
        named = load_program(str(program or BUILTIN), base=Path.cwd(), extra_files=())
        loaded = as_counted(named, wanted)
    if session is not None and rules is None:
        cap_bytes = session.rules.artifact_cap_bytes
    else:
        cap_bytes = load_rules(rules or DEFAULT_RULES, base=Path.cwd()).artifact_cap_bytes
    if confidence is None and session is not None:
        confidence = session.spec.pgolf.gate_confidence
    known = CONTEST_GPUS if gpus is None else gpus
    foreign = foreign_of(loaded, scheme, gpus=known) if probe else None
    return Gate(
        loaded,
        cap_bytes=cap_bytes,
        confidence=confidence or DEFAULT_CONFIDENCE,
        foreign=foreign,
    )


def _run(counted: Counted, exported: Exported | RunFailed | None) -> dict[str, Any]:
    """What a run of the script's `main()` showed, as plain data."""
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


def _probe(judge: Gate, knobs: Mapping[str, KnobValue]) -> dict[str, Any] | None:
    """What the size probe found in a script that is not ours, as plain data."""
    foreign = judge.predictor.foreign if isinstance(judge.predictor, ScriptPredictor) else None
    if foreign is None:
        return None
    ran = foreign.ran(knobs)
    document = _run(*ran) if ran is not None else _read(foreign.probed(knobs))
    way = contained_by()
    return document | {"containment": None if way is None else way.describe()}


def _read(found: Probed | Unprobed) -> dict[str, Any]:
    """What the reading of a script showed, as plain data."""
    if isinstance(found, Unprobed):
        return {"ok": False, "reason": found.reason, "seconds": found.seconds}
    document = {"ok": True, "quantizer": "", "codec": ""} | dataclasses.asdict(found)
    document["relevant"] = sorted(found.relevant)
    document["tensors"] = [dataclasses.asdict(one) for one in found.tensors]
    return document


def _whole(interval: Interval | None) -> dict[str, int] | None:
    if interval is None:
        return None
    return {"low": round(interval.low), "mid": round(interval.mid), "high": round(interval.high)}

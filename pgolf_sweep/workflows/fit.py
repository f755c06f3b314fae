"""`fit`: bits by tensor group with which a trained model's artifact just fits.

The loss of each group at each number of bits is measured, one group at a time, on the validation's
beginning; the gate predicts the bytes; an integer program chooses. The choice is a proposal, so
that the driver exports it from the checkpoint, measures and scores it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import InfraError, InputError
from pgolf_sweep.core.record import State, ranked
from pgolf_sweep.core.trial import CHECKPOINT, CHECKPOINT_FILE, CHECKPOINT_KNOB
from pgolf_sweep.driver.opening import reopen_session
from pgolf_sweep.driver.reuse import Trainings, training_of
from pgolf_sweep.driver.writer import calibrate
from pgolf_sweep.launch.node.checkpoints import fetch
from pgolf_sweep.report.read import study_records
from pgolf_sweep.workflows.propose import Asked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.core.trial import Interval, KnobValue
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.workflows.propose import Proposal

BITS_KNOBS = ("ATTN_BITS", "MLP_BITS", "MATRIX_BITS", "EMBED_BITS")
TOKENS = 65_536
"""Validation tokens on which the loss is measured."""
LIKELY = 0.9
"""Probability to fit below which the choice is made smaller."""
MOST_TRIES = 20
PACKAGES = Path(__file__).resolve().parents[2]
DIES_WITH_PARENT = "import ctypes; ctypes.CDLL(None).prctl(1, 9)"
"""PR_SET_PDEATHSIG: a `fit` that is killed leaves nothing on the GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The choice.

    Attributes:
        study: The study's name.
        fit_of: The trial whose training it exports.
        bits: By knob.
        rises: Rise of `val_bpb` that was measured for each number of bits, by knob.
        cost_bpb: Sum of the chosen ones.
        saved_bpb: What the trial's own bits cost more than that.
        tokens: Validation tokens that were scored.
        predicted_bytes: Of the artifact.
        cap_bytes: The rules' limit.
        proposal: What the driver takes up; without a request where the choice ran before.
    """

    study: str
    fit_of: int
    bits: Mapping[str, int]
    rises: Mapping[str, Mapping[int, float]]
    cost_bpb: float
    saved_bpb: float
    tokens: int
    predicted_bytes: Interval | None
    cap_bytes: int
    proposal: Proposal


def fit(paths: StudyPaths, *, trial: int | None = None, tokens: int = TOKENS) -> Fit:
    """Choose bits for a trial's training and leave the export for the driver.

    Args:
        paths: The study's folder.
        trial: The trial; None for the best of those whose checkpoint is kept.
        tokens: Validation tokens on which the loss is measured.

    Raises:
        InputError: There is no such trial, its checkpoint is not kept, or the sweep searches no
            bits.
        InfraError: The measurement failed.
    """
    session = reopen_session(paths)
    records = study_records(paths.root)
    calibrate(session.gate, *records)
    values = choices(session)
    record, address = _source(session, paths, records, trial)
    measured = _measured(session, record, address, values, tokens)
    scale = measured["bpb"] / measured["loss"]
    rises = {
        knob: {int(bits): scale * rise for bits, rise in found.items()}
        for knob, found in measured["rises"].items()
    }
    bits, predicted = within(session, record.knobs, rises)
    cost = sum(rises[knob][bits[knob]] for knob in rises)
    own = {knob: int(str(record.knobs.get(knob) or 0)) for knob in rises}
    idea = f"the bits of least loss that fit: {cost:+.5f} val_bpb for trial {record.number}"
    asked = Asked.of(paths, by="fit", idea=idea)
    return Fit(
        study=session.spec.name,
        fit_of=record.number,
        bits=bits,
        rises=rises,
        cost_bpb=cost,
        saved_bpb=sum(rises[knob].get(own[knob], 0.0) for knob in rises) - cost,
        tokens=measured["tokens"],
        predicted_bytes=predicted,
        cap_bytes=session.rules.artifact_cap_bytes,
        proposal=asked.propose(bits, parent=record),
    )


def choices(session: Session) -> dict[str, list[int]]:
    """The bits that each group may have: those that the sweep searches.

    Raises:
        InputError: It searches none.
    """
    found = {}
    for knob in BITS_KNOBS:
        parameter = session.spec.space.parameters.get(knob)
        if parameter is not None and parameter.searched:
            allowed = [int(str(v)) for v in parameter.domain.values() if int(str(v)) >= 4]
            found[knob] = sorted(set(allowed))
    if not session.program.builtin or not found:
        raise InputError(
            "there are no bits to choose",
            where=str(session.spec.source),
            expected=f"a sweep of our trainer that searches some of {', '.join(BITS_KNOBS)}",
        )
    return found


def choose(
    costs: Mapping[str, Mapping[int, float]],
    sizes: Mapping[str, Mapping[int, float]],
    room: float,
) -> dict[str, int] | None:
    """The value of each group with the least cost in sum whose sizes have room; None: none have.

    Args:
        costs: By group and value.
        sizes: The same of the sizes.
        room: Most of their sum.
    """
    import numpy as np  # noqa: PLC0415 - with scipy half a second
    from scipy.optimize import Bounds, LinearConstraint, milp  # noqa: PLC0415

    places = [(group, value) for group, values in costs.items() for value in values]
    one_each = np.array([[group == other for other, _ in places] for group in costs], dtype=float)
    weights = np.array([[sizes[group][value] for group, value in places]])
    found = milp(
        np.array([costs[group][value] for group, value in places]),
        integrality=np.ones(len(places), dtype=np.int64),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(weights, -np.inf, room)],
    )
    if found.x is None:
        return None
    return {group: value for (group, value), x in zip(places, found.x, strict=True) if x > 0.5}


def within(
    session: Session, knobs: Mapping[str, KnobValue], costs: Mapping[str, Mapping[int, float]]
) -> tuple[dict[str, int], Interval | None]:
    """The best bits that the gate lets pass, with its prediction.

    Groups add up to the artifact only about, so that the room shrinks until the whole fits.

    Raises:
        InputError: Nothing fits.
    """
    base = {group: max(values) for group, values in costs.items()}
    largest = _size(session, {**knobs, **base})
    sizes = {
        group: {bits: _size(session, {**knobs, **base, group: bits}) - largest for bits in values}
        for group, values in costs.items()
    }
    room = session.rules.artifact_cap_bytes - largest
    for _ in range(MOST_TRIES):
        bits = choose(costs, sizes, room)
        if bits is None:
            break
        verdict = session.verdict({**knobs, **bits})
        likely = verdict.fit_probability is None or verdict.fit_probability >= LIKELY
        if not verdict.discards and likely:
            return bits, verdict.artifact_bytes
        room = sum(sizes[group][value] for group, value in bits.items()) - 1.0
    raise InputError(
        "no choice of bits fits",
        got=f"{largest:,.0f} B at the most bits",
        expected=f"at most {session.rules.artifact_cap_bytes:,} B",
        next_step="fit a smaller model, or let the sweep search fewer bits",
    )


def _size(session: Session, knobs: Mapping[str, KnobValue]) -> float:
    predicted = session.verdict(knobs).artifact_bytes
    if predicted is None:
        raise InputError("the gate predicts no bytes of this configuration", got=str(dict(knobs)))
    return predicted.mid


def _source(
    session: Session, paths: StudyPaths, records: Sequence[TrialRecord], trial: int | None
) -> tuple[TrialRecord, str]:
    """The trial whose training is exported, and the address of its checkpoint."""
    trainings = Trainings(session, paths)
    kept = {
        training_of(session, record)
        for record in records
        if record.checkpoint_bytes is not None and not record.variant
    }
    done = [r for r in records if r.outcome is State.COMPLETED and not r.variant]
    chosen = ranked(done) + done if trial is None else [r for r in done if r.number == trial]
    for record in chosen:
        training = training_of(session, record)
        if training in kept:
            return record, trainings.address(training)
    what = "no trial's checkpoint" if trial is None else f"no checkpoint of trial {trial}"
    raise InputError(
        f"{what} is kept",
        where=str(paths.root),
        expected="a completed trial of a sweep that searches export knobs or says `pgolf.reuse: "
        "{enabled: true}`",
        next_step=f"pgolf-sweep trials {paths.name}",
    )


def _measured(
    session: Session,
    record: TrialRecord,
    address: str,
    values: Mapping[str, Sequence[int]],
    tokens: int,
) -> dict[str, Any]:
    """What `trainer.sensitivity` prints, on this machine's GPU if it has one."""
    spec = session.trial_spec(record.number, record.knobs, "fit", run_id="")
    groups = [f"{knob}={','.join(map(str, bits))}" for knob, bits in values.items()]
    with tempfile.TemporaryDirectory(prefix="pgolf-fit-") as name:
        try:
            fetch(address, Path(name) / CHECKPOINT_FILE)
        except Exception as error:
            raise InputError(
                f"the checkpoint of trial {record.number} is gone",
                where=address,
                got=str(error),
                next_step="run the trial again, or fit another (--trial N)",
            ) from error
        program = f"{DIES_WITH_PARENT}; from trainer.sensitivity import main; main()"
        own = {CHECKPOINT_KNOB: CHECKPOINT, "COMPILE": "0", "PYTHONPATH": str(PACKAGES)}
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program, str(tokens), *groups],
            cwd=name,
            env={**os.environ, **spec.env, **own},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise InfraError(
            "the losses could not be measured",
            where=f"trial {record.number}",
            got=(done.stderr.strip().splitlines() or ["no output"])[-1],
        )
    measured: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return measured


def document(found: Fit) -> dict[str, Any]:
    """The document of ``fit --json``; keys stay stable."""
    names = [name for name in Fit.__dataclass_fields__ if name != "proposal"]
    request = found.proposal.request
    plain = {name: getattr(found, name) for name in names}
    size = found.predicted_bytes
    plain["predicted_bytes"] = None if size is None else dataclasses.asdict(size)
    return plain | {"proposal": None if request is None else request.id}

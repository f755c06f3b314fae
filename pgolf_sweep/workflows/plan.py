"""A sweep before it is launched: what it costs and how much of its space fits."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgolf_sweep.config.types import NO_RULES
from pgolf_sweep.driver.budget import budget_text, spending_of
from pgolf_sweep.driver.opening import open_session
from pgolf_sweep.driver.session import Session
from pgolf_sweep.gate import plan as planning
from pgolf_sweep.report.text import duration
from pgolf_sweep.script.command import ARGS_JSON_FILE, INTERPRETER, PARAMETERS_FILE
from pgolf_sweep.script.probe.client import contained_by
from pgolf_sweep.space.domains import value_key
from pgolf_sweep.workflows.baseline import noise_runs
from pgolf_sweep.workflows.gate import teach

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgolf_sweep.core.trial import KnobValue, Verdict
    from pgolf_sweep.gate.plan import Bin, Cost, Draw, FitShare, Influence, Largest

LAUNCH_DRAWS = 200
"""Configurations that a launch looks at to say what it costs."""

_WORDS = {INTERPRETER: "python", ARGS_JSON_FILE: PARAMETERS_FILE}
"""What stands for a macro that only a node fills."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """What a sweep would cost, from a sample of its space.

    Attributes:
        sweep: The sweep file.
        gpus: GPUs of one trial.
        share: Verdicts of the sampled configurations.
        histogram: Their predicted artifact bytes.
        deciding_knobs: The knobs that decide the size, with their shares of its variance; none
            where it hardly varies.
        size_spread: How far the predicted bytes are apart, as a share of their median; None where
            nothing is predicted.
        largest_that_fits: For each width of the blocks' weights in bits, the largest model.
        cost: Trials, time, GPU-hours and dollars, and those of a promotion.
        budget: What ends the sweep if nothing else does, in words; empty without a budget.
        deadline_hours: The hours that were asked about.
        slots_needed: Trials at a time that end the sweep within them; None where none would.
        infeasible: Why nothing of the space would be launched, with the nearest configuration that
            fits; empty where something would.
        containment: What contained the probes of a script that is not ours; None without any.
        learnt: How the sweep file is read and what the gate learnt from stores, for people.
        rules: Name of the rules; ``none`` for a plain sweep, of which nothing is gated.
        metric: Name of what is optimised, and ``goal``.
        configurations: How many the space has, or None where it has no end.
        noise_floor: Trials that are runs of the baseline, for the noise; 0 for none.
        example: How one trial starts: its ``command``, and the variables that its knobs set.
        rungs: Of each cheaper rung its number, the GPUs of a trial, how many trials begin there for
            one on the sweep's own, the seconds of one, and its own knobs, by an example.
    """

    sweep: Path
    cap_bytes: int
    code_bytes: int
    gpus: int
    share: FitShare
    histogram: Sequence[Bin]
    deciding_knobs: Sequence[Influence]
    largest_that_fits: Sequence[Largest]
    cost: Cost
    size_spread: float | None = None
    budget: str = ""
    deadline_hours: float | None = None
    slots_needed: int | None = None
    infeasible: str = ""
    containment: str | None = None
    learnt: Sequence[str] = ()
    rules: str = ""
    metric: Mapping[str, str] = field(default_factory=dict)
    configurations: int | None = None
    noise_floor: int = 0
    example: Mapping[str, Any] = field(default_factory=dict)
    rungs: Sequence[Mapping[str, Any]] = ()

    @property
    def plain(self) -> bool:
        """Whether no contest's rules apply."""
        return self.rules == NO_RULES

    def to_json(self) -> dict[str, Any]:
        """The document of ``plan --json``; keys stay stable."""
        names = [item.name for item in dataclasses.fields(self)]
        return {
            name: getattr(self, name) for name in names if name not in {"gpus", "learnt", "budget"}
        }


def load_sweep(
    sweep: str | Path,
    *,
    name: str | None = None,
    data_root: str | Path = "data",
    probe: bool = True,
) -> Session:
    """Load a sweep file and check all that it names; its data need not be here.

    Args:
        sweep: The sweep file.
        name: Name of the study instead of the sweep file's.
        data_root: Folder of datasets and tokenizers.
        probe: Whether the gate may execute parts of a script that is not ours.

    Returns:
        The sweep with its program, rules and gate: `spec` is what the file says, `verdict(knobs)`
        asks the gate.

    Raises:
        SpecError: The sweep file has problems, all of them listed with their lines.
        InputError: The program or the rules are missing or broken.
    """
    return open_session(
        Path(sweep), data_root=Path(data_root), name=name, need_data=False, probe=probe
    )


def plan(
    sweep: str | Path | Session,
    *,
    draws: int = 1000,
    seed: int = 0,
    slots: int = 1,
    deadline_hours: float | None = None,
    calibration: str | None = None,
    data_root: str | Path = "data",
    probe: bool = True,
) -> SweepPlan:
    """Say what a sweep would cost and how much of its space fits; no GPU and no data are needed.

    Args:
        sweep: A sweep file, or what `load_sweep` gave.
        draws: Configurations to sample.
        seed: Of the sampling.
        slots: Trials that run at a time.
        deadline_hours: Also say how many slots end the sweep within that many hours.
        calibration: A store of measured sizes to learn from: ``user``, or a file's path.
        data_root: Folder of datasets and tokenizers.
        probe: Whether parts of a script that is not ours may be executed, contained; a session
            that is given has decided that already.

    Raises:
        SpecError: The sweep file has problems, all of them listed.
        InputError: A file is missing.
    """
    if isinstance(sweep, Session):
        session = sweep
    else:
        session = load_sweep(sweep, data_root=data_root, probe=probe)
    learnt = [*session.spec.notes, *filter(None, [session.learnt])]
    if calibration is not None:
        learnt += teach(calibration, session.gate, session)
    space = session.spec.space
    sampled = planning.sample_space(session, space, draws=draws, seed=seed)
    cost = _cost(session, session, sampled, slots=slots)
    needed = None if deadline_hours is None else planning.slots_needed(cost, 3600 * deadline_hours)
    varied = {name for name in space.parameters if _varies(sampled, name)}
    largest = planning.largest_by_bits(sampled, session.gate)
    way = contained_by()
    return SweepPlan(
        sweep=session.spec.source,
        cap_bytes=session.rules.artifact_cap_bytes,
        code_bytes=session.program.code_bytes,
        gpus=session.resources.gpus,
        share=planning.fit_share(sampled),
        histogram=planning.histogram(sampled),
        deciding_knobs=planning.deciding_knobs(sampled),
        size_spread=planning.size_spread(sampled),
        largest_that_fits=[
            dataclasses.replace(one, knobs={k: v for k, v in one.knobs.items() if k in varied})
            for one in largest
        ],
        cost=cost,
        budget=budget_text(session.spec.pgolf.budget),
        deadline_hours=deadline_hours,
        slots_needed=needed,
        infeasible=planning.infeasible(sampled, session.gate),
        containment=None if way is None else way.describe(),
        learnt=learnt,
        rules=session.rules.name,
        metric={"name": session.spec.metric.name, "goal": session.spec.metric.goal},
        configurations=space.size(),
        noise_floor=noise_runs(session),
        example=_example(session, sampled),
        rungs=_rungs(session, sampled),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _AtOnce:
    """A session's verdicts as far as they are known without waiting for a probe of its program."""

    session: Session

    def resolve(self, knobs: Mapping[str, KnobValue]) -> dict[str, KnobValue]:
        """The sweep's knobs with the implied ones."""
        return self.session.resolve(knobs)

    def verdict(self, knobs: Mapping[str, KnobValue]) -> Verdict:
        """The gate's word, or that it is not known yet."""
        return self.session.verdict_of(knobs)


def cost_line(session: Session, *, slots: int | None, done: int = 0) -> str:
    """What a launch will cost, and how much of its space fits, in one line; never waits.

    Args:
        session: The sweep.
        slots: Trials that run at a time, where that is known.
        done: Trials that have had their slot already.
    """
    judge, space = _AtOnce(session=session), session.spec.space
    sampled = planning.sample_space(judge, space, draws=LAUNCH_DRAWS, seed=0)
    cost = _cost(session, judge, sampled, slots=slots or 1)
    share, gpus = planning.fit_share(sampled), session.resources.gpus
    fits = f"{share.launched:.0%} of the space fits"
    if share.unknown:
        fits = f"{share.unknown:.0%} of the space is not judged yet"
    fits = "" if session.spec.pgolf.rules == NO_RULES else f"; {fits}"
    if cost.trial_seconds is None:
        return f"cost unknown: nothing limits a trial's time{fits}"
    each = f"about {duration(cost.trial_seconds)} each"
    if cost.trials is None:
        return f"trials of {each}, and neither run_cap nor a budget ends them{fits}"
    left = max(0, cost.trials - done)
    parts = [f"{left} {'more ' if done else ''}trials of {each}"]
    hours = left * cost.trial_seconds * gpus / 3600
    if gpus:
        parts.append(f"{hours:.1f} GPU-hours")
        price = session.spec.pgolf.budget.usd_per_gpu_hour
        if price is not None:
            parts.append(f"about ${hours * price:,.0f}")
    wall = math.ceil(left / (slots or 1)) * cost.trial_seconds
    parts.append(
        f"{duration(wall)} with {slots} at a time" if slots else f"{duration(wall)} of slots"
    )
    ended = " (the budget ends it there)" if cost.ended_by_budget else ""
    runs = 0 if done else noise_runs(session)
    noise = f"; {runs} of them run the baseline, for the noise" if runs else ""
    return f"{', '.join(parts)}{ended}{noise}{fits}"


def _cost(session: Session, judge: planning.Judge, sampled: Sequence[Draw], *, slots: int) -> Cost:
    now = time.time()
    cap, repeats = session.spec.run_cap, max(0, noise_runs(session) - 1)
    trials = planning.most_trials(judge, session.spec.space, sampled, cap)
    if trials is not None and trials != cap:  # a space that ends, and the same point on more seeds
        trials = trials + repeats if cap is None else min(cap, trials + repeats)
    return planning.expected_cost(
        sampled,
        session.gate,
        trials=trials,
        slots=slots,
        train_seconds=session.train_seconds,
        spending=spending_of(session, begun=now),
        now=now,
        beside=_beside(session, sampled),
    )


def _rungs(session: Session, sampled: Sequence[Draw]) -> list[dict[str, Any]]:
    """What the cheaper rungs are and cost, cheapest first."""
    fidelity = session.spec.pgolf.fidelity
    if fidelity is None:
        return []
    launched = [draw for draw in sampled if not draw.verdict.discards]
    found = []
    for number, begun in enumerate(fidelity.begun(), start=1):
        instead = [session.instead(draw.knobs, number) for draw in launched]
        gpus = session.resources_on(number).gpus
        seconds = _mean_seconds(
            session,
            gpus,
            [
                dataclasses.replace(draw, knobs={**draw.knobs, **knobs})
                for draw, knobs in zip(launched, instead, strict=True)
            ],
        )
        example = instead[0] if instead else {}
        found.append(
            {
                "rung": number,
                "gpus": gpus,
                "begun": begun,
                "trial_seconds": seconds,
                "instead": example,
            }
        )
    return found


def _beside(session: Session, sampled: Sequence[Draw]) -> float:
    """What a trial costs on the cheaper rungs, as a share of what it costs on the sweep's own."""
    rungs, gpus = _rungs(session, sampled), session.resources.gpus
    launched = [draw for draw in sampled if not draw.verdict.discards]
    whole = _mean_seconds(session, gpus, launched) if rungs else None
    if not whole:
        return 0.0
    parts = [rung["gpus"] / gpus if gpus else 1.0 for rung in rungs]
    held = [
        part * rung["begun"] * (rung["trial_seconds"] or 0.0)
        for part, rung in zip(parts, rungs, strict=True)
    ]
    return float(sum(held) / whole)


def _mean_seconds(session: Session, gpus: int, draws: Sequence[Draw]) -> float | None:
    seconds = [
        planning.trial_seconds(draw, session.gate, gpus, session.train_seconds) for draw in draws
    ]
    known = [one for one in seconds if one is not None]
    return sum(known) / len(known) if known else None


def _example(session: Session, sampled: Sequence[Draw]) -> dict[str, Any]:
    """How the first of the sampled trials would start."""
    if not sampled:
        return {}
    knobs = session.resolve(
        {n: sampled[0].knobs[n] for n in session.spec.space.parameters if n in sampled[0].knobs}
    )
    spec = session.trial_spec(0, knobs, "plan", run_id="plan")
    own = {name: text for name, text in spec.env.items() if name in session.spec.space.parameters}
    words = [_WORDS.get(word, word) for word in spec.argv] or ["python", spec.program_name]
    return {"command": words, "env": own}


def _varies(sampled: Sequence[Draw], name: str) -> bool:
    return len({value_key(draw.knobs.get(name)) for draw in sampled}) > 1

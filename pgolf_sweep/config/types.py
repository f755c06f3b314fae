"""Values of a sweep file, frozen; `pgolf_sweep.config.sweep_file` reads them."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from pgolf_sweep.config.command import Command
from pgolf_sweep.config.models import Method
from pgolf_sweep.config.pgolf_model import (
    AcceptBlock,
    Budget,
    DataBlock,
    LimitsBlock,
    NodesBlock,
    NotifyBlock,
    ProposerBlock,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pgolf_sweep.config.fidelity import Fidelity
    from pgolf_sweep.core.trial import KnobValue, Metric
    from pgolf_sweep.space.space import Space

__all__ = [
    "DEFAULT_RULES",
    "METHODS",
    "METRIC",
    "NO_RULES",
    "Budget",
    "DataBlock",
    "EarlyTerminate",
    "LimitsBlock",
    "Method",
    "NodesBlock",
    "NotifyBlock",
    "PgolfBlock",
    "SchemeBlock",
    "SweepSpec",
    "WarmStart",
]

METHODS: tuple[str, ...] = get_args(Method)
METRIC = "val_bpb"
DEFAULT_RULES = "parameter-golf-2026"
NO_RULES = "none"
"""Preset of a plain sweep, which knows no contest."""
MOST_ITERATIONS, LAST_ITERATION = 100, 2**53
STARTUP_CURVES = 4

LOSSLESS_KNOBS = frozenset({"CODEC", "CODEC_LEVEL", "BYTE_SHUFFLE"})
"""Knobs of the export that leave the weights as they are, and with them the score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyTerminate:
    """How trials that lag behind are stopped.

    An iteration is one report of the metric, as in W&B: the n-th validation of a trial.

    Under all but hyperband no trial is judged before a third of its schedule, and curves are
    compared at equal fractions of it; hyperband is W&B's.

    Attributes:
        kind: ``forecast`` stops a trial whose forecast final score cannot become the best;
            ``halving`` keeps the best half of all trials at a third of the schedule, and fewer
            and fewer, ``1 / eta ** 2`` at its end; ``hyperband`` keeps the best ``1 / eta``
            at iterations ``min_iter * eta ** k``, or ``max_iter / eta ** k`` for ``k`` up to `s`;
            ``median`` stops a trial that is worse than the median of the others.
        min_iter: First iteration at which a trial may be stopped.
        max_iter: Last iteration of a whole trial, where `s` goes back from it.
        s: How often `max_iter` is divided; None where `min_iter` decides.
        eta: Factor between iterations (hyperband), or root of the last share (halving).
        strict: Judge the value at the iteration, not the best until then (hyperband).
        startup_trials: Curves that must have come as far before one is judged (all but hyperband).
    """

    kind: Literal["forecast", "halving", "hyperband", "median"]
    min_iter: int = 1
    max_iter: int | None = None
    s: int | None = None
    eta: float = 3.0
    strict: bool = True
    startup_trials: int = STARTUP_CURVES

    def iterations(self) -> tuple[int, ...]:
        """Iterations at which hyperband judges, ascending; as W&B's sweeps 0.3.0 works them out."""
        found: list[int] = []
        if self.max_iter is not None and self.s is not None:
            band = float(self.max_iter)
            for _ in range(self.s):
                band /= self.eta
                if band < 1:
                    break
                found.append(int(band))
            return tuple(sorted(found))
        band = float(self.min_iter)
        while len(found) < MOST_ITERATIONS and band < LAST_ITERATION:
            found.append(int(band))
            band *= self.eta
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemeBlock:
    """How a script quantizes, declared where the size probe cannot see it.

    Attributes:
        bits: Width of matrices.
        embed_bits: Width of embeddings and heads.
        scale: How the step of a row is set: rowmax, percentile, sdclip or mse.
        parameter: k of ``sdclip``, the percentile of ``percentile``.
        codec: What compresses the container, or an empty string.
        keep_below: Tensors of at most that many numbers stay 16-bit floating point.
    """

    bits: int = 8
    embed_bits: int = 8
    scale: str = "rowmax"
    parameter: float = 0.0
    codec: str = ""
    keep_below: int = 65_536


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """A configuration, or a part of one, that is tried first; or another study's trials.

    Attributes:
        knobs: The configuration; empty where a study is named.
        study: A study below the same runs folder, or None.
        top: How many of its best trials.
        matching: Whether all of its trials that lie in the space are taken over.
    """

    knobs: Mapping[str, KnobValue] = field(default_factory=dict)
    study: str | None = None
    top: int = 5
    matching: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reuse:
    """How trials share a training.

    Attributes:
        enabled: Whether checkpoints are kept, where the program can start from one.
        roles: Part of a run that a knob changes first: train, export, eval, or run for none.
        switch: Knob that, above 0, has the training read `switched` as well.
        switched: Knobs of the export.
        later: Searched parameters that change what follows the training alone.
        store: Folder or fsspec address of the checkpoints, or None for the study's own.
        max_bytes: Most that they occupy.
    """

    enabled: bool = False
    roles: Mapping[str, str] = field(default_factory=dict)
    switch: str = ""
    switched: frozenset[str] = frozenset()
    later: tuple[str, ...] = ()
    store: str | None = None
    max_bytes: float = math.inf

    def role(self, knob: str, knobs: Mapping[str, KnobValue]) -> str:
        """The part of a run that a knob changes first, in a configuration."""
        if knob in self.switched:
            with suppress(ValueError):  # a value that is no number is refused elsewhere
                if float(str(knobs.get(self.switch) or 0)) > 0:
                    return "train"
        return self.roles.get(knob, "train")


@dataclass(frozen=True, slots=True, kw_only=True)
class PgolfBlock:
    """The ``pgolf:`` block of a sweep file, defaults filled in.

    Attributes:
        rules: Name of a preset, or the path of a rules file.
        require: Expressions over knobs that a configuration must make true.
        gpus: GPUs of one node for each trial; 0 trains on the CPU.
        cpus: CPU cores for each trial, or None for the launcher's choice.
        gate_enabled: Whether configurations are judged before they take a slot.
        gate_confidence: Probability that a discard is right.
        gate_scheme: How a script that is not ours quantizes, or None to have it probed.
        gate_repair: Parameters that may give where a configuration does not surely fit.
        gate_export: Knobs that may give when a trained artifact is over the cap; None is all.
        export_knobs: Searched parameters on which only what becomes of the trained weights depends.
        reuse: How trials share a training.
        gate_calibration: A store of measured sizes to learn from: ``user``, or a path.
        gate_memory_gib: Memory of one card; None switches the memory gate off.
        gate_min_steps: Fewest training steps within the wallclock that are worth a slot.
        data: The data set, or None for the rules preset's.
        files: Paths or globs beside the program that trials need.
        env_pass: Variables of the node that trials get beyond the system's.
        limits: Wallclock limits.
        budget: Money and time.
        warm_start: What is tried first.
        pack: Whether trials run the program minified and compressed, as it would be submitted; None
            packs our own trainer, whose packed form is tested to be the same program.
        fidelity: Cheaper rungs on which trials begin, or None.
        max_retries: How often a trial that infrastructure lost is run again.
        nodes: What is asked of the nodes.
        seed: The sampler's seed.
        second_seeds: Leading trials that get a second seed, or None for the default.
        noise_floor: Runs of the baseline that measure the noise, or None for the default.
        proposers: Budgets by the proposer's name; empty: nobody is bounded.
        accept: When a candidate replaces what it was made from.
        based_on: Name, link and licence of the published work that the program began as.
        promote_seeds: Fresh seeds of a promotion, or None for the rules preset's number.
        notify: Who is told of a launch's turns.
    """

    rules: str = DEFAULT_RULES
    require: tuple[str, ...] = ()
    gpus: int = 8
    cpus: float | None = None
    gate_enabled: bool = True
    gate_confidence: float = 0.99
    gate_scheme: SchemeBlock | None = None
    gate_repair: tuple[str, ...] = ()
    gate_export: tuple[str, ...] | None = None
    export_knobs: tuple[str, ...] = ()
    reuse: Reuse = field(default_factory=Reuse)
    gate_calibration: str | None = None
    gate_memory_gib: float | None = None
    gate_min_steps: int | None = None
    data: DataBlock | None = None
    files: tuple[str, ...] = ()
    env_pass: tuple[str, ...] = ()
    limits: LimitsBlock = field(default_factory=LimitsBlock)
    budget: Budget = field(default_factory=Budget)
    warm_start: tuple[WarmStart, ...] = ()
    pack: bool | None = None
    fidelity: Fidelity | None = None
    max_retries: int = 2
    nodes: NodesBlock = field(default_factory=NodesBlock)
    seed: int = 0
    second_seeds: int | None = None
    noise_floor: int | None = None
    proposers: Mapping[str, ProposerBlock] = field(default_factory=dict)
    accept: AcceptBlock = field(default_factory=AcceptBlock)
    based_on: Mapping[str, str] = field(default_factory=dict)
    promote_seeds: int | None = None
    notify: NotifyBlock = field(default_factory=NotifyBlock)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSpec:
    """A sweep file.

    Attributes:
        source: Where it was read.
        text: Its content as launched.
        name: Its ``name``, or the file's stem.
        program: ``trainer`` for ours, or the path of a script.
        method: Who proposes.
        metric: What is optimised.
        run_cap: Trials that may take a slot, or None.
        space: What is searched.
        early_terminate: The pruner, or None.
        project: W&B project, or None for the tracker's default.
        entity: W&B entity, or None for the user's default.
        description: Free text, or None.
        command: The words that start a trial; empty where the file has none.
        notes: What people should know of how the file is read, a sentence each.
    """

    source: Path
    text: str
    name: str
    program: str
    method: Method
    metric: Metric
    run_cap: int | None
    space: Space
    early_terminate: EarlyTerminate | None
    project: str | None
    entity: str | None
    description: str | None
    pgolf: PgolfBlock
    command: Command = field(default_factory=Command)
    notes: tuple[str, ...] = ()

"""Rungs below a sweep: what a trial there has otherwise, so that a short one sees a whole schedule.

Every knob that counts steps shrinks with the rung's share of the training, so that warmup, warmdown
and the momentum's rise take the same part of it; the horizon of an average over steps does as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from pgolf_sweep.config.types import SweepSpec
    from pgolf_sweep.config.yaml_lines import Document
    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.script.program import Program

STEPS = (
    "ITERATIONS",
    "LR_WARMUP_STEPS",
    "WARMDOWN_ITERS",
    "MUON_MOMENTUM_WARMUP_STEPS",
    "VAL_LOSS_EVERY",
)
"""Knobs of the contest's scripts that count steps of the schedule. `WARMUP_STEPS` does not: those
steps warm up the compiler and are undone."""
WALLCLOCK, RESERVE = "MAX_WALLCLOCK_SECONDS", "GPTQ_RESERVE_SECONDS"
"""The limit on the training, and the part of it that is kept for what follows the steps."""
AVERAGES = ("EMA_DECAY",)
"""Knobs that are the decay of an average over steps."""
SCALED = (*STEPS, WALLCLOCK, *AVERAGES)
METHODS = frozenset({"bayes", "gp", "random", "qmc"})
"""Methods that rungs suit: they learn from none of the cheaper scores, or know what they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """A cheaper rung.

    Attributes:
        share: Of the training.
        gpu_share: Of the GPUs of a trial of the sweep's own.
        sets: Knobs that it has instead, whatever the share.
    """

    share: float = 1.0
    gpu_share: float = 1.0
    sets: Mapping[str, KnobValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """The rungs below a sweep.

    Attributes:
        rungs: Cheapest first.
        keep: Share of a rung's trials that go on to the next.
        scale: Knobs beside `SCALED` that count steps.
    """

    rungs: tuple[Rung, ...]
    keep: float
    scale: tuple[str, ...] = ()

    def costs(self) -> list[float]:
        """What a trial should cost, from the sweep's own rung, 1, on down."""
        return [1.0, *(rung.share for rung in reversed(self.rungs))]

    @property
    def slot_share(self) -> float:
        """Share of the GPUs of a trial of the sweep's own that one slot has."""
        return min(rung.gpu_share for rung in self.rungs)

    def gpu_share(self, rung: int | None) -> float:
        """The same of a trial on a rung."""
        return 1.0 if rung is None else self.rungs[rung - 1].gpu_share

    def slots(self, rung: int | None) -> int:
        """Slots that a trial on a rung takes."""
        return round(self.gpu_share(rung) / self.slot_share)

    def begun(self) -> list[float]:
        """How many trials begin on each rung, cheapest first, for one on the sweep's own."""
        return [self.keep ** -(len(self.rungs) - at) for at in range(len(self.rungs))]

    def instead(
        self, number: int, knobs: Mapping[str, KnobValue], defaults: Mapping[str, KnobValue]
    ) -> dict[str, KnobValue]:
        """The knobs of a trial that are others on a rung.

        Args:
            number: Of the rung, 1 for the cheapest.
            knobs: Resolved, as the trial has them on the sweep's own rung.
            defaults: The program's own values of those that are not among them.
        """
        rung = self.rungs[number - 1]
        known = {**defaults, **knobs}
        found: dict[str, KnobValue] = {}
        for name in self.scaled(known):
            value = known[name]
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                continue
            if name in AVERAGES:
                found[name] = value ** (1 / rung.share) if value < 1 else value
            elif name == WALLCLOCK:
                reserve = known.get(RESERVE)
                kept = float(reserve) if isinstance(reserve, int | float) else 0.0
                train = rung.share / rung.gpu_share * max(0.0, value - kept)
                found[name] = train + min(kept, value)
            elif isinstance(value, int):
                found[name] = max(1, round(rung.share * value))
            else:
                found[name] = rung.share * value
        if rung.share == 1:
            found = {name: value for name, value in found.items() if name == WALLCLOCK}
        return found | dict(rung.sets)

    def scaled(self, known: Iterable[str]) -> list[str]:
        """Those of some knobs that shrink with the share."""
        return [name for name in known if name in SCALED or name in self.scale]


def note_fidelity(document: Document, spec: SweepSpec, program: Program) -> None:
    """Note what is wrong with a sweep's rungs on the document."""
    fidelity = spec.pgolf.fidelity
    if fidelity is None:
        return
    where = ("pgolf", "fidelity")
    if spec.method not in METHODS:
        document.problem(
            where,
            f"{spec.method} would learn from scores of short runs as if they were the sweep's own; "
            "use method bayes, random or qmc, or leave fidelity out",
        )
    reads = {*program.knobs, *spec.space.parameters}
    for index, rung in enumerate(fidelity.rungs):
        _note_rung(document, spec, index, rung, reads)
    for index, (rung, dearer) in enumerate(pairwise(fidelity.rungs)):
        if rung.share > dearer.share:
            document.problem(
                (*where, "rungs", index + 1, "share"),
                f"less of the training than on the rung before, {rung.share:g}: write the cheapest "
                "first",
            )
    for index, name in enumerate(fidelity.scale):
        if name not in reads:
            document.problem((*where, "scale", index), f"{spec.program} does not read {name}")


def _note_rung(
    document: Document, spec: SweepSpec, index: int, rung: Rung, reads: Collection[str]
) -> None:
    where, parameters = ("pgolf", "fidelity", "rungs", index), spec.space.parameters
    for name in rung.sets:
        if name in parameters and parameters[name].searched:
            document.problem(
                (*where, "set", name),
                f"contradiction: {name} is searched; a rung sets what all its trials share",
            )
        elif name not in reads:
            document.problem((*where, "set", name), f"{spec.program} does not read {name}")
    if rung.share == 1 and not rung.sets:
        document.problem(where, "trains like the sweep itself: give it a share below 1, or set")
    fidelity = spec.pgolf.fidelity
    if rung.share < 1 and fidelity is not None and not fidelity.scaled(reads):
        document.problem(
            (*where, "share"),
            f"{spec.program} reads none of {', '.join(SCALED)}: name what counts its steps under "
            "scale, or set it",
        )

"""A tiny sweep on simulated slots, for tests of the driver and of what stands on it."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from pgolf_sweep.config.rules import load_rules
from pgolf_sweep.config.sweep_file import load_spec
from pgolf_sweep.core.event_text import event_text
from pgolf_sweep.core.paths import StudyPaths
from pgolf_sweep.core.trial import Interval, LogSummary, StepReport, Verdict, VerdictKind
from pgolf_sweep.driver.driver import Driver, Options
from pgolf_sweep.driver.session import Session
from pgolf_sweep.launch.inline import Finish, InlineLauncher, SimulatedClock
from pgolf_sweep.script.program import from_files
from pgolf_sweep.search.study import Study, open_study
from pgolf_sweep.track.null import NullStudyTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from pgolf_sweep.core.events import SweepEvent
    from pgolf_sweep.driver.sharing.leases import DriverLease
    from pgolf_sweep.driver.snapshot import Snapshot

SCRIPT = b"""
import os
WIDTH = int(os.environ.get("MODEL_DIM", 64))
RATE = float(os.environ.get("MATRIX_LR", 0.02))
SEED = int(os.environ.get("SEED", 1337))
"""

SWEEP = """
name: {name}
program: train_gpt.py
method: {method}
metric: {{name: val_bpb, goal: minimize}}
run_cap: {run_cap}
parameters:
  MODEL_DIM: {width}
  MATRIX_LR: {rate}
  SEED: {seed}
{extra}
pgolf:
  rules: demo
  resources: {{gpus: 0}}
  seed: 3
{block}"""


WIDTHS = "{distribution: q_uniform, min: 32, max: 256, q: 32}"
RATES = "{distribution: log_uniform_values, min: 0.005, max: 0.08}"


class BytesPerWidthGate:
    """A gate whose artifact is 1500 bytes a unit of width, known exactly."""

    def __init__(self, cap_bytes: int) -> None:
        self.cap_bytes = cap_bytes
        self.checked = True  # by trials of an earlier study
        self.learnt: list[tuple[int, int]] = []
        self.probes = 0  # questions until a probe is done

    def verdict(self, knobs: Mapping[str, Any]) -> Verdict:
        assert not self.probes, "a driver waits for a probe"
        size = 1500.0 * int(knobs["MODEL_DIM"])
        kind = VerdictKind.FITS if size <= self.cap_bytes else VerdictKind.TOO_BIG
        interval = Interval(low=size, mid=size, high=size)
        return Verdict(
            kind=kind,
            reason=f"predicted {size:.0f} B",
            code_bytes=0,
            cap_bytes=self.cap_bytes,
            confidence=0.99,
            regime="test",
            artifact_bytes=interval,
            model_bytes=interval,
        )

    trusted = False

    @property
    def measured(self) -> bool:
        return self.checked or bool(self.learnt)

    def ready(self, knobs: Mapping[str, Any]) -> bool:
        self.probes = max(0, self.probes - 1)
        return not self.probes

    def answers(self, knobs: Mapping[str, Any]) -> bool:
        return not self.probes

    def nearest_fit(self, knobs: Mapping[str, Any]) -> dict[str, Any]:
        fits = int(self.cap_bytes // 1500)
        return {"MODEL_DIM": fits} if fits < int(knobs["MODEL_DIM"]) else {}

    def contradiction(self, knobs: Mapping[str, Any], **printed: int | None) -> str:
        return ""

    def learn_time(self, knobs: Mapping[str, Any], **seconds: float | None) -> None:
        pass

    def learn(
        self, knobs: Mapping[str, Any], model_bytes: int, *, steps: int | None = None
    ) -> bool:
        self.learnt.append((int(knobs["MODEL_DIM"]), model_bytes))
        return True


class Watcher:
    """An observer that keeps what it saw."""

    def __init__(self) -> None:
        self.events: list[SweepEvent] = []
        self.messages: list[str] = []
        self.snapshots: list[Snapshot] = []

    def turn(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)

    def event(self, event: SweepEvent) -> None:
        self.events.append(event)
        self.messages.append(event_text(event))


def score_of(knobs: Mapping[str, Any]) -> float:
    """A smooth objective: wider is better, the rate has its best at 0.02."""
    rate = math.log(float(knobs["MATRIX_LR"]) / 0.02)
    return 3.0 - 0.002 * int(knobs["MODEL_DIM"]) + 0.05 * rate * rate


def train(job: Any, *, seconds: float = 10.0) -> Iterable[tuple[float, Any]]:
    """What a simulated trial does: three validations, then a score and an artifact."""
    knobs = job.spec.knobs
    final = score_of(knobs)
    for turn in (1, 2, 3):
        report = StepReport(step=100 * turn, total_steps=300, val_bpb=final + 0.3 / turn)
        yield seconds / 3, report
    size = 1500 * int(knobs["MODEL_DIM"])
    summary = LogSummary(
        val_bpb=final, val_loss_nats=2 * final, model_bytes=size, code_bytes=0, total_bytes=size
    )
    yield 0.0, Finish(summary=summary, model_file_bytes=size)


@dataclasses.dataclass
class Bench:
    """One study folder on which drivers can be started again and again."""

    folder: Path
    session: Session
    paths: StudyPaths
    clock: SimulatedClock
    watcher: Watcher

    def study(self) -> Study:
        return open_study(
            self.session.spec, self.paths, write=True, verdicts=self.session.verdict_of
        )

    def elsewhere(self, folder: str) -> Bench:
        """The same sweep driven from another folder, with a gate of its own."""
        paths = StudyPaths(self.folder / folder / self.paths.name)
        paths.root.mkdir(parents=True, exist_ok=True)
        gate: Any = BytesPerWidthGate(self.session.rules.artifact_cap_bytes)
        session = dataclasses.replace(self.session, gate=gate)
        return dataclasses.replace(self, paths=paths, session=session, watcher=Watcher())

    def driver(
        self,
        *,
        slots: int = 2,
        simulate: Callable[[Any], Iterable[tuple[float, Any]]] = train,
        study: Study | None = None,
        lease: DriverLease | None = None,
        launcher: Any = None,
        **options: Any,
    ) -> Driver:
        spec = self.session.spec
        return Driver(
            session=self.session,
            study=study or self.study(),
            launcher=launcher or InlineLauncher(slots, simulate, self.clock),
            tracker=NullStudyTracker(),
            paths=self.paths,
            clock=self.clock,
            observer=self.watcher,
            lease=lease,
            options=Options(**{"run_cap": spec.run_cap, "max_retries": 2, **options}),
        )


def build_bench(
    folder: Path,
    *,
    name: str = "study",
    method: str = "tpe",
    run_cap: int = 12,
    extra: str = "",
    block: str = "",
    program: bytes = SCRIPT,
    width: str = WIDTHS,
    rate: str = RATES,
    seed: str = "{value: 7}",
) -> Bench:
    """A bench in a folder; the other arguments fill the sweep file."""
    sweep = folder / f"{name}.yaml"
    sweep.write_text(
        SWEEP.format(
            name=name,
            method=method,
            run_cap=run_cap,
            extra=extra,
            block=block,
            width=width,
            rate=rate,
            seed=seed,
        )
    )
    spec = load_spec(sweep)
    rules = load_rules("demo", base=folder)
    session = Session(
        spec=spec,
        program=from_files("train_gpt.py", {"train_gpt.py": program}, builtin=False),
        rules=rules,
        dataset=None,
        gate=BytesPerWidthGate(rules.artifact_cap_bytes),  # type: ignore[arg-type]
        implied={},
    )
    return Bench(
        folder=folder,
        session=session,
        paths=StudyPaths(folder / "runs" / name),
        clock=SimulatedClock(),
        watcher=Watcher(),
    )

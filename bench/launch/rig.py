"""Shared parts of this folder's measurements: a script, its sweep file, an observer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pgolf_sweep.core.clock import SystemClock
from pgolf_sweep.core.paths import StudyPaths
from pgolf_sweep.driver.driver import Driver, Options
from pgolf_sweep.driver.opening import open_session
from pgolf_sweep.launch.base import Ended, Started
from pgolf_sweep.search.study import Study, open_study
from pgolf_sweep.track.null import NullStudyTracker

if TYPE_CHECKING:
    from pgolf_sweep.driver.session import Session

SCRIPT = """
import os, time
def main():
    if os.environ.get("IMPORT_TORCH") == "1":
        import torch
    time.sleep(float(os.environ.get("SLEEP_SECONDS", 0)))
    score = 2.0 + float(os.environ.get("MATRIX_LR", 0.02))
    print(f"final_int8_zlib_roundtrip_exact val_loss:{2 * score:.8f} val_bpb:{score:.8f}")
if __name__ == "__main__":
    main()
"""

SWEEP = """
program: train_gpt.py
method: {method}
metric: {{name: val_bpb, goal: minimize}}
parameters:
  MATRIX_LR: {{min: 0.001, max: 0.1}}
  SLEEP_SECONDS: {{value: {seconds}}}
  IMPORT_TORCH: {{value: {torch}}}
pgolf: {{rules: demo, resources: {{gpus: {gpus}}}}}
"""


class Listener:
    """A launcher that notes when scripts start and end, and on which node."""

    def __init__(self, launcher: Any) -> None:
        self._launcher = launcher
        self.started: list[float] = []
        self.ended: list[float] = []
        self.last_end: dict[str | None, float] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._launcher, name)

    def poll(self, timeout_seconds: float) -> list[Any]:
        events = self._launcher.poll(timeout_seconds)
        for event in events:
            if isinstance(event, Started):
                self.started.append(event.at)
            elif isinstance(event, Ended):
                self.ended.append(event.end.ended_at)
                self.last_end[event.end.node] = event.end.ended_at
        return events


class Silent:
    """An observer that shows nothing."""

    def turn(self, snapshot: Any) -> None:
        pass

    def event(self, event: Any) -> None:
        pass


def make_session(
    folder: Path, *, method: str = "tpe", seconds: float = 0.0, torch: bool = False, gpus: int = 0
) -> Session:
    """A session of the script in a folder."""
    (folder / "train_gpt.py").write_text(SCRIPT)
    sweep = folder / "rig.yaml"
    sweep.write_text(SWEEP.format(method=method, seconds=seconds, torch=int(torch), gpus=gpus))
    return open_session(sweep, data_root=folder)


def make_driver(
    session: Session, folder: Path, launcher: Any, study: Study | None = None, **options: Any
) -> Driver:
    """A driver of a session, its study in a journal file."""
    paths = StudyPaths(folder / "runs" / session.spec.name)
    return Driver(
        session=session,
        study=study or open_study(session.spec, paths, write=True),
        launcher=launcher,
        tracker=NullStudyTracker(),
        paths=paths,
        clock=SystemClock(),
        observer=Silent(),
        options=Options(**options),
    )


def gaps_ms(started: list[float], ended: list[float], slots: int) -> list[float]:
    """Milliseconds from each end to the start that used the freed slot, oldest free slot first."""
    later = sorted(started)[slots:]
    return [1000 * (start - end) for end, start in zip(sorted(ended), later, strict=False)]

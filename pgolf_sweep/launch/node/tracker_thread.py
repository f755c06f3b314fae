"""Feeds a trial's tracker from a thread of its own, so that W&B never delays a script or a slot."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from typing import TYPE_CHECKING

from pgolf_sweep.track.make import make_run_tracker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pgolf_sweep.core.trial import RunEnd, StepReport
    from pgolf_sweep.track.base import RunTracking

logger = logging.getLogger(__name__)

WAITING_REPORTS = 10_000
"""Reports that wait for a slow network; the rest is dropped, the trial's folder has them all."""
OFFLINE_PREFIX = "offline-run-"


class TrackerFeed:
    """A tracker that is made, fed and finished on a thread.

    Args:
        tracking: What to tell W&B.
        folder: Where W&B's files go; must not exist yet.
    """

    def __init__(self, tracking: RunTracking, folder: Path) -> None:
        self._tracking = tracking
        self._folder = folder
        self._reports: queue.Queue[StepReport | tuple[Mapping[str, float], int | None]]
        self._reports = queue.Queue(WAITING_REPORTS)
        self._end: RunEnd | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._feed, name="tracker", daemon=True)
        self._thread.start()

    def report(self, report: StepReport) -> None:
        """Hand on a report; never waits."""
        with contextlib.suppress(queue.Full):
            self._reports.put_nowait(report)

    def log(self, values: Mapping[str, float], step: int | None) -> None:
        """Hand on what the script logged itself; never waits."""
        with contextlib.suppress(queue.Full):
            self._reports.put_nowait((values, step))

    def finish(self, end: RunEnd) -> None:
        """Hand on the end; never waits."""
        self._end = end
        self._ended.set()

    def _feed(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        tracker = make_run_tracker(self._tracking, self._folder)
        while True:
            over = self._ended.is_set()
            try:
                item = self._reports.get(timeout=0 if over else 0.2)
            except queue.Empty:
                if over:
                    break
                continue
            if isinstance(item, tuple):
                tracker.log(*item)
            else:
                tracker.report(item)
        if self._end is not None:
            tracker.finish(self._end)

    @property
    def finished(self) -> bool:
        """Whether the tracker writes nothing any more."""
        return not self._thread.is_alive()

    def offline_files(self, timeout_seconds: float) -> dict[str, bytes]:
        """W&B's offline run folders once the run is finished there, by path below ``wandb/``."""
        self._thread.join(timeout_seconds)
        if not self.finished:
            logger.warning("W&B has not finished %s in time: it stays behind", self._tracking.name)
            return {}
        root = self._folder / "wandb"
        return {
            str(path.relative_to(root)): path.read_bytes()
            for folder in sorted(root.glob(f"{OFFLINE_PREFIX}*"))
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.is_symlink()
        }

"""From a mode to a tracker; the one place that decides whether wandb is loaded at all."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pgolf_sweep.track.null import NullRunTracker, NullStudyTracker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pgolf_sweep.track.base import RunTracker, RunTracking, StudyTracker


def make_run_tracker(tracking: RunTracking | None, folder: Path) -> RunTracker:
    """The tracker of one trial, for the worker that runs it.

    Args:
        tracking: How to report, or None for not at all.
        folder: W&B's files land in ``folder/wandb``.
    """
    if tracking is None or tracking.mode == "disabled":
        return NullRunTracker()
    from pgolf_sweep.track.wandb import WandbRunTracker  # noqa: PLC0415 - loads only if used

    return WandbRunTracker(tracking, folder)


def make_study_tracker(
    mode: str,
    project: str,
    entity: str | None,
    study: str,
    folder: Path,
    config: Mapping[str, object],
    *,
    tags: tuple[str, ...] = (),
    salt: str = "",
) -> StudyTracker:
    """The tracker of a study's summary run, for its driver.

    Args:
        mode: ``online``, ``offline`` or ``disabled``.
        project: W&B project.
        entity: W&B entity, or None for the key's default.
        study: The study's name, which is the group of its runs.
        folder: W&B's files land in ``folder/wandb``.
        config: What was asked for: method, space, rules, budget.
        tags: As those of the trials' runs.
        salt: See `pgolf_sweep.track.mode.run_id`.
    """
    if mode == "disabled":
        return NullStudyTracker()
    from pgolf_sweep.track.wandb import WandbStudyTracker  # noqa: PLC0415 - loads only if used

    return WandbStudyTracker(
        mode,
        project=project,
        entity=entity,
        study=study,
        folder=folder,
        config=config,
        tags=tags,
        salt=salt,
    )


def shutdown() -> None:
    """End W&B's service process if this process started one; for a driver or worker that leaves."""
    module = sys.modules.get("pgolf_sweep.track.wandb_run")
    if module is not None:
        module.shutdown()

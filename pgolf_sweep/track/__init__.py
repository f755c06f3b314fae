"""Tracking of a sweep while it runs: W&B, or nothing.

`make_run_tracker` and `make_study_tracker` choose; `resolve_mode` says which and why. None of
them imports wandb before a tracker that needs it exists.
"""

from pgolf_sweep.track.make import make_run_tracker, make_study_tracker, shutdown
from pgolf_sweep.track.mode import ResolvedMode, node_environment, resolve_mode, run_id

__all__ = [
    "ResolvedMode",
    "make_run_tracker",
    "make_study_tracker",
    "node_environment",
    "resolve_mode",
    "run_id",
    "shutdown",
]

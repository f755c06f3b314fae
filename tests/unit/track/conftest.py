"""Trackers to try, and their offline files."""

from __future__ import annotations

from typing import Any

import pytest
from support.offline_runs import read_offline_runs

import pgolf_sweep.track.wandb_run
from pgolf_sweep.core.trial import EndCause, LogSummary, RunEnd
from pgolf_sweep.track import shutdown
from pgolf_sweep.track.base import RunTracking


@pytest.fixture
def offline_runs():
    """Every offline run below a folder, oldest first."""
    return read_offline_runs


@pytest.fixture
def make_tracking():
    """A trial's tracking, offline."""

    def make(**changes: Any) -> RunTracking:
        values: dict[str, Any] = {
            "mode": "offline",
            "project": "pgolf",
            "entity": None,
            "group": "night",
            "run_id": "night-12",
            "name": "night-12",
            "config": {"MODEL_DIM": 64, "LR_SCHEDULE": "wsd", "MIN_LR_FRAC": None},
            "cap_bytes": 300_000,
            "tags": ("tpe",),
        }
        return RunTracking(**values | changes)

    return make


@pytest.fixture
def make_end():
    """The end of a run that went well."""

    def make(summary: LogSummary | None = None, **changes: Any) -> RunEnd:
        log = LogSummary(
            val_bpb=2.5,
            val_loss_nats=4.2,
            model_bytes=250_000,
            code_bytes=40_000,
            total_bytes=290_000,
            steps=100,
            train_seconds=9.5,
        )
        values: dict[str, Any] = {
            "cause": EndCause.EXITED,
            "exit_code": 0,
            "detail": "",
            "summary": log if summary is None else summary,
            "node": "node-a",
            "started_at": 1000.0,
            "ended_at": 1012.0,
            "model_file_bytes": 250_000,
        }
        return RunEnd(**values | changes)

    return make


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch, tmp_path):
    """Each test as in a new process: nothing warned of, no key, no service, a home of its own."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_SERVICE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(pgolf_sweep.track.wandb_run, "_said", set())
    monkeypatch.setattr(pgolf_sweep.track.wandb_run, "_offline_until", 0.0)
    monkeypatch.setattr(pgolf_sweep.track.wandb_run, "_claimed", set())
    yield
    shutdown()

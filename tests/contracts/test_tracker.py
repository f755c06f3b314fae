"""The promises of a tracker: it never raises, never fails a trial, and ends within its bound."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.core.trial import EndCause, LogSummary, RunEnd, StepReport, Verdict, VerdictKind
from pgolf_sweep.track import make_run_tracker, make_study_tracker, shutdown
from pgolf_sweep.track.base import RunTracking
from pgolf_sweep.track.wandb_run import DEFAULT_BOUNDS

if TYPE_CHECKING:
    from pathlib import Path

NAN = float("nan")
END = RunEnd(
    cause=EndCause.EXITED,
    exit_code=0,
    detail="",
    summary=LogSummary(val_bpb=2.5, val_loss_nats=4.0, total_bytes=1000),
    node="node-a",
    started_at=0.0,
    ended_at=1.0,
)
VERDICT = Verdict(
    kind=VerdictKind.INVALID,
    reason="heads do not divide the width",
    code_bytes=1,
    cap_bytes=2,
    confidence=0.99,
    regime="closed form",
)


@pytest.fixture(params=["disabled", "offline"], autouse=True)
def mode(request, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    work = tmp_path / "cwd"
    work.mkdir()
    monkeypatch.chdir(work)
    yield request.param
    shutdown()
    assert os.listdir(work) == []  # noqa: PTH208 - a tracker leaves the working folder alone


def run_tracker(mode: str, folder: Path):
    tracking = RunTracking(
        mode=mode,
        project="pgolf",
        entity=None,
        group="night",
        run_id="night-1",
        name="night-1",
        config={"MODEL_DIM": 64, "TIE_EMBEDDINGS": True, "ABSENT": None},
        cap_bytes=2000,
    )
    return make_run_tracker(tracking, folder)


def study_tracker(mode: str, folder: Path):
    return make_study_tracker(mode, "pgolf", None, "night", folder, {"space": {"A": [1, 2]}})


def test_reports_return_at_once(mode, tmp_path):
    tracker = run_tracker(mode, tmp_path)
    started = time.monotonic()
    for step in range(1000):
        tracker.report(StepReport(step=step, train_loss_nats=5.0))
    assert time.monotonic() - started < 5.0
    tracker.finish(END)


def test_values_that_are_not_finite_are_taken(mode, tmp_path):
    tracker = run_tracker(mode, tmp_path)
    tracker.report(StepReport(step=1, train_loss_nats=NAN, val_bpb=float("inf")))
    tracker.finish(RunEnd(**_fields(END) | {"summary": LogSummary(val_bpb=NAN)}))


def test_finish_is_bounded_and_may_be_repeated(mode, tmp_path):
    tracker = run_tracker(mode, tmp_path)
    started = time.monotonic()
    tracker.finish(END)
    tracker.finish(END)
    tracker.report(StepReport(step=1, train_loss_nats=5.0))
    assert time.monotonic() - started < DEFAULT_BOUNDS.offline_seconds


def test_no_thread_outlives_finish(mode, tmp_path):
    tracker = run_tracker(mode, tmp_path)
    tracker.finish(END)
    assert [t.name for t in threading.enumerate() if t.name.startswith("wandb-night")] == []


def test_a_trial_without_tracking_has_a_tracker(mode, tmp_path):
    tracker = make_run_tracker(None, tmp_path)
    tracker.report(StepReport(step=1, train_loss_nats=5.0))
    tracker.finish(END)
    assert not (tmp_path / "wandb").exists()


def test_study_takes_discards_of_any_verdict(mode, tmp_path):
    study = study_tracker(mode, tmp_path)
    study.discarded(3, {"MODEL_DIM": 65, "LR_SCHEDULE": "wsd"}, VERDICT)
    study.ended(TrialRecord(number=2, outcome=State.FAILED, knobs={}, val_bpb=NAN))
    study.progress({"best_val_bpb": NAN, "discarded": 1})
    study.finish({"status": "done", "best_val_bpb": NAN})
    study.finish({})
    study.discarded(4, {}, VERDICT)


def test_only_what_is_tracked_is_written(mode, tmp_path):
    run_tracker(mode, tmp_path / "trial").finish(END)
    study_tracker(mode, tmp_path / "study").finish({})
    written = [list((tmp_path / n).glob("wandb/offline-run-*/*.wandb")) for n in ("trial", "study")]
    assert [len(found) for found in written] == ([0, 0] if mode == "disabled" else [1, 1])


def _fields(end: RunEnd) -> dict[str, object]:
    return {name: getattr(end, name) for name in RunEnd.__dataclass_fields__}

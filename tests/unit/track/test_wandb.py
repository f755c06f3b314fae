from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.wandb_server import WandbServer

import pgolf_sweep.track.wandb_run
from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.core.trial import EndCause, Interval, LogSummary, StepReport, Verdict, VerdictKind
from pgolf_sweep.track import make_run_tracker, make_study_tracker, shutdown
from pgolf_sweep.track.base import TrackedFiles
from pgolf_sweep.track.mode import sync_command
from pgolf_sweep.track.wandb import WandbRunTracker
from pgolf_sweep.track.wandb_run import Bounds, visible_gpus

KEY = "0123456789abcdef" * 3
QUICK = Bounds(init_seconds=2.0, upload_seconds=1.0, online_seconds=8.0)


def children(name: str) -> list[int]:
    """Live child processes of ours whose command holds a name."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        # A thread or a child may end while we look.
        with suppress(OSError):
            for pid in (task / "children").read_text().split():
                with suppress(OSError):
                    if name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                        found.append(int(pid))
    return found


def warnings_of(caplog) -> list[str]:
    """Our warnings; wandb's own log does not reach people (pytest makes it propagate)."""
    own = [record for record in caplog.records if record.name.startswith("pgolf_sweep")]
    return [record.getMessage() for record in own if record.levelno >= logging.WARNING]


def test_offline_run_holds_config_curves_and_how_the_trial_ended(
    tmp_path, make_tracking, make_end, offline_runs, monkeypatch
):
    elsewhere = tmp_path / "cwd"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    tracker = make_run_tracker(make_tracking(batch_tokens=1024), tmp_path)
    tracker.report(StepReport(step=10, train_loss_nats=5.5, train_seconds=1.0, step_avg_ms=100.0))
    tracker.report(StepReport(step=10, val_loss_nats=5.0, val_bpb=3.0, train_seconds=1.0))
    tracker.report(StepReport(step=20, train_loss_nats=float("nan"), train_seconds=2.0))
    tracker.finish(make_end())

    (found,) = offline_runs(tmp_path)
    assert (found.run.run_id, found.run.project, found.run.run_group) == (
        "night-12",
        "pgolf",
        "night",
    )
    assert found.run.job_type == "trial"
    assert found.run.resume
    assert list(found.run.tags) == ["tpe", "completed"]
    assert found.config["MODEL_DIM"] == 64
    assert found.config["LR_SCHEDULE"] == "wsd"
    assert [(row["step"], row.get("train/loss_nats"), row.get("val/bpb")) for row in found.history][
        :2
    ] == [(10, 5.5, None), (10, None, 3.0)]
    assert found.history[0]["tokens_per_second"] == 10_240
    assert found.history[2]["step"] == 20
    assert found.metrics["val/bpb"] == "step"
    wanted = {
        "status": "completed",
        "val_bpb": 2.5,
        "val_loss_nats": 4.2,
        "artifact_bytes": 290_000,
        "headroom_bytes": 10_000,
        "model_bytes": 250_000,
        "code_bytes": 40_000,
        "train_seconds": 9.5,
        "steps": 100,
        "end_cause": "exited",
    }
    assert wanted.items() <= found.summary.items()
    assert found.exit_code == 0
    assert list(elsewhere.iterdir()) == []


def test_failed_trial_makes_a_failed_run_with_its_reason(
    tmp_path, make_tracking, make_end, offline_runs
):
    tracker = make_run_tracker(make_tracking(), tmp_path)
    tracker.finish(make_end(LogSummary(), exit_code=3, log_tail=("ValueError: bad width",)))
    (found,) = offline_runs(tmp_path)
    assert found.exit_code == 1
    assert found.summary["status"] == "failed"
    assert "failed" in found.run.tags
    assert found.summary["reason"] == "exit code 3: ValueError: bad width"
    assert "val_bpb" not in found.summary


def test_trials_of_a_launch_inside_another_run_have_ids_of_their_own(
    tmp_path, make_tracking, make_end, offline_runs, monkeypatch
):
    for name in ("RUN_ID", "SWEEP_ID", "RUN_GROUP", "NAME", "JOB_TYPE", "TAGS", "RESUME"):
        monkeypatch.setenv(f"WANDB_{name}", "inherited")
    for number in (1, 2):
        tracking = make_tracking(run_id=f"night-{number}", name=f"night-{number}")
        make_run_tracker(tracking, tmp_path / str(number)).finish(make_end())
    runs = [offline_runs(tmp_path / str(number))[0].run for number in (1, 2)]
    assert [run.run_id for run in runs] == ["night-1", "night-2"]
    assert [run.display_name for run in runs] == ["night-1", "night-2"]
    assert {(run.run_group, run.job_type, run.sweep_id) for run in runs} == {("night", "trial", "")}


def test_retried_trial_continues_under_the_same_id(tmp_path, make_tracking, make_end, offline_runs):
    for cause in (EndCause.LOST, EndCause.EXITED):
        tracker = make_run_tracker(make_tracking(), tmp_path)
        tracker.report(StepReport(step=1, train_loss_nats=5.0))
        tracker.finish(make_end(cause=cause))
    first, second = offline_runs(tmp_path)
    assert first.path.parent != second.path.parent
    assert first.run.run_id == second.run.run_id == "night-12"
    assert [first.summary["status"], second.summary["status"]] == ["lost", "completed"]


def test_retry_that_starts_before_the_first_run_is_closed_waits_for_it(
    tmp_path, make_tracking, make_end, offline_runs, caplog
):
    first = make_run_tracker(make_tracking(), tmp_path / "1")
    first.report(StepReport(step=1, train_loss_nats=5.0))
    second = make_run_tracker(make_tracking(), tmp_path / "2")
    second.report(StepReport(step=2, train_loss_nats=5.0))
    first.finish(make_end(cause=EndCause.LOST))
    second.finish(make_end())
    (lost,), (completed,) = offline_runs(tmp_path / "1"), offline_runs(tmp_path / "2")
    assert [lost.summary["status"], completed.summary["status"]] == ["lost", "completed"]
    assert warnings_of(caplog) == []


def test_many_runs_in_one_process_leave_no_thread_and_one_service(
    tmp_path, make_tracking, make_end, offline_runs
):
    for number in range(12):
        tracker = make_run_tracker(make_tracking(run_id=f"night-{number}"), tmp_path)
        tracker.report(StepReport(step=1, train_loss_nats=5.0))
        tracker.finish(make_end())
        if number == 1:
            settled = threading.active_count()
    assert threading.active_count() <= settled
    assert len(children("wandb-core")) == 1
    assert [run.exit_code for run in offline_runs(tmp_path)] == [0] * 12
    shutdown()
    assert children("wandb-core") == []


def test_tracking_works_again_after_shutdown(tmp_path, make_tracking, make_end, offline_runs):
    for number in range(2):
        tracker = make_run_tracker(make_tracking(run_id=f"night-{number}"), tmp_path)
        tracker.finish(make_end())
        shutdown()
    assert len(offline_runs(tmp_path)) == 2


def test_unreachable_server_keeps_the_run_offline_and_warns_once(
    tmp_path, make_tracking, make_end, offline_runs, caplog
):
    env = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    started = time.monotonic()
    tracker = WandbRunTracker(make_tracking(mode="online", env=env), tmp_path, QUICK)
    tracker.report(StepReport(step=1, val_bpb=3.0, val_loss_nats=5.0))
    assert time.monotonic() - started < 2.0
    tracker.finish(make_end())
    assert time.monotonic() - started < QUICK.online_seconds

    second_started = time.monotonic()
    second = WandbRunTracker(
        make_tracking(mode="online", env=env, run_id="night-13"), tmp_path, QUICK
    )
    second.finish(make_end())
    assert time.monotonic() - second_started < 3.0

    assert [(run.run.run_id, run.summary["val_bpb"]) for run in offline_runs(tmp_path)] == [
        ("night-12", 2.5),
        ("night-13", 2.5),
    ]
    (warning,) = warnings_of(caplog)
    assert "cannot be reached" in warning


class _Refusing(BaseHTTPRequestHandler):
    """A server that answers, and that knows no W&B."""

    def _refuse(self) -> None:
        self.send_error(404)

    do_GET = do_POST = _refuse  # noqa: N815 - names that http.server calls

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def refusing_server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refusing)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_server_that_refuses_the_run_keeps_it_offline_under_an_id_of_its_own(
    tmp_path, make_tracking, make_end, offline_runs, caplog, capfd, refusing_server
):
    env = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": refusing_server}
    for number in (12, 13):
        tracking = make_tracking(mode="online", env=env, run_id=f"night-{number}")
        WandbRunTracker(tracking, tmp_path, QUICK).finish(make_end())
    ids = [run.run.run_id for run in offline_runs(tmp_path)]
    assert ids == ["night-12-offline", "night-13"]
    assert len(warnings_of(caplog)) == 1
    assert capfd.readouterr() == ("", "")


def test_server_that_never_answers_does_not_hold_a_trial_up(
    tmp_path, make_tracking, make_end, offline_runs
):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = {
            "WANDB_API_KEY": KEY,
            "WANDB_BASE_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
        }
        tracking = make_tracking(mode="online", env=env)
        started = time.monotonic()
        WandbRunTracker(tracking, tmp_path, replace(QUICK, probe_seconds=0.5)).finish(make_end())
        assert time.monotonic() - started < 4.0
    assert [run.run.run_id for run in offline_runs(tmp_path)] == ["night-12"]


def test_server_that_goes_away_while_a_run_is_open_leaves_it_whole_for_a_later_sync(
    tmp_path, make_tracking, make_end, offline_runs, caplog
):
    with WandbServer() as server:
        env = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url}
        tracking = make_tracking(mode="online", env=env)
        bounds = replace(QUICK, init_seconds=60.0, online_seconds=60.0)
        tracker = WandbRunTracker(tracking, tmp_path, bounds)
        tracker.report(StepReport(step=1, val_bpb=3.0, val_loss_nats=5.0))
        deadline = time.monotonic() + 60.0
        while "night-12" not in server.streamed:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    tracker.report(StepReport(step=2, val_bpb=2.9, val_loss_nats=4.9))
    started = time.monotonic()
    tracker.finish(make_end())
    assert time.monotonic() - started < bounds.online_seconds
    (found,) = offline_runs(tmp_path)
    assert [point["step"] for point in found.history] == [1, 2]
    assert found.summary["status"] == "completed"
    (warning,) = warnings_of(caplog)
    assert "went away while a run was open" in warning


def test_key_is_in_no_file_and_no_repr(
    tmp_path, make_tracking, make_end, monkeypatch, refusing_server
):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    env = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": refusing_server}
    tracking = make_tracking(mode="online", env=env)
    WandbRunTracker(tracking, tmp_path, QUICK).finish(make_end())
    assert KEY not in repr(tracking)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_init_that_fails_warns_once_and_costs_the_trial_nothing(
    tmp_path, make_tracking, make_end, monkeypatch, caplog
):
    import wandb

    def broken(**_):
        raise RuntimeError("no W&B today")

    monkeypatch.setattr(wandb, "init", broken)
    for number in range(3):
        tracker = make_run_tracker(make_tracking(run_id=f"night-{number}"), tmp_path)
        for step in range(100):
            tracker.report(StepReport(step=step, train_loss_nats=5.0))
        tracker.finish(make_end())
    (warning,) = warnings_of(caplog)
    assert "no W&B today" in warning


def test_folder_that_cannot_be_written_fails_no_trial(tmp_path, make_tracking, make_end, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    tracker = make_run_tracker(make_tracking(), blocked)
    tracker.report(StepReport(step=1, train_loss_nats=5.0))
    tracker.finish(make_end())
    assert len(warnings_of(caplog)) == 1


def test_service_killed_in_the_middle_fails_no_trial(tmp_path):
    # In a process of its own, since wandb keeps what is left of a service until the process ends.
    code = f"""
import os, time
from pathlib import Path
from pgolf_sweep.track import make_study_tracker, shutdown
folder = Path({str(tmp_path)!r})
tracker = make_study_tracker("offline", "p", None, "night", folder, {{}})
while not list(folder.glob("wandb/*/*.wandb")):
    time.sleep(0.05)
for task in Path("/proc/self/task").iterdir():
    for pid in (task / "children").read_text().split():
        os.kill(int(pid), 9)
started = time.monotonic()
for number in range(100):
    tracker.progress({{"completed": number}})
tracker.finish({{}})
shutdown()
print(time.monotonic() - started)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < pgolf_sweep.track.wandb_run.DEFAULT_BOUNDS.offline_seconds + 1
    assert "Traceback" not in done.stderr


def test_service_inherited_from_another_process_is_not_used(
    tmp_path, make_tracking, make_end, monkeypatch, offline_runs
):
    monkeypatch.setenv("WANDB_SERVICE", "3-1-unix-/nowhere/socket")
    tracker = make_run_tracker(make_tracking(), tmp_path)
    tracker.finish(make_end())
    (found,) = offline_runs(tmp_path)
    assert found.exit_code == 0


def test_service_ends_with_a_process_that_is_killed(tmp_path):
    code = f"""
import sys, time
from pathlib import Path
from pgolf_sweep.track import make_study_tracker
tracker = make_study_tracker("offline", "p", None, "night", Path({str(tmp_path)!r}), {{}})
while not list(Path({str(tmp_path)!r}).glob("wandb/*/*.wandb")):
    time.sleep(0.05)
tracker.progress({{"best_val_bpb": 2.0}})
print("ready", flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        pids = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for task in Path(f"/proc/{process.pid}/task").iterdir():
            pids += (task / "children").read_text().split()
        assert pids
        process.kill()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}/exe").exists() for pid in pids):
        time.sleep(0.1)
    alive = [pid for pid in pids if _running(pid)]
    assert alive == []


def _running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def discard(study, number: int) -> None:
    verdict = Verdict(
        kind=VerdictKind.TOO_BIG,
        reason="too big",
        code_bytes=40_000,
        cap_bytes=300_000,
        confidence=0.99,
        regime="entropy",
        artifact_bytes=Interval(low=310_000.0, mid=320_000.0, high=330_000.0),
    )
    study.discarded(number, {"MODEL_DIM": 128, "SEED": number}, verdict)


def test_study_run_holds_progress_and_the_discards_as_a_table(tmp_path, offline_runs):
    study = make_study_tracker(
        "offline", "pgolf", None, "night", tmp_path, {"method": "bayes"}, salt="2026"
    )
    study.progress({"best_val_bpb": 2.9, "completed": 1})
    for number in range(200):
        discard(study, number)
    study.progress({"best_val_bpb": 2.8, "completed": 2})
    study.finish({"status": "done", "slot_hours": 1.5})

    (found,) = offline_runs(tmp_path)
    assert found.run.run_id.startswith("night-")
    assert found.run.run_id.endswith("-summary")
    assert (found.run.job_type, found.run.run_group) == ("sweep", "night")
    assert found.config["method"] == "bayes"
    assert [r["best_val_bpb"] for r in found.history if "best_val_bpb" in r] == [2.9, 2.8]
    assert found.summary["discarded"] == 200
    assert found.summary["slot_hours"] == 1.5
    tables = [row for row in found.history if "discards.nrows" in row]
    assert [row["discards.nrows"] for row in tables] == [64, 128, 200]
    assert found.summary["discards.nrows"] == 200
    path = found.path.parent / "files" / found.summary["discards.path"]
    assert '"too big"' in path.read_text()
    assert "discards.artifact_path" not in found.summary


def ended(number: int, **changes: Any) -> TrialRecord:
    values: dict[str, Any] = {
        "outcome": State.COMPLETED,
        "knobs": {"MODEL_DIM": 64},
        "val_bpb": 2.5,
        "expected_bpb": 2.6,
        "expected_sd": 0.1,
        "predicted_bytes": Interval(low=1.0, mid=2.0, high=3.0),
        "artifact_bytes": 4,
        "slot_seconds": 7.0,
    }
    return TrialRecord(number=number, **values | changes)


def test_study_run_holds_what_was_predicted_against_what_came(tmp_path, offline_runs):
    study = make_study_tracker("offline", "pgolf", None, "night", tmp_path, {}, tags=("bayes",))
    study.ended(ended(0), again=True)
    study.ended(ended(1))
    failed = {"val_bpb": None, "expected_bpb": None, "artifact_bytes": None, "reason": "NaN"}
    study.ended(ended(2, outcome=State.FAILED, **failed))
    study.finish({"state": "finished"})
    (found,) = offline_runs(tmp_path)
    points = [row for row in found.history if "trial/number" in row]
    assert [row["trial/number"] for row in points] == [1, 2], "an earlier launch drew the first"
    assert (points[0]["trial/score"], points[0]["trial/expected_score"]) == (2.5, 2.6)
    assert (points[0]["trial/predicted_bytes"], points[0]["trial/artifact_bytes"]) == (2.0, 4)
    assert "trial/score" not in points[1]
    assert found.metrics["trial/*"] == "trial/number"
    table = json.loads((found.path.parent / "files" / found.summary["trials.path"]).read_text())
    assert [row[0] for row in table["data"]] == [0, 1, 2]
    assert dict(zip(table["columns"], table["data"][2], strict=True))["reason"] == "NaN"
    assert list(found.run.tags) == ["bayes"]


def test_progress_is_logged_when_it_is_new_and_not_more_often_than_read(tmp_path, offline_runs):
    study = make_study_tracker("offline", "pgolf", None, "night", tmp_path, {})
    for count in (1, 1, 2, 3, 3):
        study.progress({"completed": float(count)})
    study.finish({})
    (found,) = offline_runs(tmp_path)
    assert [row["completed"] for row in found.history if "completed" in row] == [1.0, 3.0]


@pytest.fixture
def kept(tmp_path):
    """A study's files."""
    sweep, model = tmp_path / "sweep.yaml", tmp_path / "final_model.ptz"
    sweep.write_text("method: random\n")
    model.write_bytes(b"weights")
    return [
        TrackedFiles(name="night-sweep", kind="sweep", files={"sweep.yaml": sweep}),
        TrackedFiles(
            name="night-best", kind="trial", files={model.name: model}, metadata={"trial": 3}
        ),
    ]


def test_files_of_an_offline_study_wait_where_they_lie(tmp_path, offline_runs, kept):
    study = make_study_tracker("offline", "pgolf", None, "night", tmp_path, {})
    study.finish({}, kept)
    (found,) = offline_runs(tmp_path)
    assert found.artifacts == {
        files.name: {name: str(path) for name, path in files.files.items()} for files in kept
    }


def test_files_of_an_online_study_are_uploaded(tmp_path, kept, monkeypatch, caplog):
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        study = make_study_tracker("online", "p", "e", "night", tmp_path, {})
        study.finish({}, kept)
        shutdown()
    assert server.uploads["sweep.yaml"] == b"method: random\n"
    assert server.uploads["final_model.ptz"] == b"weights"
    assert warnings_of(caplog) == []


def test_files_that_are_gone_cost_a_warning_and_not_the_run(tmp_path, offline_runs, kept, caplog):
    study = make_study_tracker("offline", "pgolf", None, "night", tmp_path, {})
    for files in kept:
        for path in files.files.values():
            path.unlink()
    study.finish({"state": "finished"}, kept)
    (found,) = offline_runs(tmp_path)
    assert (found.summary["state"], found.exit_code) == ("finished", 0)
    (warning,) = warnings_of(caplog)
    assert "artifacts" in warning


def test_offline_runs_go_up_later_by_one_command(tmp_path, make_tracking, make_end, kept):
    make_run_tracker(make_tracking(), tmp_path).finish(make_end())
    make_study_tracker("offline", "p", "e", "night", tmp_path, {}).finish({}, kept)
    shutdown()
    with WandbServer() as server:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        env = {**os.environ, "PATH": path, "WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url}
        line = ["sh", "-c", sync_command(tmp_path / "wandb")]
        done = subprocess.run(line, env=env, cwd=tmp_path, check=False, capture_output=True,
                              text=True, timeout=120)  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert server.streamed == {"night-12", "night-summary"}
    assert server.uploads["final_model.ptz"] == b"weights"


def test_study_and_trials_share_a_process(tmp_path, make_tracking, make_end, offline_runs):
    study = make_study_tracker("offline", "pgolf", None, "night", tmp_path, {})
    trials = [make_run_tracker(make_tracking(run_id=f"night-{n}"), tmp_path) for n in range(3)]
    for trial in trials:
        trial.finish(make_end())
    study.finish({})
    ids = {run.run.run_id for run in offline_runs(tmp_path)}
    assert ids == {"night-0", "night-1", "night-2", "night-summary"}


@pytest.mark.parametrize(
    ("value", "expected"), [("0,3", [0, 3]), ("", None), ("GPU-8f1c", None), (None, None)]
)
def test_visible_gpus(value, expected):
    environ = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
    assert visible_gpus(environ) == expected

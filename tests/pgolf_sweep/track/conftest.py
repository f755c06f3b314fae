"""Reading W&B's offline files back, and trackers to try."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - a dataclass field
from typing import Any

import pytest

from pgolf_sweep.track import shutdown
from pgolf_sweep.track import wandb as tracker_module
from pgolf_sweep.track.base import RunTracking
from pgolf_sweep.trial import EndCause, LogSummary, RunEnd

_BLOCK = 32_768
_FULL, _LAST = 1, 4


@dataclass
class OfflineRun:
    """One ``.wandb`` file, decoded."""

    path: Path
    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)
    exit_code: int | None = None


def _records(data: bytes):
    """Records of a LevelDB log: blocks of 32 KiB, each record with checksum, length, kind."""
    assert data[:4] == b":W&B"
    position, parts = 7, b""
    while position + 7 <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        position += 7
        parts += data[position : position + length]
        position += length
        if kind in {_FULL, _LAST}:
            yield parts
            parts = b""


def read_offline_run(path: Path) -> OfflineRun:
    from wandb.proto import wandb_internal_pb2

    result = OfflineRun(path=path)
    for data in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            result.run = record.run
            for item in record.run.config.update:
                result.config[item.key] = json.loads(item.value_json)
        elif kind == "history":
            items = record.history.item
            result.history.append(
                {
                    item.key or ".".join(item.nested_key): json.loads(item.value_json)
                    for item in items
                }
            )
        elif kind == "summary":
            for item in record.summary.update:
                name = item.key or ".".join(item.nested_key)
                result.summary[name] = json.loads(item.value_json)
        elif kind == "metric":
            result.metrics[record.metric.name] = record.metric.step_metric
        elif kind == "exit":
            result.exit_code = record.exit.exit_code
    return result


@pytest.fixture
def offline_runs():
    """Every offline run below a folder, oldest first."""

    def read(folder: Path) -> list[OfflineRun]:
        paths = folder.glob("wandb/offline-run-*/*.wandb")
        return [
            read_offline_run(path) for path in sorted(paths, key=lambda p: p.stat().st_ctime_ns)
        ]

    return read


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
    monkeypatch.setattr(tracker_module, "_said", set())
    monkeypatch.setattr(tracker_module, "_offline_until", 0.0)
    monkeypatch.setattr(tracker_module, "_claimed", set())
    yield
    shutdown()

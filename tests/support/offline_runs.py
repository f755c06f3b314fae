"""Reading W&B's offline files back."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - a dataclass field
from typing import Any

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
    artifacts: dict[str, dict[str, str]] = field(default_factory=dict)
    """Where the files of each artifact lie, by its name and theirs."""
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
            name = record.metric.name or record.metric.glob_name
            result.metrics[name] = record.metric.step_metric
        elif kind == "artifact":
            contents = record.artifact.manifest.contents
            result.artifacts[record.artifact.name] = {one.path: one.local_path for one in contents}
        elif kind == "exit":
            result.exit_code = record.exit.exit_code
    return result


def read_offline_runs(folder: Path) -> list[OfflineRun]:
    """Every offline run below a folder's ``wandb``, oldest first."""
    paths = folder.glob("wandb/offline-run-*/*.wandb")
    return [read_offline_run(path) for path in sorted(paths, key=lambda p: p.stat().st_ctime_ns)]

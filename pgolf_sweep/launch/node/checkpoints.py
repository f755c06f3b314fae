"""Checkpoints of finished trainings at an address that nodes share: a folder, or any fsspec URL."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.trial import (
    CHECKPOINT,
    CHECKPOINT_FILE,
    CHECKPOINT_KNOB,
    EVAL,
    EXPORT,
    START_KNOB,
    TRAIN,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgolf_sweep.core.trial import TrainingReuse


def take_over(
    reuse: TrainingReuse, work: Path, say: Callable[[str], None]
) -> tuple[str, dict[str, str]]:
    """The part that a run starts at, and the variables that have its script do so.

    A run whose checkpoint cannot be had trains.

    Args:
        reuse: What it takes over.
        work: The run's folder; the checkpoint is put there.
        say: Writes a line into the run's log.
    """
    if reuse.start_at == EVAL:
        return EVAL, {START_KNOB: EVAL}
    if reuse.start_at == EXPORT:
        try:
            fetch(reuse.checkpoint, work / CHECKPOINT_FILE)
        except Exception as error:  # noqa: BLE001 - every file system has errors of its own
            (work / CHECKPOINT_FILE).unlink(missing_ok=True)
            say(f"no checkpoint from {reuse.checkpoint} ({error}): it trains")
        else:
            return EXPORT, {START_KNOB: EXPORT, CHECKPOINT_KNOB: CHECKPOINT}
    return TRAIN, {CHECKPOINT_KNOB: CHECKPOINT} if reuse.keep_at else {}


def leave(reuse: TrainingReuse, work: Path, say: Callable[[str], None]) -> int | None:
    """Keep the checkpoint of a training that ended well; its bytes, or None."""
    if not reuse.keep_at:
        return None
    try:
        return keep(work / CHECKPOINT_FILE, reuse.keep_at)
    except Exception as error:  # noqa: BLE001 - every file system has errors of its own
        say(f"its checkpoint is not kept at {reuse.keep_at}: {error}")
        return None


def keep(file: Path, address: str) -> int:
    """Copy a checkpoint to its address; its bytes.

    A folder is not made where what it lies in does not exist: it is another machine's.

    Raises:
        OSError: The address cannot be written.
    """
    size = file.stat().st_size
    if "://" in address:
        fs, path = _remote(address)
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        fs.put_file(str(file), f"{path}.part")
        fs.mv(f"{path}.part", path)
        return size
    target = Path(address)
    if not target.parent.parent.is_dir():
        raise FileNotFoundError(2, "no such folder on this node", str(target.parent.parent))
    target.parent.mkdir(exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    shutil.copyfile(file, part)
    part.replace(target)
    return size


def fetch(address: str, file: Path) -> None:
    """Copy a checkpoint from its address.

    Raises:
        OSError: It is not there.
    """
    if "://" in address:
        fs, path = _remote(address)
        fs.get_file(path, str(file))
        return
    shutil.copyfile(address, file)


def remove(address: str) -> None:
    """Delete a checkpoint, if it is there.

    Raises:
        OSError: It cannot be deleted.
    """
    if "://" in address:
        fs, path = _remote(address)
        if fs.exists(path):
            fs.rm_file(path)
        return
    Path(address).unlink(missing_ok=True)


def _remote(address: str) -> tuple[Any, str]:
    import fsspec  # noqa: PLC0415 - only for an address that is no folder

    found: tuple[Any, str] = fsspec.core.url_to_fs(address)
    return found

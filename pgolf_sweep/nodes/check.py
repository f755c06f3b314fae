"""The check of a node before its first trial: data, disk, GPUs, versions, speed.

Runs in a worker on the node and needs nothing but the standard library; what torch has to say
comes from a process of its own, since a broken CUDA driver can end or hang the one that asks.
What the node alone can tell is judged here, what takes other nodes in `comparison`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

SAMPLES = 16
SAMPLE_BYTES = 4096
FREE_DISK_BYTES = 1_000_000_000
"""In the scratch folder: a trial's checkpoint takes 140 MB, and compilers keep caches."""

IDLE_GPU_MIB = 1024
"""What driver and monitoring hold of a GPU that nobody uses."""

SMI_SECONDS = 30.0
"""A GPU that has died hangs nvidia-smi."""

CODECS = ("brotli", "zstandard", "lz4", "zstd", "pyzstd")
"""Packages without which contest scripts compress by another codec."""

KILL_SECONDS = 1.0
"""For one that is killed to die."""
PROBE_SECONDS = 90.0
SPEED_SECONDS = 2.0
"""Of measuring, for each GPU; the import of torch before it takes longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMark:
    """What identifies a file: its size and a hash of it, whole or of samples."""

    size_bytes: int
    sha256: str
    whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOrder:
    """What a node is asked.

    Attributes:
        node: Its name as people know it.
        gpus: Of a trial.
        threads: CPU threads of a trial, for the speed of a trial without GPUs.
        files: Marks of the files of the data set, by absolute path.
        remedy: The command that makes the data set whole.
        shards: Folder and pattern of the training shards, of which nodes must have the same.
        speed: Whether tokens per second are measured.
    """

    node: str = ""
    gpus: int
    threads: int = 1
    files: Mapping[str, FileMark] = field(default_factory=dict)
    remedy: str = ""
    shards: tuple[str, str] | None = None
    speed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """What a node answered.

    Attributes:
        node: Its name.
        began_at: Its clock at the beginning, epoch seconds.
        ended_at: Its clock at the end.
        faults: What is wrong regardless of other nodes.
        compared: What should be the same on every node, by name.
        tokens_per_second: Of its slowest GPU, or of its CPU; None where it was not measured.
        lacks: Packages of codecs that are not installed there: scripts fall back to others.
    """

    node: str
    began_at: float
    ended_at: float
    faults: tuple[Finding, ...]
    compared: Mapping[str, str]
    tokens_per_second: float | None
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A line of nvidia-smi."""

    index: str
    uuid: str
    name: str
    driver: str
    used_mib: int


def mark(path: Path, *, whole: bool) -> FileMark:
    """Size and hash of a file; samples are 16 blocks of 4 KiB, spread from its first to its last.

    Raises:
        OSError: It cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if whole or size <= SAMPLES * SAMPLE_BYTES:
            digest = hashlib.file_digest(file, "sha256")
        else:
            for index in range(SAMPLES):
                file.seek((size - SAMPLE_BYTES) * index // (SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    return FileMark(size_bytes=size, sha256=digest.hexdigest(), whole=whole)


def look(
    order: CheckOrder,
    scratch: Path,
    *,
    probe: Callable[[CheckOrder], Mapping[str, Any]] | None = None,
) -> NodeReport:
    """Look at everything that a trial needs on this node.

    Args:
        order: What is needed.
        scratch: Where trials run.
        probe: Stands in for torch's process: its answer is ``gpus`` (how many it can use) and
            ``tokens_per_second`` (one figure a GPU, or one for the CPU), or ``error``.
    """
    began_at = time.time()
    compared = {"Python": platform.python_version()}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        compared["torch"] = importlib.metadata.version("torch")
    faults = [*_data_faults(order), *_disk_faults(order, scratch)]
    if order.shards is not None:
        try:
            compared["training shards"] = _shards(*order.shards)
        except OSError as error:
            faults.append(_shard_fault(order, error))
    driver = False
    if order.gpus:
        try:
            gpus = visible(nvidia_smi(), os.environ.get("CUDA_VISIBLE_DEVICES"))
            driver = gpus is not None
            compared["NVIDIA driver"] = "none" if gpus is None else ", ".join(_set(gpus, "driver"))
            if gpus is not None:
                compared["GPU"] = ", ".join(_set(gpus, "name")) or "none"
                faults += _gpu_faults(order, gpus)
        except _SmiError as error:
            faults.append(_smi_fault(order, str(error)))
    tokens_per_second = None
    if driver or (order.speed and not order.gpus):
        found = (probe or run_probe)(order)
        faults += _torch_faults(order, found)
        if order.speed:
            tokens_per_second = min(found.get("tokens_per_second") or [None])
    return NodeReport(
        node=order.node,
        began_at=began_at,
        ended_at=time.time(),
        faults=tuple(faults),
        compared=compared,
        tokens_per_second=tokens_per_second,
        lacks=tuple(name for name in CODECS if importlib.util.find_spec(name) is None),
    )


# ---- data and disk ----------------------------------------------------------------------------


def _data_faults(order: CheckOrder) -> Iterator[Finding]:
    """One refusal for all files that are missing, one for all that differ."""
    missing: list[str] = []
    differ: list[tuple[str, FileMark, FileMark]] = []
    for path, expected in order.files.items():
        try:
            got = mark(Path(path), whole=expected.whole)
        except OSError as error:
            missing.append(f"{path}: {error.strerror or error}")
            continue
        if got != expected:
            differ.append((path, got, expected))
    next_step = _mend(order)
    if missing:
        yield Finding(
            what=f"{len(missing)} of {len(order.files)} files of the data set are missing",
            where=order.node,
            got=missing[0],
            expected="what the driver's machine has, at the same path",
            next_step=next_step,
        )
    for path, got, expected in differ[:1]:
        sizes = got.size_bytes != expected.size_bytes
        yield Finding(
            what=f"{len(differ)} of {len(order.files)} files of the data set differ",
            where=f"{order.node}: {path}",
            got=f"{got.size_bytes} bytes" if sizes else f"sha256 {got.sha256[:16]}",
            expected=f"{expected.size_bytes} bytes"
            if sizes
            else f"sha256 {expected.sha256[:16]}, as the driver's machine has",
            next_step=next_step,
        )


def _mend(order: CheckOrder) -> str:
    return f"on {order.node}: {order.remedy}" if order.remedy else f"copy it to {order.node}"


def _shards(folder: str, pattern: str) -> str:
    sizes = [path.stat().st_size for path in Path(folder).glob(pattern)]
    return f"{len(sizes)} of {sum(sizes)} bytes"


def _shard_fault(order: CheckOrder, error: OSError) -> Finding:
    return Finding(
        what="a training shard cannot be read",
        where=f"{order.node}: {error.filename}",
        got=error.strerror or str(error),
        expected="a file, as most nodes have",
        next_step=_mend(order),
    )


def _disk_faults(order: CheckOrder, scratch: Path) -> Iterator[Finding]:
    above = (scratch.absolute(), *scratch.absolute().parents)
    try:
        home = next(path for path in above if path.is_dir())
        free_bytes = shutil.disk_usage(home).free
    except OSError as error:
        yield Finding(
            what="the disk for trials cannot be read",
            where=f"{order.node}: {error.filename or scratch}",
            got=error.strerror or str(error),
            expected="a folder that can be written",
            next_step=f"on {order.node}: mount it anew, or replace the node",
        )
        return
    writable = os.access(home, os.W_OK)
    if writable and free_bytes >= FREE_DISK_BYTES:
        return
    yield Finding(
        what="the disk has no room for trials" if writable else "trials cannot write",
        where=f"{order.node}: {scratch}",
        got=f"{free_bytes / 1e9:.2f} GB free" if writable else f"{home} is read-only",
        expected=f"{FREE_DISK_BYTES / 1e9:g} GB free in a folder that can be written",
        next_step=f"free space on {order.node}",
    )


# ---- processes that may hang -----------------------------------------------------------------


def _said(command: Sequence[str], seconds: float, **env: str) -> subprocess.CompletedProcess[str]:
    """What a program says, unless it hangs; `subprocess.run` would wait for its death, too.

    A dead GPU holds a process in the kernel, where SIGKILL waits with it.

    Raises:
        OSError: It cannot be started.
        subprocess.TimeoutExpired: It has not ended in time; it was killed, and may yet die.
    """
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    )
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(KILL_SECONDS)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


# ---- GPUs -------------------------------------------------------------------------------------


class _SmiError(Exception):
    """nvidia-smi is there and does not answer; the text says how, for people."""


def nvidia_smi() -> list[Gpu] | None:
    """What the NVIDIA driver sees; None where there is no such driver.

    Raises:
        _SmiError: It hangs, fails or says something else than its documentation.
    """
    if shutil.which("nvidia-smi") is None:
        return None
    rows = _query("--query-gpu=index,uuid,name,driver_version,memory.used")
    try:
        return [
            # Some devices do not say how much of their memory is in use.
            Gpu(index=i, uuid=u, name=n, driver=d, used_mib=int(m) if m.isdigit() else 0)
            for i, u, n, d, m in rows
        ]
    except ValueError as error:
        raise _SmiError(f"an answer that cannot be read: {rows[0]}") from error


def _query(what: str) -> list[list[str]]:
    command = ["nvidia-smi", what, "--format=csv,noheader,nounits"]
    try:
        done = _said(command, SMI_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise _SmiError(f"no answer in {SMI_SECONDS:g} s") from error
    except OSError as error:
        raise _SmiError(str(error)) from error
    if done.returncode != 0:
        words = (done.stdout + done.stderr).strip().splitlines()
        raise _SmiError(words[-1] if words else f"exit code {done.returncode}")
    return [[cell.strip() for cell in row.split(",")] for row in done.stdout.splitlines() if row]


def usable_gpus() -> int:
    """How many GPUs this process may use; none where nvidia-smi does not answer."""
    try:
        return len(visible(nvidia_smi(), os.environ.get("CUDA_VISIBLE_DEVICES")) or ())
    except _SmiError:
        return 0


def visible(gpus: Sequence[Gpu] | None, devices: str | None) -> list[Gpu] | None:
    """Those that this worker may use, by CUDA_VISIBLE_DEVICES; other jobs may hold the others."""
    if gpus is None or devices is None:
        return None if gpus is None else list(gpus)
    mine = {device.strip() for device in devices.split(",")}
    if any(device.startswith("MIG-") for device in mine):
        return list(gpus)  # parts of cards, which this list does not name
    return [gpu for gpu in gpus if gpu.index in mine or gpu.uuid in mine]


def _gpu_faults(order: CheckOrder, gpus: Sequence[Gpu]) -> Iterator[Finding]:
    if len(gpus) < order.gpus:
        yield Finding(
            what="GPUs are missing",
            where=order.node,
            got=f"{len(gpus)} ({', '.join(gpu.index for gpu in gpus) or 'none'})",
            expected=f"{order.gpus}, as Ray was told",
            next_step=f"on {order.node}: nvidia-smi, dmesg | grep -i xid; reboot or replace it",
        )
    busy = [gpu for gpu in gpus if gpu.used_mib > IDLE_GPU_MIB]
    if not busy:
        return
    holders = _holders(busy)
    yield Finding(
        what=f"{len(busy)} of {len(gpus)} GPUs are in use",
        where=f"{order.node}: GPU {', '.join(gpu.index for gpu in busy)}",
        got=f"{max(gpu.used_mib for gpu in busy)} MiB in use by {holders or 'nobody listed'}",
        expected=f"at most {IDLE_GPU_MIB} MiB before the first trial",
        next_step=f"on {order.node}: end what holds them (nvidia-smi lists it)",
    )


def _holders(busy: Iterable[Gpu]) -> str:
    """Processes on these GPUs; a container may not be shown those of others."""
    wanted = {gpu.uuid for gpu in busy}
    try:
        rows = _query("--query-compute-apps=gpu_uuid,pid,process_name")
    except _SmiError:
        return ""
    found = [f"process {row[1]} ({row[2]})" for row in rows if len(row) > 2 and row[0] in wanted]
    return ", ".join(dict.fromkeys(found))


def _smi_fault(order: CheckOrder, got: str) -> Finding:
    return Finding(
        what="nvidia-smi does not answer",
        where=order.node,
        got=got,
        expected="its list of GPUs",
        next_step=f"on {order.node}: nvidia-smi; reboot or replace it",
    )


def _set(gpus: Iterable[Gpu], name: str) -> list[str]:
    return sorted({getattr(gpu, name) for gpu in gpus})


# ---- torch ------------------------------------------------------------------------------------


def run_probe(order: CheckOrder) -> Mapping[str, Any]:
    """What `speed` prints, or ``{"error": reason}``."""
    script = Path(__file__).with_name("speed.py")
    device = "cuda" if order.gpus else "cpu"
    seconds = SPEED_SECONDS if order.speed else 0.0
    command = [sys.executable, "-W", "ignore", str(script), device, f"{seconds}"]
    try:
        done = _said(command, PROBE_SECONDS, OMP_NUM_THREADS=str(order.threads))
    except subprocess.TimeoutExpired:
        return {"error": f"no answer in {PROBE_SECONDS:g} s"}
    try:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    except (ValueError, IndexError):
        words = done.stderr.strip().splitlines()
        return {"error": words[-1] if words else f"exit code {done.returncode}"}


def _torch_faults(order: CheckOrder, found: Mapping[str, Any]) -> Iterator[Finding]:
    usable = int(found.get("gpus", 0))
    if "error" not in found and usable >= order.gpus:
        return
    yield Finding(
        what="torch cannot use the GPUs" if order.gpus else "torch does not work",
        where=order.node,
        got=str(found.get("error") or f"{usable} GPUs that torch can use"),
        expected=f"{order.gpus} GPUs" if order.gpus else "a few steps of training",
        next_step=f'on {order.node}: python -c "import torch; print(torch.cuda.is_available())"',
    )

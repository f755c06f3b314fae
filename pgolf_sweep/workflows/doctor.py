"""Checks of this machine or cluster for what is missing, each with a verdict and a next step.

Nothing here prints. Facts are gathered in `examine`; what they mean is judged by pure functions.
"""

from __future__ import annotations

import importlib.metadata
import json
import lzma
import os
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import DataError, InfraError, InputError
from pgolf_sweep.core.trial import Resources
from pgolf_sweep.data import locate, survey
from pgolf_sweep.script.probe.contain.containment import containment
from pgolf_sweep.track import resolve_mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pgolf_sweep.data import DataSet
    from pgolf_sweep.script.probe.contain.containment import Containment


class Grade(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    """Works, or is not needed for everything; worth knowing before a long sweep."""
    FAIL = "fail"
    """Something that is needed is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What, in a word or two.
        verdict: How it came out.
        observed: What is there.
        expected: What would be right.
        next_step: A command or a change that fixes it; None where nothing is to be done.
    """

    name: str
    verdict: Grade
    observed: str
    expected: str
    next_step: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What one sweep asks of the machine.

    Attributes:
        gpus: GPUs of one node for each trial.
        dataset: What its trials train on, or None.
    """

    gpus: int
    dataset: DataSet | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One CUDA device of this machine."""

    name: str
    memory_bytes: int


LIBRARIES: Mapping[str, tuple[str, str]] = {
    "optuna": ("optuna", "5"),
    "cmaes": ("cmaes", "0.11"),
    "psycopg": ("psycopg", "3.2"),
    "ray": ("ray", "2.60"),
    "wandb": ("wandb", "0.31"),
    "pandas": ("pandas", "3"),
    "typer": ("typer", "0.29"),
    "yaml": ("pyyaml", "6"),
    "numpy": ("numpy", "2"),
    "sentencepiece": ("sentencepiece", "0.2"),
    "brotli": ("brotli", "1.2"),
    "zstandard": ("zstandard", "0.23"),
    "huggingface_hub": ("huggingface_hub", "1"),
    "pydantic": ("pydantic", "2.12"),
    "rich": ("rich", "14"),
    "simpleeval": ("simpleeval", "1"),
    "scipy": ("scipy", "1.15"),
    "python_minifier": ("python_minifier", "3"),
    "packaging": ("packaging", "24"),
    "plotly": ("plotly", "6"),
    "optuna_dashboard": ("optuna-dashboard", "0.20"),
    "fsspec": ("fsspec", "2025"),
}
"""Module, distribution and least version; torch has a check of its own."""

INSTALL = "pip install -e . (or make demo), in the interpreter that runs pgolf-sweep"

_PROBE_SECONDS = 120.0
_MODULES_PROBE = """
import importlib, json, sys
errors = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception as error:
        errors[name] = f"{type(error).__name__}: {error}"
print(json.dumps(errors))
"""
_TORCH_PROBE = """
import json, torch
devices = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
found = [torch.cuda.get_device_properties(index) for index in devices]
print(json.dumps({
    "version": torch.__version__,
    "cuda": torch.version.cuda,
    "gpus": [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in found],
}))
"""

GB = 1_000_000_000


def examine(
    *,
    data_root: Path,
    runs: Path,
    needs: Needs | None = None,
    address: str | None = None,
    looking: Callable[[str], None] = lambda _: None,
) -> Iterator[Check]:
    """Look at everything that a sweep needs, quick things first.

    Args:
        data_root: Folder of datasets and tokenizers.
        runs: Folder that holds the studies.
        needs: What a certain sweep asks for, or None for the machine alone.
        address: A Ray cluster whose nodes are to be listed, or None.
        looking: Told what is looked at next, since some of it takes seconds.

    Yields:
        The checks.
    """
    looking("python and libraries")
    yield judge_python(sys.version_info[:3])
    yield judge_libraries(installed_versions(), import_errors(list(LIBRARIES)))
    yield codecs()
    yield judge_containment(containment())
    yield from ray_token(Path("~/.ray/auth_token").expanduser())
    looking("torch")
    torch = probe(_TORCH_PROBE)
    yield judge_torch(torch)
    gpus = [Gpu(**gpu) for gpu in torch.get("gpus", [])]
    # Trials of a cluster run on its nodes; this machine may have no GPU at all.
    yield judge_gpus(gpus, needed=needs.gpus if needs and address is None else None)
    yield judge_torchrun(find_torchrun(), needed=bool(needs and needs.gpus > 1))
    looking("machine")
    yield judge_memory(len(os.sched_getaffinity(0)), available_memory_bytes())
    yield judge_descriptors(*resource.getrlimit(resource.RLIMIT_NOFILE))
    yield judge_shared_memory(shared_memory_bytes(Path("/dev/shm")))  # noqa: S108 - measured, not written
    yield from folders(runs)
    yield tracking(os.environ)
    yield from data_sets(data_root, needs)
    if address is not None:
        looking(f"Ray cluster at {address}")
        yield cluster(address, needed=needs.gpus if needs else None)


def judge_python(version: tuple[int, int, int]) -> Check:
    """Python is new enough."""
    return Check(
        name="python",
        verdict=Grade.OK if version >= (3, 11) else Grade.FAIL,
        observed=".".join(map(str, version)),
        expected="3.11 or newer",
        next_step=None if version >= (3, 11) else "install Python 3.11 and make demo",
    )


def installed_versions() -> dict[str, str]:
    """Version of each of `LIBRARIES` that is installed, by distribution."""
    versions = {}
    for distribution, _ in LIBRARIES.values():
        try:
            versions[distribution] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def import_errors(modules: Sequence[str]) -> dict[str, str]:
    """What importing each module raises; in a process of its own, which may die of it."""
    return {
        name: str(error)
        for name, error in probe(_MODULES_PROBE, *modules).items()
        if name in modules or name == "error"
    }


def judge_libraries(versions: Mapping[str, str], errors: Mapping[str, str]) -> Check:
    """Every library is installed, new enough, and can be imported."""
    wrong = []
    for module, (distribution, least) in LIBRARIES.items():
        version = versions.get(distribution)
        if version is None:
            wrong.append(f"{distribution} is missing")
        elif _release(version) < _release(least):
            wrong.append(f"{distribution} {version} is older than {least}")
        elif module in errors:
            wrong.append(f"{distribution} {version} does not import: {errors[module]}")
    if "error" in errors:
        wrong.append(f"importing them ends the process: {errors['error']}")
    main = ", ".join(f"{name} {versions.get(name)}" for name in ("optuna", "ray", "wandb"))
    return Check(
        name="libraries",
        verdict=Grade.FAIL if wrong else Grade.OK,
        observed="; ".join(wrong) or f"{main} and {len(LIBRARIES) - 3} more",
        expected="all of pyproject.toml, importable",
        next_step=INSTALL if wrong else None,
    )


def _release(version: str) -> tuple[int, ...]:
    """``2.13.0+cpu`` as (2, 13, 0)."""
    parts = version.partition("+")[0].split(".")
    return tuple(int(part) for part in parts if part.isdigit())


def codecs() -> Check:
    """Each codec gives back what it got."""
    sample = b"pgolf" * 1000
    broken = []
    if zlib.decompress(zlib.compress(sample)) != sample:
        broken.append("zlib")
    if lzma.decompress(lzma.compress(sample)) != sample:
        broken.append("lzma")
    try:
        import brotli  # noqa: PLC0415 - its absence is what is looked for

        if brotli.decompress(brotli.compress(sample)) != sample:
            broken.append("brotli")
    except ImportError:
        broken.append("brotli (missing)")
    try:
        import zstandard  # noqa: PLC0415 - as above

        if zstandard.decompress(zstandard.compress(sample)) != sample:
            broken.append("zstd")
    except ImportError:
        broken.append("zstd (missing)")
    return Check(
        name="codecs",
        verdict=Grade.FAIL if broken else Grade.OK,
        observed=f"not usable: {', '.join(broken)}" if broken else "zlib, lzma, brotli, zstd",
        expected="zlib, lzma, brotli and zstd round-trip",
        next_step=INSTALL if broken else None,
    )


def probe(code: str, *arguments: str) -> dict[str, Any]:
    """The JSON that a piece of Python prints last, or ``{"error": reason}``.

    A broken CUDA driver or a wrong wheel can end or hang the process that imports it.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, *arguments],
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer in {_PROBE_SECONDS:.0f} s"}
    try:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    except (ValueError, IndexError):
        last = done.stderr.strip().splitlines()
        return {"error": last[-1] if last else f"exit code {done.returncode}"}


def judge_containment(way: Containment) -> Check:
    """The probe of a script that is not ours is kept in by the kernel, and not by hooks alone."""
    return Check(
        name="probe",
        verdict=Grade.OK if way.complete else Grade.WARN,
        observed=f"contained by {way.describe()}"
        + (f"; refused: {way.refused}" if way.refused else ""),
        expected="files, processes and network of a probed script kept in by the kernel",
        next_step=None
        if way.complete
        else "--no-probe for scripts that you do not trust; or allow user namespaces: sysctl "
        "user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns=0",
    )


def judge_torch(found: Mapping[str, Any]) -> Check:
    """Torch imports."""
    if "error" in found:
        return Check(
            name="torch",
            verdict=Grade.FAIL,
            observed=str(found["error"]),
            expected="torch 2.13 or newer",
            next_step=INSTALL,
        )
    built_for = f"CUDA {found['cuda']}" if found["cuda"] else "CPU only"
    new_enough = _release(found["version"]) >= (2, 13)
    return Check(
        name="torch",
        verdict=Grade.OK if new_enough else Grade.FAIL,
        observed=f"{found['version']}, {built_for}",
        expected="torch 2.13 or newer",
        next_step=None if new_enough else INSTALL,
    )


def judge_gpus(gpus: Sequence[Gpu], *, needed: int | None) -> Check:
    """This machine has the GPUs that a trial asks for.

    Args:
        gpus: What torch sees.
        needed: GPUs of a trial, or None if no sweep was named.
    """
    enough = len(gpus) >= (needed if needed is not None else 1)
    kinds = sorted({f"{gpu.name}, {gpu.memory_bytes / GB:.0f} GB" for gpu in gpus})
    missing = Grade.FAIL if needed is not None else Grade.WARN
    return Check(
        name="gpus",
        verdict=Grade.OK if enough else missing,
        observed=f"{len(gpus)} x {' / '.join(kinds)}" if gpus else "none that torch can use",
        expected=f"{needed} on one node for each trial"
        if needed is not None
        else "8 for the contest; none for sweeps/demo.yaml",
        next_step=None
        if enough
        else "--address HOST:PORT of a cluster with GPUs, or a smaller pgolf.resources.gpus; "
        "nvidia-smi says whether the driver sees any",
    )


def find_torchrun() -> str | None:
    """Path of torchrun: beside this interpreter, or on the PATH."""
    beside = Path(sys.executable).with_name("torchrun")
    return str(beside) if beside.is_file() else shutil.which("torchrun")


def judge_torchrun(path: str | None, *, needed: bool) -> Check:
    """Trials of more than one GPU can be started."""
    missing = Grade.FAIL if needed else Grade.WARN
    return Check(
        name="torchrun",
        verdict=Grade.OK if path else missing,
        observed=path or "not found",
        expected="for trials of more than one GPU",
        next_step=None if path else INSTALL,
    )


def available_memory_bytes() -> int | None:
    """Memory that programs could take now; None where the kernel does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    kib = fields.get("MemAvailable", "").split()
    return int(kib[0]) * 1024 if kib else None


def judge_memory(cores: int, memory_bytes: int | None) -> Check:
    """There is room for Ray (0.4 GB) and a few trials on the CPU (0.6 GB each)."""
    enough = memory_bytes is None or memory_bytes >= 2 * GB
    amount = "unknown" if memory_bytes is None else f"{memory_bytes / GB:.1f} GB"
    return Check(
        name="memory",
        verdict=Grade.OK if enough else Grade.WARN,
        observed=f"{cores} cores, {amount} available",
        expected="2 GB available",
        next_step=None if enough else "end other programs, or launch with fewer slots",
    )


def judge_descriptors(soft: int, hard: int) -> Check:
    """A Ray node with a few dozen workers may open its sockets and logs."""
    least = 4096
    enough = soft == resource.RLIM_INFINITY or soft >= least
    target = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    return Check(
        name="file descriptors",
        verdict=Grade.OK if enough else Grade.WARN,
        observed="unlimited" if soft == resource.RLIM_INFINITY else str(soft),
        expected=f"{least} or more",
        next_step=None if enough else f"ulimit -n {target} before pgolf-sweep and ray start",
    )


def shared_memory_bytes(path: Path) -> int | None:
    """Size of a tmpfs, or None if it is not there."""
    try:
        return shutil.disk_usage(path).total
    except OSError:
        return None


def judge_shared_memory(total_bytes: int | None) -> Check:
    """NCCL and Ray get shared memory; containers give 64 MB unless told otherwise."""
    enough = total_bytes is not None and total_bytes >= GB
    return Check(
        name="shared memory",
        verdict=Grade.OK if enough else Grade.WARN,
        observed="no /dev/shm" if total_bytes is None else f"{total_bytes / GB:.2f} GB",
        expected="1 GB or more for trials of several GPUs",
        next_step=None if enough else "start the container with --shm-size=16g or --ipc=host",
    )


def folders(runs: Path) -> Iterator[Check]:
    """The studies' folder can be written, has room, and its file times agree with the clock."""
    home = next(path for path in (runs.absolute(), *runs.absolute().parents) if path.is_dir())
    try:
        with tempfile.NamedTemporaryFile(dir=home, prefix=".pgolf-doctor.") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
            skew_seconds = abs(os.fstat(file.fileno()).st_mtime - time.time())
        free_bytes = shutil.disk_usage(home).free
    except OSError as error:
        yield Check(
            name="disk",
            verdict=Grade.FAIL,
            observed=f"{home}: {error.strerror or error}",
            expected="a folder that can be written",
            next_step="choose another folder with --runs",
        )
        return
    yield judge_disk(home, free_bytes)
    yield judge_clock(time.time(), skew_seconds)


def judge_disk(home: Path, free_bytes: int) -> Check:
    """There is room for trials: up to 16 MB of artifact and 140 MB of checkpoint each."""
    grade = Grade.OK if free_bytes >= 20 * GB else Grade.WARN
    if free_bytes < GB // 2:
        grade = Grade.FAIL
    return Check(
        name="disk",
        verdict=grade,
        observed=f"{free_bytes / GB:.1f} GB free at {home}",
        expected="20 GB for a contest sweep of a hundred trials; 0.5 GB for the demo",
        next_step=None if grade is Grade.OK else "free space, or choose another folder: --runs",
    )


def judge_clock(now: float, skew_seconds: float) -> Check:
    """The clock is of this age and agrees with the file system, whose times leases are read by."""
    built = Path(__file__).stat().st_mtime
    behind = now < built - 86400
    wrong = behind or skew_seconds > 2
    return Check(
        name="clock",
        verdict=Grade.WARN if wrong else Grade.OK,
        observed="earlier than the program's own files"
        if behind
        else f"{skew_seconds:.1f} s from the file system's",
        expected="within 2 s",
        next_step="set the clock (chronyc makestep), here and on the file server"
        if wrong
        else None,
    )


def ray_token(path: Path) -> Iterator[Check]:
    """Ray's token, with which anybody runs code on the cluster, is readable by its owner alone."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return  # there is none
    others = bool(mode & 0o077)
    yield Check(
        name="ray token",
        verdict=Grade.WARN if others else Grade.OK,
        observed=f"{path}: mode {mode:04o}",
        expected="0600: who reads it can run code on the cluster",
        next_step=f"chmod 600 {path}" if others else None,
    )


def tracking(environ: Mapping[str, str]) -> Check:
    """Where W&B runs would go; the key itself is never shown."""
    expected = "online with a key, or a mode that was chosen"
    try:
        mode = resolve_mode(None, environ)
    except InputError as error:
        return Check(
            name="wandb",
            verdict=Grade.FAIL,
            observed=error.what,
            expected=expected,
            next_step=error.next_step or "unset WANDB_MODE",
        )
    return Check(
        name="wandb",
        verdict=Grade.WARN if mode.note else Grade.OK,
        observed=f"{mode.mode}, no key is set" if mode.note else mode.mode,
        expected=expected,
        next_step="wandb login, or wandb sync later" if mode.note else None,
    )


def data_sets(root: Path, needs: Needs | None) -> Iterator[Check]:
    """Every data set that is there, and the one that the sweep asks for."""
    present = sorted(path.name for path in (root / "datasets").glob("[!.]*_sp*") if path.is_dir())
    needed = needs.dataset if needs else None
    if needed is not None:
        yield judge_data(needed, needed=True)
    for name in present:
        if needed is None or name != needed.name:
            try:
                dataset = locate(name, root)
            except DataError:
                continue  # a folder of someone else's
            yield judge_data(dataset, needed=False)
    if not present and needed is None:
        yield Check(
            name="data",
            verdict=Grade.WARN,
            observed=f"none in {root / 'datasets'}",
            expected="demo_sp512 for the demo, fineweb10B_sp1024 for the contest",
            next_step="pgolf-sweep data demo",
        )


def judge_data(dataset: DataSet, *, needed: bool) -> Check:
    """A data set is sound."""
    expected = "whole shards and their tokenizer"
    try:
        found = survey(dataset)
    except DataError as error:
        got = f": {error.got}" if error.got else ""
        return Check(
            name=f"data {dataset.name}",
            verdict=Grade.FAIL if needed else Grade.WARN,
            observed=f"{error.what}{got}",
            expected=error.expected or expected,
            next_step=error.next_step,
        )
    return Check(
        name=f"data {dataset.name}",
        verdict=Grade.OK,
        observed=f"{found.train.tokens:,} tokens to train on, {found.val.tokens:,} to validate",
        expected=expected,
    )


def cluster(address: str, *, needed: int | None) -> Check:
    """A Ray cluster answers, and one of its nodes has the GPUs of a trial."""
    expected = "a Ray cluster" if needed is None else f"a node with {needed} GPUs"
    try:
        from pgolf_sweep.launch.ray import cluster as ray_cluster  # noqa: PLC0415 - ray takes 0.6 s

        own = ray_cluster.join(address, Resources(gpus=needed or 0, cpus=1.0), None)
        try:
            nodes = [(node.name, node.gpus, node.cpus) for node in ray_cluster.live_nodes()]
        finally:
            if own:
                ray_cluster.leave()
    except (InfraError, ImportError) as error:
        got = error.got if isinstance(error, InfraError) else None
        return Check(
            name="ray cluster",
            verdict=Grade.FAIL,
            observed=f"{getattr(error, 'what', error)}{f': {got}' if got else ''}",
            expected=expected,
            next_step=getattr(error, "next_step", None) or INSTALL,
        )
    return judge_nodes(nodes, needed=needed, expected=expected)


def judge_nodes(
    nodes: Sequence[tuple[str, float, float]], *, needed: int | None, expected: str
) -> Check:
    """The cluster's nodes, each a name, its GPUs and its CPUs, can run a trial."""
    fits = needed is None or any(gpus >= needed for _, gpus, _ in nodes)
    listed = ", ".join(f"{name} ({gpus:g} GPUs, {cpus:g} CPUs)" for name, gpus, cpus in nodes)
    return Check(
        name="ray cluster",
        verdict=Grade.OK if fits and nodes else Grade.FAIL,
        observed=listed if nodes else "no live node",
        expected=expected,
        next_step=None if fits and nodes else "add a node, or lower pgolf.resources.gpus",
    )

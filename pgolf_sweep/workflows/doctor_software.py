"""The doctor's checks of Python, its libraries, torch and the GPUs that torch sees."""

from __future__ import annotations

import importlib.metadata
import json
import lzma
import shutil
import subprocess
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgolf_sweep.workflows.doctor_check import GB, Check, Grade

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgolf_sweep.script.probe.contain.containment import Containment


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


TORCH_PROBE = """
import json, torch
devices = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
found = [torch.cuda.get_device_properties(index) for index in devices]
print(json.dumps({
    "version": torch.__version__,
    "cuda": torch.version.cuda,
    "gpus": [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in found],
}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One CUDA device of this machine."""

    name: str
    memory_bytes: int


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

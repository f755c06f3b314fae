"""The environment that a trial's script gets on its node."""

from __future__ import annotations

import functools
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.secrets import is_secret_name
from pgolf_sweep.script.program import from_files

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pgolf_sweep.core.trial import TrialSpec
    from pgolf_sweep.script.knobs.knobs import Knob

RANK_VARIABLES = frozenset(
    {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
)
"""Of a job manager around the worker: a script would take itself for a rank of something else."""

_SYSTEM = re.compile(
    r"(?:CUDA|CUBLAS|CUDNN|NVIDIA|NCCL|GLOO|UCX|FI|TORCH|PYTORCH|TORCHINDUCTOR|TORCHDYNAMO|TRITON"
    r"|OMP|GOMP|MKL|OPENBLAS|NUMEXPR|KMP|HF|XDG|LC|LD|CONDA)_|PYTHON"
    r"|(?:PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|TZ|TERM|TMPDIR|TMP|TEMP|HOSTNAME|VIRTUAL_ENV"
    r"|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|CC|CXX|MAX_JOBS)$"
)
"""What a process needs of the system and its libraries: a script gets this and little else."""
_PLACES = re.compile(r"(?:^|_)(?:PATH|DIR|DIRS|FILE|FILES|HOME|ROOT)(?:_|$)")
"""Where a node keeps something, for a script that reads it by name."""


COMPILE_CACHES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
"""Where torch.compile keeps what it built, and the folder of `compile_cache` for it."""


def compile_cache(node: Mapping[str, str]) -> Path:
    """A node's folder for compiled kernels, which outlives a trial and, on a volume, a container.

    It lies beside the data where ``PGOLF_DATA`` names them, else among the user's caches.
    """
    if root := node.get("PGOLF_DATA"):
        return Path(root) / "compile-cache"
    home = Path(node.get("HOME") or tempfile.gettempdir())
    return Path(node.get("XDG_CACHE_HOME") or home / ".cache") / "pgolf-sweep" / "compile"


def passes(name: str, spec: TrialSpec) -> bool:
    """Whether a script may have a variable of its node: other people's scripts get no secrets."""
    if name in RANK_VARIABLES or name.startswith("RAY_"):
        return False
    if name in spec.passes:
        return True
    return _SYSTEM.match(name) is not None and not is_secret_name(name)


def environment(
    spec: TrialSpec, node: Mapping[str, str], places: Collection[str] = ()
) -> dict[str, str]:
    """The script's environment: what the node's has for it, and the trial's own.

    Args:
        spec: The trial, with what its sweep file passes on.
        node: The node's environment.
        places: Further variables of the node that the script gets; see `read_places`.
    """
    env = {n: value for n, value in node.items() if passes(n, spec) or n in places}
    env["PYTHONUNBUFFERED"] = "1"
    if spec.resources.gpus:
        for name, folder in COMPILE_CACHES.items():
            env.setdefault(name, str(compile_cache(node) / folder))
    else:
        # Two threads that fight for one core are ten times slower than one: one trial, one core.
        env["OMP_NUM_THREADS"] = str(max(1, int(spec.resources.cpus)))
    if spec.argv:
        # `torchrun` and `accelerate` are those of the environment that the worker runs in.
        own = str(Path(sys.executable).parent)
        env["PATH"] = os.pathsep.join(filter(None, (own, env.get("PATH", ""))))
    return env | dict(spec.env)


def read_places(
    spec: TrialSpec, files: Mapping[str, bytes], node: Mapping[str, str]
) -> tuple[str, ...]:
    """The node's variables that say where something lies, of those that the script reads."""
    return tuple(
        name
        for name, knob in _knobs(spec.program_name, tuple(files.items())).items()
        if name in node and knob.kind == "str" and _PLACES.search(name) and not is_secret_name(name)
    )


def withheld(
    spec: TrialSpec, files: Mapping[str, bytes], node: Mapping[str, str]
) -> tuple[str, ...]:
    """The node's variables that the script reads and does not get.

    A knob that the trial does not set has the script's default for gate, study and submission: the
    node's value would change what a trial computes behind its record's back. Others may be
    secrets. Where a script needs one, the sweep file names it under ``pgolf.env.pass``.

    Args:
        spec: The trial.
        files: The program's files by relative path.
        node: The node's environment.

    Returns:
        Names, in the order in which the script reads them.
    """
    given = environment(spec, node, read_places(spec, files, node))
    names = _knobs(spec.program_name, tuple(files.items()))
    return tuple(name for name in names if name in node and name not in given)


@functools.lru_cache(maxsize=4)
def _knobs(name: str, files: tuple[tuple[str, bytes], ...]) -> Mapping[str, Knob]:
    """What a program reads; kept, since the trials of a sweep run the same files."""
    try:
        return from_files(name, dict(files), builtin=False).knobs
    except InputError:
        return {}  # its own traceback says more

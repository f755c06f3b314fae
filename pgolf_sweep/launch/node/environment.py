"""The environment that a trial's script gets on its node."""

from __future__ import annotations

import functools
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.script.program import from_files

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pgolf_sweep.core.trial import TrialSpec
    from pgolf_sweep.script.knobs.knobs import Knob

RANK_VARIABLES = frozenset(
    {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
)
"""Of a job manager around the worker: a script would take itself for a rank of something else."""

_LIBRARIES = re.compile(
    r"(?:CUDA|CUBLAS|CUDNN|NVIDIA|NCCL|GLOO|TORCH|PYTORCH|TORCHINDUCTOR|TORCHDYNAMO|TRITON|OMP|MKL"
    r"|OPENBLAS|KMP|HF|WANDB|SLURM|XDG|LC|PGOLF)_|PYTHON|(?:LANG|TMPDIR|PWD|LOGNAME|SHELL|TERM)$"
)
"""What a script reads of the system and its libraries."""
_PLACES = re.compile(r"(?:^|_)(?:PATH|DIR|DIRS|FILE|FILES|HOME|ROOT|TOKEN|API_KEY)(?:_|$)")
"""Where a node keeps something. Of texts alone: BOS_TOKEN is a number."""


def environment(spec: TrialSpec, node: Mapping[str, str], leave: Collection[str]) -> dict[str, str]:
    """The script's environment: what the node's has for it, and the trial's own.

    Args:
        spec: The trial.
        node: The node's environment; what belongs to Ray or to ranks of a job stays behind.
        leave: Further variables of the node that stay behind.
    """
    env = {
        name: value
        for name, value in node.items()
        if name not in RANK_VARIABLES and name not in leave and not name.startswith("RAY_")
    }
    env["PYTHONUNBUFFERED"] = "1"
    if spec.resources.gpus == 0:
        # Two threads that fight for one core are ten times slower than one: one trial, one core.
        env["OMP_NUM_THREADS"] = str(max(1, int(spec.resources.cpus)))
    if spec.argv:
        # `torchrun` and `accelerate` are those of the environment that the worker runs in.
        own = str(Path(sys.executable).parent)
        env["PATH"] = os.pathsep.join(filter(None, (own, env.get("PATH", ""))))
    return env | dict(spec.env)


def stray_knobs(
    spec: TrialSpec, files: Mapping[str, bytes], node: Mapping[str, str]
) -> tuple[str, ...]:
    """The node's variables that would change what a trial computes behind its record's back.

    The gate, the study and the submission take a knob that the trial does not set for the script's
    default. Variables of the system and its libraries, those that say where something lies, and
    those without a default, which nothing else would set, are the node's.

    Args:
        spec: The trial.
        files: The program's files by relative path.
        node: The node's environment.

    Returns:
        Names, in the order in which the script reads them.
    """
    return tuple(
        name
        for name, knob in _knobs(spec.program_name, tuple(files.items())).items()
        if name in node
        and name not in spec.env
        and knob.default is not None
        and _LIBRARIES.match(name) is None
        and not (knob.kind == "str" and _PLACES.search(name))
    )


@functools.lru_cache(maxsize=4)
def _knobs(name: str, files: tuple[tuple[str, bytes], ...]) -> Mapping[str, Knob]:
    """What a program reads; kept, since the trials of a sweep run the same files."""
    try:
        return from_files(name, dict(files), builtin=False).knobs
    except InputError:
        return {}  # its own traceback says more

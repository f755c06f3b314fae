"""The copy of this program that a process runs, for both sides of a handshake to compare."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pgolf_sweep import __version__
from pgolf_sweep.core.errors import Finding

PACKAGE = Path(__file__).parents[2]
_OF_INIT = "project"
DEVICES = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who answers a handshake.

    Attributes:
        version: Of the program.
        code: Of its source, eight hexadecimal digits; the version of a checkout may stay the same.
        place: Folder that it was imported from.
        pid: The process.
        devices: GPUs that it may use, as CUDA_VISIBLE_DEVICES names them.
    """

    version: str
    code: str
    place: str
    pid: int
    devices: str = ""

    def describe(self) -> str:
        """What it runs, for people."""
        return f"pgolf-sweep {self.version} ({self.code}) of {self.place}"


def own_identity() -> Identity:
    """What this process runs."""
    return Identity(
        version=__version__,
        code=_code(),
        place=str(PACKAGE),
        pid=os.getpid(),
        devices=os.environ.get(DEVICES, ""),
    )


def other_version(node: str, worker: object, driver: Identity) -> Finding:
    """What is made of a node whose worker runs another version than the driver.

    Args:
        node: Its name.
        worker: The worker's identity; older ones answered something else.
        driver: That of this process.
    """
    known = worker if isinstance(worker, Identity) else None
    return Finding(
        what="the node runs another version of pgolf-sweep than the driver",
        where=node,
        got="a version that does not name itself" if known is None else known.describe(),
        expected=driver.describe(),
        next_step=f"on {node}: pip install pgolf-sweep=={driver.version}, or take the other copy "
        "off PYTHONPATH before `ray start`",
    )


@cache
def _code() -> str:
    return code_of(PACKAGE)


def code_of(package: Path) -> str:
    """A digest of a copy's sources, as they lie on the disk now.

    Without the files that `init` writes: they are links in a checkout and files where Ray, or a
    wheel, has brought it.
    """
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        if relative.parts[0] != _OF_INIT:
            digest.update(relative.as_posix().encode() + b"\0")
            digest.update(path.read_bytes())
    return digest.hexdigest()[:8]

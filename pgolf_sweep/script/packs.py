"""What packing made of a script, kept among the user's caches: packing takes CPU-seconds.

Whatever is wrong with a cache, the script is packed again: none of it is the user's concern.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import InfraError
from pgolf_sweep.core.paths import read_regular, write_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_KEPT = 64
"""Packed scripts, of some tens of kilobytes each; the oldest go first."""

_MOST_BYTES = 8_000_000
_MADE_BY = ("pack", "packs", "shorten", "dense", "unpack")
"""Modules that decide what comes out, and how it is kept."""


def folder() -> Path:
    """Below ``$XDG_CACHE_HOME``, or ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pgolf-sweep" / "packed"


def key_of(script: bytes, *, ours: bool) -> str:
    """The same for scripts that pack to the same: the script, and what packs it."""
    return hashlib.sha256(_packer() + bytes([ours]) + script).hexdigest()


def kept(key: str) -> dict[str, Any] | None:
    """A packed ``script`` and what is said of it; None where none is kept as it was written."""
    try:
        digest, _, content = read_regular(folder() / key, _MOST_BYTES).partition(b"\n")
        if digest.decode() != hashlib.sha256(content).hexdigest():
            return None
        document: dict[str, Any] = json.loads(content)
    except (OSError, ValueError, RuntimeError):  # RuntimeError: no home
        return None
    return document | {"script": base64.b85decode(document["script"])}


def keep(key: str, script: bytes, about: Mapping[str, str | int | None]) -> None:
    """Keep a packed script; a cache that cannot be written is left as it is."""
    content = json.dumps({"script": base64.b85encode(script).decode(), **about}).encode()
    digest = hashlib.sha256(content).hexdigest().encode()
    with suppress(OSError, InfraError, RuntimeError):
        write_bytes(folder() / key, digest + b"\n" + content, private=True)
        files = sorted(folder().iterdir(), key=lambda path: path.stat().st_mtime)
        for path in files[:-MOST_KEPT]:
            path.unlink(missing_ok=True)


@cache
def _packer() -> bytes:
    here = Path(__file__).parent
    sources = b"".join((here / f"{name}.py").read_bytes() for name in _MADE_BY)
    versions = f"{sys.version} {version('python-minifier')}"
    return hashlib.sha256(versions.encode() + sources).digest()

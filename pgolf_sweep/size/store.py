"""Measured sizes that outlive a study: JSON lines, one a finished run, appended, never edited.

A study needs no such file, since its own trials are its calibration. A store carries what they
taught to the next study, of this machine's user or of a team that shares the file. What is kept is
what was measured, not what was concluded, so that better physics draws better conclusions later.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgolf_sweep.errors import InputError
from pgolf_sweep.trial import KnobValue, configuration_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pgolf_sweep.size.gate import Gate

SCHEMA_VERSION = 1
USER = "user"
"""The word that stands for the user's own store in a sweep file."""
OUR_TRAINER = "trainer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One finished run.

    Attributes:
        program: ``trainer`` for ours, whatever its version, else the hash of the script.
        knobs: Every knob that differs from nothing: the resolved ones, with the seed.
        model_bytes: Measured bytes of the compressed model.
        source: Where it was measured: a study and trial, a file and line.
    """

    program: str
    knobs: Mapping[str, KnobValue]
    model_bytes: int
    source: str
    steps: int | None = None
    train_seconds: float | None = None

    @property
    def identity(self) -> str:
        """The same for the same run, so that importing twice changes nothing."""
        return configuration_hash(dict(self.knobs) | {"": self.model_bytes}, self.program)


def user_store() -> Path:
    """Where this user's store is: below ``$XDG_DATA_HOME``, or ``~/.local/share``."""
    base = os.environ.get("XDG_DATA_HOME")
    root = Path(base) if base else Path.home() / ".local" / "share"
    return root / "pgolf-sweep" / "calibration.jsonl"


def store_path(name: str, *, base: Path) -> Path:
    """The store that a sweep file or an option names: ``user``, or a path."""
    return user_store() if name == USER else base / name


def read_store(path: Path) -> list[Measured]:
    """All runs of a store; one that does not exist yet is empty. Lines that do not read are left.

    Raises:
        InputError: The file cannot be read, or a newer version wrote it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("the calibration store cannot be read", where=str(path)) from error
    return [run for line in lines if (run := _read(line, path)) is not None]


def _read(line: str, path: Path) -> Measured | None:
    try:
        document: Any = json.loads(line)
    except json.JSONDecodeError:
        return None  # the last line of a process that was killed while it wrote
    if not isinstance(document, dict):
        return None
    if document.get("schema_version", 0) > SCHEMA_VERSION:
        raise InputError(
            "the calibration store was written by a newer version",
            where=str(path),
            got=f"schema_version {document['schema_version']}",
            expected=f"at most {SCHEMA_VERSION}",
        )
    try:
        return Measured(
            program=str(document["program"]),
            knobs=dict(document["knobs"]),
            model_bytes=int(document["model_bytes"]),
            source=str(document.get("source", "")),
            steps=document.get("steps"),
            train_seconds=document.get("train_seconds"),
        )
    except (KeyError, TypeError, ValueError):
        return None


def append(path: Path, runs: Iterable[Measured]) -> int:
    """Add the runs that a store does not hold yet.

    Returns:
        How many were new.
    """
    known = {run.identity for run in read_store(path)}
    fresh = {run.identity: run for run in runs if run.identity not in known}
    if fresh:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(_document(run)) + "\n" for run in fresh.values())
    return len(fresh)


def _document(run: Measured) -> dict[str, Any]:
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "program": run.program,
        "knobs": dict(run.knobs),
        "model_bytes": run.model_bytes,
        "source": run.source,
    }
    if run.steps and run.train_seconds:
        document |= {"steps": run.steps, "train_seconds": run.train_seconds}
    return document


def program_key(*, builtin: bool, sha256: str) -> str:
    """The name under which a program's runs are kept."""
    return OUR_TRAINER if builtin else sha256


def teach(gate: Gate, runs: Iterable[Measured], *, program: str) -> int:
    """Teach a gate what a store holds of its program.

    Returns:
        How many runs it learnt from.
    """
    count = 0
    for run in runs:
        if run.program == program:
            gate.learn(run.knobs, run.model_bytes, steps=run.steps)
            count += 1
    return count

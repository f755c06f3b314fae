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

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.paths import read_regular
from pgolf_sweep.core.trial import KnobValue, configuration_hash
from pgolf_sweep.gate.gate import NOT_SIZE_KNOBS
from pgolf_sweep.gate.script_steps import is_short

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pgolf_sweep.gate.gate import Gate
    from pgolf_sweep.gate.predictor import ProgramLike

SCHEMA_VERSION = 1
MOST_STORE_BYTES = 64_000_000
"""A run takes some 500 bytes."""
USER = "user"
"""The word that stands for the user's own store in a sweep file."""
OUR_TRAINER = "trainer"
NOT_KEPT = NOT_SIZE_KNOBS - {"MAX_WALLCLOCK_SECONDS"}  # which decides how many steps there were
"""Knobs whose defaults say nothing of the size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One finished run.

    Attributes:
        program: ``trainer`` for ours, regardless of its version, else the hash of the script.
        knobs: The run's values with the seed; of our trainer also what its other knobs were then,
            where they may move the size, since a later version may have other defaults.
        model_bytes: Measured bytes of the compressed model.
        source: Where it was measured: a study and trial, a file and line.
        model_params: As its log says, where that may contradict what a probe counted.
        code_bytes: Of the counted code, likewise.
    """

    program: str
    knobs: Mapping[str, KnobValue]
    model_bytes: int
    source: str
    steps: int | None = None
    train_seconds: float | None = None
    model_params: int | None = None
    code_bytes: int | None = None

    @property
    def identity(self) -> str:
        """The same for the same run, so that importing twice changes nothing."""
        return configuration_hash(dict(self.knobs) | {"": self.model_bytes}, self.program)


def user_store() -> Path:
    """Where this user's store is: below ``$XDG_DATA_HOME``, or ``~/.local/share``."""
    base = os.environ.get("XDG_DATA_HOME")
    root = Path(base) if base else Path.home() / ".local" / "share"
    return root / "pgolf-sweep" / "calibration.jsonl"


def measured_store() -> Path:
    """Where `gate --measure` keeps its runs: beside the user's own store, read without asking."""
    return user_store().with_name("measured.jsonl")


def store_path(name: str, *, base: Path) -> Path:
    """The store that a sweep file or an option names: ``user``, or a path."""
    return user_store() if name == USER else base / name


def measured(
    program: ProgramLike,
    knobs: Mapping[str, KnobValue],
    model_bytes: int,
    source: str,
    *,
    steps: int | None = None,
    train_seconds: float | None = None,
    model_params: int | None = None,
    code_bytes: int | None = None,
) -> Measured:
    """A run of a program, as a store keeps it.

    Args:
        program: The one that ran, with the defaults that it had.
        knobs: Those that were set.
        model_bytes: Of the compressed model.
        source: Where it was measured.
        steps: Of the training.
        train_seconds: Of the same.
        model_params: As its log says.
        code_bytes: As its log says.
    """
    values = dict(knobs)
    if program.builtin:
        defaults = {name: knob.default for name, knob in program.knobs.items()}
        kept = {n: v for n, v in defaults.items() if v is not None and n not in NOT_KEPT}
        values = kept | values
    return Measured(
        program=program_key(builtin=program.builtin, sha256=program.sha256),
        knobs=values,
        model_bytes=model_bytes,
        source=source,
        steps=steps,
        train_seconds=train_seconds,
        model_params=model_params,
        code_bytes=code_bytes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """What a store holds.

    Attributes:
        runs: In the order in which they were added.
        unread: Lines that are no run: cut off, or not written by us.
    """

    runs: list[Measured]
    unread: int = 0


def read_store(path: Path) -> Store:
    """All runs of a store; one that does not exist yet is empty.

    Raises:
        InputError: The file cannot be read, or a newer version wrote it.
    """
    try:
        data = read_regular(path, MOST_STORE_BYTES) if path.exists() else b""
    except OSError as error:
        raise InputError(
            "the calibration store cannot be read", where=str(path), got=error.strerror
        ) from error
    text = data.decode("utf-8", errors="replace")
    lines = [line for line in text.split("\n") if line.strip()]
    runs = [run for line in lines if (run := _read(line, path)) is not None]
    return Store(runs=runs, unread=len(lines) - len(runs))


def _read(line: str, path: Path) -> Measured | None:
    try:
        document: Any = json.loads(line)
    except json.JSONDecodeError:
        return None  # the last line of a process that was killed while it wrote
    if not isinstance(document, dict):
        return None
    version = document.get("schema_version", 0)
    if type(version) is int and version > SCHEMA_VERSION:
        raise InputError(
            "the calibration store was written by a newer version",
            where=str(path),
            got=f"schema_version {version}",
            expected=f"at most {SCHEMA_VERSION}",
        )
    knobs, model_bytes = document.get("knobs"), document.get("model_bytes")
    steps, seconds = document.get("steps"), document.get("train_seconds")
    whole = (
        type(version) is int
        and isinstance(document.get("program"), str)
        and isinstance(knobs, dict)
        and all(isinstance(value, bool | int | float | str) for value in knobs.values())
        and type(model_bytes) is int
        and (steps is None or type(steps) is int)
        and (seconds is None or type(seconds) in {int, float})
    )
    if not whole:
        return None
    said = {name: document.get(name) for name in ("model_params", "code_bytes")}
    return Measured(
        program=document["program"],
        knobs=document["knobs"],
        model_bytes=document["model_bytes"],
        source=str(document.get("source", "")),
        steps=steps,
        train_seconds=seconds,
        **{name: number for name, number in said.items() if type(number) is int},
    )


def append(path: Path, runs: Iterable[Measured]) -> int:
    """Add the runs that a store does not hold yet.

    Returns:
        How many were new.

    Raises:
        InputError: The file cannot be read or written, or a newer version wrote it.
    """
    known = {run.identity for run in read_store(path).runs}
    fresh = {run.identity: run for run in runs if run.identity not in known}
    if not fresh:
        return 0
    lines = "".join(json.dumps(_document(run)) + "\n" for run in fresh.values()).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.seek(-1 if file.tell() else 0, os.SEEK_END)
            torn = file.read(1) not in {b"", b"\n"}  # its writer was killed: its line ends here
            file.write(b"\n" * torn + lines)
    except OSError as error:
        raise InputError(
            "the calibration store cannot be written", where=str(path), got=error.strerror
        ) from error
    return len(fresh)


def _document(run: Measured) -> dict[str, Any]:
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "program": run.program,
        "knobs": dict(run.knobs),
        "model_bytes": run.model_bytes,
        "source": run.source,
    }
    said = {
        "steps": run.steps,
        "train_seconds": run.train_seconds,
        "model_params": run.model_params,
        "code_bytes": run.code_bytes,
    }
    return document | {name: value for name, value in said.items() if value}


def program_key(*, builtin: bool, sha256: str) -> str:
    """The name under which a program's runs are kept."""
    return OUR_TRAINER if builtin else sha256


def teach(gate: Gate, runs: Iterable[Measured], *, program: str) -> int:
    """Teach a gate what a store holds of its program.

    Returns:
        How many runs it learnt from; those that it cannot read are none.
    """
    count = 0
    for run in runs:
        if run.program == program:
            count += gate.learn(run.knobs, run.model_bytes, steps=run.steps)
    return count


def teach_store(gate: Gate, name: str, *, base: Path) -> str:
    """Teach a gate what the store of a name holds of its program; what to tell people of it.

    Raises:
        InputError: The file cannot be read, or a newer version wrote it.
    """
    store = read_store(store_path(name, base=base))
    key = program_key(builtin=gate.program.builtin, sha256=gate.program.sha256)
    count = teach(gate, store.runs, program=key)
    unread = f"; {store.unread} of its lines do not read" if store.unread else ""
    return f"learnt from {count} of {len(store.runs)} runs of store {name}{unread}"


def teach_measured(gate: Gate, knobs: Mapping[str, KnobValue]) -> str:
    """Teach a gate what `gate --measure` has measured of its program; what to tell people of it.

    A log that contradicts what a probe counted does so regardless of its length. Bytes of a short
    run are left out where long ones are asked about, and the other way around.

    Args:
        gate: Learns.
        knobs: What is asked about, as far as it decides the length of a run.

    Returns:
        A sentence; empty where nothing of the program was measured. Nobody asked for the store, so
        that one that cannot be read stops no launch.
    """
    key = program_key(builtin=gate.program.builtin, sha256=gate.program.sha256)
    try:
        runs = [run for run in read_store(measured_store()).runs if run.program == key]
    except InputError as error:
        return f"nothing is learnt from {measured_store()}: {error.what}, {error.finding.got}"
    said = [
        gate.contradiction(run.knobs, model_params=run.model_params, code_bytes=run.code_bytes)
        for run in runs
    ]
    short = is_short({**gate.defaults, **knobs})
    alike = [run for run in runs if is_short({**gate.defaults, **run.knobs}, run.steps) is short]
    count = teach(gate, alike, program=key)
    if not runs:
        return ""
    others = "" if count == len(runs) else "; the others are of another length"
    return "; ".join(
        filter(None, (*said, f"learnt from {count} of {len(runs)} measured runs{others}"))
    )

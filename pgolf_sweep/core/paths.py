"""Every file name below ``runs/<study>/``, and writing without half-written files.

A trial's folder holds what ran and what came of it, no matter what happens to the study's storage.
Each file lands under a temporary name in the same folder and is renamed.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import InfraError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parents[1]
"""The folder of this program's code."""

MOST_JSON_BYTES = 64_000_000

SCHEMA_VERSION = 1
"""Written into every JSON file; a reader refuses a newer one."""


_REFUSALS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.ESTALE,
        errno.ENOTDIR,
    }
)


@contextlib.contextmanager
def on_disk(folder: Path) -> Iterator[None]:
    """Around everything that keeps files in a folder, whoever writes them.

    Raises:
        InfraError: In place of an error by which the disk refuses (full, read-only, quota).
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        raise InfraError(
            f"the disk refused: {error.strerror or error}",
            where=str(error.filename or folder),
            next_step="free space or fix permissions there, then run the same command again",
        ) from error


def write_bytes(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write a file so that readers see the old content or the new, never a part.

    Args:
        path: Where.
        data: What.
        private: Whether nobody else may read it.

    Raises:
        InfraError: The disk refused (full, read-only); nothing was changed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o600 if private else 0o644)
            Path(temporary).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        raise InfraError(
            f"could not write {path.name}: {error.strerror or error}",
            where=str(path),
            next_step="free space or fix permissions there, then run the same command again",
        ) from error


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """`write_bytes` for UTF-8 text."""
    write_bytes(path, text.encode(), private=private)


def write_json(path: Path, document: dict[str, Any], *, private: bool = False) -> None:
    """Write a JSON document with its schema version, readable by people."""
    content = {"schema_version": SCHEMA_VERSION, **document}
    write_text(path, json.dumps(content, indent=1, sort_keys=False) + "\n", private=private)


def read_regular(path: Path, most_bytes: int) -> bytes:
    """The content of a regular file of a bounded number of bytes.

    Raises:
        OSError: It cannot be read; or it is no regular file, or too large, which `strerror` says.
    """
    # A FIFO without a writer would hang the opening.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise OSError(errno.EFBIG, f"larger than {most_bytes:,} bytes", str(path))
    return data


def is_inside(name: str) -> bool:
    """Whether a relative path stays below the folder that it starts from, by its text alone."""
    path = PurePosixPath(name)
    return (
        bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name
    )


def put_aside(path: Path) -> Path:
    """Rename a damaged file or folder, so that nothing overwrites it; its new path."""
    for turn in itertools.count(1):
        aside = path.with_name(f"{path.name}.aside-{turn}")
        if not aside.exists():
            path.replace(aside)
            return aside
    raise AssertionError("itertools.count does not end")


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises:
        InfraError: The file is not JSON, or was written by a newer version of the program.
    """
    try:
        document = json.loads(read_regular(path, MOST_JSON_BYTES))
    except (ValueError, OSError, RecursionError) as error:
        raise InfraError(f"cannot read {path.name}: {error}", where=str(path)) from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise InfraError(
            f"{path.name} was written by another version of pgolf-sweep",
            where=str(path),
            got=f"schema_version {version}",
            expected=f"at most {SCHEMA_VERSION}",
        )
    return dict(document)


def read_mirror(path: Path) -> dict[str, Any]:
    """Read a file that its owner writes anew all the time; empty where it is absent or damaged."""
    try:
        return read_json(path)
    except InfraError:
        return {}


@dataclass(frozen=True, slots=True)
class TrialPaths:
    """Files of one run: a trial, or one seed of a promotion."""

    root: Path

    @property
    def spec(self) -> Path:
        """What was to run (`TrialSpec` as JSON); written before the run starts."""
        return self.root / "spec.json"

    @property
    def log(self) -> Path:
        """Everything that the script printed."""
        return self.root / "train.log"

    @property
    def live_log(self) -> Path:
        """The log of a run that is going on; renamed to `log` when it ends."""
        return self.root / ".train.log.part"

    @property
    def result(self) -> Path:
        """How it ended; its presence means that the run is over."""
        return self.root / "result.json"

    def artifact(self) -> Path | None:
        """The compressed model, the newest of ``final_model.*`` that is not a raw checkpoint."""
        candidates = [
            path
            for path in self.root.glob("final_model*")
            if path.suffix not in {".pt", ".safetensors"} and not path.name.startswith(".")
        ]
        return max(candidates, key=lambda path: path.stat().st_mtime, default=None)


@dataclass(frozen=True, slots=True)
class StudyPaths:
    """Files of one study."""

    root: Path

    @classmethod
    def of(cls, runs: Path, study: str) -> StudyPaths:
        """The folder of a study by its name, or by its path."""
        direct = Path(study)
        if len(direct.parts) > 1 and direct.is_dir():
            return cls(direct)
        return cls(runs / study)

    @classmethod
    def every(cls, runs: Path) -> list[StudyPaths]:
        """All studies of a folder, those that changed last first."""
        found = [cls(sweep.parent) for sweep in runs.glob("*/sweep.yaml")]
        return sorted(found, key=lambda paths: (-paths.changed_at, paths.name))

    @property
    def changed_at(self) -> float:
        """When a driver last wrote something of the study, in epoch seconds."""
        times = [p.stat().st_mtime for p in (self.sweep, self.status, self.journal) if p.is_file()]
        return max(times, default=0.0)

    @classmethod
    def existing(cls, runs: Path, study: str | None) -> StudyPaths:
        """`of`, for a study that must be there.

        Args:
            runs: Folder that holds the studies.
            study: Name or path; None for the study that changed last.

        Raises:
            InputError: There is no such study; the message lists those that exist.
        """
        if study is None:
            every = cls.every(runs)
            if not every:
                raise InputError(
                    "there is no study yet",
                    where=str(runs),
                    next_step="pgolf-sweep launch SWEEP.yaml",
                )
            return every[0]
        paths = cls.of(runs, study)
        if not paths.sweep.is_file():
            names = sorted(p.parent.name for p in runs.glob("*/sweep.yaml"))
            raise InputError(
                f"no study named {study!r}",
                where=str(paths.root),
                expected=f"one of: {', '.join(names)}" if names else "a study that was launched",
                next_step="pgolf-sweep launch SWEEP.yaml",
            )
        return paths

    @property
    def name(self) -> str:
        """The study's name."""
        return self.root.name

    @property
    def sweep(self) -> Path:
        """The sweep file as launched."""
        return self.root / "sweep.yaml"

    @property
    def readable(self) -> Path:
        """The program before it was packed, for reading; trials run the packed one."""
        return self.root / "readable" / "train_gpt.py"

    @property
    def journal(self) -> Path:
        """Optuna's journal, where no ``--storage`` was given."""
        return self.root / "study.journal"

    @property
    def storage_url(self) -> Path:
        """The Optuna storage, where ``--storage`` was given (without its password)."""
        return self.root / "storage.url"

    @property
    def program(self) -> Path:
        """The program's files as launched; trials run copies of them."""
        return self.root / "program"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints of finished trainings, for trials that differ in what follows."""
        return self.root / "checkpoints"

    @property
    def variants(self) -> Path:
        """Programs that were proposed, a folder each, named by their content."""
        return self.root / "variants"

    @property
    def origin(self) -> Path:
        """Where the sweep was launched from: the base of its relative paths, versions, host."""
        return self.root / "origin.json"

    @property
    def rows(self) -> Path:
        """The final row of each trial that was told, a JSON line each: what discards leave."""
        return self.root / "rows.jsonl"

    @property
    def ledger(self) -> Path:
        """Proposals, results and decisions, chained by hashes; only appended to."""
        return self.root / "ledger.jsonl"

    @property
    def driver_lock(self) -> Path:
        """Held by the live driver; contains its process id and host."""
        return self.root / "driver.lock"

    @property
    def driver_log(self) -> Path:
        """The driver's log, tracebacks included."""
        return self.root / "driver.log"

    @property
    def request(self) -> Path:
        """What ``stop`` and ``cancel`` ask of the driver: one word."""
        return self.root / "request"

    @property
    def status(self) -> Path:
        """The driver's last word about itself, for ``status`` and ``watch``."""
        return self.root / "status.json"

    @property
    def detached(self) -> Path:
        """Where the study is driven, after ``launch --detach``; this folder holds copies then."""
        return self.root / "detached.json"

    @property
    def report(self) -> Path:
        """The study as one HTML page, where ``report`` wrote it."""
        return self.root / "report.html"

    @property
    def proposals(self) -> Path:
        """Trials that somebody asked for, a file each; the driver answers in the file."""
        return self.root / "proposals"

    @property
    def promotion(self) -> Path:
        """Runs on fresh seeds, one folder a candidate and seed."""
        return self.root / "promotion"

    @property
    def submissions(self) -> Path:
        """Where promoted submissions land, a folder each."""
        return self.root / "submission"

    @property
    def wandb(self) -> Path:
        """W&B's offline runs."""
        return self.root / "wandb"

    @property
    def trials(self) -> Path:
        """Folder of the trials' folders."""
        return self.root / "trials"

    def trial(self, number: int) -> TrialPaths:
        """The folder of one trial."""
        return TrialPaths(self.trials / str(number))

    def trial_numbers(self) -> list[int]:
        """Numbers of the trials that have a folder."""
        return sorted(int(p.name) for p in self.trials.glob("*") if p.name.isdecimal())

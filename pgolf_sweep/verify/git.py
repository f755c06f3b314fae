"""Reading a git repository without a checkout, and what a checkout changes against a base."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import InfraError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SECONDS = 60.0
RECORDS = "records"
"""Where the contest keeps submissions: records/TRACK/NAME."""
RECORD_DEPTH = 3

_KINDS = {"120000": "link", "160000": "submodule"}
_HERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR")
"""Set while a hook runs: they would point at the hook's repository instead of the named one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of a tree.

    Attributes:
        name: Path below the tree.
        kind: ``file``, ``link`` or ``submodule``.
        oid: Id of the object.
        size: Bytes of a file or of a link's text; 0 for a submodule.
    """

    name: str
    kind: str
    oid: str
    size: int


def entries(repository: Path, ref: str, inside: str) -> Iterator[Entry]:
    """The files of a folder in a commit.

    Raises:
        InputError: There is no such repository, ref or folder.
        InfraError: git is not installed or does not answer.
    """
    where = f"{repository}@{ref}:{inside}"
    wanted = ["rev-parse", "--verify", "--end-of-options", f"{ref}:{inside}"]
    found = _git(repository, wanted, apart=True)
    oid = found.stdout.decode().strip()
    kind = _git(repository, ["cat-file", "-t", oid], apart=True) if found.returncode == 0 else found
    if kind.stdout.strip() != b"tree":
        raise InputError(
            "no such folder in the repository",
            where=where,
            got=_first_line(found) or None,
            expected="repo@ref:path with a local repository, a branch, tag or commit, and a folder",
            next_step=f"git -C {repository} ls-tree {ref}",
        )
    listed = _git(repository, ["ls-tree", "-r", "-l", "-z", oid], apart=True)
    _demand(listed, where)
    for line in filter(None, listed.stdout.split(b"\0")):
        facts, _, name = line.partition(b"\t")
        mode, _, blob, size = facts.decode().split()
        yield Entry(
            name=os.fsdecode(name),
            kind=_KINDS.get(mode, "file"),
            oid=blob,
            size=0 if size == "-" else int(size),
        )


def blobs(repository: Path, files: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
    """The content of files, as the commit holds it: no filter of the repository runs.

    Raises:
        InfraError: git does not answer.
    """
    asked = "".join(f"{entry.oid}\n" for entry in files).encode()
    read = _git(repository, ["cat-file", "--batch"], apart=True, given=asked)
    _demand(read, str(repository))
    at = 0
    for entry in files:
        start = read.stdout.index(b"\n", at) + 1
        at = start + entry.size + 1
        if read.stdout[at - 1 : at] != b"\n":
            raise InfraError("an object is missing", where=f"{repository}: {entry.name}")
        yield entry, read.stdout[start : at - 1]


def changed_folders(base: str, checkout: Path) -> list[Path]:
    """Record folders in which a checkout differs from where it left a base.

    A record folder is records/TRACK/NAME, or the nearest one above a change that holds a
    submission*.json. Files count as they lie there, once git knows them (`git add`).

    Args:
        base: Branch, tag or commit, such as origin/main.
        checkout: Any folder of the checkout.

    Raises:
        InputError: No checkout, no such base, or no common commit.
        InfraError: git is not installed or does not answer.
    """
    top = _git(checkout, ["rev-parse", "--show-toplevel"])
    if top.returncode != 0:
        raise InputError(
            "not in a git checkout", where=str(checkout.resolve()), got=_first_line(top),
            next_step="change into the pull request's checkout",
        )  # fmt: skip
    root = Path(os.fsdecode(top.stdout.rstrip(b"\n")))
    left = _git(root, ["merge-base", "--end-of-options", base, "HEAD"])
    if left.returncode != 0:
        raise InputError(
            "no commit that the checkout and the base have in common",
            where=str(root),
            got=_first_line(left) or base,
            expected="a branch, tag or commit that is fetched with its history",
            next_step="git fetch --unshallow, or fetch-depth: 0 of actions/checkout",
        )
    commit = left.stdout.decode().strip()
    quiet = ["--no-renames", "--no-ext-diff", "--no-relative", "--ignore-submodules"]
    differs = _git(root, ["diff", "--name-only", "-z", *quiet, commit, "--"])
    _demand(differs, str(root))
    names = [os.fsdecode(name) for name in differs.stdout.split(b"\0") if name]
    folders = {folder for name in names if (folder := _record_folder(root, name)) is not None}
    return sorted(folders)


def _record_folder(root: Path, name: str) -> Path | None:
    """The record folder of a changed file that is still there; None where it is in none."""
    path = PurePosixPath(name)
    if path.parts[0] == RECORDS and len(path.parts) > RECORD_DEPTH:
        folder = root.joinpath(*path.parts[:RECORD_DEPTH])
        return folder if folder.is_dir() else None
    for parent in list(path.parents)[:-1]:
        if any((root / parent).glob("submission*.json")):
            return root / parent
    return None


def _git(
    folder: Path, words: list[str], *, apart: bool = False, given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run git; `apart` from a hook that may be running."""
    env = {k: v for k, v in os.environ.items() if not (apart and k in _HERE)}
    # A partial clone must not begin to download; messages are read in English.
    env |= {"GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        return subprocess.run(
            ["git", "-C", str(folder), "--no-pager", *words],
            input=given,
            capture_output=True,
            timeout=SECONDS,
            check=False,
            env=env,
        )
    except FileNotFoundError as error:
        raise InfraError("git is not installed", next_step="install git") from error
    except subprocess.TimeoutExpired as error:
        raise InfraError(f"git did not answer in {SECONDS:g} s", where=str(folder)) from error


def _demand(done: subprocess.CompletedProcess[bytes], where: str) -> None:
    if done.returncode != 0:
        raise InfraError("git failed", where=where, got=_first_line(done))


def _first_line(done: subprocess.CompletedProcess[bytes]) -> str:
    return next(iter(done.stderr.decode(errors="replace").splitlines()), "")

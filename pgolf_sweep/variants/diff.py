"""The difference of two programs as a patch, a patch applied, and two programs merged by git."""

from __future__ import annotations

import difflib
import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import AnswerNoError, InfraError, InputError
from pgolf_sweep.core.paths import is_inside
from pgolf_sweep.script.source import decoded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SECONDS = 60.0
_GONE = "/dev/null"


def unified(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> str:
    """A patch in git's manner, empty where nothing differs; `patched` takes it.

    Args:
        before: Content by relative path.
        after: The same of the changed program.
    """
    parts = []
    for name in sorted({*before, *after}):
        if before.get(name) == after.get(name):
            continue
        old = "" if name not in before else decoded(before[name])
        new = "" if name not in after else decoded(after[name])
        lines = difflib.unified_diff(
            old.splitlines(keepends=True),
            new.splitlines(keepends=True),
            f"a/{name}" if name in before else _GONE,
            f"b/{name}" if name in after else _GONE,
        )
        parts.append(f"diff --git a/{name} b/{name}\n")
        if name not in before:
            parts.append("new file mode 100644\n")
        if name not in after:
            parts.append("deleted file mode 100644\n")
        for line in lines:
            whole = line.endswith("\n")
            parts.append(line if whole else f"{line}\n\\ No newline at end of file\n")
    return "".join(parts)


def patched(before: Mapping[str, bytes], patch: bytes, *, where: str) -> dict[str, bytes]:
    """Files after a patch.

    Args:
        before: Content by relative path.
        patch: It, as ``git diff`` or ``diff -u`` writes it, with paths below ``a/`` and ``b/``.
        where: Its file, for messages.

    Raises:
        InputError: It does not apply, or changes nothing.
        InfraError: git is not installed.
    """
    with TemporaryDirectory(prefix="pgolf-sweep-patch-") as temporary:
        folder = Path(temporary) / "program"
        _write(folder, before)
        words = ["apply", "--whitespace=nowarn", "--recount", "-"]
        done = _git(words, folder=folder, data=patch)
        if done.returncode != 0:
            raise InputError(
                "the patch does not apply",
                where=where,
                got=done.stderr.decode(errors="replace").strip() or None,
                expected="a diff against the parent's files, as `pgolf-sweep checkout` writes them",
                next_step="give the whole script with --program",
            )
        after = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.is_symlink()
        }
    if after == dict(before):
        raise InputError("the patch changes nothing", where=where)
    return after


def merged(
    base: Mapping[str, bytes], ours: Mapping[str, bytes], theirs: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Files with the changes of two programs against their common ancestor.

    Raises:
        AnswerNoError: The two change the same lines, or one deletes what the other changes.
        InfraError: git is not installed.
    """
    found: dict[str, bytes] = {}
    conflicts: list[str] = []
    for name in sorted({*base, *ours, *theirs}):
        old, one, two = base.get(name), ours.get(name), theirs.get(name)
        if two in {one, old}:
            content = one
        elif one == old:
            content = two
        elif one is None or two is None:
            conflicts.append(f"{name}: deleted by one, changed by the other")
            continue
        else:
            content, clashes = _merged_file(old or b"", one, two)
            if clashes:
                conflicts.append(f"{name}: {clashes} conflicting change{'s' * (clashes != 1)}")
        if content is not None:
            found[name] = content
    if conflicts:
        raise AnswerNoError(
            "the two programs change the same lines",
            got="; ".join(conflicts),
            expected="changes that git merges cleanly",
            next_step="merge them by hand and `pgolf-sweep propose --program`",
        )
    return found


def _merged_file(old: bytes, one: bytes, two: bytes) -> tuple[bytes, int]:
    """The merge of one file and how many conflicts it has."""
    with TemporaryDirectory(prefix="pgolf-sweep-merge-") as temporary:
        folder = Path(temporary)
        _write(folder, {"one": one, "old": old, "two": two})
        done = _git(["merge-file", "-p", "-q", "one", "old", "two"], folder=folder)
    if done.returncode in range(128):
        return done.stdout, done.returncode
    return b"", 1  # binary files


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        if not is_inside(name):
            raise InputError(f"{name!r} leaves the program's folder")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _git(
    words: Sequence[str], *, folder: Path, data: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Git on plain files: no repository around them is looked for, no configuration is read."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env |= {"GIT_CEILING_DIRECTORIES": str(folder.parent), "GIT_CONFIG_GLOBAL": os.devnull}
    try:
        return subprocess.run(
            ["git", *words],
            cwd=folder,
            input=data,
            capture_output=True,
            env=env,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InfraError(
            "git does not answer", got=str(error), next_step="install git on this machine"
        ) from error

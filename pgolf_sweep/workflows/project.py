"""`init`: a project folder with the files that the installed program brings along."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep import __version__
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.paths import PACKAGE, write_bytes
from pgolf_sweep.script.bundle import bundle

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = PACKAGE / "project"
IN_A_CHECKOUT, IN_A_PROJECT = b"--editable .", b"--requirement requirements.txt"
"""How the cluster files install the program; a project has no code of ours to install."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A folder that was begun.

    Attributes:
        written: Files that were written, relative to the folder.
        kept: Files that were there already and differ.
    """

    folder: Path
    written: tuple[str, ...]
    kept: tuple[str, ...]


def init_project(folder: str | Path, *, force: bool = False) -> Project:
    """Write sweep files, trainer, rules and cluster files into a folder.

    Args:
        folder: The folder; made if it is not there.
        force: Overwrite files that are there and differ.

    Raises:
        InputError: The folder is a file.
        InfraError: The disk refuses.
    """
    root = Path(folder)
    if root.exists() and not root.is_dir():
        raise InputError("a project is a folder", where=str(root), got="a file")
    written, kept = [], []
    for name, content, executable in _files():
        path = root / name
        if path.is_file() and path.read_bytes() == content:
            continue
        if path.exists() and not force:
            kept.append(name)
            continue
        write_bytes(path, content)
        if executable:
            path.chmod(0o755)
        written.append(name)
    return Project(folder=root, written=tuple(written), kept=tuple(kept))


def _files() -> Iterator[tuple[str, bytes, bool]]:
    """Name, content and whether it is a program, of each file of a project."""
    for source, target in (
        (SOURCE / "template", ""),
        (SOURCE / "sweeps", "sweeps/"),
        (SOURCE / "cluster", "cluster/"),
        (PACKAGE / "config" / "rules", "rules/"),
    ):
        for path in sorted(source.rglob("*")):
            name = path.relative_to(source).as_posix()
            if not path.is_file() or "__pycache__" in path.parts or name == "__init__.py":
                continue
            content = path.read_bytes()
            if target == "cluster/":
                content = content.replace(IN_A_CHECKOUT, IN_A_PROJECT)
            renamed = {"gitignore": ".gitignore"}.get(name, name)
            yield target + renamed, content, bool(path.stat().st_mode & 0o100)
    yield "constraints.txt", (SOURCE / "constraints.txt").read_bytes(), False
    yield "requirements.txt", f"pgolf-sweep=={__version__}\n".encode(), False
    yield "train_gpt.py", bundle(), False

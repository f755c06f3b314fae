"""The program of a sweep: the files that run, that are counted and that would be submitted."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.script.knobs.flags import Flags, read_flags
from pgolf_sweep.script.knobs.knobs import Knob, survey
from pgolf_sweep.script.requirements import FILE as REQUIREMENTS
from pgolf_sweep.script.source import decoded, parsed
from pgolf_sweep.script.unpack import unpack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BUILTIN = "trainer"
"""The name by which a sweep file asks for our own trainer."""


@dataclass(frozen=True)
class Program:
    """A script and the files beside it.

    Attributes:
        name: The script's file name, a key of `files`.
        files: Content by relative path; what a trial's working folder starts with.
        knobs: Environment variables that the script reads, by name.
        builtin: Whether it is our own trainer, whose tensors the gate knows.
        unnamed: ``file:line`` of reads whose names only the running script knows.
        plain: The script as it was before it was packed; None where it is not packed.
    """

    name: str
    files: Mapping[str, bytes]
    knobs: Mapping[str, Knob]
    builtin: bool
    unnamed: tuple[str, ...] = ()
    plain: bytes | None = None

    @cached_property
    def sha256(self) -> str:
        """One hash over names and contents of all files."""
        return files_sha256(self.files)

    @cached_property
    def flags(self) -> Flags:
        """What the script, and the Python files beside it, take on the command line."""
        if self.builtin:
            return Flags()
        texts = [
            unpack(decoded(data), path=Path(name), files=self.files)
            for name, data in sorted(self.files.items(), key=lambda item: item[0] != self.name)
            if name.endswith(".py") or name == self.name
        ]
        trees = []
        for text in texts:
            with suppress(SyntaxError):
                trees.append(parsed(text))
        return read_flags(trees)

    @property
    def code_bytes(self) -> int:
        """Bytes of the counted code: the script itself, as the contest counts it."""
        return len(self.files[self.name])

    @property
    def source(self) -> str:
        """The script's text; bytes that are not UTF-8 become replacement characters."""
        return decoded(self.files[self.name])


def files_sha256(files: Mapping[str, bytes]) -> str:
    """One hash over names and contents of files."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path}\0{len(files[path])}\0".encode())
        digest.update(files[path])
    return digest.hexdigest()


def load_program(program: str, *, base: Path, extra_files: Sequence[str] = ()) -> Program:
    """The program that a sweep file names.

    Args:
        program: ``trainer`` for ours, or the path of a script.
        base: Folder that relative paths start from; a script that is not there may be where the
            user stands.
        extra_files: Paths or globs, relative to the script's folder, that run beside it.

    Raises:
        InputError: The script or one of the files does not exist, or the script does not parse.
    """
    if program == BUILTIN:
        from pgolf_sweep.script.bundle import bundle  # noqa: PLC0415 - reads the trainer's sources

        files = {"train_gpt.py": bundle()}
        return from_files("train_gpt.py", files, builtin=True)
    path = base / program
    if not path.is_file():
        here = Path(program)
        if not here.is_file():
            raise InputError(
                f"program {program!r} does not exist",
                where=str(path),
                expected=f"{BUILTIN!r} or the path of a script, relative to {base} or to "
                f"{Path.cwd()}{_elsewhere(path.name, base)}",
            )
        path = here
    files = {path.name: path.read_bytes()}
    requirements = path.with_name(REQUIREMENTS)
    if requirements.is_file():
        files[REQUIREMENTS] = requirements.read_bytes()  # checked on the node that runs a trial
    for pattern in extra_files:
        matches = sorted(p for p in path.parent.glob(pattern) if p.is_file())
        if not matches:
            raise InputError(
                f"pgolf.files: {pattern!r} matches nothing",
                where=str(path.parent),
                expected="paths or globs relative to the program's folder",
            )
        for match in matches:
            files[match.relative_to(path.parent).as_posix()] = match.read_bytes()
    # What the script execs is as much the program as what stands in it.
    opened: set[str] = set()
    unpack(decoded(files[path.name]), path=path, opened=opened)
    for name in sorted(opened - files.keys()):
        files[name] = path.with_name(name).read_bytes()
    return from_files(path.name, files, builtin=False)


def _elsewhere(name: str, base: Path) -> str:
    """Files of a script's name near the two folders where it is looked for."""
    near = {
        found.resolve()
        for folder in (base, base.parent, Path.cwd())
        for pattern in (name, f"*/{name}")
        for found in folder.glob(pattern)
        if found.is_file()
    }
    return f"; there is {', '.join(sorted(map(str, near))[:3])}" if near else ""


def from_files(name: str, files: Mapping[str, bytes], *, builtin: bool) -> Program:
    """A program from contents, for example those stored with a study.

    Knobs are those of all its Python files: a sibling may be imported.

    Raises:
        InputError: The script does not parse. Siblings that do not are only left out.
    """
    texts = {path: decoded(data) for path, data in files.items() if path.endswith(".py")}
    texts[name] = unpack(decoded(files[name]), path=Path(name), files=files)
    # The script first: its line and its default are what a trial has.
    ordered = {name: texts[name], **texts}
    try:
        found = survey(ordered)
    except SyntaxError as error:
        raise InputError(
            f"{name} is not valid Python: {error.msg}",
            where=f"{name}:{error.lineno}",
            expected="a script that this Python can run",
        ) from error
    return Program(
        name=name, files=dict(files), knobs=found.knobs, builtin=builtin, unnamed=found.unnamed
    )

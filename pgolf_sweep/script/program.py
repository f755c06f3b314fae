"""The program of a sweep: the files that run, that are counted and that would be submitted."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.paths import is_inside, read_regular
from pgolf_sweep.script.beside import imported_beside
from pgolf_sweep.script.command import MODULE
from pgolf_sweep.script.knobs.flags import Flags, read_flags
from pgolf_sweep.script.knobs.knobs import Knob, survey
from pgolf_sweep.script.requirements import FILE as REQUIREMENTS
from pgolf_sweep.script.source import decoded, parsed
from pgolf_sweep.script.unpack import unpack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_PROGRAM_BYTES = 64_000_000
"""Of a script and the files beside it, together: each trial gets a copy."""
_OF_TRIALS = re.compile(r"spec\.json|result\.json|train(\.attempt\d+)?\.log|final_model[^/]*")
"""Names that a trial's folder gives to files of its own."""

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


def load_program(
    program: str, *, base: Path, extra_files: Sequence[str] = (), imports: bool = False
) -> Program:
    """The program that a sweep file names.

    Args:
        program: ``trainer`` for ours, or the path of a script, or a module that ``-m`` runs.
        base: Folder that relative paths start from; a script that is not there may be where the
            user stands.
        extra_files: Paths or globs, relative to the script's folder, that run beside it; for a
            module relative to the folder of its outermost package.
        imports: Whether the modules beside the script that it imports run beside it as well; in
            the contest a submission is one script, and what runs beside it is named.

    Raises:
        InputError: The script or one of the files does not exist, or the script does not parse.
    """
    if program == BUILTIN:
        from pgolf_sweep.script.bundle import bundle  # noqa: PLC0415 - reads the trainer's sources

        files = {"train_gpt.py": bundle()}
        return from_files("train_gpt.py", files, builtin=True)
    path, root = _located(program, base)
    script = path.relative_to(root).as_posix()
    files = {script: _content(path)}
    for folder in path.relative_to(root).parents[:-1]:
        if (root / folder / "__init__.py").is_file():
            files[(folder / "__init__.py").as_posix()] = _content(root / folder / "__init__.py")
    requirements = root / REQUIREMENTS
    if requirements.is_file():
        files[REQUIREMENTS] = _content(requirements)  # checked on the node that runs a trial
    if imports:
        files |= {name: _content(root / name) for name in imported_beside(root, script)}
    files |= _beside(root, extra_files)
    total = sum(map(len, files.values()))
    if total > MOST_PROGRAM_BYTES:
        raise InputError(
            "the program and its files are too large to be copied into every trial",
            where=str(root),
            got=f"{total:,} bytes",
            expected=f"at most {MOST_PROGRAM_BYTES:,} bytes; data belongs under pgolf.data",
        )
    # What the script execs is as much the program as what stands in it.
    opened: set[str] = set()
    unpack(decoded(files[script]), path=path, opened=opened)
    for name in sorted(opened - files.keys()):
        files[name] = path.with_name(name).read_bytes()
    return from_files(script, files, builtin=False)


def _located(program: str, base: Path) -> tuple[Path, Path]:
    """A script or module, and the folder that it imports from.

    Raises:
        InputError: It does not exist.
    """
    path, here = base / program, Path(program)
    if path.is_file():
        return path, path.parent
    module = _module_file(program, base)
    if module is not None:
        return module
    if here.is_file():
        return here, here.parent
    folders = " or to ".join(dict.fromkeys(map(str, (base, Path.cwd()))))
    raise InputError(
        f"program {program!r} {'is no regular file' if path.exists() else 'does not exist'}",
        where=str(path),
        expected=f"{BUILTIN!r} or the path of a script, relative to {folders}"
        + _elsewhere(path.name, base),
    )


def _module_file(module: str, base: Path) -> tuple[Path, Path] | None:
    """The file of a module and the folder that it is imported from; None where there is none."""
    if MODULE.fullmatch(module):
        inner = module.replace(".", "/")
        for root in (base, Path.cwd()):
            for path in (root / f"{inner}.py", root / inner / "__main__.py"):
                if path.is_file():
                    return path, root
    return None


def _beside(folder: Path, patterns: Sequence[str]) -> dict[str, bytes]:
    """The files beside a script that a sweep file names, by relative path.

    Raises:
        InputError: A pattern matches nothing, leaves the folder or takes a name of a trial's own.
    """
    files: dict[str, bytes] = {}
    for pattern in patterns:
        if not is_inside(pattern):
            raise InputError(
                f"pgolf.files: {pattern!r} leaves the program's folder",
                where=str(folder),
                expected="paths or globs relative to it, without ..: trials get them at that path",
            )
        matches = sorted(p for p in folder.glob(pattern) if p.is_file())
        if not matches:
            raise InputError(
                f"pgolf.files: {pattern!r} matches nothing",
                where=str(folder),
                expected="paths or globs relative to the program's folder",
            )
        for match in matches:
            name = match.relative_to(folder).as_posix()
            if _OF_TRIALS.fullmatch(name):
                raise InputError(
                    f"pgolf.files: {name!r} is a file of every trial's folder",
                    where=str(folder),
                    expected="another name, or a pattern that leaves it out",
                )
            files[name] = _content(match)
    return files


def _content(path: Path) -> bytes:
    try:
        return read_regular(path, MOST_PROGRAM_BYTES)
    except OSError as error:
        raise InputError(
            f"{path.name} cannot be read: {error.strerror or error}", where=str(path)
        ) from error


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

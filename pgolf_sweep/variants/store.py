"""The programs of a study's proposals, kept by content in ``variants/<id>/``.

A folder is complete under its own name or not there: it is made under a temporary name and renamed.
It never changes, so that any number of proposers and drivers may read and write at the same time.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import shutil
import tempfile
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import InfraError, InputError
from pgolf_sweep.core.paths import is_inside, on_disk, read_json, write_bytes, write_json
from pgolf_sweep.script.program import from_files
from pgolf_sweep.variants.code import ID_DIGITS, code_id
from pgolf_sweep.variants.diff import unified

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.script.program import Program

DESCRIPTION, PATCH, FILES, READABLE = "variant.json", "diff.patch", "files", "readable"
_TEMPORARY = ".new-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A program that somebody proposed.

    Attributes:
        id: Its name, from its code; see `code_id`.
        name: File name of its script.
        files: Names of its files.
        sha256: Hash of its files as they run.
        parent: Id of the variant that it changes; empty for the study's own program.
        merged: Id of a second parent, of a merge; else empty.
        parent_trial: Number of the trial that it was proposed as a change of, or None.
        idea: The one line of who kept it first.
        by: Who did.
        at: When, in seconds of the epoch.
    """

    id: str = ""
    name: str = ""
    files: tuple[str, ...] = ()
    sha256: str = ""
    parent: str = ""
    merged: str = ""
    parent_trial: int | None = None
    idea: str = ""
    by: str = ""
    at: float = 0.0


def plain_files(program: Program) -> dict[str, bytes]:
    """A program's files with the script as people wrote it, before it was packed."""
    plain = program.files[program.name] if program.plain is None else program.plain
    return {**program.files, program.name: plain}


def keep(paths: StudyPaths, variant: Variant, program: Program, against: Program) -> Variant:
    """Keep a program; one that is kept already stays as it is.

    Args:
        paths: The study's folder.
        variant: Who proposes it and why; `id`, `files` and `sha256` are filled in here.
        program: It, in the form that runs.
        against: Its parent, for the diff.

    Returns:
        The variant that holds this code: this one, or the one that was kept first.

    Raises:
        InfraError: The disk refused.
    """
    files = plain_files(program)
    variant = dataclasses.replace(
        variant,
        id=code_id(files, program.name),
        name=program.name,
        files=tuple(sorted(program.files)),
        sha256=program.sha256,
    )
    with suppress(InputError):
        return kept(paths, variant.id)
    with _new_folder(paths, variant.id) as new:
        for name, content in program.files.items():
            write_bytes(new / FILES / name, content)
        if program.plain is not None:
            write_bytes(new / READABLE / program.name, program.plain)
        write_bytes(new / PATCH, unified(plain_files(against), files).encode())
        write_json(new / DESCRIPTION, dataclasses.asdict(variant))
    return kept(paths, variant.id)


def kept(paths: StudyPaths, variant_id: str) -> Variant:
    """A variant of a study.

    Raises:
        InputError: There is none of this id, or its folder is damaged.
    """
    variant, _ = _read(paths, variant_id)
    return variant


def kept_all(paths: StudyPaths) -> dict[str, Variant]:
    """The variants of a study by id, oldest first; damaged ones are left out."""
    found = {}
    for folder in paths.variants.glob("*"):
        if not folder.name.startswith("."):
            with suppress(InputError):
                found[folder.name] = kept(paths, folder.name)
    return dict(sorted(found.items(), key=lambda item: (item[1].at, item[0])))


def variant_program(paths: StudyPaths, variant_id: str) -> Program:
    """The program of a variant.

    Raises:
        InputError: There is none of this id, or its folder is damaged.
    """
    variant, files = _read(paths, variant_id)
    program = from_files(variant.name, files, builtin=False)
    if program.sha256 != variant.sha256:
        raise InputError(
            f"the files of variant {variant_id} were changed",
            where=str(paths.variants / variant_id),
            got=program.sha256[:16],
            expected=variant.sha256[:16],
            next_step="propose the program again under another idea, and restore these files",
        )
    readable = paths.variants / variant_id / READABLE / variant.name
    if readable.is_file():
        program = dataclasses.replace(program, plain=readable.read_bytes())
    return program


def patch_of(paths: StudyPaths, variant_id: str) -> str:
    """The diff of a variant against its parent; empty where it is lost."""
    path = paths.variants / variant_id / PATCH
    return path.read_text(errors="replace") if path.is_file() else ""


# -- between the folders of a shared study --------------------------------------------------------


def as_text(paths: StudyPaths, variant_id: str) -> str:
    """A variant's folder as ASCII text; `from_text` is the inverse.

    Raises:
        InputError: There is none of this id, or its folder is damaged.
    """
    kept(paths, variant_id)
    folder = paths.variants / variant_id
    files = {
        path.relative_to(folder).as_posix(): base64.b64encode(path.read_bytes()).decode()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return base64.b64encode(zlib.compress(json.dumps(files).encode(), 9)).decode()


def from_text(paths: StudyPaths, variant_id: str, text: str) -> None:
    """Keep a variant that another folder of the study holds.

    Raises:
        InputError: It is none, or its code is another's.
    """
    try:
        files = json.loads(zlib.decompress(base64.b64decode(text)))
        with _new_folder(paths, variant_id) as new:
            for name, content in files.items():
                if not is_inside(name):
                    raise TypeError(f"{name!r} leaves its folder")
                write_bytes(new / name, base64.b64decode(content))
    except (ValueError, TypeError, AttributeError, zlib.error) as error:
        raise InputError(
            f"the study's storage holds no readable variant {variant_id}", got=str(error)
        ) from error
    program = variant_program(paths, variant_id)
    found = code_id(plain_files(program), program.name)
    if found != variant_id:
        raise InputError(f"variant {variant_id} holds other code", got=found)


@contextmanager
def _new_folder(paths: StudyPaths, variant_id: str) -> Iterator[Path]:
    """A folder that becomes a variant's at the block's end, unless that is whole by then."""
    with on_disk(paths.variants):
        paths.variants.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=paths.variants, prefix=_TEMPORARY))
        try:
            yield new
            new.chmod(0o755)
            home = paths.variants / variant_id
            if home.is_dir():  # damaged, or kept by somebody else in the meantime
                with suppress(InputError):
                    kept(paths, variant_id)
                    return
                shutil.rmtree(home)
            new.replace(home)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def _read(paths: StudyPaths, variant_id: str) -> tuple[Variant, Mapping[str, bytes]]:
    """A variant with the content of its files.

    Raises:
        InputError: See `kept`.
    """
    folder = paths.variants / variant_id
    digits = set(variant_id) <= set("0123456789abcdef") and len(variant_id) == ID_DIGITS
    if not digits or not folder.is_dir():
        raise InputError(
            f"study {paths.name!r} has no variant {variant_id!r}",
            where=str(paths.variants),
            next_step=f"pgolf-sweep lineage {paths.name}",
        )
    try:
        document = read_json(folder / DESCRIPTION)
        known = {f.name: document[f.name] for f in dataclasses.fields(Variant)}
        variant = Variant(**known | {"files": tuple(document["files"])})
        if variant.id != variant_id or variant.name not in variant.files:
            raise TypeError(f"it describes variant {variant.id!r}")
        outside = [name for name in variant.files if not is_inside(name)]
        if outside:
            raise TypeError(f"{outside[0]!r} leaves its folder")
        files = {name: (folder / FILES / name).read_bytes() for name in variant.files}
    except (InfraError, OSError, AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"variant {variant_id} is damaged",
            where=str(folder),
            got=str(error).partition("\n")[0],
            next_step="propose the program again: it restores the folder",
        ) from error
    return variant, files

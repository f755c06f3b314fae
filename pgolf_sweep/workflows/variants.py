"""Programs that somebody proposes for a study, read from a file or a patch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.paths import is_inside, read_regular
from pgolf_sweep.driver.opening import stored_program
from pgolf_sweep.script.pack import packed_program
from pgolf_sweep.script.program import MOST_PROGRAM_BYTES, from_files, load_program
from pgolf_sweep.script.requirements import FILE as REQUIREMENTS
from pgolf_sweep.variants.code import code_id
from pgolf_sweep.variants.diff import patched
from pgolf_sweep.variants.store import plain_files, variant_program

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.script.program import Program


def program_of(paths: StudyPaths, variant: str) -> Program:
    """A program of a study: its own where `variant` is empty, else the variant of that id.

    Raises:
        InputError: There is no such variant, or its files are damaged.
    """
    return variant_program(paths, variant) if variant else stored_program(paths)


def proposed_program(
    parent: Program, *, program: Path | None = None, patch: Path | None = None
) -> dict[str, bytes]:
    """The files of a proposed program, the script under the parent's name for it.

    A file beside the script takes the place of the parent's file of that name; what lies beside
    it and the parent does not have is left alone, but for ``requirements.txt`` and what the script
    itself executes.

    Args:
        parent: The program that it changes.
        program: The whole script.
        patch: A diff against the parent's files instead.

    Raises:
        InputError: There is no such file, it is no Python, or the patch does not apply.
    """
    files = plain_files(parent)
    if patch is not None:
        return patched(files, _content(patch), where=str(patch))
    if program is None:
        return files
    if not program.is_file():
        raise InputError(
            f"program {str(program)!r} does not exist",
            where=str(program),
            expected="the path of a script; `pgolf-sweep checkout STUDY N DIR` writes one",
        )
    loaded = load_program(program.name, base=program.resolve().parent)
    files |= {name: data for name, data in loaded.files.items() if name != loaded.name}
    files[parent.name] = loaded.files[loaded.name]
    for name in files:
        beside = program.parent / name
        if name not in {parent.name, REQUIREMENTS} and is_inside(name) and beside.is_file():
            files[name] = _content(beside)
    return files


def sent_along(program: Path | None, patch: Path | None) -> tuple[list[str], dict[str, bytes]]:
    """The options and files of a proposal that is made where its study is driven.

    Raises:
        InputError: A file does not exist, or is no Python.
    """
    words: list[str] = []
    files: dict[str, bytes] = {}
    if program is not None:
        loaded = load_program(program.name, base=program.resolve().parent)
        files |= loaded.files
        words.append(f"--program={loaded.name}")
    if patch is not None:
        files[patch.name] = _content(patch)
        words.append(f"--patch={patch.name}")
    return words, files


def as_run(files: Mapping[str, bytes], own: Program) -> Program:
    """A proposed program in the form that runs: packed where the study's own is.

    Args:
        files: Its files as people wrote them.
        own: The study's own program.

    Raises:
        InputError: The script is gone, or does not parse.
    """
    if own.name not in files:
        raise InputError(f"the change deletes the script {own.name}")
    program = from_files(own.name, files, builtin=False)
    return program if own.plain is None else packed_program(program)


def is_same_code(program: Program, own: Program) -> bool:
    """Whether two programs differ by comments and formatting at most."""
    ids = {code_id(plain_files(one), one.name) for one in (program, own)}
    return len(ids) == 1


def _content(path: Path) -> bytes:
    try:
        return read_regular(path, MOST_PROGRAM_BYTES)
    except OSError as error:
        raise InputError(
            f"{path.name} cannot be read: {error.strerror or error}", where=str(path)
        ) from error

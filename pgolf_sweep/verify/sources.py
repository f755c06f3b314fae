"""Where a folder to verify comes from: the disk, a zip, or a path in a commit of a git repository.

Zips and commits are unpacked into a temporary folder, within the bounds of `FolderReader`; what
would leave that folder is refused. Nothing of them is run.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.submission.reading import MOST_BYTES_IN_ALL, MOST_FILES
from pgolf_sweep.verify.git import Entry, blobs, entries

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_DIRECTORY_BYTES = 1_000 * MOST_FILES
"""Of a zip's table of contents, which is read into memory: 46 bytes and a name an entry."""
PIECE_BYTES = 1 << 20
LONGEST_NAME_BYTES = 255
LONGEST_PATH_BYTES = 1_000

_END = b"PK\x05\x06"
_END_BYTES = 22
_END_64 = b"PK\x06\x07"
_END_64_BYTES = 20
_MOST_COMMENT_BYTES = 1 << 16
_ENCRYPTED = 0x1
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""What zip programs write; others may ask for gigabytes of memory to decompress."""
_BROKEN = (
    zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, struct.error, OSError
)  # fmt: skip
_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})


@contextmanager
def opened(named: str) -> Iterator[Path]:
    """The folder that an argument of `verify` names, while the block runs.

    Args:
        named: A folder, a zip of one, or ``repo@ref:path``.

    Raises:
        InputError: There is none, or it is larger than a submission or leaves its folder.
    """
    path = Path(named)
    if path.is_file():
        with TemporaryDirectory(prefix="pgolf-sweep-verify-") as temporary:
            yield _unzipped(path, Path(temporary))
    elif not path.exists() and (found := _of_git(named)) is not None:
        repository, ref, inside = found
        with TemporaryDirectory(prefix="pgolf-sweep-verify-") as temporary:
            # Two names are kept: the folder of the track says which rules hold.
            parts = PurePosixPath(inside).parts[-2:] or (repository.resolve().name,)
            root = Path(temporary, *parts)
            root.mkdir(parents=True)
            _checked_out(repository, ref, inside, root, named)
            yield root
    else:
        yield path


def _of_git(named: str) -> tuple[Path, str, str] | None:
    """Repository, ref and path of ``repo@ref:path``; None where it is no such name."""
    for at, character in enumerate(named):
        if character == "@" and Path(named[:at] or ".").is_dir():
            ref, _, inside = named[at + 1 :].partition(":")
            return Path(named[:at] or "."), ref, inside.strip("/")
    return None


def _checked_out(repository: Path, ref: str, inside: str, root: Path, named: str) -> None:
    found: list[Entry] = []
    total = 0
    for entry in entries(repository, ref, inside):
        total += entry.size
        if len(found) == MOST_FILES or total > MOST_BYTES_IN_ALL:
            raise _too_large(named)
        found.append(entry)
    files = [entry for entry in found if entry.kind == "file"]
    for entry in found:
        target = _target(root, entry.name, named)
        target.parent.mkdir(parents=True, exist_ok=True)
        if entry.kind == "link":
            target.symlink_to("not-followed")  # `readable` names it, as in a checkout
        elif entry.kind == "submodule":
            target.mkdir()
    for entry, data in blobs(repository, files):
        _target(root, entry.name, named).write_bytes(data)


def _unzipped(path: Path, into: Path) -> Path:
    """The submission folder of a zip, unpacked."""
    named = str(path)
    _check_directory(path, named)
    root = into / (path.stem or "zip")
    root.mkdir()
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > MOST_FILES:
                raise _too_large(named)
            left = MOST_BYTES_IN_ALL
            for member in members:
                left = _extract(archive, member, root, left, named)
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
            raise
        raise InputError(
            "the zip cannot be read", where=named, got=str(error) or type(error).__name__,
            next_step="unpack it and verify the folder",
        ) from error  # fmt: skip
    while True:  # a zip often holds one folder that holds the rest
        inside = [entry for entry in root.iterdir() if entry.name != "__MACOSX"]
        if len(inside) != 1 or not inside[0].is_dir():
            return root
        root = inside[0]


def _check_directory(path: Path, named: str) -> None:
    """Refuse what is no zip, or one whose table of contents alone would fill the memory."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END_BYTES - _MOST_COMMENT_BYTES - _END_64_BYTES))
        tail = file.read()
    last = len(tail) - _END_BYTES
    start = last if last >= 0 and tail[last:].startswith(_END) else tail.rfind(_END)
    if start < 0 or len(tail) - start < _END_BYTES:
        raise InputError(
            "not a submission folder",
            where=named,
            expected="a folder, a zip of one, or repo@ref:path",
        )
    directory_bytes = int.from_bytes(tail[start + 12 : start + 16], "little")
    wide = tail[max(0, start - _END_64_BYTES) : start].startswith(_END_64)
    if wide or directory_bytes > MOST_DIRECTORY_BYTES or size > MOST_BYTES_IN_ALL:
        raise _too_large(named)


def _extract(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, root: Path, left: int, named: str
) -> int:
    """Unpack one entry; returns the bytes that the rest may have."""
    where = f"{named}: {member.filename}"
    target = _target(root, member.filename, named)
    if member.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return left
    mode = member.external_attr >> 16
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
        raise InputError("the zip holds a link or a device", where=where, expected="regular files")
    if member.flag_bits & _ENCRYPTED or member.compress_type not in _METHODS:
        raise InputError(
            "the zip is encrypted or of a rare kind", where=where, expected="stored or deflated"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    # The size in the table of contents may be a lie: what comes out is counted.
    with archive.open(member) as source, target.open("xb") as file:
        while piece := source.read(PIECE_BYTES):
            left -= len(piece)
            if left < 0:
                raise _too_large(named)
            file.write(piece)
    return left


def _target(root: Path, name: str, named: str) -> Path:
    """Where an entry goes, which is within the root."""
    path = PurePosixPath(name)
    too_long = len(os.fsencode(name)) > LONGEST_PATH_BYTES or any(
        len(os.fsencode(part)) > LONGEST_NAME_BYTES for part in path.parts
    )
    if not name or path.is_absolute() or ".." in path.parts or "\0" in name or too_long:
        raise InputError(
            "a name leaves the folder or is too long",
            where=named,
            got=name[:200],
            expected=f"names below the folder, of at most {LONGEST_NAME_BYTES} bytes",
        )
    return root / path


def _too_large(named: str) -> InputError:
    return InputError(
        "larger than a submission",
        where=named,
        expected=f"at most {MOST_FILES:,} files of {MOST_BYTES_IN_ALL:,} bytes together",
        next_step="give the folder of the submission alone",
    )

"""Reading a folder that someone else made: regular files within it, of a bounded size.

A pipe would hang, a device would not end, a link could leave the folder, a sparse file has
gigabytes that no disk holds. None of these is opened; each is named with the reason instead.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pgolf_sweep.core.errors import InputError

MOST_FILES = 5_000
DEEPEST = 12
MOST_BYTES_IN_ALL = 512_000_000
SKIPPED = frozenset({".git", "__pycache__", ".venv", "node_modules"})


@dataclass(slots=True)
class FolderReader:
    """The regular files of a folder, and what could not be read of it.

    Attributes:
        root: The folder.
        sizes: Bytes by path relative to the folder, in order.
        unreadable: Reason by path.
    """

    root: Path
    sizes: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    _read_bytes: int = 0

    @classmethod
    def of(cls, root: Path) -> FolderReader:
        """List a folder.

        Raises:
            InputError: There is no such folder.
        """
        if not root.is_dir():
            raise InputError(
                "no such submission folder", where=str(root), expected="a folder with a submission"
            )
        reader = cls(root)
        reader._list(root, 0)
        reader.sizes = dict(sorted(reader.sizes.items()))
        return reader

    def read(self, name: str, most_bytes: int) -> bytes | None:
        """A file's content; None, with the reason in `unreadable`, where it cannot be read."""
        if name not in self.sizes:
            return None
        room = min(most_bytes, MOST_BYTES_IN_ALL - self._read_bytes)
        if self.sizes[name] > room:
            self.unreadable[name] = f"{self.sizes[name]:,} bytes, of at most {room:,}"
            return None
        try:
            handle = os.open(self.root / name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            with os.fdopen(handle, "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    self.unreadable[name] = "no regular file"
                    return None
                data: bytes | None = file.read(room + 1)
        except OSError as error:
            self.unreadable[name] = error.strerror or str(error)
            return None
        if data is None:  # of /proc: it would wait for what may never come
            self.unreadable[name] = "nothing to read yet"
            return None
        if len(data) > room:
            self.unreadable[name] = f"more than {room:,} bytes"
            return None
        self._read_bytes += len(data)
        return data

    def text(self, name: str, most_bytes: int) -> str:
        """A file's text, of any bytes; empty where it cannot be read."""
        data = self.read(name, most_bytes) or b""
        for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
            if data.startswith(mark):
                return data[2:].decode(encoding, errors="replace")
        return data.decode("utf-8-sig", errors="replace")

    def named(self, *suffixes: str) -> list[str]:
        """Files with one of these endings, in order."""
        return [name for name in self.sizes if PurePosixPath(name).suffix in suffixes]

    def _list(self, folder: Path, depth: int) -> None:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            self._refuse(folder, error.strerror or str(error))
            return
        for entry in entries:
            path = Path(entry.path)
            if len(self.sizes) + len(self.unreadable) >= MOST_FILES:
                self.unreadable["..."] = f"more than {MOST_FILES:,} files"
                return
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError as error:
                self._refuse(path, error.strerror or str(error))
                continue
            if stat.S_ISDIR(found.st_mode):
                if entry.name in SKIPPED:
                    continue
                if depth < DEEPEST:
                    self._list(path, depth + 1)
                else:
                    self._refuse(path, f"deeper than {DEEPEST} folders")
            elif stat.S_ISREG(found.st_mode):
                self.sizes[self._name(path)] = found.st_size
            else:
                link = stat.S_ISLNK(found.st_mode)
                self._refuse(path, "a link" if link else "no regular file")

    def _name(self, path: Path) -> str:
        return os.fsencode(path.relative_to(self.root).as_posix()).decode(errors="replace")

    def _refuse(self, path: Path, why: str) -> None:
        self.unreadable[self._name(path)] = why

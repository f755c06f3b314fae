"""Looking at a study again and again: each look reads what came since the last."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from pgolf_sweep.core.errors import PgolfError
from pgolf_sweep.launch.remote.dashboard import read_place
from pgolf_sweep.report.read import has_study, reading, status_of

if TYPE_CHECKING:
    from pathlib import Path

    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.launch.remote.dashboard import Place
    from pgolf_sweep.report.read import Status
    from pgolf_sweep.search.posterior import Posteriors
    from pgolf_sweep.search.study import Study

TAIL = 512
"""Last bytes of a journal by which it is known again: its records hold ids and times."""


class StudyWatch:
    """A study that stays open between looks. Use as a context manager.

    Args:
        paths: The study's folder.
    """

    def __init__(self, paths: StudyPaths) -> None:
        self._paths = paths
        self._open = ExitStack()
        self._study: Study | None = None
        self._posteriors: Posteriors | None = None
        self._sweep: tuple[int, ...] | None = None
        self._journal: tuple[int, bytes] = (0, b"")

    def __enter__(self) -> Self:
        """The first look opens the study."""
        return self

    def __exit__(self, *details: object) -> None:
        """Give the storage back."""
        self._close()

    def look(self) -> Status:
        """The study's status.

        Raises:
            InputError: There is no such study.
            InfraError: Its storage does not answer.
        """
        place = read_place(self._paths)
        if not has_study(self._paths, place):
            self._close()
            return status_of(self._paths, place, None)
        if self._study is not None and not self._is_same():
            self._close()
        if self._study is not None:
            try:
                return self._status(place)
            except PgolfError:
                raise
            except Exception:  # noqa: BLE001 - each database driver has errors of its own
                self._close()  # the opening below says what is wrong with it
        self._sweep = _version(self._paths.sweep)
        self._study = self._open.enter_context(reading(self._paths.root))
        self._posteriors = self._study.growing_posteriors()
        return self._status(place)

    def _status(self, place: Place | None) -> Status:
        assert self._study is not None  # noqa: S101 - the caller's to see to
        assert self._posteriors is not None  # noqa: S101 - it comes with the study
        # Before it is read: what is appended meanwhile is for the next look.
        self._journal = _end(self._paths.journal)
        return status_of(self._paths, place, self._study, self._posteriors)

    def _is_same(self) -> bool:
        """Whether the open study is still the folder's: not recovered, begun anew or relaunched."""
        size, tail = self._journal
        return (
            self._sweep == _version(self._paths.sweep)
            and tail == _end(self._paths.journal, size)[1]
        )

    def _close(self) -> None:
        self._open.close()
        self._study = self._posteriors = None


def _version(file: Path) -> tuple[int, ...] | None:
    """What changes when a file is written anew."""
    if not file.is_file():
        return None
    stat = file.stat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _end(journal: Path, size: int | None = None) -> tuple[int, bytes]:
    """Size of a journal and its last bytes; of a database none.

    Args:
        journal: The file.
        size: Where its end is taken to be; None: where it is.
    """
    if not journal.is_file():
        return 0, b""
    with journal.open("rb") as file:
        end = file.seek(0, 2) if size is None else size
        file.seek(max(0, end - TAIL))
        return end, file.read(min(TAIL, end))

"""A study's storage: the journal in its folder, or a database; opened, named, refused."""

from __future__ import annotations

import os
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages.journal import JournalFileBackend

from pgolf_sweep.core.errors import InfraError, InputError
from pgolf_sweep.core.paths import read_json
from pgolf_sweep.core.secrets import masked_url, redacted
from pgolf_sweep.search.journal import FlockLock, repair_journal
from pgolf_sweep.search.network_fs import network_file_system_of

if TYPE_CHECKING:
    from pathlib import Path

    from pgolf_sweep.core.paths import StudyPaths

STORAGES = ("postgresql", "sqlite")


def open_storage(paths: StudyPaths) -> tuple[Any, str]:
    """The storage that holds a folder's study, for one who only looks, and the study's name there.

    Raises:
        InfraError: It cannot be reached.
        InputError: There is no such study yet.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = storage_url(paths, None)
    backend = open_backend(paths, url, write=False)
    return backend, stored_name(backend, paths, url, paths.name)


def stored_name(backend: Any, paths: StudyPaths, url: str | None, name: str) -> str:
    """The name under which a folder's study stands in its storage, whose folder may be renamed.

    Args:
        backend: The storage.
        paths: The study's folder.
        url: The storage's URL; None for a journal, which holds one study.
        name: What it is called if neither storage nor folder says otherwise.
    """
    if url is None:
        names = [study.study_name for study in backend.get_all_studies()]
        return name if name in names or len(names) != 1 else str(names[0])
    if paths.origin.is_file():
        with suppress(InfraError):
            return str(read_json(paths.origin).get("study", name))
    return name


def no_trials(paths: StudyPaths) -> InputError:
    """There is no study: not yet, or not any more."""
    kept = paths.trial_numbers()
    if not kept:
        return InputError(
            f"study {paths.name!r} has no trials yet",
            where=str(paths.root),
            next_step=f"pgolf-sweep launch {paths.sweep}",
        )
    return InputError(
        f"study {paths.name!r} has lost its record of {len(kept)} trials",
        where=str(paths.journal),
        got="no study in it",
        expected="the journal that the launch wrote; the trials' folders are there",
        next_step=f"pgolf-sweep recover {paths.name}",
    )


def damaged(paths: StudyPaths, damage: tuple[int, str]) -> InputError:
    """A record of the journal cannot be read: its line, and why."""
    line, why = damage
    return InputError(
        f"record {line} of the study's journal is damaged: {why}",
        where=f"{paths.journal}:{line}",
        expected="one record a line, as the driver wrote it",
        next_step=f"pgolf-sweep recover {paths.name}",
    )


def storage_url(paths: StudyPaths, storage: str | None) -> str | None:
    """The storage's URL, or None where the study is a journal in its folder."""
    if storage is None and paths.storage_url.is_file():
        return os.environ.get("PGOLF_STORAGE") or paths.storage_url.read_text().strip()
    return storage


def check_storage(url: str) -> None:
    """Refuse a storage of a kind that studies are not kept in.

    Raises:
        InputError: It is no URL, or that of a database without what drivers need.
    """
    import sqlalchemy  # noqa: PLC0415 - only for a database URL

    try:
        backend = sqlalchemy.engine.make_url(url).get_backend_name()
    except (sqlalchemy.exc.ArgumentError, ValueError):
        backend = url.partition("://")[0].partition("+")[0] if "://" in url else ""
    if backend not in STORAGES:
        raise InputError(
            "studies are not kept in such a storage",
            where="--storage, or PGOLF_STORAGE",
            got=masked_url(url),
            expected="postgresql://USER@HOST/DATABASE, or sqlite:///FILE on one machine",
            next_step="leave --storage out where one driver is enough: the study is a file then",
        )


def open_backend(paths: StudyPaths, url: str | None, *, write: bool) -> Any:
    """Optuna's storage at a URL, or the journal of a folder.

    Raises:
        InfraError: It cannot be reached.
        InputError: There is no journal to read, or a file would lie on a network file system.
    """
    if url is not None:
        from pgolf_sweep.search.storage_lock import (  # noqa: PLC0415 - only for a database
            link_settings,
            making_tables,
            sqlite_file,
        )

        try:
            file = sqlite_file(url)
            if write and file is not None:
                _refuse_network(file)
            settings = {"connect_args": link_settings(url)}
            with making_tables(url) if write else nullcontext():
                storage = optuna.storages.RDBStorage(url, engine_kwargs=settings)
        except InputError:
            raise
        except Exception as error:
            raise unreachable(paths, url, error) from error
        return optuna.storages.get_storage(storage)
    if write:
        _refuse_network(paths.journal)
        repair_journal(paths.journal)
    elif not paths.journal.is_file():
        raise no_trials(paths)
    # Optuna exports no base class for locks; it calls `acquire` and `release`.
    lock: Any = FlockLock(paths.journal.with_suffix(".lock"))
    return optuna.storages.JournalStorage(JournalFileBackend(str(paths.journal), lock_obj=lock))


def close_backend(storage: Any) -> None:
    """Give a storage's connections back; a file needs none."""
    storage.remove_session()
    engine = getattr(getattr(storage, "_backend", None), "engine", None)
    if engine is not None:
        engine.dispose()


def _refuse_network(file: Path) -> None:
    """Refuse a study's file where locks and appends of several machines do not meet.

    Raises:
        InputError: It would lie on a network file system.
    """
    kind = network_file_system_of(file.parent)
    if kind is not None:
        raise InputError(
            "the study's file would lie on a network file system, where its lock does not hold "
            "and what was written may be lost",
            where=str(file),
            got=kind,
            expected="a local disk, or a database",
            next_step="launch with --runs FOLDER on a local disk, or with --storage postgresql://…",
        )


def unreachable(paths: StudyPaths, url: str | None, error: Exception) -> InfraError:
    """A storage that does not open, in one form for all database drivers."""
    place = masked_url(url) if url else str(paths.journal)
    return InfraError(
        "the study's storage cannot be opened",
        where=place,
        got=first_line(error),
        expected="a journal file written by pgolf-sweep, or a reachable Optuna storage URL",
        next_step="check that the file is whole or the server is up, then launch again",
    )


def first_line(error: BaseException) -> str:
    """An error's type and first line, without secrets."""
    return redacted(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")

"""The command line in a process that kills itself, as kill -9 would, at a step of the driver.

``python dies.py STEP COUNT WORD...`` types the words; the COUNTth time that it comes to the step,
it is gone. Steps are named by what has just happened.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.storages.journal import JournalFileBackend

from pgolf_sweep.cli import main
from pgolf_sweep.core import paths as trialdir
from pgolf_sweep.driver import runs
from pgolf_sweep.launch.ray.launcher import RayLauncher
from pgolf_sweep.search.study import Study

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgolf_sweep.core.record import TrialRecord

STEPS = {
    "asked": (Study, "ask"),
    "noted": (Study, "note"),
    "launched": (RayLauncher, "start"),
    "reported": (Study, "report"),
    "written": (runs, "write_json"),
    "told": (Study, "tell"),
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after(method: Callable[..., Any], count: int, *, only: str = "") -> Callable[..., Any]:
    """A method that is the process's last the COUNTth time that it was called."""
    calls = 0

    def call(*args: Any, **words: Any) -> Any:
        nonlocal calls
        result = method(*args, **words)
        calls += only in str(args[0])
        if calls == count:
            die()
        return result

    return call


def half_a_result(path: Path, data: bytes, **options: bool) -> None:
    """Leave a file that was not renamed yet."""
    if path.name == "result.json":
        path.with_name(f".{path.name}.half").write_bytes(data[: len(data) // 2])
        die()
    write_bytes(path, data, **options)


def half_a_record(backend: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
    """Leave half a line in the journal once a trial has a result."""
    journal = Path(backend._file_path)
    if list(journal.parent.glob("trials/*/result.json")):
        with journal.open("ab") as file:
            file.write(b'{"op_code": 6, "worker_id": "half')
        die()
    append(backend, logs)


def die_within_a_tell(count: int) -> None:
    """Be gone once a tell has appended to the journal COUNT times."""
    tell = Study._tell
    telling, appended = False, 0

    def told(study: Study, record: TrialRecord) -> bool:
        nonlocal telling
        telling = True
        done = tell(study, record)
        telling = False
        return done

    def append_and_count(backend: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        nonlocal appended
        append(backend, logs)
        appended += telling
        if appended == count:
            die()

    Study._tell = told  # type: ignore[method-assign]
    JournalFileBackend.append_logs = append_and_count


if __name__ == "__main__":
    step, number, *words = sys.argv[1:]
    write_bytes, append = trialdir.write_bytes, JournalFileBackend.append_logs
    if step == "half written":
        trialdir.write_bytes = half_a_result
    elif step == "telling":
        die_within_a_tell(int(number))
    elif step == "half told":
        JournalFileBackend.append_logs = half_a_record
    else:
        owner, name = STEPS[step]
        only = "result.json" if step == "written" else ""
        setattr(owner, name, after(getattr(owner, name), int(number), only=only))
    sys.argv = ["pgolf-sweep", *words]
    main()

"""`recover`: a study rebuilt from its folder, where its journal or its database is lost."""

from __future__ import annotations

import dataclasses
import os

from pgolf_sweep.cli.common import (
    DEFAULT_RUNS,
    JsonOption,
    RunsOption,
    StudyArgument,
    app,
    emit,
    say,
)


@app.command()
def recover(
    study: StudyArgument, runs: RunsOption = DEFAULT_RUNS, json_output: JsonOption = False
) -> None:
    """Rebuild a study whose journal or database is lost, from what its folder keeps.

    The old journal is put aside, nothing is deleted. Trials without a result run again at the
    next launch; a database is read from PGOLF_STORAGE or the folder, and must not hold the study.

    Example: pgolf-sweep recover demo
    """
    from pgolf_sweep.core.paths import StudyPaths, on_disk
    from pgolf_sweep.driver.control import DriverLock
    from pgolf_sweep.driver.opening import reopen_session
    from pgolf_sweep.launch.remote.dashboard import refuse_copies
    from pgolf_sweep.workflows.recover import needs_recovery
    from pgolf_sweep.workflows.recover import recover as rebuild

    paths = StudyPaths.existing(runs, study)
    refuse_copies(paths, "recover")
    session = reopen_session(paths, need_data=False)
    storage = os.environ.get("PGOLF_STORAGE") if paths.storage_url.is_file() else None
    with on_disk(paths.root), DriverLock(paths, job="recover"):
        lost = needs_recovery(session, paths)
        found = rebuild(session, paths, storage=storage) if lost else None
    if json_output:
        emit({"study": paths.name, "recovered": found and dataclasses.asdict(found)})
    elif found is None:
        say(f"study {paths.name!r} knows every trial of its folder: nothing to recover")
    else:
        for line in found.lines(paths.name):
            say(line)

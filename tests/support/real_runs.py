"""Jobs of the simulated launcher that run their script for real, on this machine's CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.paths import TrialPaths, write_bytes
from pgolf_sweep.launch.inline import Finish
from pgolf_sweep.script.logs.stream import read_log

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 60.0
LINES = 20


def run_script(job: Any) -> Iterator[tuple[float, Any]]:
    """Run a job's own files with its own environment; its log says what came of it."""
    for name, content in job.files.items():
        write_bytes(job.folder / name, content)
    done = subprocess.run(
        [sys.executable, job.spec.program_name],
        cwd=job.folder,
        env={**os.environ, **job.spec.env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS,
        check=False,
    )
    paths = TrialPaths(job.folder)
    write_bytes(paths.log, done.stdout)
    summary, reports = read_log(done.stdout)
    for report in reports:
        yield 1.0, report
    artifact = paths.artifact()
    yield (
        1.0,
        Finish(
            exit_code=done.returncode,
            summary=summary,
            model_file_bytes=None if artifact is None else artifact.stat().st_size,
            log_tail=tuple(done.stdout.decode(errors="replace").splitlines()[-LINES:]),
        ),
    )

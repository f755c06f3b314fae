"""One run of a script's `main()` in a process of its own, watched until its export is done.

A fork of the probe's helper (`pgolf_sweep.script.probe.server`), which has torch loaded. It has no
GPU, no data and no network; it is killed with all that it has started. Facts are told as they are
found: the count when the first optimizer is made, decay and rates after the first step of each,
the export when the script reads it back or ends.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import TYPE_CHECKING

from pgolf_sweep.script.probe.contain.hooks import write_only_below

if TYPE_CHECKING:
    from pathlib import Path


def live(place: Path, orders: int, out: int) -> None:
    """The fork's whole life: everything that others' code can do happens in here.

    Args:
        place: A folder of this run alone, with the program's files in ``program``.
        orders: Where the request is read from, one line of JSON: ``name``, ``env``, ``seconds``,
            ``vocabulary``, ``export`` (whether to go on to the export) and ``sigmas`` (the spread
            of each tensor's trained weights; null leaves them as they are), ``lacking`` (packages
            that the script shall not find).
        out: Where facts go, one JSON object a line; an empty line ends the answer.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    with os.fdopen(orders, "rb") as lines:
        request = json.loads(lines.readline())
    most = int(request["seconds"]) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (most, most))
    program = place / "program"
    os.chdir(program)
    sys.stdin = os.fdopen(0)
    sys.argv[:] = [request["name"]]
    sys.path.insert(0, str(program))
    sys.setrecursionlimit(10_000)
    os.environ.clear()
    os.environ.update(request["env"])

    from pgolf_sweep.script.probe.dryrun.run import Run  # noqa: PLC0415 - it loads torch

    write_only_below(place)
    Run(request, place, out).go()

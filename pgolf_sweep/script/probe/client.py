"""The probe's helper process, from the side of those who ask it.

One helper serves all probes of this process. It has a folder of its own for the scripts, and takes
it along when it ends, which it does with this process, however this one ends.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgolf_sweep.script.probe.contain.containment import from_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgolf_sweep.script.probe.contain.containment import Containment

START_SECONDS = 120.0
"""For the helper to load torch, on a machine that is busy."""
STOP_SECONDS = 5.0
START = (
    "import sys; sys.path += sys.argv[1:]; "
    "from pgolf_sweep.script.probe.server import serve; serve()"
)
"""Not as a module of the user's current folder: a script would import what lies there."""
_PACKAGES = [str(Path(__file__).parents[3])]
REPORT_BYTES = 1 << 16
KEPT_VARIABLES = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONPATH",
    "PYTHONHOME",
)  # fmt: skip
"""Of the environment, what the helper and the scripts find; no key of the user's is among them."""


class Helper:
    """The helper process, started again when it is gone.

    Attributes:
        containment: What contains the scripts that it has probed; None before the first.
    """

    def __init__(self) -> None:
        self.containment: Containment | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path()
        self._lock = threading.Lock()

    def ask(self, request_in: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """The helper's answer, or an ``error``.

        Args:
            request_in: Makes the request, given the helper's own folder.
        """
        with self._lock:  # one request at a time, from any thread
            return self._ask(request_in)

    def _ask(self, request_in: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        for attempt in (1, 2):
            try:
                process = self._running()
                request = request_in(self._folder)
                assert process.stdin is not None  # noqa: S101 - started with pipes
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
                return _read_answer(process, 3 * request["seconds"] + 10)
            except (OSError, ValueError, TimeoutError) as error:
                self.stop()
                if attempt == 2:
                    return {"error": f"the probe's helper process does not answer: {error}"}
        raise AssertionError  # both attempts return

    def stop(self) -> None:
        """End the helper, and what it has started; its folder goes with it."""
        if self._process is None:
            return
        process, self._process = self._process, None
        assert process.stdin is not None  # noqa: S101 - started with pipes
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None  # noqa: S101 - started with pipes
        process.stdout.close()
        if self._folder != Path():
            shutil.rmtree(self._folder, ignore_errors=True)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, *_PACKAGES],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,  # a signal to this process's group is not its end's order
            )
            ready = _read_answer(self._process, START_SECONDS)
            self._folder = Path(ready["folder"])
            self.containment = from_json(ready["containment"])
        return self._process


def _environment() -> dict[str, str]:
    """What the helper needs: a script could read all that it had at its start."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return kept | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def _read_answer(process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any]:
    """One line of JSON from the helper."""
    assert process.stdout is not None  # noqa: S101 - started with pipes
    deadline = time.monotonic() + seconds
    data = b""
    while not data.endswith(b"\n"):
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError(f"no answer within {seconds:.0f} s")
        part = os.read(process.stdout.fileno(), REPORT_BYTES)
        if not part:
            raise OSError("it ended")
        data += part
    answer: dict[str, Any] = json.loads(data)
    return answer


_HELPER: list[Helper] = []


def helper() -> Helper:
    """The helper that all probes of this process share."""
    if not _HELPER:
        atexit.register(stop_helper)
        _HELPER.append(Helper())
    return _HELPER[0]


def contained_by() -> Containment | None:
    """What contains the scripts that this process has probed; None where there were none."""
    return _HELPER[0].containment if _HELPER else None


def stop_helper() -> None:
    """End the helper process; the next probe starts another. It also ends with this process."""
    while _HELPER:
        _HELPER.pop().stop()

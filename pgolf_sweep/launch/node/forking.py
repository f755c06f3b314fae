"""The worker's end of the fork server: which runs may be forked, and the server's life."""

from __future__ import annotations

import ast
import functools
import re
import socket
import struct
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.launch.node.process import MARKER, count_as_own
from pgolf_sweep.script.source import decoded
from pgolf_sweep.script.unpack import unpack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SERVER = Path(__file__).with_name("fork_server.py")
MARKER_BYTES = 200
"""Room for a run's marker in the server's own environment."""
ANSWER_SECONDS = 5.0

_AT_IMPORT = re.compile(
    r"^(?:LD_|PYTHON|OMP_|GOMP_|KMP_|MKL_|OPENBLAS_|NUMEXPR_|TORCH|PYTORCH_|CUDA)"
)
"""Variables that the interpreter or a library reads once, when it starts."""


class ForkServer:
    """A process that has torch imported; see `fork_server.py` for what it does.

    It starts in the background and is used from then on. It dies with its worker.

    Args:
        env: Environment of the run that it is made for.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._fixed = fixed(env)
        self._ready = False
        ours, theirs = socket.socketpair()
        self._connection: socket.socket | None = ours
        ours.setblocking(False)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-u", SERVER, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**env, MARKER: "-" * MARKER_BYTES},
                start_new_session=True,
            )
        count_as_own(self._process.pid)

    def ready(self) -> bool:
        """Whether guards can be forked; False for good once it is gone."""
        if self._connection is None:
            return False
        if not self._ready:
            try:
                self._ready = self._connection.recv(8) == b"ready"
            except BlockingIOError:
                return False
            except OSError:
                pass
            if not self._ready:
                self.close()
        return self._ready

    def serves(self, env: Mapping[str, str]) -> bool:
        """Whether a run's environment is the server's, in all that is read only at a start."""
        return fixed(env) == self._fixed

    def fork_guard(self, descriptors: Sequence[int], heartbeat_seconds: float) -> int:
        """Fork a guard, which becomes a child of this process.

        Args:
            descriptors: Its control, status and output.
            heartbeat_seconds: See `GuardedProcess`.

        Returns:
            Its process id.

        Raises:
            OSError: The server is gone or does not answer.
        """
        connection = self._connection
        if connection is None:
            raise BrokenPipeError("the fork server is gone")
        try:
            connection.settimeout(ANSWER_SECONDS)
            socket.send_fds(connection, [struct.pack("d", heartbeat_seconds)], list(descriptors))
            answer = connection.recv(4)
        except OSError:
            self.close()
            raise
        if len(answer) < 4:
            self.close()
            raise BrokenPipeError("the fork server is gone")
        return int(struct.unpack("i", answer)[0])

    def close(self) -> None:
        """End the server; what it forked goes on."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            self._process.kill()
            self._process.wait()


def fixed(env: Mapping[str, str]) -> dict[str, str]:
    """The variables that are read only when an interpreter or a library starts."""
    return {name: value for name, value in env.items() if _AT_IMPORT.match(name)}


def forkable(argv: Sequence[str], files: Mapping[str, bytes]) -> bool:
    """Whether a run is a plain Python script that imports torch: only then a fork saves time."""
    return (
        len(argv) >= 3
        and list(argv[:2]) == [sys.executable, "-u"]
        and argv[2] in files
        and _imports_torch(argv[2], tuple(files.items()))
    )


@functools.lru_cache(maxsize=8)
def _imports_torch(name: str, files: tuple[tuple[str, bytes], ...]) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(unpack(decoded(dict(files)[name]), path=Path(name), files=dict(files)))
    except (InputError, SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    names = [
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    ]
    return any(name.partition(".")[0] == "torch" for name in names)

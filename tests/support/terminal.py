"""The real command line in processes of its own, and every process that it leaves behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pyte

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.machines import Machine

SCRIPTS = Path(__file__).parent.parent / "data" / "scripts"
COMMAND = [sys.executable, "-m", "pgolf_sweep"]
OURS = ("WANDB_", "PGOLF_", "RAY_", "CUDA_", "OMP_", "NETRC")
MARK = "E2E_MARK"

# What a shell does for its foreground job: the terminal's Ctrl-C goes to this process group.
IN_FOREGROUND = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


MOVES = {"posterior_bpb", "posterior_low", "posterior_high", "tied_with_best"}
"""What all scores say of one: it moves with each further score."""


def lasting(row: dict[str, Any]) -> dict[str, Any]:
    """A finished trial's row without what moves when others finish."""
    return {key: row[key] for key in row.keys() - MOVES}


@dataclass(frozen=True)
class Said:
    """What a command that ended said."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """The one document on stdout; anything else there is a failure."""
        document = json.loads(self.out)
        assert isinstance(document, dict)
        return document


class Background:
    """A command that runs, with a terminal of its own where asked for."""

    def __init__(
        self,
        command: list[str],
        *,
        folder: Path,
        env: dict[str, str],
        tty: bool = False,
        size: tuple[int, int] = (160, 40),
    ) -> None:
        self._said = bytearray()
        self._terminal: int | None = None
        self._closing = False
        self._screen = pyte.Screen(*size)
        self._emulator = pyte.ByteStream(self._screen)
        self._emulated = 0
        if tty:
            self._terminal, inner = pty.openpty()
            self.resize(*size)
            argv = [sys.executable, "-c", IN_FOREGROUND, *command[1:]]
            streams: dict[str, int] = {"stdin": inner, "stdout": inner, "stderr": inner}
            env = {"TERM": "xterm"} | env
        else:
            argv = command
            streams = {
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.STDOUT,
            }
        self.process = subprocess.Popen(
            argv, cwd=folder, env=env, start_new_session=True, **streams
        )
        if self._terminal is not None:
            os.close(inner)
            source = self._terminal
        else:
            assert self.process.stdout is not None
            source = self.process.stdout.fileno()
        self._reader = threading.Thread(target=self._read, args=(source,), daemon=True)
        self._reader.start()

    def _read(self, source: int) -> None:
        # A terminal whose last process is gone answers with EIO.
        with contextlib.suppress(OSError):
            while not self._closing:
                ready, _, _ = select.select([source], [], [], 0.2)
                if ready:
                    data = os.read(source, 1 << 16)
                    if not data:
                        return
                    self._said += data
                elif self.process.poll() is not None:
                    return  # what it left behind may hold the pipe open

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def said(self) -> str:
        return self._said.decode(errors="replace")

    @property
    def screen(self) -> str:
        """What its terminal shows now, lines without their trailing space."""
        data = bytes(self._said)
        self._emulator.feed(data[self._emulated :])
        self._emulated = len(data)
        return "\n".join(row.rstrip() for row in self._screen.display).rstrip()

    def resize(self, columns: int, lines: int) -> None:
        """Give its terminal another size, as one who drags its window."""
        assert self._terminal is not None
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)
        self._screen.resize(lines, columns)

    def type(self, keys: str) -> None:
        """Press keys at its terminal."""
        assert self._terminal is not None
        os.write(self._terminal, keys.encode())

    def hang_up(self) -> None:
        """Close its terminal, as a window or an ssh session that goes away."""
        assert self._terminal is not None
        self._closing = True
        self._reader.join(5.0)
        os.close(self._terminal)  # the kernel tells the foreground group
        self._terminal = None

    def wait(self, timeout: float = 60.0) -> int:
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"running after {timeout:g} s: ...{self.said[-2000:]}") from None
        self._reader.join(2.0)
        return code

    def close(self) -> None:
        self._reader.join(2.0)
        if self.process.stdout is not None:
            self.process.stdout.close()
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None


@dataclass
class Terminal:
    """A folder with the stand-in scripts and a clean environment to type commands in.

    Where `machine` is given, commands run there instead of here.
    """

    folder: Path
    address: str | None = None
    machine: Machine | None = None
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    _started: list[Background] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "home").mkdir(exist_ok=True)
        for script in SCRIPTS.glob("*.py"):
            shutil.copy(script, self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        """End what this terminal began."""
        deadline = time.monotonic() + 20.0
        while (left := self.processes()) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        for background in self._started:
            background.wait(10.0)
            background.close()

    def environment(self, **extra: str) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
        for name in ("COLUMNS", "LINES", "TERM"):
            clean.pop(name, None)  # a pty has a size of its own
        clean |= {"HOME": str(self.folder / "home"), MARK: self.mark, "NO_COLOR": "1"}
        return clean | (self.machine.environment() if self.machine else {}) | extra

    def _command(self, words: tuple[str, ...]) -> list[str]:
        command = [*COMMAND, *words]
        if self.machine is None:
            return command
        return self.machine.holder.inside("env", f"--chdir={self.folder}", *command)

    def run(self, *words: str, timeout: float = 120.0, **env: str) -> Said:
        """Type a command and wait for its end."""
        done = subprocess.run(
            self._command(words),
            cwd=self.folder,
            env=self.environment(**env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def start(
        self, *words: str, tty: bool = False, size: tuple[int, int] = (160, 40), **env: str
    ) -> Background:
        """Type a command and go on."""
        background = Background(
            self._command(words),
            folder=self.folder,
            env=self.environment(**env),
            tty=tty,
            size=size,
        )
        self._started.append(background)
        return background

    def _launch_words(self, sweep: str, words: tuple[str, ...]) -> list[str]:
        there = [] if self.address is None or "--address" in words else ["--address", self.address]
        wandb = [] if "--wandb" in words else ["--wandb", "disabled"]
        return ["launch", sweep, *there, *wandb, *words]

    def launch(self, sweep: str, *words: str, timeout: float = 120.0, **env: str) -> Said:
        """`run` of a launch, without W&B unless asked for."""
        return self.run(*self._launch_words(sweep, words), timeout=timeout, **env)

    def start_launch(
        self,
        sweep: str,
        *words: str,
        tty: bool = False,
        size: tuple[int, int] = (160, 40),
        **env: str,
    ) -> Background:
        """`start` of a launch, without W&B unless asked for."""
        return self.start(*self._launch_words(sweep, words), tty=tty, size=size, **env)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def sweep(self, name: str, **changes: Any) -> str:
        """Write a sweep file over the good stand-in; changes replace or add top-level keys."""
        from yaml import safe_dump

        document: dict[str, Any] = {
            "program": "good.py",
            "method": "random",
            "run_cap": 4,
            "parameters": {
                "MATRIX_LR": {"distribution": "log_uniform_values", "min": 0.005, "max": 0.08},
                "ITERATIONS": {"value": 10},
            },
            "pgolf": {},
        }
        # A trial gets nothing of the environment that nobody names; the mark finds its processes.
        pgolf = {
            "rules": "demo",
            "resources": {"gpus": 0, "cpus": 1},
            "env": {"pass": [MARK, "CLOCK_OFFSET"]},
        } | changes.pop("pgolf", {})
        parameters = document["parameters"] | changes.pop("parameters", {})
        parameters = {name: value for name, value in parameters.items() if value is not None}
        document |= changes | {"parameters": parameters, "pgolf": pgolf}
        document = {key: value for key, value in document.items() if value is not None}
        file = f"{name}.yaml"
        self.write(file, safe_dump(document, sort_keys=False))
        return file

    def study(self, name: str) -> Path:
        return self.folder / "runs" / name

    def trials(self, name: str) -> list[dict[str, Any]]:
        said = self.run("trials", name, "--json")
        assert said.code == 0, said.err
        rows: list[dict[str, Any]] = said.json()["trials"]
        return rows

    def processes(self) -> dict[int, str]:
        """Command lines of the live processes that this terminal began, by process id.

        By the mark in their environment, which every child inherits; Ray's workers overwrite
        their environment with a title, but stay in the session of their driver.
        """
        sessions = {background.pid for background in self._started}
        mark = f"{MARK}={self.mark}".encode()
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                stat = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                ours = mark in (entry / "environ").read_bytes() or int(stat[3]) in sessions
                if ours and stat[0] != b"Z":
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(entry.name)] = words.decode(errors="replace").strip()
            except (OSError, IndexError):
                continue
        return found

    def wait_until_alone(self, seconds: float, *, but: tuple[str, ...] = ()) -> dict[int, str]:
        """Wait until nothing that was begun here runs; what does after the time."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.processes().items()
            left = {pid: words for pid, words in found if not words.startswith(but or "\0")}
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.1)


def wait_for(
    what: Callable[[], Any], seconds: float = 60.0, *, of: Background | None = None
) -> Any:
    """Wait until something is true, or its command has ended; its last value."""
    deadline = time.monotonic() + seconds
    while not (value := what()):
        running = of is None or of.process.poll() is None
        said = of.said[-2000:] if of else ""
        assert running, f"the command ended early: ...{said}"
        assert time.monotonic() < deadline, f"not within {seconds:g} s: ...{said}"
        time.sleep(0.05)
    return value


def running_trials(study: Path, *, line: str = "step:") -> list[int]:
    """Numbers of the trials whose live log holds a line."""
    numbers = []
    for log in study.glob("trials/*/.train.log.part"):
        with contextlib.suppress(OSError):
            if line in log.read_text(errors="replace"):
                numbers.append(int(log.parent.name))
    return sorted(numbers)

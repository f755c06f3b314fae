"""Scripts that attack the machine that probes them; what must hold is what is said to be in force.

Each runs as an import and as a `main()`. Afterwards nothing is changed, read, left or reached, and
the next script is probed as ever.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.probing import MODEL, program

from pgolf_sweep.script.probe.client import helper
from pgolf_sweep.script.probe.contain.containment import (
    Containment,
    containment,
    most_written,
)
from pgolf_sweep.script.probe.prober import Probed, Prober, Unprobed, stop_helper
from pgolf_sweep.script.probe.runner import Counted, RunFailed, Runner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOLDER = Path(__file__).parents[3] / "data" / "scripts" / "hostile"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))
OF_FILES = {"writes_files", "reads_home", "removes_folder", "remounts", "touches_devices"}
OF_PROCESSES = {"outlives", "fork_bomb", "starts_programs", "kills_others", "traces"}
OF_NETWORK = {"connects"}
SAID = {
    "reads_home": "read []",
    "traces": "traced 0",
    "touches_devices": "opened []",
    "hogs_memory": "2 of 2 ended",
    "fills_disk": "grown False",
    "fills_many_files": "",
    "never_ends": "its import ",
    "crashes_hard": "ended the process",
    "babbles": "",
}
KEY = "KEY-OF-THE-USER"


class Room:
    """What the scripts are let loose on.

    Attributes:
        env: What they find in their environment.
        mark: A name that nothing else has.
    """

    def __init__(self, folder: Path) -> None:
        self.mark = f"hostile{os.getpid()}"
        self.outside, self.home = folder / "outside", folder / "home"
        self.outside.mkdir()
        (self.outside / "kept").write_text("kept")
        (self.home / ".ssh").mkdir(parents=True)
        (self.home / ".ssh" / "id_ed25519").write_text(KEY)
        self.victim = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self._sockets = [
            socket.socket(socket.AF_INET, socket.SOCK_STREAM),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
        ]
        self._sockets[0].bind(("127.0.0.1", 0))
        port = self._sockets[0].getsockname()[1]
        self._sockets[1].bind(("127.0.0.1", port))
        self._sockets[2].bind(str(folder / "socket"))
        for one in self._sockets:
            one.setblocking(False)
            if one.type == socket.SOCK_STREAM:
                one.listen()
        self.env = {
            "OUTSIDE": str(self.outside),
            "MARK": self.mark,
            "PORT": str(port),
            "SOCKET": str(folder / "socket"),
            "VICTIMS": f"{os.getpid()} {self.victim.pid}",
        }

    def close(self) -> None:
        """End what it holds."""
        for one in self._sockets:
            one.close()
        self.victim.kill()
        self.victim.communicate()

    def changed(self) -> list[str]:
        """Files of the machine that are not as they were."""
        found = []
        if {path.name for path in self.outside.iterdir()} != {"kept"}:
            found.append(str(self.outside))
        elif (self.outside / "kept").read_text() != "kept":
            found.append("kept")
        for folder in ("/tmp", "/var/tmp", "/dev/shm", self.home, "/", "/etc", "/usr"):
            found += [str(path) for path in Path(folder).glob(f"{self.mark}*")]
        return found

    def left(self) -> list[str]:
        """Processes with the mark in their name or words."""
        found = []
        for about in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (about / "comm").read_text() + (about / "cmdline").read_text()
                state = (about / "stat").read_text().rpartition(")")[2].split()[0]
                if self.mark[:15] in words and state not in "ZX":
                    found.append(about.name)
        return found

    def reached(self) -> int:
        """Connections and datagrams that came in."""
        count = 0
        for one in self._sockets:
            with suppress(BlockingIOError):
                if one.type == socket.SOCK_STREAM:
                    one.accept()[0].close()
                else:
                    one.recv(100)
                count += 1
        return count


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    made = Room(tmp_path_factory.mktemp("room"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(made.home))
        patch.setenv("AWS_SECRET_ACCESS_KEY", "KEY-IN-THE-ENVIRONMENT")
        stop_helper()
        yield made
        stop_helper()
    made.close()


def needs(name: str) -> Callable[[Containment], bool]:
    """What has to be in force for a script to be harmless."""
    if name in OF_FILES:
        return lambda way: way.files
    if name in OF_PROCESSES:
        return lambda way: way.processes
    if name in OF_NETWORK:
        return lambda way: way.network
    return lambda _: True


def read(room: Room, source: str) -> Probed | Unprobed:
    return Prober(program(source), seconds=3.0, env=room.env).probe({})


def ran(room: Room, source: str) -> Counted | RunFailed:
    return Runner(program(source), seconds=3.0, env=room.env).count({})


@pytest.mark.parametrize("ask", [read, ran])
@pytest.mark.parametrize("name", SCRIPTS)
def test_attack_changes_reads_and_leaves_nothing(
    name: str, ask: Callable[[Room, str], Any], room: Room
) -> None:
    if not needs(name)(containment()):
        pytest.skip(f"in force here: {containment().describe()}")
    result = ask(room, (FOLDER / f"{name}.py").read_text())
    assert isinstance(result, Unprobed | RunFailed)
    assert SAID.get(name, "the attack is over") in result.reason, result.reason
    if name == "fills_many_files":
        full = containment().kept_in_memory
        said = "No space left on device" if full else f"it writes more than {most_written():,} B"
        assert said in result.reason
    assert KEY not in result.reason
    assert not room.changed()
    assert room.victim.poll() is None
    assert not room.reached()
    deadline = time.monotonic() + 20
    while room.left() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not room.left()
    friendly = Prober(program(MODEL)).probe({})
    assert isinstance(friendly, Probed), friendly.reason


def test_what_is_in_force_is_what_was_said(room: Room) -> None:
    assert isinstance(read(room, MODEL), Probed)
    assert helper().containment == containment()
    with suppress(KeyError):  # of a test that makes this machine weaker
        assert containment().describe() == os.environ["EXPECTED_CONTAINMENT"]


def test_data_that_the_environment_names_is_readable_in_a_hidden_place(room: Room) -> None:
    data = room.home / "data"
    data.mkdir(exist_ok=True)
    (data / "size").write_text("24")
    room.env["DATA_PATH"] = str(data)
    source = MODEL.replace(
        "class GPT", "WIDTH = int(open(os.environ['DATA_PATH'] + '/size').read())\nclass GPT"
    )
    result = read(room, source.replace("nn.Linear(dim, dim", "nn.Linear(dim, WIDTH"))
    assert isinstance(result, Probed), result.reason
    assert result.model_params == 16 * 24

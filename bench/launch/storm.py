"""A sweep under random faults: eight nodes, two drivers on one PostgreSQL, a seed.

    python bench/launch/storm.py [--minutes 60] [--seed 0] [--every 8] [--nodes 8] [--out FILE]
    make soak MINUTES=60 SEED=0

Each node is a machine of its own (namespaces, `tests/support/machines.py`) with a real raylet, a
cable and a disk of 8 MB; the drivers are real `pgolf-sweep launch` on the head. Every few seconds a
fault is drawn: a raylet, worker, guard, script, driver or the database is killed, a raylet, worker
or driver is frozen, a disk filled, a cable cut; each is healed or started again after a while. At
the end all is healed and the sweep drained. Exits with 1 where a trial is lost or counted twice, a
process is left, a slot is not back, or memory grows. Needs root and iproute2.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import psutil
import pytest
from support.aftermath import FINAL, check_slots_are_back
from support.machines import PORT, Machine, Network, require_namespaces
from support.postgres import Postgres, postgres
from support.terminal import Background, Terminal, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEASE_SECONDS = 12.0
HEAD = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "5",
}
STUDY = "storm"
FOLDERS = ("a", "b")
MOST_GROWTH = 0.2
"""Of a driver's memory, from its first minute's median to its last's; less time shows nothing."""
LEAST_SECONDS_OF_MEMORY = 300.0


@dataclass
class Storm:
    """What is under fire, and what is broken at the moment."""

    rng: random.Random
    network: Network
    folder: Path
    database: Postgres
    nodes: dict[str, Machine] = field(default_factory=dict)
    drivers: dict[str, Background] = field(default_factory=dict)
    broken: dict[str, tuple[float, Callable[[], None]]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    endings: Counter[int] = field(default_factory=Counter)
    memory: dict[int, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    disks: dict[str, Path] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)

    def begin(self, count: int) -> None:
        """The cluster, the sweep and its two drivers."""
        head = self.network.machine("head")
        head.ray("--head", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=false", **HEAD)
        self.head_address = f"{head.address}:{PORT}"
        for number in range(count):
            name = f"n{number}"
            self.nodes[name] = self.network.machine(name)
            self.disks[name] = self.nodes[name].small_disk()
            self.join(name)
        self.terminal = Terminal(self.folder, address=self.head_address, machine=head)
        self.file = self.terminal.sweep(
            STUDY,
            run_cap=None,
            parameters={"ITERATIONS": {"value": 20}, "STEP_SECONDS": {"values": [0.1, 0.2, 0.4]}},
            pgolf={
                "resources": {"gpus": 1, "cpus": 1},
                "nodes": {"check": False},  # a look at a small disk would refuse its node
                "max_retries": 50,
            },
        )
        for name in FOLDERS:
            self.drive(name)
        threading.Thread(target=self.watch, daemon=True).start()

    def join(self, name: str) -> None:
        self.nodes[name].ray(f"--address={self.head_address}", "--num-cpus=1", "--num-gpus=1")

    def drive(self, name: str) -> None:
        """Type the launch, the first time or again."""
        # Half of the cluster each: without a limit one of them may hold all of it.
        slots = str(max(1, len(self.nodes) // len(FOLDERS)))
        words = ("--wandb", "disabled", "--slots", slots, "--runs", name)
        env = {
            "PGOLF_STORAGE": self.database.url,
            "PGOLF_LEASE_SECONDS": str(LEASE_SECONDS),
            "PYTHONFAULTHANDLER": "1",  # one that does not end says where it is
        }
        self.drivers[name] = self.terminal.start_launch(self.file, *words, **env)

    # -- faults ---------------------------------------------------------------------------------

    def strike(self) -> None:
        """One fault on something that is whole."""
        kinds = (
            "kill raylet", "kill worker", "kill guard", "kill script", "kill script", "kill driver",
            "kill database", "freeze raylet", "freeze worker", "freeze driver", "fill disk",
            "cut cable", "cut cable",
        )  # fmt: skip
        kind = self.rng.choice(kinds)
        seconds = self.rng.uniform(3.0, 40.0)
        if kind.endswith("driver"):
            victim = self.rng.choice(FOLDERS)
        elif kind.endswith("database"):
            victim = "database"
        else:
            victim = self.rng.choice(sorted(self.nodes))
        if victim in self.broken or (kind.endswith("driver") and self.other_is_broken(victim)):
            return
        heal = self.fault(kind, victim)
        if heal is None:
            return  # there is no such process there now
        self.counts[kind] += 1
        print(f"{time.strftime('%X')} {kind} {victim}, {seconds:.0f} s", flush=True)
        self.broken[victim] = (time.monotonic() + seconds, heal)

    def other_is_broken(self, name: str) -> bool:
        """One driver is left alone at a time, so that the study always has one."""
        return any(one in self.broken for one in FOLDERS if one != name)

    def fault(self, kind: str, victim: str) -> Callable[[], None] | None:
        """Break something; how it is healed, None where there was nothing to break."""
        if victim == "database":
            self.database.stop()
            return self.database.start
        if victim in FOLDERS:
            return self._fault_of_driver(kind, self.drivers[victim])
        node = self.nodes[victim]
        if kind == "cut cable":
            node.cut()
            return node.remedy
        if kind == "fill disk":
            ballast = self.disks[victim] / "ballast"
            with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(bytes(4096)):
                    pass
            return lambda: ballast.unlink(missing_ok=True)
        word = {"raylet": "raylet/raylet", "worker": "ray::Worker", "guard": "guard.py",
                "script": "good.py"}[kind.split()[1]]  # fmt: skip
        found = list(node.processes(word))
        if not found:
            return None
        number = signal.SIGSTOP if kind.startswith("freeze") else signal.SIGKILL
        for pid in found:
            node.kill(pid, number)
        if number == signal.SIGSTOP:
            return lambda: [node.kill(pid, signal.SIGCONT) for pid in found] and None
        return (lambda: self.restart(victim)) if kind == "kill raylet" else (lambda: None)

    def _fault_of_driver(self, kind: str, driver: Background) -> Callable[[], None] | None:
        # The command runs in the head's namespaces, below the process that entered them.
        family = [driver.pid, *(one.pid for one in psutil.Process(driver.pid).children(True))]
        number = signal.SIGSTOP if kind.startswith("freeze") else signal.SIGKILL
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if number == signal.SIGKILL:
            driver.wait(30.0)
            return lambda: None  # `tend` types the command again

        def thaw() -> None:
            for pid in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

        return thaw

    def restart(self, name: str) -> None:
        """A node whose raylet died comes back as after a restart of the machine's Ray."""
        self.nodes[name].reset()
        self.join(name)

    def tend(self, *, everything: bool = False) -> None:
        """Heal what has been broken long enough; type a launch again that ended."""
        for victim, (until, heal) in list(self.broken.items()):
            if everything or time.monotonic() >= until:
                heal()
                del self.broken[victim]
        for name, driver in self.drivers.items():
            if name not in self.broken and driver.process.poll() is not None:
                self.endings[driver.process.returncode] += 1
                if driver.process.returncode in {2, 4}:
                    print(driver.said[-3000:], flush=True)
                    for fault in self.folder.parent.glob("machines/head/tmp/pgolf-sweep-fault-*"):
                        print(fault.read_text(), flush=True)
                self.drive(name)
        for name, node in self.nodes.items():
            # A raylet that was cut off for too long ends itself, as its machine's keeper sees.
            if name not in self.broken and not node.processes("raylet/raylet"):
                self.counts["raylet ended itself"] += 1
                self.restart(name)

    # -- what is seen ---------------------------------------------------------------------------

    def watch(self) -> None:
        """Sample the memory of the drivers."""
        while not self.over.wait(5.0):
            for driver in list(self.drivers.values()):
                with contextlib.suppress(psutil.Error):
                    for process in psutil.Process(driver.pid).children(recursive=True):
                        if "launch" in process.cmdline():
                            sample = time.monotonic(), process.memory_info().rss / 1e6
                            self.memory[process.pid].append(sample)

    def asked(self, command: str, folder: str) -> dict[str, Any]:
        words = (command, STUDY, "--runs", folder, "--json")
        said = self.terminal.run(*words, PGOLF_STORAGE=self.database.url)
        assert said.code == 0, said.err
        return said.json()

    def end(self) -> dict[str, bool]:
        """Heal all, drain the sweep, and judge."""
        self.tend(everything=True)
        self.tend()
        wait_for(self.both_drive, 180.0)
        stop = self.terminal.run("stop", STUDY, "--all", "--runs", "a",
                                 PGOLF_STORAGE=self.database.url)  # fmt: skip
        assert stop.code == 0, stop.err
        print(stop.out, end="", flush=True)
        codes = [self.drained(name) for name in FOLDERS]
        self.over.set()
        rows = self.asked("trials", "a")["trials"]
        trained = {row["number"]: row for row in rows if row["attempts"]}
        results = Counter(
            int(path.parent.name)
            for folder in FOLDERS
            for path in (self.folder / folder / STUDY).glob("trials/*/result.json")
        )
        status = self.asked("status", "b")
        left = {name: node.ours() for name, node in self.nodes.items()}
        deadline = time.monotonic() + 120.0
        while any(left.values()) and time.monotonic() < deadline:
            time.sleep(1.0)
            left = {name: node.ours() for name, node in self.nodes.items()}
        slots = True
        try:
            check_slots_are_back(self.terminal, 120.0)
        except AssertionError as error:
            slots = False
            print("slots:", error)
        outcomes = Counter(row["outcome"] for row in rows)
        open_rows = [row["number"] for row in rows if row["outcome"] not in {*FINAL, "queued"}]
        lost = [n for n, row in trained.items() if row["outcome"] in FINAL and results[n] != 1]
        table = {
            **{f"fault: {kind}": count for kind, count in sorted(self.counts.items())},
            **{f"launch ended with {code}": n for code, n in sorted(self.endings.items())},
            **{f"trials {outcome}": count for outcome, count in sorted(outcomes.items())},
            "attempts": sum(row["attempts"] for row in rows),
            "finished trials without exactly one result": lost,
            "processes left": {name: one for name, one in left.items() if one},
        }
        for what, count in table.items():
            print(f"{what:44} {count}")
        for row in rows:
            if row["number"] in open_rows:
                print("open:", json.dumps(row))
        numbers = [row["number"] for row in rows]
        counted = [row["identity"] for row in trained.values() if row["outcome"] in FINAL]
        return {
            "no number is missing": sorted(numbers) == list(range(len(numbers))),
            "no configuration is counted twice": len(counted) == len(set(counted)),
            "both drivers drained with exit code 0": codes == [0, 0],
            "both folders tell the same": rows == self.asked("trials", "b")["trials"],
            "each finished trial has one result, in one folder": not lost,
            "no trial failed": not outcomes["failed"],
            "no trial is open": not open_rows and not status["trials"]["running"],
            "no driver is left in the study": status["drivers"] == [],
            "no process of ours is left on a node": not any(left.values()),
            "every slot is back": slots,
            "no launch ended with 2 or 4": not (self.endings[2] or self.endings[4]),
            "the drivers' memory is flat": self.is_flat(),
        }

    def drained(self, name: str) -> int | None:
        """The exit code of a driver that was asked to stop; None where it had to be ended."""
        driver = self.drivers[name]
        try:
            return driver.wait(240.0)
        except AssertionError:
            os.kill(driver.pid, signal.SIGABRT)  # Python prints where each of its threads is
            driver.wait(30.0)
            print(f"driver {name} did not end:", driver.said[-8000:], sep="\n", flush=True)
            return None

    def both_have_results(self) -> bool:
        self.tend()
        roots = [self.folder / folder / STUDY / "trials" for folder in FOLDERS]
        return all(any(root.glob("*/result.json")) for root in roots)

    def both_drive(self) -> bool:
        self.tend()
        return len(self.asked("status", "a")["drivers"]) == len(FOLDERS)

    def is_flat(self) -> bool:
        """Whether no driver that lived long enough to tell grew."""
        flat = True
        for pid, samples in self.memory.items():
            lived = samples[-1][0] - samples[0][0]
            early = [mb for at, mb in samples if 30 <= at - samples[0][0] < 90]
            late = [mb for at, mb in samples if samples[-1][0] - at < 60]
            if not early:
                continue
            first, last = statistics.median(early), statistics.median(late)
            print(f"driver {pid}: {first:.0f} MB, after {lived:.0f} s {last:.0f} MB")
            flat &= lived < LEAST_SECONDS_OF_MEMORY or last < (1 + MOST_GROWTH) * first
        return flat


@contextlib.contextmanager
def scratch(*, keep: bool) -> Iterator[str]:
    """A folder for all that lies on a disk."""
    folder = tempfile.mkdtemp(prefix="storm-")
    try:
        yield folder
    finally:
        if keep:
            print("kept:", folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def database() -> Any:
    """A PostgreSQL of its own."""

    class Folders:
        def mktemp(self, name: str) -> Path:
            return Path(tempfile.mkdtemp(prefix=name))

    folders: Any = Folders()
    with postgres(folders) as running:
        yield running


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=float, default=8.0, help="seconds between faults")
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--keep", action="store_true", help="keep the studies' folders")
    options = parser.parse_args()
    try:
        require_namespaces()
    except pytest.skip.Exception as why:
        print(f"no machines can be made here: {why}", file=sys.stderr)
        return 3
    began = time.monotonic()
    with (
        scratch(keep=options.keep) as name,
        database() as running,
        Network(Path(name) / "machines") as network,
    ):
        rng = random.Random(options.seed)
        storm = Storm(rng, network, Path(name) / "here", running)
        storm.begin(options.nodes)
        with storm.terminal:
            wait_for(storm.both_have_results, 900.0)
            until = time.monotonic() + 60 * options.minutes
            print(f"up after {time.monotonic() - began:.0f} s", flush=True)
            while time.monotonic() < until:
                storm.strike()
                pause = time.monotonic() + rng.expovariate(1 / options.every)
                while time.monotonic() < pause:
                    storm.tend()
                    time.sleep(0.5)
            verdicts = storm.end()
    for claim, holds in verdicts.items():
        print("yes" if holds else "NO ", claim)
    if options.out:
        document = {"minutes": options.minutes, "seed": options.seed, "faults": storm.counts}
        options.out.write_text(json.dumps(document | {"verdicts": verdicts}, indent=1) + "\n")
    return 0 if all(verdicts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

"""A sweep driven on the cluster, from a laptop that is another folder with another home."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.head import Head
from support.terminal import Said, Terminal, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

KEY = "0123456789abcdef0123456789abcdef01234567"
ENDLESS = {
    "run_cap": 1000,
    "parameters": {"ITERATIONS": {"value": 10}, "STEP_SECONDS": {"value": 0.1}},
}


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    with Terminal(tmp_path_factory.mktemp("cluster")) as machine:
        made = Head(machine)
        try:
            made.start()
            yield made
        finally:
            made.close()


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Terminal]:
    with Terminal(tmp_path) as made:
        yield made


@pytest.fixture
def elsewhere(
    laptop: Terminal, typed_here: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Said]:
    """Types a command in another folder, with another home, on the laptop's studies."""
    other = laptop.folder / "elsewhere"
    other.mkdir()
    monkeypatch.chdir(other)
    monkeypatch.setenv("HOME", str(other))
    monkeypatch.setenv("PGOLF_RUNS", str(laptop.folder / "runs"))
    return typed_here


def detach(laptop: Terminal, head: Head, file: str, *words: str, **env: str) -> Said:
    there = ("--detach", "--address", head.address, "--wandb", "disabled", "--json")
    return laptop.run("launch", file, *there, *words, **env)


def completed(asked: Callable[..., Said], study: str) -> list[int]:
    rows = asked("trials", study, "--outcome", "completed", "--json").json()["trials"]
    return [row["number"] for row in rows]


def driver_of(head: Head, job: str) -> int | None:
    """Process id of the driver that a job became."""
    for pid, words in head.machine.processes().items():
        if "-m pgolf_sweep launch" in words:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            if f"PGOLF_JOB={job}".encode() in variables:
                return pid
    return None


def holds(root: Path, text: bytes) -> list[Path]:
    files = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in files if text in path.read_bytes()]


def test_a_sweep_runs_without_the_laptop_which_sees_it_and_drains_it(
    laptop: Terminal, head: Head, elsewhere: Callable[..., Said]
) -> None:
    file = laptop.sweep("far", **ENDLESS)
    said = detach(laptop, head, file, WANDB_API_KEY=KEY)
    assert said.code == 0, said.err
    document = said.json()
    assert (document["study"], document["state"]) == ("far", "running")
    assert document["detached"]["address"] == head.address
    job = document["detached"]["job"]
    again = detach(laptop, head, file)
    assert again.code == 2
    assert f"is being driven already, by job {job}" in again.err

    # The secret is with the driver and nowhere that can be read.
    driver = driver_of(head, job)
    assert driver is not None
    assert f"WANDB_API_KEY={KEY}".encode() in Path(f"/proc/{driver}/environ").read_bytes()
    assert KEY not in json.dumps(head.jobs())
    assert KEY not in said.out + said.err
    for root in (head.sessions, head.machine.folder, laptop.folder):
        assert holds(root, KEY.encode()) == []

    wait_for(lambda: len(completed(elsewhere, "far")) >= 2, 240.0)
    number = completed(elsewhere, "far")[0]
    assert "val_bpb" in elsewhere("logs", "far", "--trial", str(number)).out
    assert "final_int8_zlib_roundtrip_exact" in elsewhere("logs", "far", "-f").out
    assert "study far: 1 knobs, random" in elsewhere("logs", "far", "--driver").out
    assert f"job {job}" in elsewhere("status", "far").out
    [best] = elsewhere("best", "far", "--top", "1", "--json").json()["trials"]
    assert best["val_bpb"] is not None
    request = elsewhere("propose", "far", "--set", "MATRIX_LR=0.0123", "--by", "ada", "--json")
    assert request.json()["by"] == "ada"

    stopped = elsewhere("stop", "far")
    assert stopped.code == 0, stopped.err
    assert "study 'far' drains" in stopped.err
    assert "far: stopped" in elsewhere("watch", "far").out
    assert "nothing to stop" in elsewhere("stop", "far").err
    final = elsewhere("status", "far", "--json").json()
    assert (final["driver"], final["trials"]["running"]) == (None, 0)
    rows = elsewhere("trials", "far", "--json").json()["trials"]
    assert "propose:ada" in {row["proposer"] for row in rows}
    there = head.machine.folder / "home" / "pgolf-sweep" / "runs" / "far"
    assert (there / "trials" / str(number) / "result.json").is_file()


def test_a_killed_driver_and_a_lost_head_are_said_and_the_same_command_resumes(
    laptop: Terminal, head: Head, elsewhere: Callable[..., Said]
) -> None:
    file = laptop.sweep("hit", **ENDLESS)
    job = detach(laptop, head, file).json()["detached"]["job"]
    wait_for(lambda: completed(elsewhere, "hit"), 240.0)
    driver = driver_of(head, job)
    assert driver is not None
    os.kill(driver, signal.SIGKILL)

    def status() -> dict[str, Any]:
        return elsewhere("status", "hit", "--json").json()

    wait_for(lambda: status()["state"] == "interrupted", 120.0)
    document = status()
    assert (document["driver"], document["detached"]["job_state"]) == (None, "failed")
    assert "exit code" in document["reason"]
    assert "resume    pgolf-sweep launch hit.yaml --detach" in elsewhere("status", "hit").out
    assert "is driven elsewhere" in laptop.run("launch", file).err
    assert "on the head node: pgolf-sweep promote hit" in elsewhere("promote", "hit").err
    before = completed(elsewhere, "hit")

    said = detach(laptop, head, file)
    assert said.code == 0, said.err
    assert said.json()["detached"]["job"] != job
    wait_for(lambda: len(completed(elsewhere, "hit")) > len(before), 240.0)

    head.end()
    away = elsewhere("status", "hit", "--json")
    assert away.code == 3
    assert away.json()["state"] == "unreachable"
    assert "does not answer" in away.err
    copied = completed(elsewhere, "hit")
    assert set(before) < set(copied)
    assert elsewhere("report", "hit").code == 0
    head.start()
    document = status()
    assert document["state"] == "interrupted"
    assert "started anew" in document["reason"]
    lost = document["detached"]["job"]

    laptop.sweep("hit", **ENDLESS | {"run_cap": len(copied) + 6})
    said = detach(laptop, head, file)
    assert said.code == 0, said.err
    assert said.json()["detached"]["job"] not in {job, lost}
    wait_for(lambda: status()["state"] == "finished", 240.0)
    rows = elsewhere("trials", "hit", "--json").json()["trials"]
    assert [row["number"] for row in rows] == list(range(len(rows)))
    assert set(copied) <= set(completed(elsewhere, "hit"))


def test_mistakes_are_told_before_anything_is_sent_or_as_soon_as_the_cluster_sees_them(
    laptop: Terminal, head: Head, elsewhere: Callable[..., Said], address: str
) -> None:
    before = len(head.jobs())

    def sent(file: str, *words: str) -> Said:
        return elsewhere("launch", str(laptop.folder / file), "--detach", *words)

    said = sent(laptop.sweep("wrong", parameters={"MATRIX_LR": {"min": 2, "max": 1}}))
    assert said.code == 2
    assert "wrong.yaml:" in said.err
    good = laptop.sweep("good")
    said = sent(good)
    assert said.code == 2
    assert "--address http://HEAD:8265" in said.err
    for wrong in ("http://127.0.0.1:9", address):  # nothing; a cluster without a dashboard
        began = time.monotonic()
        said = sent(good, "--address", wrong)
        assert said.code == 3
        assert "no Ray dashboard answers" in said.err
        assert "ssh -N -L" in said.err
        assert time.monotonic() - began < 60.0
    assert len(head.jobs()) == before
    assert not laptop.study("good").exists()

    # Told by `launch`, too, when nothing is wrong but the cluster.
    said = detach(laptop, head, laptop.sweep("big", pgolf={"resources": {"gpus": 8}}))
    assert (said.code, said.out) == (3, ""), said.err
    assert "the driver did not start on the cluster" in said.err

    said = detach(laptop, head, laptop.sweep("dry", pgolf={"data": "nowhere_sp512"}))
    assert (said.code, said.out) == (2, "")
    assert "the driver did not start on the cluster" in said.err
    assert "nowhere_sp512" in said.err
    assert str(head.machine.folder / "home" / "pgolf-sweep" / "data") in said.err

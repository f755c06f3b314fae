"""Output that fails is dropped and noted once; a program without streams opens no file as one."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pgolf_sweep.cli.streams import Steadfast

if TYPE_CHECKING:
    from pathlib import Path


def run(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(words, env=environment, text=True, check=False, timeout=60, **options)  # type: ignore[call-overload]


CLOSED = """
import os, sys
from pgolf_sweep.cli.streams import steadfast_output
with steadfast_output():
    for turn in range(2000):
        print("x" * 100)
        print("y" * 100, file=sys.stderr, flush=True)
os.write(3, b"reached")
"""


@pytest.mark.parametrize("target", ["pipe", "full disk"])
def test_a_sweep_outlives_what_it_prints_to(target: str) -> None:
    reader, writer = os.pipe()
    if target == "pipe":
        ours, theirs = os.pipe()
        os.close(ours)
    else:
        theirs = os.open("/dev/full", os.O_WRONLY)
    code = f"import os; os.dup2({writer}, 3); " + CLOSED
    done = run(code, stdout=theirs, stderr=theirs, pass_fds=[writer])
    os.close(writer)
    os.close(theirs)
    with os.fdopen(reader, "rb") as heard:
        assert heard.read() == b"reached"
    assert done.returncode == 0, "nor does the interpreter complain at its end"


def test_what_is_lost_is_noted_once(caplog: pytest.LogCaptureFixture) -> None:
    with open("/dev/full", "w") as full, caplog.at_level(logging.WARNING):  # noqa: PTH123
        stream = Steadfast(full, "stderr")
        for _ in range(3):
            stream.write("text\n")
            stream.flush()
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        "stderr takes no more text"
    ]


def test_a_program_without_streams_opens_no_file_in_their_place(tmp_path: Path) -> None:
    code = (
        "from pgolf_sweep.cli.streams import open_standard_streams\n"
        "open_standard_streams()\n"
        f"held = open({str(tmp_path / 'lock')!r}, 'w')\n"
        "print('to nobody', flush=True)\n"
        "raise SystemExit(held.fileno())\n"
    )
    environment = f"PYTHONPATH='{os.pathsep.join(sys.path)}'"
    shell = f'{environment} {sys.executable} -c "$CODE" <&- >&- 2>&-'
    done = subprocess.run(shell, shell=True, env=os.environ | {"CODE": code}, check=False)  # noqa: S602
    assert done.returncode > 2
    assert (tmp_path / "lock").read_text() == ""

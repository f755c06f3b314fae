"""One driver a study; requests by file and by signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.paths import StudyPaths
from pgolf_sweep.driver.control import (
    DriverLock,
    Request,
    Requests,
    live_driver,
    send_request,
    signals_around_a_sweep,
)


def test_second_driver_is_refused_and_told_who_is_first(tmp_path):
    paths = StudyPaths(tmp_path / "demo")
    with DriverLock(paths):
        holder = live_driver(paths)
        assert holder is not None
        assert holder.pid == os.getpid()
        with pytest.raises(InputError, match=str(os.getpid())), DriverLock(paths):
            pass
    assert live_driver(paths) is None


def test_lock_of_a_killed_driver_is_free(tmp_path):
    paths = StudyPaths(tmp_path / "demo")
    code = f"""
        import time
        from pathlib import Path
        from pgolf_sweep.driver.control import DriverLock
        from pgolf_sweep.core.paths import StudyPaths
        with DriverLock(StudyPaths(Path({str(paths.root)!r}))):
            print("held", flush=True)
            time.sleep(60)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == "held\n"
        assert live_driver(paths) is not None
        child.kill()
        child.wait()
    assert live_driver(paths) is None
    with DriverLock(paths):
        assert live_driver(paths) is not None


def test_requests_come_from_the_file(tmp_path):
    paths = StudyPaths(tmp_path / "demo")
    send_request(paths, Request.CANCEL)
    with DriverLock(paths), Requests(paths) as requests:
        assert requests() is Request.CONTINUE, "an old request is not meant for this driver"
        send_request(paths, Request.DRAIN)
        assert requests() is Request.DRAIN
        send_request(paths, Request.CANCEL)
        assert requests() is Request.CANCEL
        assert not requests.interrupted


def test_a_request_that_comes_while_slots_are_starting_is_heeded(tmp_path):
    paths = StudyPaths(tmp_path / "demo")
    with DriverLock(paths):
        send_request(paths, Request.DRAIN)  # Ray takes seconds to start; signals are caught later
        with Requests(paths) as requests:
            assert requests() is Request.DRAIN


def test_the_lock_says_for_which_command_it_is_held(tmp_path):
    paths = StudyPaths(tmp_path / "demo")
    with DriverLock(paths, job="promote"):
        assert str(live_driver(paths)).endswith("(promote)")
        with pytest.raises(InputError) as refusal, DriverLock(paths):
            pass
    assert "stop" not in (refusal.value.next_step or ""), "a promotion acts on no request"


def test_first_interrupt_drains_second_cancels(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with Requests(StudyPaths(tmp_path / "demo")) as requests:
        os.kill(os.getpid(), signal.SIGINT)
        assert requests() is Request.DRAIN
        os.kill(os.getpid(), signal.SIGINT)
        assert requests() is Request.CANCEL
        assert requests.interrupted
    assert signal.getsignal(signal.SIGINT) is before


def test_termination_cancels(tmp_path):
    with Requests(StudyPaths(tmp_path / "demo")) as requests:
        os.kill(os.getpid(), signal.SIGTERM)
        assert requests() is Request.CANCEL


@pytest.mark.parametrize(
    ("before", "counts"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)], ids=["shell", "nohup"]
)
def test_hang_ups_count_unless_they_are_ignored(before: signal.Handlers, counts: bool) -> None:
    kept = signal.signal(signal.SIGHUP, before)
    try:
        with signals_around_a_sweep() as hang_ups:
            assert hang_ups is counts
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, "what it starts inherits this"
        assert signal.getsignal(signal.SIGHUP) is before
    finally:
        signal.signal(signal.SIGHUP, kept)

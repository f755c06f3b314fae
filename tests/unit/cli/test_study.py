"""Commands on a study that is there, whoever holds it."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from pgolf_sweep.cli import app
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.paths import StudyPaths, read_json, write_json, write_text
from pgolf_sweep.driver.control import DriverLock
from pgolf_sweep.workflows.launch_support import StatusFile


@pytest.fixture
def paths(tmp_path):
    found = StudyPaths(tmp_path / "demo")
    write_text(found.sweep, "program: trainer\n")
    return found


@pytest.mark.parametrize("command", ["stop", "cancel"])
def test_a_promotion_is_not_said_to_drain(paths, command):
    with DriverLock(paths, job="promote"):
        done = CliRunner().invoke(app, [command, "demo", "--runs", str(paths.root.parent)])
    assert isinstance(done.exception, InputError)
    assert "`promote` runs on it" in str(done.exception)
    assert not paths.request.exists()


@pytest.mark.parametrize("command", ["stop", "cancel"])
def test_nothing_to_end_is_no_error(paths, command):
    done = CliRunner().invoke(app, [command, "demo", "--runs", str(paths.root.parent)])
    assert done.exit_code == 0
    assert f"nothing to {command}" in done.stderr
    assert not paths.request.exists(), "it would meet the next driver"


def test_the_end_of_the_last_driver_is_not_that_of_the_next(paths):
    StatusFile(paths).reopen()
    assert not paths.status.exists()
    write_json(paths.status, {"state": "finished", "reason": "run_cap reached", "slots": 2})
    StatusFile(paths).reopen()
    last = read_json(paths.status)
    assert (last["state"], last["reason"], last["slots"]) == ("running", "", 2)

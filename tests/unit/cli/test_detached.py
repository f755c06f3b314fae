"""Commands on a study that is driven elsewhere: what is sent there."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from pgolf_sweep.cli import app
from pgolf_sweep.core.paths import StudyPaths, write_text
from pgolf_sweep.launch.remote import dashboard
from pgolf_sweep.launch.remote.dashboard import Place, write_place

URL = "postgresql://ada:secret@db/sweeps"


@pytest.fixture
def sent(tmp_path, monkeypatch):
    """The payload of each remote command that is run on the cluster."""
    paths = StudyPaths(tmp_path / "runs" / "far")
    write_text(paths.sweep, "program: trainer\n")
    write_place(paths, Place(address="http://head:8265", job="j", home="~/p", again=""))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PGOLF_STORAGE", URL)
    monkeypatch.setenv("PGOLF_RUNS", str(tmp_path / "runs"))
    found = []

    def run_remote_command(board, payload):
        found.append(payload)
        return 0, "", ""

    monkeypatch.setattr(dashboard, "Dashboard", lambda address: address)
    monkeypatch.setattr(dashboard, "refresh", lambda _paths, place, _board=None: place)
    monkeypatch.setattr(dashboard, "run_remote_command", run_remote_command)
    return found


def test_a_proposed_script_travels_with_the_command(sent, tmp_path):
    script = tmp_path / "idea.py"
    script.write_bytes(b"print('val_bpb')\n")
    done = CliRunner().invoke(app, ["propose", "far", "--program", str(script), "--parent", "3"])
    assert done.exit_code == 0, done.output
    (payload,) = sent
    assert dict(payload.files) == {"idea.py": b"print('val_bpb')\n"}
    assert {"--program=idea.py", "--from=3"} <= set(payload.words)


@pytest.mark.parametrize(
    ("words", "opens_study"),
    [
        (["propose", "far", "--set", "MATRIX_LR=0.02"], True),
        (["stop", "far", "--all"], True),
        (["cancel", "far", "--all"], True),
        (["stop", "far"], False),
        (["cancel", "far"], False),
    ],
)
def test_command_that_opens_the_study_takes_the_databases_url_along_and_no_other_does(
    sent, words, opens_study
):
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    (payload,) = sent
    assert dict(payload.env) == ({"PGOLF_STORAGE": URL} if opens_study else {})
    assert not any("secret" in word for word in payload.words)
    assert "secret" not in done.output

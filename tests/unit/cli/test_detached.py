"""Commands on a study that is driven elsewhere: what is sent there."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from pgolf_sweep.cli import app
from pgolf_sweep.core.paths import StudyPaths, write_text
from pgolf_sweep.launch.remote import dashboard as detached
from pgolf_sweep.launch.remote.dashboard import Place, write_place

URL = "postgresql://ada:secret@db/sweeps"


@pytest.fixture
def sent(tmp_path, monkeypatch):
    """The luggage of each errand that is run on the cluster."""
    paths = StudyPaths(tmp_path / "runs" / "far")
    write_text(paths.sweep, "program: trainer\n")
    write_place(paths, Place(address="http://head:8265", job="j", home="~/p", again=""))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PGOLF_STORAGE", URL)
    monkeypatch.setenv("PGOLF_RUNS", str(tmp_path / "runs"))
    found = []

    def run_errand(board, luggage):
        found.append(luggage)
        return 0, "", ""

    monkeypatch.setattr(detached, "Dashboard", lambda address: address)
    monkeypatch.setattr(detached, "refresh", lambda _paths, place, _board=None: place)
    monkeypatch.setattr(detached, "run_errand", run_errand)
    return found


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
def test_errand_that_opens_the_study_takes_the_databases_url_along_and_no_other_does(
    sent, words, opens_study
):
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    (luggage,) = sent
    assert dict(luggage.env) == ({"PGOLF_STORAGE": URL} if opens_study else {})
    assert not any("secret" in word for word in luggage.words)
    assert "secret" not in done.output

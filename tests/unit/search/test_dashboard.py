"""The dashboard shows a study to this machine and lets nobody change it."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from pgolf_sweep.config.sweep_file import load_spec
from pgolf_sweep.core.errors import InfraError, InputError
from pgolf_sweep.core.paths import StudyPaths, write_text
from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.search.dashboard import study_server
from pgolf_sweep.search.study import open_study

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def paths(tmp_path: Path) -> StudyPaths:
    found = StudyPaths(tmp_path / "demo")
    write_text(
        found.sweep,
        "name: demo\nprogram: trainer\nmethod: random\n"
        "parameters: {MODEL_DIM: {values: [64, 96]}}\n",
    )
    study = open_study(load_spec(found.sweep), found, write=True)
    number = study.ask().number
    study.tell(
        TrialRecord(number=number, outcome=State.COMPLETED, knobs={"MODEL_DIM": 64}, val_bpb=2.5)
    )
    study.close()
    return found


@pytest.fixture
def address(paths: StudyPaths) -> Iterator[str]:
    server, address = study_server(paths, 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield address
    server.shutdown()
    thread.join()
    server.server_close()


def asked(url: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(url, method=method, headers=headers)  # noqa: S310 - loopback
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - loopback
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_address_is_the_studys_own_page_on_loopback(address: str) -> None:
    assert address.startswith("http://127.0.0.1:")
    root, _, number = address.rpartition("/studies/")
    status, page = asked(address)
    assert (status, "<html" in page.lower()) == (200, True)
    status, detail = asked(f"{root.removesuffix('/dashboard')}/api/studies/{number}")
    assert status == 200
    assert [trial["values"] for trial in json.loads(detail)["trials"]] == [[2.5]]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_whatever_changes_a_study_is_refused(address: str, paths: StudyPaths, method: str) -> None:
    before = paths.journal.read_bytes()
    root, _, number = address.partition("/dashboard/studies/")
    assert asked(f"{root}/api/studies/{number}", method)[0] == 405
    assert paths.journal.read_bytes() == before


def test_a_page_from_elsewhere_that_points_here_is_refused(address: str) -> None:
    assert asked(address, Host="evil.example:80")[0] == 403


def test_a_port_that_is_taken_is_said(paths: StudyPaths, address: str) -> None:
    port = int(address.split(":")[2].partition("/")[0])
    with pytest.raises(InfraError, match="cannot listen"):
        study_server(paths, port)


def test_a_study_without_trials_is_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        study_server(StudyPaths(tmp_path / "none"), 0)

"""The payload of a job and the memory of its place; the cluster itself: tests/e2e."""

from __future__ import annotations

import os
import signal

import pytest

from pgolf_sweep.core.errors import InfraError, InputError
from pgolf_sweep.core.paths import StudyPaths, write_json, write_text
from pgolf_sweep.launch.remote.dashboard import (
    GONE,
    Dashboard,
    Place,
    finished_remote_commands,
    job_name,
    read_place,
    refuse_copies,
    uninterrupted,
    write_place,
)
from pgolf_sweep.launch.remote.entrypoint import (
    JobPayload,
    check_continues,
    log_dir_alias,
    show_studies,
    unpack_files,
)
from pgolf_sweep.report.read import study_status

PLACE = Place(address="http://head:8265", job="pgolf-sweep-s-1", home="~/p", again="launch it")


@pytest.fixture
def paths(tmp_path):
    found = StudyPaths(tmp_path / "runs" / "s")
    write_text(found.sweep, "program: trainer\n")
    return found


def payload(**changes):
    return JobPayload(**{"words": ["launch", "s.yaml"], "home": "~/p", "study": "s", **changes})


def test_payload_is_fetched_as_it_was_packed_and_shows_no_secret():
    sent = payload(env={"WANDB_API_KEY": "secret"}, files={"a/s.yaml": b"\xff\n"}, folder="a")
    packed = sent.pack()
    assert b"secret" not in packed
    assert JobPayload.unpack(packed) == sent


def test_files_lie_in_a_folder_of_their_content(tmp_path):
    first = payload(home=str(tmp_path), files={"a/s.yaml": b"1", "x.py": b"2"}, folder="a")
    other = payload(home=str(tmp_path), files={"a/s.yaml": b"3", "x.py": b"2"}, folder="a")
    folder = unpack_files(first)
    assert (folder / "s.yaml").read_bytes() == b"1"
    assert (folder / ".." / "x.py").read_bytes() == b"2"
    assert unpack_files(other) != folder == unpack_files(first)


def test_a_study_that_its_sender_knows_is_not_begun_afresh(paths):
    check_continues(payload(), paths)
    with pytest.raises(InfraError, match="does not hold the study"):
        check_continues(payload(begun=1.5), paths)
    write_json(paths.origin, {"created_at": 1.5})
    check_continues(payload(begun=1.5), paths)
    with pytest.raises(InfraError, match="another study of this name"):
        check_continues(payload(begun=2.5), paths)


def test_each_home_has_a_shelf_of_its_own_and_it_can_be_moved(tmp_path):
    assert log_dir_alias("~/a") != log_dir_alias("~/b")
    link = tmp_path / log_dir_alias("~/a")
    for runs in (tmp_path / "one", tmp_path / "one", tmp_path / "two"):
        show_studies(runs, link)
        assert link.readlink() == runs
    assert list(tmp_path.iterdir()) == [link]


def test_a_job_is_named_after_its_study_and_counted():
    taken = [{"submission_id": "pgolf-sweep-my-study-1"}]
    assert job_name("my study", []) == "pgolf-sweep-my-study-1"
    assert job_name("my study", taken) == "pgolf-sweep-my-study-2"
    # After a restart the cluster knows none but the one that is remembered here.
    assert job_name("s", [{"submission_id": "pgolf-sweep-s-2"}]) == "pgolf-sweep-s-3"
    assert job_name("s", [{"submission_id": None}]) == "pgolf-sweep-s-1"
    assert job_name("my study", taken, what="stop") == "pgolf-sweep-my-study-stop-1"


def test_remote_commands_are_deleted_once_ray_has_closed_them_and_drivers_never():
    def job(name, status, end_time, **metadata):
        return {
            "submission_id": name, "status": status, "end_time": end_time, "metadata": metadata
        }  # fmt: skip

    jobs = [
        job("driver", "SUCCEEDED", 0, pgolf_study="s"),
        job("spent", "SUCCEEDED", 900_000, pgolf_remote_command="s"),
        job("failed", "FAILED", 900_000, pgolf_remote_command="s"),
        job("just now", "SUCCEEDED", 990_000, pgolf_remote_command="s"),
        job("runs", "RUNNING", None, pgolf_remote_command="s"),
    ]
    assert finished_remote_commands(jobs, now=1000.0) == ["spent", "failed"]


def test_a_place_is_remembered_also_when_a_newer_version_noted_more(paths):
    assert read_place(paths) is None
    write_place(paths, PLACE)
    assert read_place(paths) == PLACE
    write_json(paths.detached, {"address": "a", "job": "j", "home": "h", "again": "", "new": 1})
    assert read_place(paths) == Place(address="a", job="j", home="h", again="")


def test_copies_are_refused_to_what_needs_the_study(paths):
    refuse_copies(paths, "launch")
    write_place(paths, PLACE)
    with pytest.raises(InputError, match="launch it"):
        refuse_copies(paths, "launch")
    with pytest.raises(InputError, match="on the head node: pgolf-sweep promote s"):
        refuse_copies(paths, "promote")


MESSAGE = (
    "Job entrypoint command failed with exit code 2, last available logs (truncated):\n"
    "study s\nerror: shards are missing\n  where: /data\n"
)


@pytest.mark.parametrize(
    ("job_state", "status", "state", "reason"),
    [
        ("PENDING", {}, "starting", ""),
        ("RUNNING", {"state": "finished", "job": "an earlier one"}, "starting", ""),
        ("RUNNING", {"state": "running", "job": PLACE.job, "joining": True}, "starting", ""),
        ("FAILED", {"state": "running", "job": PLACE.job, "joining": True}, "interrupted", "miss"),
        ("RUNNING", {"state": "running", "job": PLACE.job}, "running", ""),
        ("RUNNING", {"state": "draining", "job": PLACE.job}, "draining", ""),
        ("SUCCEEDED", {"state": "finished", "job": PLACE.job, "reason": "cap"}, "finished", "cap"),
        ("FAILED", {"state": "running", "job": PLACE.job}, "interrupted", "shards are missing"),
        ("FAILED", {"state": "finished", "job": "earlier"}, "interrupted", "shards are missing"),
        (GONE, {"state": "running", "job": PLACE.job}, "interrupted", "started anew"),
        (GONE, {"state": "finished", "job": PLACE.job, "reason": "cap"}, "finished", "cap"),
        ("UNREACHABLE", {"state": "running", "job": PLACE.job}, "unreachable", ""),
    ],
)
def test_a_status_is_true_to_the_job_and_to_the_drivers_last_word(
    paths, job_state, status, state, reason
):
    place = Place(address="a", job=PLACE.job, home="~", again="")
    message = MESSAGE if job_state == "FAILED" else "Job is currently running."
    write_place(paths, Place(**{**as_words(place), "state": job_state, "message": message}))
    if status:
        write_json(paths.status, status)
    found = study_status(paths).to_json()
    assert found["state"] == state
    assert reason in found["reason"]
    assert (found["driver"] is not None) == (job_state in {"PENDING", "RUNNING"})


def as_words(place):
    return {"address": place.address, "job": place.job, "home": place.home, "again": place.again}


def test_ctrl_c_waits_for_the_end_of_what_must_be_whole():
    done = []

    def whole():
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        whole()
    assert done


@pytest.mark.parametrize("address", ["ray://head:10001", "ftp://head"])
def test_an_address_that_is_no_dashboard_is_refused(address):
    with pytest.raises(InputError, match="through its dashboard"):
        Dashboard(address)

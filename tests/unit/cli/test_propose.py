"""`propose` and `leaderboard` as commands, on a study that a simulated driver left."""

from __future__ import annotations

import json

import pytest
from support.sweeps import SCRIPT, build_bench
from typer.testing import CliRunner

from pgolf_sweep.cli import app
from pgolf_sweep.core.errors import AnswerNoError, InputError
from pgolf_sweep.driver.proposals import enqueue_pending, pending
from pgolf_sweep.workflows.study_folder import prepare_folder


@pytest.fixture
def bench(tmp_path):
    """A finished study of four trials, as `launch` leaves it."""
    found = build_bench(tmp_path, run_cap=4)
    (tmp_path / "train_gpt.py").write_bytes(SCRIPT)
    prepare_folder(found.session, found.paths, sweep=tmp_path / "study.yaml", data_root=tmp_path)
    found.driver().run()
    return found


def run(bench, *arguments):
    arguments = [*arguments, "--runs", str(bench.folder / "runs")]
    return CliRunner().invoke(app, arguments)


def test_proposal_is_left_for_the_driver_with_its_id_and_verdict(bench):
    done = run(bench, "propose", "study", "--set", "MATRIX_LR=0.0123", "--from", "best",
               "--by", "ada", "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    (request,) = pending(bench.paths)
    assert document["proposal"] == request.id
    assert request.by == "ada"
    assert request.knobs["MATRIX_LR"] == 0.0123
    assert document["sampler_chooses"] == []
    assert document["number"] is None
    assert "run_cap of 4 is reached" in done.stderr
    shown = run(bench, "status", "study")
    assert "1 proposal waits for a slot: the next launch runs it first" in shown.stdout
    assert json.loads(run(bench, "status", "study", "--json").stdout)["proposals_left"] == 1
    enqueue_pending(bench.paths, bench.study(), lambda event: None)  # it has a number, and no slot
    assert json.loads(run(bench, "status", "study", "--json").stdout)["proposals_left"] == 1
    bench.driver(run_cap=5).run()
    assert "waits for a slot" not in run(bench, "status", "study").stdout
    assert any(r.proposer == "propose:ada" for r in bench.study().records())


def test_the_same_proposal_before_its_end_is_the_same_one(bench):
    words = ("propose", "study", "--set", "MATRIX_LR=0.0123", "--by", "ada", "--json")
    whole, part = (*words, "--from", "best"), (*words, "--idea", "any width")
    for asked in (whole, part):
        first, again = (json.loads(run(bench, *asked).stdout)["proposals"] for _ in range(2))
        assert len(first) == 1
        assert again == first
    assert len(pending(bench.paths)) == 2
    seeds = json.loads(run(bench, *whole, "--seeds", "2").stdout)["proposals"]
    assert len(pending(bench.paths)) == 3
    enqueue_pending(bench.paths, bench.study(), lambda event: None)
    assert json.loads(run(bench, *whole, "--seeds", "2").stdout)["proposals"] == seeds
    assert json.loads(run(bench, *part[:-1], "another").stdout)["proposals"] not in (seeds, first)
    assert len(pending(bench.paths)) == 1
    bench.driver(run_cap=8).run()
    done = json.loads(run(bench, *whole, "--seeds", "2").stdout)
    assert (done["proposals"], len(done["ran_before"])) == ([], 2)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("MODEL_DIM=100", "outside the space"),
        ("MATRIX_LRR=0.02", "did you mean MATRIX_LR"),
        ("MODEL_DIM", "K=V"),
    ],
)
def test_what_is_outside_the_space_is_the_users_mistake(bench, setting, message):
    done = run(bench, "propose", "study", "--set", setting)
    assert isinstance(done.exception, InputError)
    assert done.exception.exit_code == 2
    assert message in str(done.exception)
    assert pending(bench.paths) == []


def test_what_the_gate_refuses_is_not_left(bench, monkeypatch):
    # The study's program is not ours, so that its gate knows nothing; the bench's gate does.
    monkeypatch.setattr(
        "pgolf_sweep.driver.session.Session.verdict",
        lambda _, knobs: bench.session.gate.verdict(knobs),
    )
    done = run(bench, "propose", "study", "--set", "MODEL_DIM=256", "--from", "best", "--json")
    assert isinstance(done.exception, AnswerNoError)
    assert json.loads(done.stdout)["verdict"] == "too_big"
    assert f"gate --sweep {bench.folder / 'study.yaml'} " in done.exception.next_step
    assert pending(bench.paths) == []


def test_waiting_ends_when_time_is_up_and_the_proposal_stays(bench):
    done = run(bench, "propose", "study", "--set", "MODEL_DIM=32", "--wait", "--timeout", "0.1")
    assert isinstance(done.exception, AnswerNoError)
    assert "has not ended" in str(done.exception)
    assert len(pending(bench.paths)) == 1


def test_leaderboard_ranks_studies_with_their_evidence(bench):
    done = run(bench, "leaderboard", "--json")
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)["rows"]
    assert (row["kind"], row["name"], row["seeds"], row["verified"]) == ("study", "study", 1, None)
    assert row["val_bpb"] == min(r.val_bpb for r in bench.study().records() if r.val_bpb)
    assert row["headroom_bytes"] == 300_000 - row["artifact_bytes"]
    assert "search only" in run(bench, "leaderboard").stdout


def test_leaderboard_of_nothing_says_so(tmp_path):
    done = CliRunner().invoke(app, ["leaderboard", "--runs", str(tmp_path)])
    assert isinstance(done.exception, AnswerNoError)


def test_a_study_whose_store_is_gone_still_takes_proposals(bench):
    bench.paths.sweep.write_text(bench.paths.sweep.read_text() + "  gate: {calibration: gone}\n")
    done = run(bench, "propose", "study", "--set", "MATRIX_LR=0.0123", "--from", "best")
    assert done.exit_code == 0, done.output

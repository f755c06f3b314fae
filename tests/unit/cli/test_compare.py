"""`compare` and `repeat` as commands, on a simulated study whose noise is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.sweeps import SCRIPT, build_bench
from typer.testing import CliRunner

from pgolf_sweep.cli import app
from pgolf_sweep.core.errors import AnswerNoError, InputError
from pgolf_sweep.core.ledger import read_ledger
from pgolf_sweep.core.trial import LogSummary
from pgolf_sweep.driver.proposals import enqueue_pending, look, pending, submit
from pgolf_sweep.launch.inline import Finish
from pgolf_sweep.workflows.study_folder import prepare_folder

NOISE = 0.001
EFFECTS = {64: 0.0, 96: -0.02, 128: 0.0, 160: 0.02}
"""True score by width, the base's being 64."""


def simulate(job):
    """A score of the width, plus noise that seed and width alone decide."""
    width, seed = int(job.spec.knobs["MODEL_DIM"]), int(job.spec.knobs["SEED"])
    if width == 192:
        yield 1.0, Finish(summary=LogSummary(), exit_code=1, log_tail=("ValueError: bad",))
        return
    noise = np.random.default_rng([seed, width]).normal(0, NOISE)
    score = 1.2 + EFFECTS[width] + noise
    yield 10.0, Finish(summary=LogSummary(val_bpb=score, val_loss_nats=2 * score,
                                          model_bytes=100, code_bytes=9, step_avg_ms=5.0,
                                          total_bytes=109))  # fmt: skip


@pytest.fixture
def bench(tmp_path):
    """A study of one trial a width, in the order of `EFFECTS`, and one that fails."""
    found = build_bench(tmp_path, run_cap=5, block="  accept: {false_keep: 0.01}\n")
    (tmp_path / "train_gpt.py").write_bytes(SCRIPT)
    prepare_folder(found.session, found.paths, sweep=tmp_path / "study.yaml", data_root=tmp_path)
    for at, width in enumerate((*EFFECTS, 192)):
        submit(found.paths, {"MODEL_DIM": width, "MATRIX_LR": 0.02}, by="ada", at=float(at))
    found.driver(slots=1, simulate=simulate).run()
    return found


def run(bench, *arguments):
    return CliRunner().invoke(app, [*arguments, "--runs", str(bench.folder / "runs")])


def compared(bench, *arguments):
    done = run(bench, "compare", "study", *arguments, "--json")
    assert done.stdout, done.exception
    return json.loads(done.stdout), done


def drive_waiting(bench):
    """Run what is asked for and nothing else."""
    records = bench.study().records()
    count = sum(r.attempts > 0 or not r.outcome.final for r in records) + len(pending(bench.paths))
    bench.driver(slots=2, run_cap=count, simulate=simulate).run()


def test_noise_is_unknown_until_something_ran_twice_and_the_answer_says_what_to_type(bench):
    document, done = compared(bench, "0", "1")
    assert done.exit_code == 0
    assert document["noise"] is None
    assert document["effect"] is None
    assert document["next_step"] == "pgolf-sweep repeat study 0 --seeds 2"


def test_repeats_pair_on_the_same_seeds_and_measure_the_noise(bench):
    for number in ("0", "1"):
        done = run(bench, "repeat", "study", number, "--seeds", "3", "--by", "ada", "--json")
        assert done.exit_code == 0, done.exception
    seeds = [one.change.seed for one in pending(bench.paths)]
    assert seeds[:3] == seeds[3:]
    assert len(set(seeds)) == 3
    drive_waiting(bench)
    document, _ = compared(bench, "0", "1")
    assert {pair["seed"] for pair in document["pairs"]} == {7, *seeds}
    assert NOISE / 3 < document["noise_bpb"] < 3 * NOISE
    assert document["distinguishable"]
    low, high = document["effect"]["low"], document["effect"]["high"]
    assert low < EFFECTS[96] < high < 0
    assert document["base"]["step_avg_ms"] == 5.0
    assert document["candidate"]["artifact_bytes"] == 109
    assert "trial 1 is better than trial 0" in document["text"]


def test_runs_that_are_asked_for_again_before_they_ended_are_the_same_ones(bench):
    def asked(count):
        done = run(bench, "repeat", "study", "0", "--seeds", count, "--by", "ada", "--json")
        return json.loads(done.stdout)["proposals"]

    first = asked("3")
    assert asked("3") == first
    assert len(pending(bench.paths)) == 3
    four = asked("4")
    assert [one["seed"] for one in four[:3]] == [one["seed"] for one in first]
    assert four[3]["seed"] not in {7, *(one["seed"] for one in first)}
    enqueue_pending(bench.paths, bench.study(), lambda event: None)  # they have a number, no slot
    assert asked("4") == four
    drive_waiting(bench)
    assert not {one["seed"] for one in asked("2")} & {one["seed"] for one in four}


def test_an_undecided_comparison_says_how_many_seeds_would_decide(bench):
    run(bench, "repeat", "study", "0", "--seeds", "2")
    drive_waiting(bench)
    document, done = compared(bench, "0", "2")
    assert done.exit_code == 0
    assert not document["distinguishable"]
    assert document["text"].startswith("not distinguishable")
    shown = run(bench, "compare", "study", "0", "2")
    assert "not distinguishable" in shown.stdout
    assert "noise of one run" in shown.stdout


def test_rule_drops_a_clear_loser_after_one_run_and_keeps_what_is_real(bench):
    run(bench, "repeat", "study", "0", "--seeds", "4")
    drive_waiting(bench)
    document, done = compared(bench, "0", "3", "--accept", "significant")
    assert document["decision"] == "drop"
    assert document["candidate"]["trials"] == [3]
    assert isinstance(done.exception, AnswerNoError)
    document, done = compared(bench, "0", "1", "--accept", "significant")
    assert document["decision"] == "keep"
    assert done.exit_code == 0
    kept = [e.body for e in read_ledger(bench.paths) if e.kind == "decision"]
    assert [(body["candidate"], body["decision"]) for body in kept] == [(3, "drop"), (1, "keep")]


def test_seeds_that_accepted_a_trial_are_not_counted_in_the_next_comparison(bench):
    run(bench, "repeat", "study", "0", "--seeds", "4")
    drive_waiting(bench)
    compared(bench, "0", "1", "--accept", "significant")
    document, _ = compared(bench, "1", "2")
    assert document["base"]["accepted_on"] == [7]
    assert document["base"]["val_bpb"] == {}
    assert document["decision"] == "more"
    assert document["next_step"] == "pgolf-sweep repeat study 1 --seeds 1"
    run(bench, "repeat", "study", "1", "--seeds", "2")
    drive_waiting(bench)
    document, _ = compared(bench, "1", "2")
    assert 7 not in [int(seed) for seed in document["base"]["val_bpb"]]
    again, _ = compared(bench, "0", "1")
    assert again["decision"] == "keep"
    assert again["remeasured"]["value"] == pytest.approx(EFFECTS[96], abs=5 * NOISE)


def test_ledger_and_proposers_tell_who_found_what(bench):
    run(bench, "repeat", "study", "0", "--seeds", "4", "--by", "bob")
    drive_waiting(bench)
    compared(bench, "0", "1", "--accept", "significant")
    done = run(bench, "leaderboard", "--by", "proposer", "--json")
    rows = {row["proposer"]: row for row in json.loads(done.stdout)["rows"]}
    ada, bob = rows["propose:ada"], rows["propose:bob"]
    assert (ada["tried"], ada["completed"], ada["kept"]) == (5, 4, 1)
    assert ada["gain_bpb"] == pytest.approx(EFFECTS[96], abs=5 * NOISE)
    assert (bob["tried"], bob["seeds"], bob["best_bpb"]) == (0, 4, None)
    assert "propose:ada" in run(bench, "leaderboard", "--by", "proposer").stdout
    done = run(bench, "verify", "--ledger", "study", "--json")
    document = json.loads(done.stdout)
    assert (done.exit_code, document["ok"]) == (0, True)
    assert document["entries"] == len(read_ledger(bench.paths))
    text = bench.paths.ledger.read_text()
    bench.paths.ledger.write_text(text.replace('"by":"bob"', '"by":"eve"'))
    done = run(bench, "verify", "--ledger", "study")
    assert done.exit_code == 1
    assert "was changed" in done.stdout


def test_greedy_keeps_any_better_mean_and_none_decides_nothing(bench):
    better = min((0, 2), key=lambda n: bench.study().records()[n].val_bpb)
    document, done = compared(bench, str(2 - better), str(better), "--accept", "greedy")
    assert document["decision"] == "keep"
    assert done.exit_code == 0
    document, done = compared(bench, "0", "1", "--accept", "none")
    assert (document["decision"], done.exit_code) == ("open", 0)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("0", "99"), InputError, "no trial 99"),
        (("0", "0"), InputError, "one configuration"),
        (("0", "4"), AnswerNoError, "trial 4 has no score: failed"),
    ],
)
def test_what_cannot_be_compared_is_refused(bench, arguments, kind, message):
    done = run(bench, "compare", "study", *arguments)
    assert isinstance(done.exception, kind)
    assert message in str(done.exception)


def test_compare_runs_seeds_until_the_rule_decides(bench, monkeypatch):
    from pgolf_sweep.workflows import compare as workflow

    ended = []

    def wait(paths, run, report):  # a driver whose slots are simulated ends at once
        drive_waiting(bench)
        ended.append(bench.study().records()[look(paths, run.request.id).number])
        return ended[-1]

    monkeypatch.setattr(workflow, "wait_for_run", wait)
    found = workflow.decide(bench.paths, 0, 1, by="ada", report=lambda text: None)
    assert found.decision.value == "keep"
    assert all(row.proposer == "propose:ada" and row.seed is not None for row in ended)
    assert len(ended) <= 6


def test_each_change_of_a_grid_is_paired_with_the_grid_without_it(tmp_path):
    bench = build_bench(
        tmp_path,
        method="grid",
        run_cap=20,
        width="{values: [64, 96, 160]}",
        rate="{values: [0.02, 0.03], when: {MODEL_DIM: 96}}",
        seed="{values: [1, 2, 3]}",
        block="  one_at_a_time: true\n",
    )
    (tmp_path / "train_gpt.py").write_bytes(SCRIPT)
    prepare_folder(bench.session, bench.paths, sweep=tmp_path / "study.yaml", data_root=tmp_path)
    bench.driver(slots=1, simulate=simulate).run()
    document, done = compared(bench)
    assert done.exit_code == 0
    changes = document["changes"]
    assert [(c["knob"], c["value"], c["beside"]) for c in changes] == [
        ("MODEL_DIM", 96, {}),
        ("MATRIX_LR", 0.03, {"MODEL_DIM": 96}),
        ("MODEL_DIM", 160, {}),
    ]
    for change, true in zip(changes, (EFFECTS[96], 0.0, EFFECTS[160]), strict=True):
        assert change["seeds"] == [1, 2, 3]
        assert change["effect"]["value"] == pytest.approx(true, abs=4 * NOISE)
        assert change["artifact_bytes"] == change["base_artifact_bytes"] == 109
    assert changes[1]["effect"]["p_value"] == 1.0  # the score knows no rate
    shown = run(bench, "compare", "study")
    assert "MATRIX_LR=0.03 (at MODEL_DIM=96)" in shown.stdout


def test_a_table_of_changes_needs_a_grid_of_them_and_a_comparison_two_trials(bench):
    assert isinstance(run(bench, "compare", "study").exception, InputError)
    assert "two trials" in str(run(bench, "compare", "study", "0").exception)

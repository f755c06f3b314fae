"""Trials that share a training: what is kept, what starts where, and what it costs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pgolf_sweep.core.paths import StudyPaths
from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.driver.opening import open_session
from pgolf_sweep.driver.reuse import FIRST_SHARE, Trainings, can_reuse, training_of
from pgolf_sweep.workflows.simulate import simulate

SWEEP = """
program: trainer
method: {method}
metric: {{name: val_bpb, goal: minimize}}
run_cap: {cap}
parameters:
  MATRIX_LR: {{values: [0.01, 0.02, 0.04]}}
  {knob}
  MODEL_DIM: {{value: 512}}
  SEED: {{value: 1}}
pgolf: {{resources: {{gpus: 8}}, gate: {{enabled: false}}{more}}}
"""
BUDGET = ", budget: {gpu_hours: 24, reserve: false}"
"""Twelve trainings."""
BITS = "MATRIX_BITS: {values: [5, 6, 7, 8]}"


@pytest.fixture
def write(tmp_path: Path):
    def write(*, method="grid", cap=100, knob=BITS, more=""):
        path = tmp_path / "shared.yaml"
        path.write_text(SWEEP.format(method=method, cap=cap, knob=knob, more=more))
        return path

    return write


def run(knobs):
    score = 1.0 + abs(float(knobs["MATRIX_LR"]) - 0.02) - int(knobs.get("MATRIX_BITS", 8)) / 1000
    return {"val_bpb": score, "artifact_bytes": 1e6, "minutes": 15.0, "export_minutes": 1.0}


def opened(path: Path):
    return open_session(path, data_root=path.parent / "data", need_data=False)


def test_a_grid_over_bits_trains_each_rate_once(write):
    study = simulate(write(), run, slots=8)
    done = [record for record in study.records if record.outcome is State.COMPLETED]
    assert len(done) == 12
    trained = {record.number: record for record in done if record.stage is None}
    assert sorted(record.knobs["MATRIX_LR"] for record in trained.values()) == [0.01, 0.02, 0.04]
    assert all(record.checkpoint_bytes for record in trained.values())
    for record in done:
        if record.number in trained:
            assert record.slot_seconds == pytest.approx(900)
            continue
        assert record.stage == "export"
        assert trained[record.reused_from].knobs["MATRIX_LR"] == record.knobs["MATRIX_LR"]
        assert record.slot_seconds == pytest.approx(60)
        assert record.train_seconds is None
        assert record.checkpoint_bytes is None


def test_a_run_that_says_nothing_of_exports_trains_each_time(write):
    def alone(knobs):
        return {name: run(knobs)[name] for name in ("val_bpb", "minutes")}

    study = simulate(write(knob="MATRIX_BITS: {values: [5, 6]}"), alone, slots=8)
    assert all(record.stage is None for record in study.records)


@pytest.mark.parametrize(
    ("changes", "active"),
    [
        ({}, True),
        ({"knob": "WARMDOWN_FRAC: {values: [0.2, 0.5]}"}, False),
        ({"knob": "WARMDOWN_FRAC: {values: [0.2, 0.5]}", "more": ", reuse: {enabled: true}"}, True),
        ({"more": ", reuse: {enabled: false}"}, False),
        ({"knob": BITS + "\n  CHECKPOINT: {value: mine}"}, False),
        ({"knob": "EVAL_STRIDE: {values: [0, 64]}"}, True),
    ],
)
def test_it_is_off_where_nothing_late_is_searched(write, changes, active):
    assert can_reuse(opened(write(**changes))) is active


def record(session, number, **changes):
    knobs = {"MATRIX_LR": 0.02, "MATRIX_BITS": 6, "MODEL_DIM": 512, "SEED": 1}
    own = {name: changes.pop(name) for name in list(changes) if name.isupper()}
    row = TrialRecord(number=number, outcome=State.COMPLETED, knobs=session.resolve(knobs | own))
    return dataclasses.replace(row, slot_seconds=900.0, **changes)


def test_what_decides_a_training(write):
    session = opened(write())
    one = training_of(session, record(session, 0))
    assert one == training_of(session, record(session, 1, MATRIX_BITS=8))
    for other in ({"SEED": 2}, {"MATRIX_LR": 0.01}, {"MODEL_DIM": 384}):
        assert one != training_of(session, record(session, 1, **other))


def test_bits_that_the_training_rounds_to_belong_to_it(write):
    searched = opened(write(knob=BITS + "\n  QAT_FRAC: {values: [0.0, 0.5]}"))
    one, other, free, freer = (
        training_of(searched, record(searched, number, QAT_FRAC=share, MATRIX_BITS=bits))
        for number, (share, bits) in enumerate(((0.5, 5), (0.5, 6), (0.0, 5), (0.0, 6)))
    )
    assert len({one, other, free}) == 3
    assert free == freer
    fixed = opened(write(knob=BITS + "\n  QAT_FRAC: {value: 0.5}"))
    assert fixed.spec.pgolf.reuse.later == ()
    assert not can_reuse(fixed)


def test_the_checkpoint_that_was_unused_for_longest_goes(write, tmp_path):
    session = opened(write(more=f", reuse: {{max_gib: {25 / 2**30}}}"))
    trainings = Trainings(session, StudyPaths(tmp_path / "runs" / "s"))
    kept = []
    for number, rate in enumerate((0.01, 0.02, 0.04)):
        row = record(session, number, MATRIX_LR=rate, checkpoint_bytes=10)
        file = Path(trainings.address(training_of(session, row)))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"0123456789")
        kept.append(file)
        trainings.learn(row)
        if number == 1:
            again, _ = trainings.reuse_of(record(session, 7, MATRIX_LR=0.01, MATRIX_BITS=8))
            assert (again.reused_from, again.stage) == (0, "export")
    assert trainings.numbers == {0, 2}
    assert [file.exists() for file in kept] == [True, False, True]
    anew, reuse = trainings.reuse_of(record(session, 8, MATRIX_LR=0.02, MATRIX_BITS=8))
    assert (anew.reused_from, anew.stage, reuse.start_at) == (None, None, "train")
    assert reuse.keep_at == str(kept[1])


def test_a_trial_that_differs_in_eval_knobs_takes_over_the_artifact(write, tmp_path):
    session = opened(write(knob="EVAL_STRIDE: {values: [0, 64]}"))
    paths = StudyPaths(tmp_path / "runs" / "s")
    trainings = Trainings(session, paths)
    folder = paths.trial(3).root
    folder.mkdir(parents=True)
    (folder / "final_model.int6.ptz").write_bytes(b"weights")
    trainings.learn(record(session, 3, EVAL_STRIDE=0))
    row, reuse = trainings.reuse_of(record(session, 4, EVAL_STRIDE=64))
    assert (row.reused_from, row.stage, reuse.start_at) == (3, "eval", "eval")
    assert reuse.files == {"final_model.int6.ptz": b"weights"}
    row, reuse = trainings.reuse_of(record(session, 5, EVAL_STRIDE=64, MATRIX_BITS=8))
    assert reuse.start_at == "train"


def test_the_share_is_what_it_really_cost_where_a_budget_pays(write, tmp_path):
    paths = StudyPaths(tmp_path / "runs" / "s")
    for more, first, later in (("", 1.0, 1.0), (BUDGET, FIRST_SHARE, 0.2)):
        session = opened(write(more=more))
        trainings = Trainings(session, paths)
        assert trainings.share == first
        trainings.learn(record(session, 0, checkpoint_bytes=1))
        cheap = dataclasses.replace(record(session, 1, MATRIX_BITS=8), stage="export")
        trainings.learn(dataclasses.replace(cheap, slot_seconds=180))
        assert trainings.share == pytest.approx(later)


def test_the_sampler_goes_on_from_trainings_where_a_budget_pays(write):
    path = write(method="bayes", cap=24, knob="MATRIX_BITS: {values: [4, 5, 6, 7, 8]}", more=BUDGET)
    rates = "values: [0.01, 0.02, 0.04]"
    path.write_text(path.read_text().replace(rates, "min: 0.01, max: 0.04"))
    study = simulate(path, run, slots=2)
    done = [row for row in study.records if row.outcome is State.COMPLETED]
    assert sum(row.slot_seconds for row in done) <= 12 * 900
    assert any(row.stage == "export" for row in done)

"""Trials that people ask for: what is checked before, and what the driver makes of the request."""

from __future__ import annotations

import pytest
from support.sweeps import RATES

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.paths import StudyPaths, read_json, write_json
from pgolf_sweep.core.record import State
from pgolf_sweep.driver.proposals import (
    adapted,
    answer,
    completed,
    look,
    parsed_value,
    pending,
    submit,
)

ASKED = {"MODEL_DIM": 96, "MATRIX_LR": 0.0123}


def test_running_driver_runs_a_proposal_ahead_of_its_sampler(make_bench):
    bench = make_bench(run_cap=4)
    request = submit(bench.paths, ASKED, by="ada", at=1.0)
    bench.driver(slots=1).run()
    asked = look(bench.paths, request.id)
    record = bench.study().records()[asked.number]
    assert asked.number == 0
    assert {name: record.knobs[name] for name in ASKED} == ASKED
    assert record.knobs["SEED"] == 7  # the sweep's constant
    assert record.proposer == "propose:ada"
    assert record.outcome is State.COMPLETED
    assert pending(bench.paths) == []
    assert "trial 0 is proposed by ada" in bench.watcher.messages


def test_proposal_to_a_stopped_study_is_taken_up_by_the_next_launch(make_bench):
    bench = make_bench(run_cap=2)
    bench.driver().run()
    request = submit(bench.paths, ASKED, by="ada", at=1.0)
    bench.driver(run_cap=3).run()
    number = look(bench.paths, request.id).number
    assert bench.study().records()[number].knobs["MATRIX_LR"] == 0.0123
    assert len([r for r in bench.study().records() if r.attempts]) == 3


def test_what_is_not_said_the_sampler_chooses(make_bench):
    bench = make_bench(run_cap=1)
    request = submit(bench.paths, {"MATRIX_LR": 0.0123}, by="ada", at=1.0)
    bench.driver(slots=1).run()
    record = bench.study().records()[look(bench.paths, request.id).number]
    assert record.knobs["MATRIX_LR"] == 0.0123
    assert record.knobs["MODEL_DIM"] in range(32, 257, 32)


def test_the_gate_has_the_last_word(make_bench):
    bench = make_bench(run_cap=1)
    request = submit(bench.paths, {"MODEL_DIM": 256, "MATRIX_LR": 0.02}, by="ada", at=1.0)
    bench.driver().run()
    record = bench.study().records()[look(bench.paths, request.id).number]
    assert record.outcome is State.DISCARDED


def test_request_outside_the_space_is_refused_and_ends_no_sweep(make_bench):
    bench = make_bench(run_cap=1)
    request = submit(bench.paths, {"MODEL_DIM": 999}, by="ada", at=1.0)
    (bench.paths.proposals / "broken.json").write_text("{")
    final = bench.driver().run()
    assert final.best is not None
    assert "outside the space" in look(bench.paths, request.id).refused
    assert pending(bench.paths) == []
    assert (bench.paths.proposals / "broken.unread").is_file()


@pytest.mark.parametrize(
    "changed",
    [{"knobs": [1]}, {"knobs": {"MODEL_DIM": None}}, {"knobs": {"MODEL_DIM": [96]}}, {"id": "x"}],
)
def test_file_that_is_no_proposal_is_set_aside_and_ends_no_sweep(make_bench, changed):
    bench = make_bench(run_cap=1)
    request = submit(bench.paths, ASKED, by="ada", at=1.0)
    file = bench.paths.proposals / f"{request.id}.json"
    write_json(file, read_json(file) | changed)
    final = bench.driver().run()
    assert final.counts["completed"] == 1
    assert [path.name for path in bench.paths.proposals.iterdir()] == [f"{request.id}.unread"]


def test_driver_that_died_before_its_answer_enqueues_once(make_bench):
    bench = make_bench(run_cap=1)
    request = submit(bench.paths, ASKED, by="ada", at=1.0)
    first = bench.study().enqueue_once(request.knobs, request.origin)
    bench.driver().run()
    assert look(bench.paths, request.id).number == first
    assert len([r for r in bench.study().records() if r.proposer == "propose:ada"]) == 1


def test_a_grid_takes_proposals_too(make_bench):
    bench = make_bench(method="grid", width="{values: [32, 64]}", rate="{values: [0.01, 0.02]}")
    submit(bench.paths, {"MODEL_DIM": 64, "MATRIX_LR": 0.01, "SEED": 7}, by="ada", at=1.0)
    bench.driver(run_cap=None).run()
    points = [(r.knobs["MODEL_DIM"], r.knobs["MATRIX_LR"]) for r in bench.study().records()]
    assert points[0] == (64, 0.01)
    assert len(points) == len(set(points)) == 4


def test_requests_are_answered_in_their_order_and_once(tmp_path):
    paths = StudyPaths(tmp_path)
    assert pending(paths) == []
    later = submit(paths, ASKED, by="b", at=20.0)
    sooner = submit(paths, ASKED, by="a", at=3.0)
    assert [request.by for request in pending(paths)] == ["a", "b"]
    answer(paths, sooner, number=5)
    answer(paths, later, refused="no")
    assert pending(paths) == []
    assert look(paths, sooner.id).number == 5
    with pytest.raises(InputError, match="no proposal"):
        look(paths, "absent")


def test_a_part_of_a_configuration_says_what_is_left_to_choose(make_bench):
    space = make_bench().session.spec.space
    knobs, missing = completed(space, ASKED)
    assert (knobs, missing) == ({**ASKED, "SEED": 7}, [])
    assert completed(space, {"MODEL_DIM": 96})[1] == ["MATRIX_LR"]
    with pytest.raises(InputError, match="MODEL_DIM=100 is outside the space"):
        completed(space, {"MODEL_DIM": 100})


def test_values_of_another_trial_are_kept_where_they_still_belong(make_bench):
    extra = "  KIND: {values: [plain, warm]}\n  WARM: {values: [1, 2], when: {KIND: warm}}\n"
    space = make_bench(extra=extra, rate=RATES).session.spec.space
    base = {**ASKED, "SEED": 7, "KIND": "warm", "WARM": 2, "MAX_WALLCLOCK_SECONDS": 60}
    assert adapted(space, base, {"MODEL_DIM": 64}) == {
        **ASKED, "MODEL_DIM": 64, "SEED": 7, "KIND": "warm", "WARM": 2,
    }  # fmt: skip
    assert "WARM" not in adapted(space, base, {"KIND": "plain"})
    with pytest.raises(InputError, match="WARM exists only when"):
        space.encode(adapted(space, base, {"KIND": "plain", "WARM": 1}))


@pytest.mark.parametrize(
    ("text", "value"),
    [("8", 8), ("0.02", 0.02), ("1e-3", 0.001), ("true", True), ("wsd", "wsd"), ("nan", "nan")],
)
def test_texts_are_numbers_where_they_are_numbers(text, value):
    found = parsed_value(text)
    assert found == value
    assert type(found) is type(value)

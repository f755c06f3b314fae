"""Trials that people ask for: what is checked before, and what the driver makes of the request."""

from __future__ import annotations

import dataclasses

import pytest
from optuna.trial import TrialState
from support.sweeps import RATES, SCRIPT, train

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.paths import StudyPaths, read_json, write_json
from pgolf_sweep.core.record import State, ranked
from pgolf_sweep.core.trial import Change, parsed_value
from pgolf_sweep.driver.proposals import (
    adapted,
    answer,
    completed,
    look,
    pending,
    submit,
)
from pgolf_sweep.launch.inline import Finish
from pgolf_sweep.script.program import from_files
from pgolf_sweep.variants.store import Variant, keep

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


# -- programs ------------------------------------------------------------------------------------

UNGATED = "  gate: {enabled: false}\n"
FASTER = SCRIPT + b"BETA = 0.95\n"


def variant(bench, script=FASTER):
    program = from_files("train_gpt.py", {"train_gpt.py": script}, builtin=False)
    draft = Variant(by="ada", idea="faster")
    return keep(bench.paths, draft, program, bench.session.program)


def simulate(job):
    """What runs decides: the variant's script is better by 1."""
    for seconds, event in train(job):
        if isinstance(event, Finish) and job.files["train_gpt.py"] == FASTER:
            better = dataclasses.replace(event.summary, val_bpb=event.summary.val_bpb - 1)
            yield seconds, dataclasses.replace(event, summary=better)
        else:
            yield seconds, event


@pytest.fixture
def programs(make_bench):
    bench = make_bench(run_cap=4, block=UNGATED)
    bench.made = variant(bench)
    return bench


def test_a_variant_runs_its_own_program_and_its_row_says_so(programs):
    change = Change(variant=programs.made.id, parent=0, idea="faster", seed=1339)
    request = submit(programs.paths, ASKED, by="ada", at=1.0, change=change)
    plain = submit(programs.paths, ASKED, by="ada", at=2.0)
    programs.driver(slots=1, simulate=simulate).run()
    records = programs.study().records()
    asked, twin = (records[look(programs.paths, r.id).number] for r in (request, plain))
    assert asked.change == change
    assert asked.knobs["SEED"] == 1339
    assert asked.outcome is State.COMPLETED
    assert twin.duplicate_of is None
    assert asked.val_bpb == pytest.approx(twin.val_bpb - 1)
    folder = programs.paths.trial(asked.number)
    assert (folder.root / "train_gpt.py").read_bytes() == FASTER
    spec = read_json(folder.spec)
    assert (spec["variant"], spec["parent"], spec["seed"]) == (programs.made.id, 0, 1339)
    assert spec["program_sha256"] == programs.made.sha256
    assert spec["env"]["SEED"] == "1339"


def test_equal_code_with_equal_knobs_runs_once(programs):
    same = variant(programs, FASTER + b"# a comment\n")
    change = Change(variant=same.id)
    requests = [submit(programs.paths, ASKED, by="ada", at=at, change=change) for at in (1.0, 2.0)]
    programs.driver(slots=2, simulate=simulate).run()
    first, second = (look(programs.paths, request.id).number for request in requests)
    records = programs.study().records()
    assert records[second].duplicate_of == first
    assert records[second].val_bpb == records[first].val_bpb
    assert records[second].slot_seconds == 0
    other = submit(programs.paths, ASKED, by="b", at=3.0, change=Change(variant=same.id, seed=8))
    programs.driver(slots=1, simulate=simulate, run_cap=5).run()
    assert programs.study().records()[look(programs.paths, other.id).number].duplicate_of is None


def test_no_sampler_learns_from_another_program(programs):
    submit(programs.paths, ASKED, by="ada", at=1.0, change=Change(variant=programs.made.id))
    programs.driver(slots=1, simulate=simulate).run()
    study = programs.study()
    told = {t.number: t.state for t in study._study.get_trials()}
    completed = [r for r in study.records() if r.outcome is State.COMPLETED]
    assert len(completed) == 4
    assert {told[r.number] for r in completed if r.variant} == {TrialState.FAIL}
    assert {told[r.number] for r in completed if not r.variant} == {TrialState.COMPLETE}
    assert ranked(study.records())[0].variant == programs.made.id


def test_an_unknown_or_damaged_variant_is_refused_and_ends_no_sweep(programs):
    absent = submit(programs.paths, ASKED, by="ada", at=1.0, change=Change(variant="0" * 12))
    lost = submit(programs.paths, ASKED, by="ada", at=2.0, change=Change(variant=programs.made.id))
    number = programs.study().enqueue_once(lost.knobs, lost.origin)
    (programs.paths.variants / programs.made.id / "files" / "train_gpt.py").unlink()
    final = programs.driver(slots=1, simulate=simulate).run()
    assert "no variant" in look(programs.paths, absent.id).refused
    record = programs.study().records()[number]
    assert record.outcome is State.FAILED
    assert "damaged" in record.reason
    assert record.attempts == 0
    assert final.counts["completed"] == 4


def test_a_driver_killed_at_any_step_neither_loses_nor_doubles_a_variant(programs):
    change = Change(variant=programs.made.id, parent=0, idea="faster", seed=11)
    request = submit(programs.paths, ASKED, by="ada", at=1.0, change=change)
    for steps in range(12):
        turns = programs.driver(slots=1, simulate=simulate).turns()
        for _ in range(steps):
            next(turns, None)
        turns.close()
    programs.driver(slots=1, simulate=simulate).run()
    rows = [r for r in programs.study().records() if r.variant]
    assert [r.number for r in rows] == [look(programs.paths, request.id).number]
    assert rows[0].change == change
    assert rows[0].outcome is State.COMPLETED
    assert rows[0].knobs["SEED"] == 11


def test_a_seed_that_was_asked_for_is_not_taken_over(make_bench):
    space = make_bench().session.spec.space
    base = {**ASKED, "SEED": 1339}
    assert adapted(space, base, {}) == ASKED
    assert adapted(space, {**ASKED, "SEED": 7}, {})["SEED"] == 7


@pytest.mark.parametrize(
    "changed", [{"variant": 7}, {"parent": "x"}, {"seed": 1.5}, {"seed": True}]
)
def test_a_change_of_another_type_is_no_proposal(make_bench, changed):
    bench = make_bench(run_cap=1)
    request = submit(bench.paths, ASKED, by="ada", at=1.0)
    file = bench.paths.proposals / f"{request.id}.json"
    write_json(file, read_json(file) | changed)
    assert pending(bench.paths) == []
    assert [path.name for path in bench.paths.proposals.iterdir()] == [f"{request.id}.unread"]

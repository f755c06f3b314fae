"""Rungs of a study: where trials begin, which go on, and what counts as a result."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import pytest
from support.sweeps import score_of, train

from pgolf_sweep.config.fidelity import Fidelity, Rung
from pgolf_sweep.core.kept import identity_of
from pgolf_sweep.core.record import State, TrialRecord, ranked, second_seeds
from pgolf_sweep.core.spending import Spending
from pgolf_sweep.launch.inline import Finish, InlineLauncher
from pgolf_sweep.report.compare import noise_floor
from pgolf_sweep.search.rungs import Rungs
from pgolf_sweep.verify.leaderboard import study_row
from pgolf_sweep.workflows.promotion_plan import candidates
from pgolf_sweep.workflows.recover import check_whole, recover

if TYPE_CHECKING:
    from collections.abc import Iterable

PROGRAM = b"""
import os
WIDTH = int(os.environ.get("MODEL_DIM", 64))
RATE = float(os.environ.get("MATRIX_LR", 0.02))
SEED = int(os.environ.get("SEED", 1337))
STEPS = int(os.environ.get("ITERATIONS", 1000))
"""


def short(job, seconds=1.0) -> Iterable[tuple[float, object]]:
    """A trial; on the cheaper rung it takes a tenth and scores a tenth better than it will."""
    if job.spec.rung is None:
        return train(job)
    steps = list(train(job, seconds=seconds))
    delay, end = steps[-1]
    summary = dataclasses.replace(end.summary, val_bpb=end.summary.val_bpb - 0.3)
    return [*steps[:-1], (delay, Finish(summary=summary, model_file_bytes=end.model_file_bytes))]


@pytest.fixture
def with_rungs(make_bench):
    def make(*rungs, keep=0.25, method="random", **options):
        bench = make_bench(method=method, program=PROGRAM, **options)
        fidelity = Fidelity(rungs=rungs or (Rung(share=0.1),), keep=keep)
        block = dataclasses.replace(bench.session.spec.pgolf, fidelity=fidelity, second_seeds=0)
        spec = dataclasses.replace(bench.session.spec, pgolf=block)
        return dataclasses.replace(bench, session=dataclasses.replace(bench.session, spec=spec))

    return make


def screened(records):
    return [record for record in records if record.outcome is State.SCREENED]


def completed(records):
    return [record for record in records if record.outcome is State.COMPLETED]


@pytest.mark.parametrize("method", ["bayes", "random"])
def test_the_leading_share_goes_on_and_only_its_scores_are_results(with_rungs, method):
    bench = with_rungs(method=method, run_cap=5)
    final = bench.driver(simulate=short, slots=3).run()
    study = bench.study()
    records = study.records()
    cheap, whole = screened(records), completed(records)
    assert len(whole) == 5, "run_cap counts the sweep's own rung"
    assert len(cheap) >= 12
    assert all(record.rung == 1 for record in cheap)
    assert {record.rung for record in whole} == {None}
    assert max(r.val_bpb for r in cheap) < 3.0
    assert {r.number for r in ranked(records)} == {r.number for r in whole}
    assert final.best is not None
    assert final.best.rung is None
    came_from = {r.proposer for r in whole if r.proposer.startswith("advance of ")}
    assert len(came_from) >= (5 if method == "random" else 2)
    scores = {f"advance of {r.number}": score_of(r.knobs) for r in cheap}
    ahead = sorted(scores.values())[: len(cheap) // 2]
    assert all(scores[proposer] in ahead for proposer in came_from)
    assert set(study.posteriors()) <= {r.number for r in whole}
    assert not [n for n in study.curves() if records[n].rung == 1]


def test_optuna_takes_no_cheaper_score_for_one(with_rungs):
    bench = with_rungs(run_cap=1)
    bench.driver(simulate=short).run()
    study = bench.study()._study
    states = {t.number: t.state for t in study.get_trials(deepcopy=False)}
    for record in screened(bench.study().records()):
        assert states[record.number] is optuna.trial.TrialState.FAIL


def test_the_script_gets_the_rung_s_schedule_and_its_row_the_sweep_s(with_rungs):
    seen = {}

    def look(job):
        seen[int(job.key)] = job.spec
        return short(job)

    bench = with_rungs(Rung(share=0.1), run_cap=1)
    bench.driver(simulate=look).run()
    records = bench.study().records()
    for record in screened(records):
        spec = seen[record.number]
        assert spec.env["ITERATIONS"] == "100"
        assert "ITERATIONS" not in record.knobs
        assert record.identity == spec.identity
    (whole,) = completed(records)
    assert "ITERATIONS" not in seen[whole.number].env
    source = records[int(whole.proposer.removeprefix("advance of "))]
    assert source.knobs == whole.knobs
    assert source.identity != whole.identity


def test_three_rungs_are_climbed_one_by_one(with_rungs):
    bench = with_rungs(Rung(share=0.1), Rung(share=0.3), run_cap=2, keep=0.5, method="random")
    bench.driver(simulate=short).run()
    records = bench.study().records()
    second = [record for record in records if record.rung == 2]
    assert all(records[int(r.proposer[11:])].rung == 1 for r in second)
    assert all(records[int(r.proposer[11:])].rung == 2 for r in completed(records))


def test_a_budget_ends_with_trials_of_the_sweep_s_own_rung(with_rungs):
    bench = with_rungs(run_cap=1000, method="bayes", width="{value: 64}")
    # Ten whole trials of ten seconds; a slot without GPUs counts as one.
    final = bench.driver(simulate=short, spending=Spending(gpu_hours=100 / 3600)).run()
    records = bench.study().records()
    assert sum(record.slot_seconds for record in records) <= 100
    assert len(completed(records)) >= 7
    assert [r.rung for r in records if r.slot_seconds][-2:] == [None, None]
    assert "budget" in final.reason


def test_what_people_want_is_run_as_the_sweep_runs_it(with_rungs):
    study = with_rungs().study()
    study.enqueue({"MODEL_DIM": 96, "MATRIX_LR": 0.01, "SEED": 7}, by="alice")
    assert study.ask().rung is None
    assert study.ask().rung == 1


def test_a_killed_driver_s_trials_go_on_where_they_were(with_rungs):
    bench = with_rungs(run_cap=4)
    driver = bench.driver(simulate=short)
    turns = driver.turns()
    while len(screened(bench_rows(driver))) < 6:
        next(turns)
    begun = [r for r in bench.study().records() if not r.outcome.final]
    left = {record.number: record.rung for record in begun}
    assert set(left.values()) == {1, None}
    for record in begun:
        if (folder := bench.paths.trial(record.number)).spec.is_file():
            folder.log.write_text("step:1")
            assert identity_of(folder) == record.identity
    check_whole(bench.study(), bench.paths)
    bench.driver(simulate=short).run()
    records = bench.study().records()
    assert {number: records[number].rung for number in left} == left
    assert len(completed(records)) == 4
    advanced = [r.proposer for r in records if r.proposer.startswith("advance")]
    assert len(advanced) == len(set(advanced))


def bench_rows(driver):
    return list(driver.snapshot().records.values())


def test_a_lost_study_is_rebuilt_with_its_rungs(with_rungs):
    bench = with_rungs(run_cap=2)
    bench.driver(simulate=short).run()
    before = {r.number: (r.outcome, r.rung, r.identity) for r in bench.study().records()}
    bench.paths.journal.unlink()
    recover(bench.session, bench.paths)
    after = {r.number: (r.outcome, r.rung, r.identity) for r in bench.study().records()}
    assert after == before


def row(number, value, *, rung=1, outcome=State.SCREENED, rate=0.02, **more):
    knobs = {"MODEL_DIM": 64, "MATRIX_LR": rate, "SEED": 7}
    return TrialRecord(
        number=number, outcome=outcome, knobs=knobs, val_bpb=value, rung=rung, **more
    )


def test_a_screened_trial_is_no_result_and_no_repeat(with_rungs):
    session = with_rungs().session
    cheap = [row(n, 1.5 + n / 10, rate=0.01 + n / 100) for n in range(2)]
    same_on_another_seed = dataclasses.replace(cheap[0], number=2, val_bpb=1.4, seed=8)
    whole = [
        row(10 + n, 2.5 + n / 10, rate=0.01 + n / 100, rung=None, outcome=State.COMPLETED)
        for n in range(2)
    ]
    rows = [*cheap, same_on_another_seed, *whole]
    board = study_row("s", Path("s"), rows, session.rules)
    assert (board.val_bpb, board.seeds) == (2.5, 1)
    assert [one.number for one in candidates(session, rows)] == [10, 11]
    assert noise_floor(rows).noise is None, "each ran whole on one seed"
    repeat = dataclasses.replace(whole[0], number=12, val_bpb=2.52, seed=8)
    assert second_seeds([*rows, repeat]) == {12: 10}
    assert noise_floor([*rows, repeat]).noise.runs == 2


def test_the_last_whole_trials_wait_for_the_short_ones_that_run(with_rungs):
    """They are chosen by all the scores that the budget leaves room for."""
    bench = with_rungs(keep=0.01, run_cap=1000, method="bayes", width="{value: 64}")

    def uneven(job):
        return short(job, seconds=1 + int(job.key) % 4 / 4)

    driver = bench.driver(simulate=uneven, slots=3, spending=Spending(gpu_hours=60 / 3600))
    before, waited = None, 0
    for _ in driver.turns():
        rows = len(bench_rows(driver))
        now = rows if driver._quota.awaits_rungs() and driver._quota.wanted() > 0 else None
        if None not in {before, now}:
            waited += 1
            assert now == before, "nothing is proposed meanwhile"
        before = now
    assert waited
    assert len(completed(bench_rows(driver))) >= 3


def test_a_share_of_what_ended_goes_on_the_best_first(with_rungs):
    rungs = Rungs(with_rungs().session.spec)
    rows = [row(n, 2.0 + n / 10) for n in range(4)]
    assert rungs.leading(rows[:3], ()) is None, "a quarter of three is none"
    record, origin = rungs.leading(rows[::-1], ())
    assert (record.number, origin.request, origin.rung) == (0, "advance of 0", None)
    assert rungs.leading(rows, {"advance of 0"}) is None
    rows += [row(4, None, outcome=State.FAILED)] * 4
    record, _ = rungs.leading(rows, {"advance of 0"})
    assert record.number == 1


def test_at_the_end_the_best_go_on_whatever_the_share(with_rungs):
    rungs = Rungs(with_rungs(Rung(share=0.1), Rung(share=0.3), method="random").session.spec)
    rungs.ending = True
    record, origin = rungs.leading([row(0, 2.0), row(1, 1.9)], ())
    assert (record.number, origin.rung) == (1, None)


def test_where_trials_of_both_rungs_ended_the_rung_s_own_order_is_doubted(with_rungs):
    """The cheaper rung likes high rates, the sweep's own low ones, and has said so."""
    rungs = Rungs(with_rungs().session.spec)
    rates = [0.006 * 1.15**n for n in range(16)]
    rows = [row(n, 2.0 - 0.02 * n, rate=rate) for n, rate in enumerate(rates)]
    for n in range(1, 16, 2):
        value = 2.0 + 0.02 * n
        rows.append(row(20 + n, value, rung=None, outcome=State.COMPLETED, rate=rates[n]))
    asked = {f"advance of {n}" for n in range(1, 16, 2)}
    means = rungs.means(rows)
    assert means[0] < means[14]
    assert rungs.agreement(rows) < 0.5
    rows += [row(100 + n, None, outcome=State.FAILED) for n in range(60)]
    record, _ = rungs.leading(rows, asked)
    assert record.number == 0


def test_eight_short_trials_share_a_node_and_a_whole_one_gets_all_of_it(with_rungs):
    bench = with_rungs(Rung(share=0.1, gpu_share=1 / 8), run_cap=4)
    block = dataclasses.replace(bench.session.spec.pgolf, gpus=8, cpus=8.0)
    spec = dataclasses.replace(bench.session.spec, pgolf=block)
    bench = dataclasses.replace(bench, session=dataclasses.replace(bench.session, spec=spec))
    most = {}
    launcher = InlineLauncher(16, short, bench.clock, slots_per_node=8)
    driver = bench.driver(launcher=launcher)
    for _ in driver.turns():
        busy = [(slot.node, slot.busy_with) for slot in launcher.slots() if slot.busy_with]
        rungs = {key: driver.snapshot().records[int(key)].rung for _, key in busy}
        for node in {node for node, _ in busy}:
            here = [key for at, key in busy if at == node]
            if None in {rungs[key] for key in here}:
                assert here == [here[0]] * 8, "a whole trial is alone on its node"
            most[node] = max(most.get(node, 0), len(set(here)))
    assert max(most.values()) == 8
    records = bench.study().records()
    assert len(completed(records)) == 4
    assert [r.slot_seconds for r in completed(records)] == [pytest.approx(10)] * 4
    held = [record.slot_seconds for record in screened(records)]
    assert held == [pytest.approx(1 / 8)] * len(held)
    limits = [bench.session.limits_on(rung).total_seconds for rung in (1, None)]
    assert limits[0] == 8 * limits[1]


def test_a_wide_trial_that_waits_gets_the_emptiest_node(with_rungs):
    bench = with_rungs(Rung(share=0.1, gpu_share=1 / 8), run_cap=1000, keep=0.5)
    block = dataclasses.replace(bench.session.spec.pgolf, gpus=8, cpus=8.0)
    spec = dataclasses.replace(bench.session.spec, pgolf=block)
    bench = dataclasses.replace(bench, session=dataclasses.replace(bench.session, spec=spec))
    launcher = InlineLauncher(8, short, bench.clock, slots_per_node=8)
    driver = bench.driver(launcher=launcher)
    turns = driver.turns()
    for _ in range(200):
        next(turns)
    assert len(completed(bench_rows(driver))) >= 3, "short ones do not keep the node from it"

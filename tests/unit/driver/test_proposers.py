"""Budgets of proposers, as the driver holds them to it, and the ledger that it keeps."""

from __future__ import annotations

from itertools import pairwise

import pytest
from support.sweeps import train

from pgolf_sweep.config.pgolf_model import ProposerBlock
from pgolf_sweep.core.ledger import check_chain, read_ledger
from pgolf_sweep.core.record import State
from pgolf_sweep.core.trial import Change, LogSummary
from pgolf_sweep.driver.ledger import contradictions
from pgolf_sweep.driver.proposals import look, pending, submit
from pgolf_sweep.driver.proposers import Proposers, in_turn
from pgolf_sweep.launch.inline import Finish, InlineLauncher

ASKED = {"MODEL_DIM": 96}


def block(text):
    return f"  proposers: {text}\n"


def asked(bench, count, by="ada", first=1):
    return [
        submit(bench.paths, ASKED | {"MATRIX_LR": 0.01 + at / 1000}, by=by, at=float(at))
        for at in range(first, first + count)
    ]


def widest(bench, name):
    """Most trials of a proposer that ran at one time, by the simulated clock."""
    rows = [r for r in bench.study().records() if r.proposer == f"propose:{name}"]
    return max(
        sum(r.started_at <= one.started_at < r.ended_at for r in rows if r.ended_at)
        for one in rows
        if one.started_at
    )


def test_a_proposer_has_no_more_trials_at_a_time_than_it_may(make_bench):
    bench = make_bench(run_cap=10, block=block("{ada: {concurrent: 1}}"))
    requests = asked(bench, 4)
    bench.driver(slots=4).run()
    assert all(look(bench.paths, one.id).number is not None for one in requests)
    assert widest(bench, "ada") == 1


def test_a_spent_budget_refuses_with_the_numbers(make_bench):
    hours = 25 / 3600  # two and a half trials of ten seconds
    bench = make_bench(run_cap=12, block=block(f"{{ada: {{gpu_hours: {hours}, concurrent: 1}}}}"))
    requests = asked(bench, 4)
    bench.driver(slots=2).run()
    rows = [r for r in bench.study().records() if r.proposer == "propose:ada"]
    assert sum(r.slot_seconds for r in rows) <= 25
    assert len(rows) == 2
    assert "GPU-hours are spent" in look(bench.paths, requests[-1].id).refused


def test_a_run_that_outlasts_the_budget_is_ended(make_bench):
    bench = make_bench(run_cap=3, block=block(f"{{ada: {{gpu_hours: {400 / 3600}}}}}"))
    limits = []

    def simulate(job):
        limits.append(job.spec.limits.total_seconds)
        return train(job)

    asked(bench, 1)
    bench.driver(slots=1, simulate=simulate).run()
    assert limits[0] == pytest.approx(400)
    assert limits[1] > 400


def test_who_is_not_named_may_not_propose_where_budgets_stand(make_bench):
    bench = make_bench(run_cap=2, block=block("{ada: {}}"))
    (request,) = asked(bench, 1, by="eve")
    bench.driver().run()
    assert "gives eve no budget" in look(bench.paths, request.id).refused
    open_to_all = make_bench(name="open", run_cap=2, block=block('{"*": {}}'))
    (request,) = asked(open_to_all, 1, by="eve")
    open_to_all.driver().run()
    assert look(open_to_all.paths, request.id).number is not None


def test_a_proposer_that_only_fails_is_paused_and_told_why(make_bench):
    bench = make_bench(run_cap=20, block=block("{ada: {failures: 2, concurrent: 1}}"))

    def simulate(job):
        if job.spec.proposer == "propose:ada":
            yield 5.0, Finish(summary=LogSummary(), exit_code=1)
        else:
            yield from train(job)

    requests = asked(bench, 4)
    bench.driver(slots=2, simulate=simulate).run()
    failed = [r for r in bench.study().records() if r.outcome is State.FAILED]
    assert len(failed) == 2
    refused = look(bench.paths, requests[2].id).refused
    assert "ada is paused" in refused
    assert failed[0].reason in refused


def test_requests_are_served_in_turn_whatever_one_of_them_piles_up(make_bench):
    bench = make_bench(run_cap=8)
    asked(bench, 4)
    asked(bench, 2, by="bob", first=50)
    order = [one.by for one in in_turn(pending(bench.paths), {})]
    assert order == ["ada", "bob", "ada", "bob", "ada", "ada"]
    assert [one.by for one in in_turn(pending(bench.paths), {"ada": 2})][:2] == ["bob", "bob"]


def test_after_the_pause_one_trial_at_a_time_may_show_that_it_works(make_bench):
    bench = make_bench(run_cap=2)
    budgets = {"ada": ProposerBlock(failures=1)}
    proposers = Proposers(budgets=budgets, gpus=0, expected_seconds=1.0, now=2000.0)
    bench.driver(simulate=lambda job: [(1.0, Finish(summary=LogSummary(), exit_code=1))]).run()
    row = bench.study().records()[0]
    rows = [type(row).from_json(row.to_json() | {"proposer": "propose:ada", "ended_at": 1000.0})]
    assert proposers.answer(proposers.account("ada", rows)).yes
    running = row.to_json() | {"number": 9, "proposer": "propose:ada", "outcome": "running"}
    rows.append(type(row).from_json(running))
    assert "one trial at a time" in proposers.answer(proposers.account("ada", rows)).waits


def test_ledger_holds_proposals_and_results_and_survives_a_killed_driver(make_bench):
    bench = make_bench(run_cap=5)
    (request,) = asked(bench, 1)
    for steps in range(8):
        turns = bench.driver(slots=2).turns()
        for _ in range(steps):
            next(turns, None)
        turns.close()
    bench.driver(slots=2).run()
    entries, rows = read_ledger(bench.paths), bench.study().records()
    assert check_chain(entries) == []
    assert contradictions(entries, rows) == []
    assert [e.key for e in entries if e.kind == "proposal"] == [request.id]
    results = [e.key for e in entries if e.kind == "result"]
    assert len(results) == len(set(results)) == 5
    lying = [type(r).from_json(r.to_json() | {"val_bpb": 0.5}) for r in rows]
    assert "val_bpb is 0.5" in contradictions(entries, lying)[0]


@pytest.mark.parametrize("budget", ["concurrent: 1", f"gpu_hours: {15 / 3600}", "failures: 1"])
def test_a_request_whose_driver_died_before_its_answer_is_no_second_trial(make_bench, budget):
    bench = make_bench(run_cap=2, block=block(f"{{ada: {{{budget}}}}}"))
    (request,) = asked(bench, 1)
    number = bench.study().enqueue_once(request.knobs, request.origin)

    def simulate(job):
        failed = Finish(summary=LogSummary(), exit_code=1)
        yield from [(10.0, failed)] if job.spec.proposer == "propose:ada" else train(job)

    next(bench.driver(slots=1, simulate=simulate).turns())
    assert look(bench.paths, request.id).number == number
    bench.driver(slots=1, simulate=simulate).run()
    rows = [r for r in bench.study().records() if r.proposer == "propose:ada"]
    assert [r.number for r in rows] == [number]
    assert look(bench.paths, request.id).refused == ""
    assert [e.key for e in read_ledger(bench.paths) if e.kind == "proposal"] == [request.id]


def test_a_further_seed_is_never_the_best_and_is_not_pruned(make_bench):
    early = "early_terminate: {type: hyperband, min_iter: 1}\n"
    bench = make_bench(run_cap=4, extra=early)
    bench.driver(slots=1).run()
    best = bench.driver(slots=1).run().best

    worst = {"MODEL_DIM": 32, "MATRIX_LR": 0.005}  # its curve would be stopped early
    lucky = {name: best.knobs[name] for name in ("MODEL_DIM", "MATRIX_LR")}
    requests = [
        submit(bench.paths, knobs, by="a", at=float(at), change=Change(seed=99))
        for at, knobs in enumerate((worst, lucky))
    ]

    def simulate(job):
        yield from train(job) if job.spec.knobs["MODEL_DIM"] == 32 else []
        yield 1.0, Finish(summary=LogSummary(val_bpb=0.5, val_loss_nats=1.0))

    final = bench.driver(slots=1, run_cap=6, simulate=simulate).run()
    rows = [bench.study().records()[look(bench.paths, one.id).number] for one in requests]
    assert [row.outcome for row in rows] == [State.COMPLETED] * 2
    assert [row.seed for row in rows] == [99, 99]
    assert rows[1].val_bpb < final.best.val_bpb
    assert final.best.number == best.number


def idle_stretches(records, begin, end):
    """Longest time without a trial of each slot, by the simulated clock."""
    spans = {}
    for row in sorted(records, key=lambda row: row.started_at or 0.0):
        if row.started_at:
            spans.setdefault(row.node, [(begin, begin)]).append((row.started_at, row.ended_at))
    return [
        max(after - before for (_, before), (after, _) in pairwise([*own, (end, end)]))
        for own in spans.values()
    ]


def test_two_agents_beside_the_sampler_leave_no_slot_idle_longer(make_bench):
    def run(name, agents):
        bench = make_bench(
            name=name, run_cap=40, block=block("{ada: {concurrent: 2}, bob: {concurrent: 1}}")
        )
        for place, agent in enumerate(agents):
            asked(bench, 8, by=agent, first=1 + 20 * place)
        begin = bench.clock.now()
        launcher = InlineLauncher(4, train, bench.clock, slots_per_node=1)
        final = bench.driver(launcher=launcher).run()
        rows = bench.study().records()
        return final.idle_seconds, idle_stretches(rows, begin, bench.clock.now()), rows

    idle_alone, alone, _ = run("alone", ())
    idle_shared, shared, rows = run("shared", ("ada", "bob"))
    assert sum(r.proposer.startswith("propose:") for r in rows) == 16
    assert sum(r.outcome is State.COMPLETED for r in rows) <= 40
    assert len(shared) == len(alone) == 4
    assert idle_shared <= idle_alone
    assert max(shared) <= max(alone)

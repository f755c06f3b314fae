"""The loop on simulated slots: what reaches a slot, what is told, what survives a kill."""

from __future__ import annotations

import dataclasses

import pytest
from optuna.storages.journal import JournalFileBackend
from support.sweeps import score_of, train

from pgolf_sweep.config.types import NodesBlock
from pgolf_sweep.core.errors import InfraError
from pgolf_sweep.core.paths import read_json
from pgolf_sweep.core.record import State, ranked
from pgolf_sweep.core.spending import Spending
from pgolf_sweep.core.trial import EndCause, FailureCode, LogSummary, StepReport, VerdictKind
from pgolf_sweep.driver.control import Request
from pgolf_sweep.driver.snapshot import SweepState
from pgolf_sweep.launch.inline import Finish, InlineLauncher
from pgolf_sweep.search.study import Study, open_study

CAP = 300_000


def states(bench):
    return {record.number: record.outcome for record in bench.study().records()}


def test_sweep_runs_exactly_run_cap_trials_and_ends_them_all(make_bench):
    bench = make_bench(run_cap=12)
    final = bench.driver().run()
    records = bench.study().records()
    launched = [r for r in records if r.attempts]
    assert len(launched) == 12
    assert all(record.outcome.final for record in records)
    assert final.state is SweepState.FINISHED
    assert final.best is not None
    assert final.best.val_bpb == min(score_of(r.knobs) for r in launched)


def test_discarded_trial_never_reaches_a_slot(make_bench):
    bench = make_bench(run_cap=20, method="random")
    started = []

    def note(job):
        started.append(job.spec.knobs["MODEL_DIM"])
        return train(job)

    final = bench.driver(simulate=note).run()
    discarded = [r for r in bench.study().records() if r.outcome is State.DISCARDED]
    assert discarded
    assert final.counts["discarded"] == len(discarded)
    assert all(
        1500 * r.knobs["MODEL_DIM"] > bench.session.rules.artifact_cap_bytes for r in discarded
    )
    assert all(1500 * width <= bench.session.rules.artifact_cap_bytes for width in started)
    assert not any(bench.paths.trial(r.number).root.exists() for r in discarded)
    assert final.saved_by_gate_seconds == pytest.approx(10 * len(discarded))


def test_no_slot_waits_for_discards(make_bench):
    bench = make_bench(run_cap=40, method="random")
    final = bench.driver(slots=4).run()
    # Ten rounds of ten seconds on four slots, whatever was discarded in between.
    assert bench.clock.monotonic() == pytest.approx(100, abs=6)
    assert final.counts["discarded"] >= 4


def test_grid_runs_each_point_once(make_bench):
    bench = make_bench(
        method="grid", width="{values: [32, 64, 96, 256]}", rate="{values: [0.01, 0.02]}"
    )
    final = bench.driver(run_cap=None).run()
    records = bench.study().records()
    points = {(r.knobs["MODEL_DIM"], r.knobs["MATRIX_LR"]) for r in records}
    assert len(records) == len(points) == 8
    assert final.counts["completed"] == 6
    assert final.counts["discarded"] == 2
    assert "grid" in final.reason


def test_equal_configuration_is_not_run_twice(make_bench):
    bench = make_bench(run_cap=3)
    study = bench.study()
    knobs = {"MODEL_DIM": 64, "MATRIX_LR": 0.02, "SEED": 7}
    for _ in range(3):
        study.enqueue(knobs, by="test")
    started = []

    def note(job):
        started.append(job.key)
        return train(job)

    bench.driver(slots=1, simulate=note, study=study).run()
    first, second, third = bench.study().records()[:3]
    assert (second.duplicate_of, third.duplicate_of) == (first.number, first.number)
    assert second.val_bpb == third.val_bpb == first.val_bpb
    assert second.outcome is State.COMPLETED
    assert "1" not in started
    assert "2" not in started
    assert len(started) == 3
    assert [r.number for r in ranked(bench.study().records())].count(1) == 0


def test_freed_slot_is_filled_before_the_end_is_told(make_bench, monkeypatch):
    bench = make_bench(run_cap=4)
    order = []
    tell = Study.tell

    def told(study, record):
        order.append(f"tell {record.number}")
        return tell(study, record)

    def started(job):
        order.append(f"start {job.key}")
        return train(job)

    monkeypatch.setattr(Study, "tell", told)
    study = bench.study()
    for rate in (0.01, 0.02, 0.03, 0.04):
        study.enqueue({"MODEL_DIM": 64, "MATRIX_LR": rate, "SEED": 7}, by="test")
    bench.driver(slots=1, simulate=started, study=study).run()
    expected = "start 0, start 1, tell 0, start 2, tell 1, start 3, tell 2, tell 3"
    assert ", ".join(order) == expected


def test_infrastructure_failure_is_retried_and_capped(make_bench):
    bench = make_bench(run_cap=1)

    def lost(job):
        yield 1.0, Finish(cause=EndCause.LOST, exit_code=None, detail="node gone")

    bench.driver(simulate=lost, max_retries=2, slots=1, request=_drain_after(bench, 8)).run()
    record = bench.study().records()[0]
    assert record.outcome is State.FAILED
    assert record.failure == "infrastructure"
    assert record.attempts == 3
    assert "3 attempts" in record.reason
    assert any("attempt 2 follows" in message for message in bench.watcher.messages)


def _drain_after(bench, seconds):
    def request():
        late = bench.clock.monotonic() > seconds
        return Request.DRAIN if late else Request.CONTINUE

    return request


def test_retry_that_succeeds_counts_once(make_bench):
    bench = make_bench(run_cap=2)
    lost = set()

    def once(job):
        if job.key not in lost:
            lost.add(job.key)
            yield 1.0, Finish(cause=EndCause.LOST, exit_code=None, detail="node gone")
        else:
            yield from train(job)

    final = bench.driver(simulate=once).run()
    assert final.counts["completed"] == 2
    assert {r.attempts for r in bench.study().records() if r.outcome is State.COMPLETED} == {2}


def test_trials_own_failure_is_not_retried(make_bench):
    bench = make_bench(run_cap=4)

    def broken(job):
        tail = ("Traceback (most recent call last):", "ValueError: no such layer")
        yield 1.0, Finish(exit_code=1, log_tail=tail)

    final = bench.driver(simulate=broken).run()
    records = [r for r in bench.study().records() if r.outcome is State.FAILED]
    assert len(records) == 4
    assert {r.attempts for r in records} == {1}
    assert "ValueError: no such layer" in records[0].reason
    assert final.best is None


def test_pruned_trial_frees_its_slot_early(make_bench):
    extra = "early_terminate: {type: median, min_iter: 1}\n"
    bench = make_bench(run_cap=14, method="random", extra=extra)

    def slow_if_bad(job):
        final = score_of(job.spec.knobs)
        for turn in range(1, 11):
            yield 1.0, StepReport(step=turn, total_steps=10, val_bpb=final + 0.1 / turn)
        yield 0.0, Finish(summary=LogSummary(val_bpb=final, model_bytes=10, code_bytes=1))

    final = bench.driver(simulate=slow_if_bad).run()
    pruned = [r for r in bench.study().records() if r.outcome is State.PRUNED]
    assert pruned
    assert final.counts["pruned"] == len(pruned)
    assert min(r.slot_seconds for r in pruned) < 5
    assert all(r.val_bpb is not None for r in pruned)
    assert all("pruned at validation" in r.reason for r in pruned)


@pytest.mark.parametrize("kind", ["median", "hyperband"])
def test_no_trial_is_pruned_before_min_iter(make_bench, kind):
    extra = f"early_terminate: {{type: {kind}, min_iter: 3}}\n"
    bench = make_bench(run_cap=30, method="random", extra=extra)

    def curve(job):
        final = score_of(job.spec.knobs)
        for turn in range(1, 10):
            yield 1.0, StepReport(step=turn, total_steps=9, val_bpb=final + 0.1 / turn)
        yield 0.0, Finish(summary=LogSummary(val_bpb=final, model_bytes=10, code_bytes=1))

    bench.driver(simulate=curve).run()
    reasons = [r.reason for r in bench.study().records() if r.outcome is State.PRUNED]
    ordinals = {int(reason.split("validation ")[1].split()[0]) for reason in reasons}
    assert ordinals
    assert min(ordinals) >= 3


def test_validation_before_the_first_step_is_no_ground_to_prune(make_bench):
    extra = "early_terminate: {type: median, min_iter: 1, startup_trials: 1}\n"
    bench = make_bench(run_cap=8, method="random", extra=extra)

    def untrained_is_bad(job):
        yield 1.0, StepReport(step=0, total_steps=1, val_bpb=8.0 + int(job.key))
        yield from train(job)

    bench.driver(simulate=untrained_is_bad).run()
    reasons = [r.reason for r in bench.study().records() if r.outcome is State.PRUNED]
    assert not any("8." in reason for reason in reasons)


def test_over_cap_artifact_is_never_best(make_bench):
    bench = make_bench(run_cap=6)

    def bloated(job):
        summary = LogSummary(val_bpb=1.0, model_bytes=CAP * 2, code_bytes=1, total_bytes=CAP * 2)
        yield 1.0, Finish(summary=summary)

    final = bench.driver(simulate=bloated).run()
    assert final.counts["completed"] == 6
    assert final.best is None


def test_finished_trials_teach_the_gate(make_bench):
    bench = make_bench(run_cap=3)
    bench.driver().run()
    assert len(bench.session.gate.learnt) == 3
    assert all(size == 1500 * width for width, size in bench.session.gate.learnt)


def test_drain_lets_running_trials_finish_and_resume_goes_on(make_bench):
    bench = make_bench(run_cap=10)
    final = bench.driver(request=_drain_after(bench, 15)).run()
    assert final.state is SweepState.STOPPED
    assert final.counts["completed"] == 4
    assert all(
        record.outcome.final or record.outcome is State.QUEUED for record in bench.study().records()
    )
    again = bench.driver().run()
    assert again.counts["completed"] == 10


def test_cancel_ends_what_runs_and_resume_runs_it_again(make_bench):
    bench = make_bench(run_cap=6)

    def request():
        return Request.CANCEL if 12 < bench.clock.monotonic() < 1000 else Request.CONTINUE

    final = bench.driver(request=request).run()
    assert final.state is SweepState.CANCELLED
    records = bench.study().records()
    ended = [r for r in records if r.attempts and r.outcome is State.QUEUED]
    assert len(ended) == 2
    assert all("cancelled by the user" in r.reason for r in ended)
    assert not {State.RUNNING, State.FAILED} & set(states(bench).values())
    again = bench.driver().run()
    assert again.counts["completed"] == 6
    after = bench.study().records()
    for record in ended:
        assert after[record.number].outcome is State.COMPLETED
        assert after[record.number].attempts == 2
        assert after[record.number].reason == ""
        assert after[record.number].slot_seconds > record.slot_seconds > 0, "both attempts cost"


def test_cancelled_attempt_does_not_count_as_a_failed_one(make_bench):
    bench = make_bench(run_cap=1)
    for _ in range(2):
        until = bench.clock.monotonic() + 3

        def cancel(until=until):
            return Request.CANCEL if bench.clock.monotonic() > until else Request.CONTINUE

        assert bench.driver(slots=1, request=cancel).run().state is SweepState.CANCELLED
    lost = []

    def lost_once(job):
        if lost:
            yield from train(job)
        else:
            lost.append(job.attempt)
            yield 1.0, Finish(cause=EndCause.LOST, exit_code=None, detail="node gone")

    bench.driver(slots=1, simulate=lost_once, max_retries=1).run()
    (record,) = [r for r in bench.study().records() if r.attempts]
    assert (record.outcome, record.attempts, record.uncounted_attempts) == (State.COMPLETED, 4, 2)


def test_drain_is_heeded_when_nothing_more_will_be_proposed(make_bench):
    bench = make_bench(method="grid", width="{values: [32, 64, 96]}", rate="{values: [0.02]}")

    def request():
        return Request.DRAIN if bench.clock.monotonic() > 5 else Request.CONTINUE

    final = bench.driver(slots=2, request=request).run()
    assert final.state is SweepState.STOPPED
    assert final.counts["completed"] == 2
    assert any("draining" in message for message in bench.watcher.messages)
    assert bench.driver().run().counts["completed"] == 3


def test_time_left_of_a_drain_is_that_of_what_runs(make_bench):
    bench = make_bench(run_cap=100)

    def request():
        return Request.DRAIN if bench.clock.monotonic() > 25 else Request.CONTINUE

    bench.driver(slots=2, request=request).run()
    left = {shot.state: shot.seconds_left for shot in bench.watcher.snapshots}
    draining = [s for s in bench.watcher.snapshots if s.state is SweepState.DRAINING]
    assert draining
    assert all(shot.seconds_left <= 10.0 for shot in draining), "a trial takes ten seconds"
    assert max(s.seconds_left or 0.0 for s in bench.watcher.snapshots) > 400.0
    assert left[SweepState.STOPPED] is None, "nothing is left of a sweep that ended"


def test_out_of_memory_on_a_slow_node_is_a_constraint_all_the_same(make_bench):
    bench = make_bench(run_cap=1)

    def hungry(job):
        yield 1.0, StepReport(step=3)
        yield 1.0, Finish(exit_code=1, log_tail=("torch.OutOfMemoryError: CUDA out of memory.",))

    launcher = InlineLauncher(1, hungry, bench.clock)
    slow = dataclasses.replace(launcher.nodes()[0], speed=0.5)
    launcher.nodes = lambda: [slow]
    bench.driver(launcher=launcher, nodes=NodesBlock(speed="mark")).run()
    (record,) = [r for r in bench.study().records() if r.outcome is State.FAILED]
    assert record.reason.startswith("out of memory: lower the tokens of a step")
    assert record.reason.endswith("; ran on a slow node: 50% of the others' tokens per second")
    assert record.failure_code == FailureCode.OUT_OF_MEMORY
    trial = bench.study()._study.get_trials()[record.number]
    assert trial.constraints == {"out_of_memory": 1.0}


def test_slot_that_vanished_before_the_start_costs_no_attempt(make_bench, monkeypatch):
    bench = make_bench(run_cap=2)
    driver = bench.driver(slots=1)
    start, refusals = driver.launcher.start, iter([True, True, False])

    def refuse_twice(job):
        if next(refusals, False):
            assert bench.study().records()[0].outcome is State.RUNNING
            raise InfraError("there is no free slot")
        start(job)

    monkeypatch.setattr(driver.launcher, "start", refuse_twice)
    final = driver.run()
    assert final.counts["completed"] == 2
    assert [record.attempts for record in bench.study().records()] == [1, 1]


class KilledError(BaseException):
    """Stands for kill -9: nothing below catches it."""


@pytest.mark.parametrize(
    ("where", "times"),
    [
        ("ask", 3),
        ("note", 2),
        ("note", 5),
        ("start", 2),
        ("report", 4),
        ("result", 2),
        ("tell", 2),
        ("tell", 5),
    ],
)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_driver_killed_anywhere_loses_and_repeats_nothing(
    make_bench, monkeypatch, where, times, moment
):
    bench = make_bench(run_cap=8)
    study = bench.study()
    driver = bench.driver(study=study)
    calls = 0

    def dying(method):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == times and moment == "before":
                raise KilledError
            result = method(*args, **kwargs)
            if calls == times:
                raise KilledError
            return result

        return call

    with monkeypatch.context() as patch:
        if where == "start":
            patch.setattr(driver.launcher, "start", dying(driver.launcher.start))
        elif where == "result":
            import pgolf_sweep.driver.runs as module

            write = module.write_json

            def only_results(path, document):
                if path.name == "result.json":
                    dying_write(path, document)
                else:
                    write(path, document)

            dying_write = dying(write)
            patch.setattr(module, "write_json", only_results)
        else:
            patch.setattr(Study, where, dying(getattr(Study, where)))
        with pytest.raises(KilledError):
            driver.run()
    finished = {r.number: r for r in bench.study().records() if r.outcome.final}
    final = bench.driver().run()
    records = bench.study().records()
    for number, record in finished.items():
        assert records[number] == record, "a finished trial changed"
    assert all(record.outcome.final for record in records)
    assert final.counts["completed"] == 8
    identities = [r.identity for r in records if r.attempts]
    assert len(identities) == len(set(identities))


@pytest.mark.parametrize("appends", range(1, 10))
def test_trial_that_was_half_told_is_told_and_learnt_from_once(make_bench, monkeypatch, appends):
    bench = make_bench(run_cap=3, method="random")
    tell, append = Study._tell, JournalFileBackend.append_logs
    telling, done = False, 0

    def told(study, record):
        nonlocal telling
        telling = True
        result = tell(study, record)
        telling = False
        return result

    def appended(backend, logs):
        nonlocal done
        append(backend, logs)
        done += telling
        if done == appends:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Study, "_tell", told)
        patch.setattr(JournalFileBackend, "append_logs", appended)
        with pytest.raises(KilledError):
            bench.driver(slots=1).run()
    kept = [n for n in range(9) if bench.paths.trial(n).result.is_file()]
    bench.session.gate.learnt.clear()
    final = bench.driver(slots=1).run()
    study = bench.study()
    assert study.open_rows() == []
    records = study.records()
    assert all(record.outcome.final for record in records)
    assert all(records[number].attempts == 1 for number in kept)
    assert final.counts["completed"] == len(bench.session.gate.learnt) == 3


def test_result_on_disk_is_told_and_not_run_again(make_bench, monkeypatch):
    bench = make_bench(run_cap=3)
    with monkeypatch.context() as patch:

        def die(self, record):
            raise KilledError

        patch.setattr(Study, "tell", die)
        with pytest.raises(KilledError):
            bench.driver(slots=1, simulate=train).run()
    number = next(n for n in range(100) if bench.paths.trial(n).result.is_file())
    on_disk = read_json(bench.paths.trial(number).result)["record"]
    started = []

    def note(job):
        started.append(int(job.key))
        return train(job)

    bench.driver(simulate=note).run()
    assert number not in started
    assert bench.study().records()[number].val_bpb == on_disk["val_bpb"]


def test_resumed_random_study_does_not_draw_the_same_again(make_bench):
    bench = make_bench(method="random", run_cap=4)
    bench.driver().run()
    before = {r.knobs["MATRIX_LR"] for r in bench.study().records()}
    bench.driver(run_cap=8).run()
    after = [r.knobs["MATRIX_LR"] for r in bench.study().records()]
    assert len(set(after)) == len(after)
    assert before < set(after)


def test_budget_ends_the_sweep(make_bench):
    bench = make_bench(run_cap=1000)
    final = bench.driver(spending=Spending(gpu_hours=105 / 3600)).run()
    assert final.reason.startswith("budget of 0.0291667 GPU-hours reached")
    seconds = [record.slot_seconds for record in bench.study().records() if record.slot_seconds]
    assert 105 - max(seconds) < final.trained_seconds <= 105
    assert final.budget.trials_left == 0


def test_dollars_end_the_sweep_and_leave_the_promotions_runs(make_bench):
    bench = make_bench(run_cap=1000)
    spending = Spending(usd=105 / 3600, usd_per_gpu_hour=1.0, reserved_runs=3)
    final = bench.driver(spending=spending).run()
    assert "3 runs of a promotion are kept back" in final.reason
    assert final.reason.startswith("budget of $")
    typical = bench.study().records()[0].slot_seconds
    assert final.trained_seconds <= 105 - 3 * typical
    assert final.trained_seconds > 105 - 5 * typical
    more = bench.driver(spending=Spending(usd=1.0, usd_per_gpu_hour=1.0), run_cap=12).run()
    assert more.reason == "run_cap of 12 trials reached"


def test_a_budget_below_one_trial_runs_one(make_bench):
    bench = make_bench(run_cap=1000)
    spending = Spending(gpu_hours=0.1 / 3600, reserved_runs=3)
    final = bench.driver(spending=spending, slots=1).run()
    assert final.counts["completed"] == 1
    assert "budget" in final.reason


def test_no_trial_starts_that_would_end_after_the_deadline(make_bench):
    bench = make_bench(run_cap=1000)
    begun = bench.clock.now()
    final = bench.driver(spending=Spending(deadline_at=begun + 60)).run()
    assert final.reason == "no further trial would end by the deadline"
    ends = [record.ended_at or 0.0 for record in bench.study().records()]
    assert begun + 40 < max(ends) <= begun + 60
    assert final.seconds_left is None
    later = Spending(deadline_at=begun + 200, reserved_runs=4)
    again = bench.driver(spending=later).run()
    assert "4 runs of a promotion are kept back" in again.reason
    ends = [record.ended_at or 0.0 for record in bench.study().records()]
    assert begun + 150 < max(ends) <= begun + 200 - 20


def test_space_without_anything_that_fits_ends_with_the_reason(make_bench, monkeypatch):
    import pgolf_sweep.driver.supply as module

    monkeypatch.setattr(module, "MAX_IDLE_PROPOSALS", 30)
    bench = make_bench(method="random")
    bench.session.gate.cap_bytes = 10
    final = bench.driver().run()
    assert final.counts["discarded"] == 30
    assert "nothing new that fits" in final.reason


@pytest.mark.parametrize("method", ["tpe", "random", "gp", "cmaes", "qmc"])
def test_every_method_finds_the_wide_models_that_fit(make_bench, method):
    bench = make_bench(method=method, run_cap=16)
    final = bench.driver(slots=1).run()
    assert final.best is not None
    assert final.best.knobs["MODEL_DIM"] >= 128
    reopened = open_study(bench.session.spec, bench.paths)
    assert len(reopened.records()) == len(bench.study().records())


def test_what_does_not_fit_is_repaired_into_a_trial_of_its_own(make_bench):
    bench = make_bench(method="grid", width="{values: [64, 128, 256]}", rate="{values: [0.02]}")
    block = dataclasses.replace(bench.session.spec.pgolf, gate_repair=("MODEL_DIM",))
    spec = dataclasses.replace(bench.session.spec, pgolf=block)
    bench.session = dataclasses.replace(bench.session, spec=spec)
    bench.driver().run()
    records = bench.study().records()
    big = next(r for r in records if r.knobs["MODEL_DIM"] == 256)
    assert big.outcome is State.DISCARDED
    repair = next(r for r in records if r.repair_of == big.number)
    assert repair.proposer == f"repair of {big.number}"
    assert f"repaired as trial {repair.number}" in big.reason
    assert repair.knobs["MODEL_DIM"] == 128
    assert repair.outcome is State.COMPLETED
    assert {r.knobs["MODEL_DIM"] for r in records if r.outcome is State.COMPLETED} == {64, 128}


def test_a_repair_that_leaves_the_space_costs_itself_and_not_the_sweep(make_bench):
    """The file is refused for it; a study launched before that has to end all the same."""
    bench = make_bench(
        method="grid",
        width="{values: [64, 256]}",
        rate="{values: [0.02], when: {MODEL_DIM: 256}}",
    )
    block = dataclasses.replace(bench.session.spec.pgolf, gate_repair=("MODEL_DIM",))
    spec = dataclasses.replace(bench.session.spec, pgolf=block)
    bench.session = dataclasses.replace(bench.session, spec=spec)
    bench.driver(simulate=lambda job: [(1.0, Finish(summary=LogSummary(val_bpb=2.0)))]).run()
    outcomes = {r.knobs["MODEL_DIM"]: r.outcome for r in bench.study().records()}
    assert outcomes == {256: State.DISCARDED, 64: State.COMPLETED}
    assert any("is not repaired: MATRIX_LR exists only" in m for m in bench.watcher.messages)


def test_what_is_near_the_cap_waits_and_is_judged_again_before_it_starts(make_bench, monkeypatch):
    bench = make_bench(method="grid", width="{values: [64, 128, 96, 32]}", rate="{values: [0.02]}")
    gate = bench.session.gate
    judged = gate.verdict

    def verdict(knobs):
        kind = {128: VerdictKind.NEAR, 96: VerdictKind.NEAR}.get(knobs["MODEL_DIM"])
        if kind is not None and knobs["MODEL_DIM"] == 96 and gate.learnt:
            kind = VerdictKind.TOO_BIG  # a finished trial taught it
        answer = judged(knobs)
        return answer if kind is None else dataclasses.replace(answer, kind=kind)

    monkeypatch.setattr(gate, "verdict", verdict)
    bench.driver(slots=1).run()
    records = {r.knobs["MODEL_DIM"]: r for r in bench.study().records()}
    assert records[96].outcome is State.DISCARDED
    assert records[128].outcome is State.COMPLETED
    assert records[128].started_at > max(records[64].started_at, records[32].started_at)


def test_of_those_near_the_cap_the_likeliest_to_fit_starts_first(make_bench, monkeypatch):
    odds = {64: 0.2, 96: 0.9, 128: 0.5}
    bench = make_bench(method="grid", width="{values: [32, 64, 96, 128]}", rate="{values: [0.02]}")
    gate = bench.session.gate
    judged = gate.verdict

    def verdict(knobs):
        answer = judged(knobs)
        probability = odds.get(knobs["MODEL_DIM"])
        if probability is None:
            return answer
        return dataclasses.replace(answer, kind=VerdictKind.NEAR, fit_probability=probability)

    monkeypatch.setattr(gate, "verdict", verdict)
    bench.driver(slots=1).run()
    ran = sorted(bench.study().records(), key=lambda record: record.started_at)
    assert [record.knobs["MODEL_DIM"] for record in ran] == [32, 96, 128, 64]


def test_sampler_that_learns_is_not_asked_far_ahead_where_all_is_near_the_cap(
    make_bench, monkeypatch
):
    bench = make_bench(method="tpe", run_cap=30, width="{values: [64, 96]}")
    judged = bench.session.gate.verdict

    def near(knobs):
        return dataclasses.replace(judged(knobs), kind=VerdictKind.NEAR)

    monkeypatch.setattr(bench.session.gate, "verdict", near)
    final = bench.driver(slots=2).run()
    assert final.counts["completed"] == 30
    ahead = [snapshot.counts["queued"] for snapshot in bench.watcher.snapshots]
    assert max(ahead) <= 2 + 1 + 2


def test_what_ran_under_a_killed_driver_is_not_said_to_run_while_it_waits_for_a_probe(make_bench):
    bench = make_bench(run_cap=4)
    turns = bench.driver().turns()
    for _ in range(2):
        next(turns)
    turns.close()
    assert State.RUNNING in {row.outcome for row in bench.study().open_rows()}
    bench.session.gate.probes = 1000
    final = bench.driver(request=lambda: Request.DRAIN).run()
    assert {row.outcome for row in bench.study().open_rows()} == {State.QUEUED}
    assert (final.counts["running"], final.counts["queued"]) == (0, 3)


def test_resumed_trials_wait_for_a_probe_and_no_turn_does(make_bench):
    bench = make_bench(run_cap=4)
    bench.session.gate.probes = 1000
    turns = bench.driver().turns()
    for _ in range(3):
        next(turns)
    turns.close()
    left = {frozen.number for frozen in bench.study().open_rows()}
    bench.session.gate.probes = 30
    resumed = bench.driver()
    turns = resumed.turns()
    next(turns)
    assert not resumed._table.running
    assert left <= resumed._table.probing.keys()
    for _ in turns:
        pass
    records = bench.study().records()
    assert left <= {r.number for r in records if r.outcome.final}
    assert sum(bool(r.attempts) for r in records) == 4

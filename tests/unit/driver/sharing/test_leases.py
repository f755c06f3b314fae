"""Several drivers on one study, a turn at a time: simulated slots, a storage in memory."""

from __future__ import annotations

import contextlib
import dataclasses
import random

import optuna
import pytest
from sqlalchemy import exc
from support.sweeps import SCRIPT, score_of, train

from pgolf_sweep.config.types import NodesBlock
from pgolf_sweep.core.errors import InfraError, InterruptedSweepError, StorageAwayError
from pgolf_sweep.core.paths import read_json
from pgolf_sweep.core.record import State
from pgolf_sweep.core.spending import Spending
from pgolf_sweep.core.trial import Change, EndCause
from pgolf_sweep.driver.control import Request
from pgolf_sweep.driver.proposals import enqueue_pending, look, submit
from pgolf_sweep.driver.sharing.leases import (
    DriverLease,
    LeaseMonitor,
    ask_all,
    drivers,
    new_driver,
    short,
)
from pgolf_sweep.driver.snapshot import SweepState
from pgolf_sweep.launch.inline import Finish
from pgolf_sweep.script.program import from_files
from pgolf_sweep.search.sampler import make_sampler
from pgolf_sweep.search.study import Study
from pgolf_sweep.variants.store import Variant, keep

LEASE = 6.0


class Alone:
    """A lock for drivers that take turns anyway, in one thread."""

    @contextlib.contextmanager
    def held(self):
        yield


class KilledError(BaseException):
    """Stands for kill -9: nothing below catches it."""


class Storage(optuna.storages.InMemoryStorage):
    """A storage that can fail in any call, before or after it has done what it was asked."""

    def __init__(self):
        super().__init__()
        self.mishap = None
        self.busy = False

    def __getattribute__(self, name):
        value = super().__getattribute__(name)
        if name.startswith("_") or name in {"mishap", "busy"} or not callable(value):
            return value
        if self.mishap is None or self.busy:
            return value  # what it does for itself is one transaction

        def call(*args, **kwargs):
            before, after = self.mishap(), self.mishap()
            if before is not None:
                raise before
            self.busy = True
            try:
                result = value(*args, **kwargs)
            finally:
                self.busy = False
            if after is not None:
                raise after
            return result

        return call


def away():
    return exc.OperationalError("SELECT", {}, OSError("connection refused"))


class Team:
    """Drivers of one study, each in a folder of its own."""

    def __init__(self, bench, **options):
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.bench = bench
        self.pruner = optuna.pruners.NopPruner()
        self.storage = Storage()
        self.options = options
        self.before = {}
        self.started = []
        self.benches = {}

    def study(self, seed=0):
        spec = self.bench.session.spec
        sampler = optuna.samplers.RandomSampler(seed=seed)
        study = optuna.create_study(
            storage=self.storage,
            study_name=spec.name,
            load_if_exists=True,
            sampler=sampler,
            pruner=self.pruner,
        )
        return Study(study, spec, Alone())

    def driver(self, folder, *, slots=2, simulate=train, **options):
        bench = self.benches.setdefault(folder, self.bench.elsewhere(folder))
        study = self.study(seed=len(self.before) + 17 * len(self.started))
        me = new_driver(bench.paths)
        lease = DriverLease(study, me, bench.clock, self.before.get(folder, ""), LEASE)
        self.before[folder] = me

        def noted(job):
            self.started.append((folder, int(job.key)))
            return simulate(job)

        options = self.options | options
        return bench.driver(slots=slots, simulate=noted, study=study, lease=lease, **options)

    def records(self):
        return self.study().records()

    def states(self):
        return {trial.state for trial in self.study()._study.get_trials(deepcopy=False)}


def run(*turns):
    """Step drivers in turn until each has ended."""
    going = list(turns)
    while going:
        going = [one for one in going if next(one, "ended") is None]


def step(turns, times):
    for _ in range(times):
        next(turns)


def check_whole(records, run_cap):
    """All ended, the cap met exactly, no configuration run twice."""
    assert all(record.outcome.final for record in records)
    ran = [r for r in records if r.attempts and r.failure != "infrastructure"]
    assert len(ran) == run_cap
    assert len({r.identity for r in ran}) == run_cap
    assert not any(r.duplicate_of is not None for r in ran)


def test_two_drivers_share_cap_and_configurations(make_bench):
    team = Team(
        make_bench(
            run_cap=20,
            width="{values: [32, 64, 96, 256]}",
            rate="{values: [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07]}",
        )
    )
    a, b = team.driver("a"), team.driver("b", slots=3)
    run(a.turns(), b.turns())
    records = team.records()
    check_whole(records, 20)
    numbers = [number for _, number in team.started]
    assert len(numbers) == len(set(numbers)) == 20
    assert {folder for folder, _ in team.started} == {"a", "b"}
    assert a.snapshot().counts == b.snapshot().counts
    assert a.snapshot().best == b.snapshot().best
    assert any(r.duplicate_of is not None for r in records)
    for bench in team.benches.values():
        assert len(bench.session.gate.learnt) == 20, "each learns from all"


def test_trials_that_wait_for_a_probe_stay_with_the_driver_that_asked_them(make_bench):
    team = Team(make_bench(run_cap=8))
    a, b = team.driver("a"), team.driver("b")
    team.benches["a"].session.gate.probes = 12
    first, second = a.turns(), b.turns()
    step(first, 1)
    held = {r.number for r in team.study().open_rows() if r.driver == a.lease.me}
    assert len(held) == 3, "one ahead of two slots"
    step(second, 2)
    assert not held & {number for folder, number in team.started if folder == "b"}
    run(first, second)
    check_whole(team.records(), 8)
    assert held <= {number for folder, number in team.started if folder == "a"}


def test_what_waits_for_a_probe_is_free_when_its_driver_leaves(make_bench):
    team = Team(make_bench(run_cap=4))
    asked = {"request": Request.CONTINUE}
    a = team.driver("a", request=lambda: asked["request"])
    team.benches["a"].session.gate.probes = 1000
    turns = a.turns()
    step(turns, 2)
    asked["request"] = Request.DRAIN
    run(turns)
    assert {row.driver for row in team.study().open_rows()} == {""}


def test_what_ran_under_a_killed_driver_runs_no_more_when_the_next_one_leaves(make_bench):
    """Also where the next one had no time to judge it: its script's probe was not done."""
    team = Team(make_bench(run_cap=4))
    step(team.driver("a").turns(), 2)
    assert State.RUNNING in {row.outcome for row in team.study().open_rows()}
    again = team.driver("a", request=lambda: Request.DRAIN)
    team.benches["a"].session.gate.probes = 1000
    run(again.turns())
    rows = team.study().open_rows()
    assert {(row.driver, row.outcome) for row in rows} == {("", State.QUEUED)}
    b = team.driver("b")
    run(b.turns())
    check_whole(team.records(), 4)


def test_budget_is_one_for_all(make_bench):
    team = Team(make_bench(run_cap=1000), spending=Spending(gpu_hours=200 / 3600))
    a, b = team.driver("a"), team.driver("b")
    run(a.turns(), b.turns())
    assert 200 - 2 * 10 <= sum(r.slot_seconds for r in team.records()) <= 200 + 10
    assert "budget" in a.snapshot().reason


def test_twin_of_a_trial_at_another_driver_waits_for_its_result(make_bench):
    team = Team(make_bench(run_cap=3))
    knobs = {"MODEL_DIM": 64, "MATRIX_LR": 0.02, "SEED": 7}
    first, second = team.driver("a", slots=1), team.driver("b", slots=1)
    team.study().enqueue(knobs, by="test")
    a, b = first.turns(), second.turns()
    step(a, 1)
    team.study().enqueue(knobs, by="test")
    step(b, 1)
    duplicate = next(r for r in team.records() if r.duplicate_of is not None)
    assert duplicate.outcome is State.QUEUED
    assert (duplicate.duplicate_of, duplicate.driver) == (0, second.lease.me)
    run(a, b)
    records = team.records()
    check_whole(records, 3)
    assert records[duplicate.number].val_bpb == records[0].val_bpb
    assert records[0].driver == first.lease.me
    assert records[duplicate.number].driver == second.lease.me


def test_proposals_see_the_trials_that_run_at_other_drivers(make_bench):
    spec = make_bench(method="tpe").session.spec

    def asked_by_the_second(*, others_run):
        storage = optuna.storages.InMemoryStorage()

        def opened(seed):
            sampler = make_sampler(spec, seed)
            again = {"load_if_exists": True, "study_name": "s", "direction": "minimize"}
            return optuna.create_study(storage=storage, sampler=sampler, **again)

        first = opened(1)
        for _ in range(20):
            trial = first.ask()
            knobs = spec.space.suggest(trial)
            first.tell(trial, score_of(knobs))
        for _ in range(6):
            trial = first.ask()
            spec.space.suggest(trial)
            if not others_run:
                first.tell(trial, state=optuna.trial.TrialState.FAIL)  # teaches nothing
        return Study(opened(2), spec).ask().knobs

    alone = asked_by_the_second(others_run=False)
    assert asked_by_the_second(others_run=False) == alone
    assert asked_by_the_second(others_run=True) != alone


def test_trials_of_a_killed_driver_are_adopted_within_the_lease(make_bench):
    team = Team(make_bench(run_cap=8))
    dead, alive = team.driver("a"), team.driver("b")
    a, b = dead.turns(), alive.turns()
    step(a, 4)
    step(b, 4)
    lost = [r for r in team.records() if r.driver == dead.lease.me and r.outcome is State.RUNNING]
    assert len(lost) == 2
    killed_at = alive.clock.monotonic()

    def is_adopted():
        rows = team.records()
        return all(rows[r.number].driver != dead.lease.me for r in lost)

    while not is_adopted():
        next(b)
    # The dead one's last heartbeat was a moment before.
    assert LEASE * 0.6 <= alive.clock.monotonic() - killed_at <= LEASE * 1.5
    run(b)
    records = team.records()
    check_whole(records, 8)
    for row in lost:
        assert records[row.number].driver == alive.lease.me
        assert records[row.number].attempts == 2
        assert ("b", row.number) in team.started
    assert any("is gone: trials" in message for message in team.benches["b"].watcher.messages)
    assert drivers(team.study().attributes()) == [], "the dead one is listed no more"


def test_driver_resumed_in_its_folder_takes_its_own_trials_at_once(make_bench):
    team = Team(make_bench(run_cap=6))
    a = team.driver("a").turns()
    step(a, 4)
    before = {r.number for r in team.records() if r.outcome is State.RUNNING}
    again = team.driver("a").turns()
    step(again, 1)
    rows = team.records()
    assert {rows[number].driver for number in before} == {team.before["a"]}
    assert {rows[number].attempts for number in before} == {2}
    run(again)
    check_whole(team.records(), 6)


def test_trial_whose_drivers_keep_dying_fails_as_infrastructure(make_bench):
    team = Team(make_bench(run_cap=1), max_retries=1)
    for folder in "abc":
        turns = team.driver(folder).turns()
        step(turns, 1)
        while not any(
            r.outcome is State.RUNNING and r.driver == team.before[folder] for r in team.records()
        ):
            next(turns)
        if folder == "b":
            break
    run(team.driver("d").turns())
    records = team.records()
    lost = next(r for r in records if r.failure == "infrastructure")
    assert "is gone (infrastructure; 2 attempts)" in lost.reason
    check_whole(records, 1)


def test_uncounted_attempts_do_not_count_when_a_driver_dies(make_bench):
    team = Team(make_bench(run_cap=1), max_retries=1)

    def preempted_twice(job):
        if job.attempt <= 2:
            yield 1.0, Finish(cause=EndCause.PREEMPTED, exit_code=None, detail="node drained")
        yield from train(job, seconds=1000.0)

    dead = team.driver("a", slots=1, simulate=preempted_twice).turns()
    while not any((r.attempts, r.outcome) == (3, State.RUNNING) for r in team.records()):
        next(dead)
    run(team.driver("b").turns())
    check_whole(team.records(), 1)
    (record,) = [r for r in team.records() if r.attempts]
    assert (record.outcome, record.attempts, record.uncounted_attempts) == (State.COMPLETED, 4, 2)


def test_driver_without_nodes_does_not_wait_for_ever_for_what_a_dead_one_left(make_bench):
    team = Team(make_bench(run_cap=3), nodes=NodesBlock(give_up_seconds=60.0))

    def simulate(job):
        return train(job, seconds=20.0 if len(team.started) == 1 else 1000.0)

    dead = team.driver("b", slots=1, simulate=simulate)
    stays = team.driver("a", slots=1, spending=Spending(gpu_hours=0.0))
    stays.launcher.slots = list
    b, a = dead.turns(), stays.turns()
    step(b, 1)
    while len([r for r in team.records() if r.outcome is not State.DISCARDED]) < 3:
        step(a, 1)
        step(b, 1)
    assert stays.snapshot().state is SweepState.FINISHED
    stays.launcher.nodes = list
    stays.launcher.free = lambda avoid=(), slots=1: 0
    begun = stays.clock.monotonic()
    while next(a, "ended") is None:
        assert stays.clock.monotonic() - begun < 200
        if stays.clock.monotonic() - begun < 80:
            next(b)  # it lives, and what it has is waited for
    assert stays.snapshot().state is SweepState.NO_HEALTHY_NODES
    assert "no node could take a trial" in stays.snapshot().reason
    run(team.driver("c").turns())
    check_whole(team.records(), 3)


def test_frozen_driver_that_wakes_ends_its_runs_and_tells_nothing(make_bench):
    team = Team(make_bench(run_cap=6))
    frozen, other = team.driver("a"), team.driver("b")
    a, b = frozen.turns(), other.turns()
    step(a, 4)
    mine = {r.number for r in team.records() if r.driver == frozen.lease.me}
    running = {r.number for r in team.records() if r.driver == frozen.lease.me and r.attempts}
    assert running
    while not mine <= {r.number for r in team.records() if r.outcome.final}:
        next(b)
    before = team.records()
    run(a, b)
    after = team.records()
    for number in mine:
        assert after[number] == before[number]
        assert after[number].driver == other.lease.me
    check_whole(after, 6)
    assert any("ends here" in message for message in team.benches["a"].watcher.messages)
    assert frozen._nodes._running == {}, "none of them is taken for one that runs"


def test_frozen_drivers_result_is_refused_even_before_it_looks(make_bench):
    team = Team(make_bench(run_cap=2))
    frozen, other = team.driver("a", slots=1), team.driver("b", slots=1)
    a = frozen.turns()
    step(a, 2)
    row = next(r for r in team.records() if r.attempts)
    taken = dataclasses.replace(row, driver=other.lease.me)
    assert other.study.note(taken, of=frozen.lease.me)
    assert not frozen.study.note(row)
    assert not frozen.study.tell(dataclasses.replace(row, outcome=State.FAILED))
    assert team.records()[row.number] == taken


def test_what_a_stopped_driver_leaves_is_run_by_the_others_at_once(make_bench):
    team = Team(make_bench(run_cap=10))
    asked = {"a": Request.CONTINUE}
    stopped, other = team.driver("a", request=lambda: asked["a"]), team.driver("b")
    a, b = stopped.turns(), other.turns()
    step(a, 4)
    step(b, 4)
    asked["a"] = Request.CANCEL
    run(a)
    assert stopped.snapshot().state is SweepState.CANCELLED
    assert not any(r.driver == stopped.lease.me for r in team.records() if not r.outcome.final)
    at = other.clock.monotonic()
    while any(not r.driver for r in team.records()):
        next(b)
    assert other.clock.monotonic() - at <= 3 * 10 + LEASE
    run(b)
    check_whole(team.records(), 10)


def test_stop_all_reaches_those_at_work_and_none_that_come_later(make_bench):
    team = Team(make_bench(run_cap=40))
    first, second = team.driver("a"), team.driver("b")
    a, b = first.turns(), second.turns()
    step(a, 3)
    step(b, 3)
    assert {short(name) for name in ask_all(team.study(), Request.DRAIN)} == {
        short(first.lease.me),
        short(second.lease.me),
    }
    run(a, b)
    assert first.snapshot().state is second.snapshot().state is SweepState.STOPPED
    assert drivers(team.study().attributes()) == []
    assert not any(r.outcome is State.RUNNING for r in team.records())
    run(team.driver("a").turns())
    check_whole(team.records(), 40)


def test_stop_all_reaches_one_that_was_taken_for_dead(make_bench):
    team = Team(make_bench(run_cap=40))
    frozen, other = team.driver("a"), team.driver("b")
    a, b = frozen.turns(), other.turns()
    step(a, 3)
    while frozen.lease.me in {one["name"] for one in drivers(team.study().attributes())}:
        next(b)
    assert [short(name) for name in ask_all(team.study(), Request.DRAIN)] == [short(other.lease.me)]
    run(a, b)
    assert frozen.snapshot().state is other.snapshot().state is SweepState.STOPPED
    assert drivers(team.study().attributes()) == []


def test_stop_all_reaches_one_whose_slots_are_starting(make_bench):
    team = Team(make_bench(run_cap=40))
    starting = team.driver("a")
    with starting.lease.joined():
        assert ask_all(team.study(), Request.DRAIN) == [starting.lease.me]
        run(starting.turns())
    assert starting.snapshot().state is SweepState.STOPPED
    assert not any(r.attempts for r in team.records())


def test_one_whose_slots_do_not_start_leaves_the_study(make_bench):
    team = Team(make_bench(run_cap=40))
    seen = []

    def start(lease):
        with lease.joined():
            seen.extend(drivers(team.study().attributes()))
            raise InfraError("no cluster")

    with pytest.raises(InfraError):
        start(team.driver("a").lease)
    assert len(seen) == 1
    assert drivers(team.study().attributes()) == []


def test_outage_is_sat_out_while_trials_run_on(make_bench):
    team = Team(make_bench(run_cap=8))
    driver = team.driver("a")
    turns = driver.turns()
    step(turns, 3)
    begun = driver.clock.monotonic()
    team.storage.mishap = lambda: away() if driver.clock.monotonic() < begun + 120 else None
    run(turns)
    records = team.records()
    check_whole(records, 8)
    assert {r.attempts for r in records if r.attempts} == {1}
    messages = team.benches["a"].watcher.messages
    assert sum("does not answer" in message for message in messages) == 1
    assert sum("answers again after" in message for message in messages) == 1


def test_outage_in_the_middle_of_a_proposal_is_no_inheritance(make_bench):
    team = Team(make_bench(run_cap=8))
    driver = team.driver("a", slots=1)
    ask, begun = driver.study.ask, None

    def ask_and_lose_the_storage(**how):
        nonlocal begun
        proposal = ask(**how)
        if proposal is not None and proposal.number == 3 and begun is None:
            begun = driver.clock.monotonic()
            team.storage.mishap = lambda: away() if driver.clock.monotonic() < begun + 60 else None
        return proposal

    driver.study.ask = ask_and_lose_the_storage
    run(driver.turns())
    check_whole(team.records(), 8)
    messages = team.benches["a"].watcher.messages
    assert sum("answers again after" in message for message in messages) == 1
    assert not any("resuming trials" in message for message in messages)


def test_outage_without_end_is_an_infrastructure_failure_that_loses_no_result(make_bench):
    team = Team(make_bench(run_cap=8))
    driver = team.driver("a")
    turns = driver.turns()
    step(turns, 3)
    running = {r.number for r in team.records() if r.attempts}
    begun = driver.clock.monotonic()
    team.storage.mishap = away
    with pytest.raises(InfraError, match="did not answer for 3") as ended:
        run(turns)
    assert not isinstance(ended.value, StorageAwayError)
    assert 300 < driver.clock.monotonic() - begun < 330
    team.storage.mishap = None
    results = {n: driver.paths.trial(n).result for n in running}
    scores = {n: read_json(path)["record"]["val_bpb"] for n, path in results.items()}
    run(team.driver("a").turns())
    records = team.records()
    check_whole(records, 8)
    assert {n: records[n].val_bpb for n in running} == scores
    numbers = [number for _, number in team.started]
    assert len(numbers) == len(set(numbers)), "what ended during the outage did not run again"


def test_cancel_during_an_outage_is_the_users_word_and_no_fault_of_the_storage(make_bench):
    team = Team(make_bench(run_cap=8))
    asked = {"now": Request.CONTINUE}
    driver = team.driver("a", request=lambda: asked["now"])
    turns = driver.turns()
    step(turns, 3)
    running = {r.number for r in team.records() if r.attempts}
    team.storage.mishap = away
    step(turns, 20)
    asked["now"] = Request.CANCEL
    with pytest.raises(InterruptedSweepError, match="was cancelled while") as ended:
        run(turns)
    assert ended.value.exit_code == 130
    assert {n for n in running if driver.paths.trial(n).result.is_file()}
    team.storage.mishap = None
    asked["now"] = Request.CONTINUE
    run(team.driver("a").turns())
    check_whole(team.records(), 8)


def misfortune(dice):
    """What a storage's call may come to."""
    roll = dice.random()
    if roll < 0.002:
        return KilledError()
    return away() if roll < 0.01 else None


def count_ends(storage):
    """Numbers of the trials that are told from now on, once for each time."""
    told, set_state = [], storage.set_trial_state_values

    def counted(trial_id, state, values=None):
        done = set_state(trial_id, state, values)
        if state.is_finished():
            told.append(trial_id)
        return done

    storage.set_trial_state_values = counted
    return told


def unlucky(dice):
    def simulate(job):
        if dice.random() < 0.1:
            yield 1.0, Finish(cause=EndCause.LOST, exit_code=None, detail="node gone")
        yield from train(job, seconds=dice.choice([1.0, 5.0, 20.0]))

    return simulate


@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_lost_or_told_twice_whatever_happens(make_bench, seed):
    dice = random.Random(seed)
    cap = dice.randint(6, 14)
    team = Team(make_bench(run_cap=cap, width="{values: [32, 64, 96, 128, 256]}"), max_retries=99)
    team.pruner = optuna.pruners.MedianPruner(n_startup_trials=3)
    told = count_ends(team.storage)
    going = {}
    for _ in range(400):
        folder = dice.choice("abc")
        if folder not in going:
            driver = team.driver(folder, slots=dice.randint(1, 3), simulate=unlucky(dice))
            going[folder] = driver.turns()
        team.storage.mishap = lambda: misfortune(dice)
        try:
            # A driver that is left out for long is a frozen one.
            step(going[folder], dice.choice([1, 1, 1, 5, 30]))
        except (KilledError, StopIteration, StorageAwayError):
            del going[folder]
        finally:
            team.storage.mishap = None
        if dice.random() < 0.02:
            going.pop(folder, None)
    run(*going.values(), team.driver("z").turns())
    records = team.records()
    check_whole(records, cap)
    assert optuna.trial.TrialState.RUNNING not in team.states()
    assert len(told) == len(set(told)) == len(records)


def test_leases_run_out_by_the_lookers_own_time():
    monitor = LeaseMonitor(30.0)
    for now in range(0, 30, 5):
        assert monitor.look({"beats": now, "dead": 7}, float(now)) == set()
    assert monitor.look({"beats": 30, "dead": 7}, 30.0) == {"dead"}
    assert monitor.look({"beats": 31, "dead": 8}, 35.0) == set(), "it was only slow"


def test_looker_that_was_frozen_or_without_storage_gives_everybody_a_whole_lease():
    monitor = LeaseMonitor(30.0)
    monitor.look({"one": 1}, 0.0)
    assert monitor.look({"one": 1}, 600.0) == set()
    for now in (605.0, 615.0, 625.0):
        assert monitor.look({"one": 1}, now) == set()
    monitor.reset()
    assert monitor.look({"one": 1}, 635.0) == set()
    for now in (645.0, 655.0):
        assert monitor.look({"one": 1}, now) == set()
    assert monitor.look({"one": 1}, 665.0) == {"one"}


def test_a_program_that_one_folder_proposes_runs_at_a_driver_of_another(make_bench):
    team = Team(make_bench(run_cap=2, block="  gate: {enabled: false}\n"))
    here = team.bench.elsewhere("a")
    program = from_files("train_gpt.py", {"train_gpt.py": SCRIPT + b"BETA = 0.9\n"}, builtin=False)
    made = keep(here.paths, Variant(by="ada"), program, here.session.program)
    knobs = {"MODEL_DIM": 64, "MATRIX_LR": 0.02}
    change = Change(variant=made.id, idea="momentum")
    request = submit(here.paths, knobs, by="ada", at=1.0, change=change)
    enqueue_pending(here.paths, team.study(), lambda event: None)
    run(team.driver("b", slots=1).turns())
    record = team.records()[look(here.paths, request.id).number]
    assert record.outcome is State.COMPLETED
    assert record.change == change
    folder = team.benches["b"].paths.trial(record.number).root
    assert (folder / "train_gpt.py").read_bytes() == SCRIPT + b"BETA = 0.9\n"

"""A study in a real PostgreSQL, driven by one process and by several."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy
from support.postgres import empty_database
from support.postgres import server as server  # noqa: PLC0414 - a fixture is found by its name
from support.terminal import wait_for

from pgolf_sweep.core.errors import InfraError, StorageAwayError
from pgolf_sweep.search import storage_lock
from pgolf_sweep.search.journal import OldTrial
from pgolf_sweep.search.origin import Origin
from pgolf_sweep.search.study import Study, open_study

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[2]
LEASE = 3.0


@pytest.fixture
def database(server, request):
    """An empty database of its own; its URL."""
    return empty_database(server, f"test_{abs(hash(request.node.name))}")


def test_sweep_runs_and_resumes_in_postgresql(make_bench, database):
    bench = make_bench(run_cap=4)
    bench.paths.root.mkdir(parents=True)
    spec = bench.session.spec
    with closing(open_study(spec, bench.paths, storage=database, write=True)) as study:
        bench.driver(study=study).run()
    with closing(open_study(spec, bench.paths, storage=database, write=True)) as study:
        final = bench.driver(study=study, run_cap=7).run()
    with closing(open_study(spec, bench.paths, storage=database)) as study:
        records = study.records()
    assert final.counts["completed"] == 7
    assert all(record.outcome.final for record in records)
    assert not bench.paths.journal.exists()


# -- the lock ----------------------------------------------------------------------------------


def two_locks(url):
    settings = {"connect_args": storage_lock.link_settings(url)}
    engines = [sqlalchemy.create_engine(url, **settings) for _ in range(2)]
    return engines, [storage_lock.PostgresLock(engine, 1) for engine in engines]


def test_lock_is_held_by_one_driver_at_a_time(database, monkeypatch):
    monkeypatch.setattr(storage_lock, "WAIT_SECONDS", 0.2)
    engines, (mine, theirs) = two_locks(database)
    with mine.held(), pytest.raises(sqlalchemy.exc.OperationalError) as late, theirs.held():
        raise AssertionError
    assert storage_lock.is_away(late.value)
    with theirs.held(), storage_lock.PostgresLock(engines[0], 2).held():
        pass  # another study's is another lock
    for engine in engines:
        engine.dispose()


def test_lock_of_a_frozen_driver_is_freed_by_the_server_and_the_driver_finds_out(
    database, monkeypatch
):
    monkeypatch.setattr(storage_lock, "FROZEN_SECONDS", 0.5)
    engines, (mine, theirs) = two_locks(database)

    def freeze():
        with mine.held(), theirs.held():  # waits until the server has ended the first
            pass

    with pytest.raises(sqlalchemy.exc.DBAPIError) as lost:
        freeze()
    assert storage_lock.is_away(lost.value)
    for engine in engines:
        engine.dispose()


def test_only_what_a_retry_may_mend_counts_as_away(database):
    engine = sqlalchemy.create_engine(database)
    with engine.connect() as connection, pytest.raises(sqlalchemy.exc.DBAPIError) as wrong:
        connection.execute(sqlalchemy.text("SELECT nothing FROM nowhere"))
    assert not storage_lock.is_away(wrong.value)
    assert not storage_lock.is_away(ValueError())
    broken = sqlalchemy.exc.DatabaseError("SELECT 1", {}, OSError(), connection_invalidated=True)
    assert storage_lock.is_away(broken)
    engine.dispose()


# -- two drivers -------------------------------------------------------------------------------


class Process:
    """A driver in a process of its own."""

    def __init__(self, url, folder, *, run_cap, seconds):
        folder.mkdir(exist_ok=True)
        script = TESTS / "support" / "one_driver.py"
        words = [url, str(folder), str(run_cap), str(seconds), str(LEASE)]
        env = os.environ | {"PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
        env.pop("PGOLF_STORAGE", None)
        self.lines = []
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(script), *words],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        self.lines.extend(line.strip() for line in self.process.stdout)

    @property
    def said(self):
        return "\n".join(self.lines)

    def started(self):
        return [int(line.split()[1]) for line in self.lines if line.startswith("start ")]

    def kill(self, number):
        self.process.send_signal(number)

    def ended(self, seconds=120):
        code = self.process.wait(seconds)
        self._reader.join(5)
        assert code == 0, self.lines[-30:]
        assert self.lines[-1] == "state finished", self.lines[-30:]


@pytest.fixture
def start(database, tmp_path):
    begun = []

    def begin(*folders, run_cap, seconds=0.8):
        begun.extend(
            Process(database, tmp_path / folder, run_cap=run_cap, seconds=seconds)
            for folder in folders
        )
        wait_for(lambda: all("ready" in one.lines for one in begun), 150, of=begun[0])
        for one in begun:
            one.process.stdin.write("go\n")
            one.process.stdin.close()
        return begun

    yield begin
    for one in begun:
        one.process.kill()
        one.process.wait()
        one._reader.join(5)
        one.process.stdout.close()


def check_whole(make_bench, database, run_cap):
    """All ended, the cap met exactly, no configuration run twice; the rows."""
    import optuna

    bench = make_bench(run_cap=run_cap)
    with closing(open_study(bench.session.spec, bench.paths, storage=database)) as study:
        records = study.records()
        states = {trial.state for trial in study._study.get_trials(deepcopy=False)}
    assert states <= {optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED}
    ran = [r for r in records if r.attempts]
    assert all(record.outcome.final for record in records)
    assert len(ran) == len({r.identity for r in ran}) == run_cap
    return records


def test_driver_killed_in_mid_trial_is_replaced_by_the_other(start, make_bench, database):
    a, b = start("a", "b", run_cap=20)
    wait_for(lambda: len(a.started()) >= 3 and b.started(), 150, of=a)
    a.kill(signal.SIGKILL)
    a.process.wait()
    begun = set(a.started())
    b.ended()
    records = check_whole(make_bench, database, 20)
    adopted = [r for r in records if r.attempts == 2]
    assert {r.number for r in adopted} <= begun
    assert adopted
    assert all("/b/" in r.driver for r in adopted)
    assert {r.number for r in records if r.attempts} == begun | set(b.started())
    twice = begun & set(b.started())
    assert twice == {r.number for r in adopted}


def freeze(process, url, *, with_the_lock):
    """Freeze a driver in the middle of a turn, or between two of them."""

    def holders():
        with engine.connect() as connection:
            return set(connection.execute(held).scalars())

    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    held = sqlalchemy.text("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted")
    for turn in range(500):
        process.kill(signal.SIGSTOP)
        before = holders()
        time.sleep(0.3)  # the other driver's turns are far shorter
        if with_the_lock == bool(before & holders()):
            break
        process.kill(signal.SIGCONT)
        time.sleep(0.01 * (turn % 7))
    else:
        raise AssertionError("never frozen so")
    engine.dispose()
    return set(process.started())


def test_driver_frozen_past_its_lease_wakes_to_give_its_trials_up(start, make_bench, database):
    a, b = start("a", "b", run_cap=20, seconds=3.0)
    wait_for(lambda: len(a.started()) >= 3 and b.started(), 150, of=a)
    before = freeze(a, database, with_the_lock=False)
    wait_for(lambda: before & set(b.started()), 60, of=b)
    a.kill(signal.SIGCONT)
    a.ended()
    b.ended()
    records = check_whole(make_bench, database, 20)
    taken = before & set(b.started())
    assert all("/b/" in records[number].driver for number in taken)
    assert {records[number].attempts for number in taken} == {2}


def test_driver_frozen_in_the_middle_of_its_turn_holds_the_other_up_for_less_than_a_minute(
    start, make_bench, database
):
    a, b = start("a", "b", run_cap=20, seconds=3.0)
    wait_for(lambda: len(a.started()) >= 3 and b.started(), 150, of=a)
    before = freeze(a, database, with_the_lock=True)
    wait_for(lambda: before & set(b.started()), 60, of=b)
    a.kill(signal.SIGCONT)
    a.ended()
    b.ended()
    # It may wake in the middle of telling a trial that the other has taken over: told once.
    check_whole(make_bench, database, 20)


def test_database_that_is_gone_for_a_while_costs_nothing(start, make_bench, server, database):
    a, b = start("a", "b", run_cap=20)
    wait_for(lambda: len(a.started()) >= 3 and len(b.started()) >= 3, 150, of=a)
    server.stop()
    try:
        wait_for(lambda: all(any("not answer" in x for x in one.lines) for one in (a, b)), 60, of=a)
        time.sleep(1.5 * LEASE)  # nobody may take the other for dead
    finally:
        server.start()
    a.ended()
    b.ended()
    records = check_whole(make_bench, database, 20)
    assert {r.attempts for r in records if r.attempts} == {1}
    assert not set(a.started()) & set(b.started())
    assert any("answers again" in line for line in a.lines)


def test_drivers_that_open_an_empty_database_at_once_make_its_tables_once(make_bench, database):
    bench = make_bench()

    def opened(_index):
        study = open_study(bench.session.spec, bench.paths, storage=database, write=True)
        with closing(study):
            return study.name

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(opened, range(4))) == {"study"}


# -- what a storage that is away looks like ----------------------------------------------------


def test_storage_that_is_away_is_an_error_at_once_and_shows_no_password(make_bench, tmp_path):
    bench = make_bench()
    url = f"postgresql://me:secret@/sweeps?host={tmp_path}"
    with pytest.raises(InfraError, match="cannot be opened") as refused:
        open_study(bench.session.spec, bench.paths, storage=url, write=True)
    assert "secret" not in str(refused.value)


def test_outage_is_one_error_whatever_the_study_is_asked(make_bench, server, database):
    bench = make_bench()
    bench.paths.root.mkdir(parents=True)
    with closing(
        open_study(bench.session.spec, bench.paths, storage=database, write=True)
    ) as study:
        with study.exclusive():
            proposal = study.ask()
        record = study.records()[0]
        server.stop()
        try:
            for act in everything_asked(study, record, proposal.number):
                with pytest.raises(StorageAwayError, match="does not answer"):
                    act()
        finally:
            server.start()
        # A connection that was made before may be dead; the next one is not.
        wait_for(lambda: _answers(study), 10)


def everything_asked(study, record, number):
    """A call of each public method that reaches the storage."""
    origin = Origin(proposer="somebody")
    old = OldTrial(record=record, waiting=({}, {}))
    calls = {
        "ask": (), "attribute": ("key",), "attributes": (), "begin_once": ({}, origin),
        "curves": (), "ended_besides": ((),), "enqueue_again": (old,), "enqueue_once": ({}, origin),
        "has_waiting": (), "importances": (), "note": (record,), "open_rows": (), "posteriors": (),
        "proposal": (number,), "rebuild": (record, {}), "records": (), "report": (number, 1, 2.0),
        "requested": (), "set_attribute": ("key", 1), "tell": (record,), "unfinished": (),
        "waiting_points": (),
    }  # fmt: skip
    local = {"close", "exclusive", "growing_posteriors", "never_prunes", "reach", "enqueue"}
    methods = {n for n in dir(Study) if n[0] != "_" and callable(getattr(Study, n))}
    assert methods == calls.keys() | local
    return [partial(getattr(study, name), *words) for name, words in calls.items()]


def _answers(study):
    try:
        return study.records()
    except StorageAwayError:
        return None

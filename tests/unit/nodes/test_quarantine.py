"""One bad machine must not eat the sweep: whole sweeps on simulated nodes."""

from __future__ import annotations

from collections import Counter

import pytest
from support.sweeps import train

from pgolf_sweep.config.types import NodesBlock
from pgolf_sweep.core.errors import Finding
from pgolf_sweep.core.event_text import event_text
from pgolf_sweep.core.record import State
from pgolf_sweep.core.trial import (
    Completed,
    EndCause,
    Failed,
    FailureCode,
    FailureKind,
    LogSummary,
    RunEnd,
)
from pgolf_sweep.driver.snapshot import SweepState, status_document
from pgolf_sweep.launch.inline import Finish, InlineLauncher, SimulatedClock
from pgolf_sweep.nodes.info import NodeInfo, NodeState
from pgolf_sweep.nodes.quarantine import NodeBook, NodeStatus

NO_DEVICE = "RuntimeError: CUDA error: no CUDA-capable device is detected"
BUG = "KeyError: 'blocks.0'"
BAD = "sim-3"


def fails_at_once(job, *, word=NO_DEVICE):
    yield 2.0, Finish(exit_code=1, log_tail=("Traceback (most recent call last):", word))


def is_lost(job):
    yield 1.0, Finish(cause=EndCause.LOST, exit_code=None, detail="worker died")


class Nodes:
    """Eight nodes of one slot, of which some are bad; counts what runs where."""

    def __init__(self, bench, *, bad, count=8, slots_per_node=1, simulate=train):
        self.runs = Counter()
        self.launcher = InlineLauncher(
            count * slots_per_node,
            simulate,
            bench.clock,
            slots_per_node=slots_per_node,
            instead={name: self._noted(name, what) for name, what in bad.items()},
        )

    def _noted(self, name, what):
        def run(job):
            self.runs[name] += 1
            return what(job)

        return run


def by_state(bench):
    return Counter(record.outcome for record in bench.study().records())


@pytest.mark.parametrize(("what", "slots_per_node"), [(fails_at_once, 1), (is_lost, 4)])
def test_one_bad_node_of_eight_wastes_a_handful_of_500_trials(make_bench, what, slots_per_node):
    bench = make_bench(run_cap=500, method="random")
    nodes = Nodes(bench, bad={BAD: what}, slots_per_node=slots_per_node)
    final = bench.driver(launcher=nodes.launcher).run()
    assert by_state(bench)[State.COMPLETED] == 500
    assert by_state(bench)[State.FAILED] == 0
    hours = bench.clock.monotonic() / 3600
    # Three failures, a slot each that was in flight, and one probe a backoff of 5, 10, 20 ... min.
    assert nodes.runs[BAD] <= 3 + slots_per_node + 6, (nodes.runs, hours)
    (row,) = [row for row in final.nodes if row.state is not NodeStatus.READY]
    assert row.node == BAD
    assert row.state in {NodeStatus.QUARANTINED, NodeStatus.PROBING}
    assert row.failures >= 3
    loud = [text for text in bench.watcher.messages if "QUARANTINED" in text]
    assert loud
    assert BAD in loud[0]


def test_full_disk_of_the_driver_is_no_fault_of_a_node(make_bench):
    bench = make_bench(run_cap=4, method="random")

    def write_fails_at_first(job):
        write_failed = Finish(cause=EndCause.OUTPUT_WRITE_FAILED, detail="No space left on device")
        return iter([(1.0, write_failed)]) if job.attempt <= 2 else train(job)

    nodes = Nodes(bench, bad={}, count=1, simulate=write_fails_at_first)
    final = bench.driver(launcher=nodes.launcher).run()
    ran = [r for r in bench.study().records() if r.outcome is State.COMPLETED]
    assert [(r.attempts, r.uncounted_attempts) for r in ran] == [(3, 0)] * 4
    assert [row.state for row in final.nodes] == [NodeStatus.READY]
    assert not any("QUARANTINED" in text for text in bench.watcher.messages)


def test_node_that_goes_bad_midway_is_quarantined_and_comes_back_mended(make_bench):
    bench = make_bench(run_cap=400, method="random")

    def bad_for_a_while(job):
        ill = 100 < bench.clock.monotonic() < 400
        return fails_at_once(job) if ill else train(job)

    nodes = Nodes(bench, bad={BAD: bad_for_a_while})
    final = bench.driver(launcher=nodes.launcher).run()
    assert by_state(bench)[State.COMPLETED] == 400
    assert all(row.state is NodeStatus.READY for row in final.nodes)
    messages = "\n".join(bench.watcher.messages)
    assert f"node {BAD} is QUARANTINED" in messages
    assert f"node {BAD} takes trials again" in messages
    again = [r for r in bench.study().records() if r.node == BAD and r.ended_at is not None]
    assert max(r.ended_at for r in again) - bench.clock.now() > -60, "it works to the end"


def test_failure_within_seconds_is_believed_only_from_two_nodes(make_bench):
    bench = make_bench(run_cap=40, method="random")
    where = []

    def wide_ones_crash(job):
        if job.spec.knobs["MODEL_DIM"] >= 160:
            where.append((job.key, job.attempt))
            return fails_at_once(job, word=BUG)
        return train(job)

    nodes = Nodes(bench, bad={}, count=4, simulate=wide_ones_crash)
    final = bench.driver(launcher=nodes.launcher).run()
    failed = [r for r in bench.study().records() if r.outcome is State.FAILED]
    assert len(failed) > 5
    assert {r.failure for r in failed} == {"deterministic"}
    assert {r.attempts - r.uncounted_attempts for r in failed} == {1}
    assert {r.attempts for r in failed} <= {1, 2}
    assert any(r.attempts == 2 for r in failed)
    assert all(row.state is NodeStatus.READY for row in final.nodes)
    assert final.counts["completed"] + final.counts["failed"] == 40


@pytest.mark.parametrize(("count", "slots_per_node"), [(1, 2), (2, 1), (8, 1), (4, 8)])
def test_bug_in_the_script_quarantines_nothing_and_stops_soon(make_bench, count, slots_per_node):
    bench = make_bench(run_cap=500, method="random")
    nodes = Nodes(
        bench,
        bad={},
        count=count,
        slots_per_node=slots_per_node,
        simulate=lambda job: fails_at_once(job, word=BUG),
    )
    final = bench.driver(launcher=nodes.launcher).run()
    assert final.state is SweepState.ABORTED_SAME_ERROR
    assert BUG[:8] in final.reason
    assert not any("QUARANTINED" in text for text in bench.watcher.messages)
    attempts = sum(record.attempts for record in bench.study().records())
    assert attempts <= 20 + 3 * count * slots_per_node
    records = bench.study().records()
    assert all(r.outcome in {State.FAILED, State.QUEUED, State.DISCARDED} for r in records)


def test_sweep_on_bad_nodes_alone_waits_burns_no_trial_and_says_when_it_gives_up(make_bench):
    bench = make_bench(run_cap=100, method="random")
    bad = {f"sim-{index}": is_lost for index in range(3)}
    nodes = Nodes(bench, bad=bad, count=3)
    final = bench.driver(launcher=nodes.launcher, max_retries=2).run()
    assert final.state is SweepState.NO_HEALTHY_NODES
    assert "sim-0" in final.reason
    assert 3600 <= bench.clock.monotonic() < 5000
    assert by_state(bench)[State.FAILED] <= 3
    assert sum(nodes.runs.values()) < 40
    messages = "\n".join(bench.watcher.messages)
    assert "NO NODE can take a trial" in messages
    assert "nothing more starts" in messages
    mended = bench.driver(slots=4).run()
    assert mended.counts["completed"] == 100


def test_sweep_waits_for_nodes_that_come_back(make_bench):
    bench = make_bench(run_cap=20, method="random")

    def bad_for_half_an_hour(job):
        return is_lost(job) if bench.clock.monotonic() < 1800 else train(job)

    bad = {f"sim-{index}": bad_for_half_an_hour for index in range(3)}
    nodes = Nodes(bench, bad=bad, count=3)
    final = bench.driver(launcher=nodes.launcher, max_retries=2).run()
    assert final.state is SweepState.FINISHED
    assert final.counts["completed"] == 20


def test_trial_that_brings_every_node_down_has_an_end(make_bench):
    bench = make_bench(run_cap=60, method="random")

    def poison(job):
        return is_lost(job) if job.key == "5" else train(job)

    nodes = Nodes(bench, bad={}, count=3, simulate=poison)
    final = bench.driver(launcher=nodes.launcher, max_retries=2).run()
    poisoned = bench.study().records()[5]
    assert poisoned.outcome is State.FAILED
    assert poisoned.failure == "infrastructure"
    assert poisoned.attempts == 3
    assert final.counts["completed"] == 60
    assert not any("QUARANTINED" in text for text in bench.watcher.messages)


def test_preempted_is_not_failed(make_bench):
    bench = make_bench(run_cap=6)
    preempted = Counter()

    def taken_away_often(job):
        preempted[job.key] += 1
        if preempted[job.key] <= 4:
            yield 5.0, Finish(cause=EndCause.PREEMPTED, exit_code=None, detail="node drained")
        else:
            yield from train(job)

    final = bench.driver(simulate=taken_away_often, max_retries=0).run()
    assert final.counts["completed"] == 6
    records = [r for r in bench.study().records() if r.outcome is State.COMPLETED]
    assert {(r.attempts, r.uncounted_attempts) for r in records} == {(5, 4)}


def test_uncounted_attempts_stay_uncounted_when_another_driver_goes_on(make_bench):
    bench = make_bench(run_cap=1)

    def preempted(job):
        yield 5.0, Finish(cause=EndCause.PREEMPTED, exit_code=None, detail="node drained")

    from pgolf_sweep.driver.control import Request

    def cancel():
        return Request.CANCEL if bench.clock.monotonic() > 12 else Request.CONTINUE

    bench.driver(slots=1, simulate=preempted, max_retries=0, request=cancel).run()
    (record,) = [r for r in bench.study().records() if r.attempts]
    assert record.uncounted_attempts >= 2
    final = bench.driver(slots=1, max_retries=0).run()
    assert final.counts["completed"] == 1
    (after,) = [r for r in bench.study().records() if r.attempts]
    assert after.uncounted_attempts == record.uncounted_attempts


# ---- the account alone ------------------------------------------------------------------------


class Account:
    def __init__(self, count=4, **rules):
        self.clock = SimulatedClock()
        self.said = []
        self.book = NodeBook(NodesBlock(**rules), self.clock, self.hear)
        self.infos = {f"n{index}": NodeInfo(name=f"n{index}") for index in range(count)}
        self.book.see(self.infos.values())

    def hear(self, event):
        self.said.append(event_text(event))

    def run(self, number, node, *, seconds=2.0, why=NO_DEVICE, step=None, cause=EndCause.EXITED):
        self.book.started(number, node)
        self.clock.sleep(seconds)
        return self.end(number, node, seconds=seconds, why=why, step=step, cause=cause)

    def end(self, number, node, *, seconds, why, step=None, cause=EndCause.EXITED):
        self.book.see(self.infos.values())
        now = self.clock.now()
        end = RunEnd(
            cause=cause,
            exit_code=1,
            detail="",
            summary=LogSummary(),
            node=node,
            started_at=now - seconds,
            ended_at=now,
        )
        lost = cause not in {EndCause.EXITED, EndCause.SILENT}
        kind = FailureKind.INFRASTRUCTURE if lost else FailureKind.DETERMINISTIC
        memory = why == "out of memory"
        code = FailureCode.OUT_OF_MEMORY if memory else FailureCode.EXIT_CODE
        failed = Failed(kind=kind, code=code, reason=why)
        outcome = failed if why else Completed(val_bpb=1, artifact_bytes=1)
        return self.book.ended(number, outcome=outcome, end=end, step=step)

    def row(self, name):
        self.book.see(self.infos.values())
        return {row.node: row for row in self.book.rows()}[name]


def test_suspect_is_kept_from_its_node_and_from_all_in_doubt_as_long_as_one_is_left():
    account = Account(count=3)
    assert account.run(1, "n0") is not None
    assert account.run(2, "n1") is not None
    assert account.book.closed(1) == {"n0", "n1"}
    assert account.book.closed(2) == {"n0", "n1"}
    assert account.book.closed(3) == set()
    account.infos.pop("n2")
    account.book.see(account.infos.values())
    assert account.book.closed(1) == {"n0"}
    account.infos.pop("n1")
    account.book.see(account.infos.values())
    assert account.book.closed(1) == set(), "better there than nowhere"


def test_failure_after_steps_is_the_trials_own_unless_the_machine_says_otherwise():
    account = Account()
    assert account.run(1, "n0", why="a loss was not finite", step=40) is None
    assert account.run(2, "n0", why=BUG, step=None, seconds=300.0) is None
    assert account.run(3, "n0", why="uncorrectable ECC error encountered", step=40) is not None
    assert account.run(3, "n1", why="uncorrectable ECC error encountered", step=40) is None


def test_at_once_is_measured_by_what_completed_trials_take():
    account = Account()
    account.run(0, "n1", why="", seconds=20.0)
    assert account.run(1, "n0", why=BUG, seconds=4.0) is not None
    assert account.run(2, "n0", why=BUG, seconds=8.0) is None


def test_backoff_doubles_and_one_trial_probes():
    account = Account(retry_seconds=100.0, count=2)
    account.run(0, "n1", why="", seconds=20.0)
    for number in (1, 2, 3):
        account.run(number, "n0", cause=EndCause.LOST)
    row = account.row("n0")
    assert row.state is NodeStatus.QUARANTINED
    assert row.retry_at == pytest.approx(account.clock.now() + 100, abs=1)
    assert "n0" in account.book.closed()
    for turn in (2, 4, 8, 8):
        account.clock.sleep(100 * turn)
        assert account.row("n0").state is NodeStatus.PROBING
        assert "n0" not in account.book.closed()
        account.book.started(10 + turn, "n0")
        assert "n0" in account.book.closed(), "one probe at a time"
        account.run(10 + turn, "n0", cause=EndCause.LOST)
        wait = account.row("n0").retry_at - account.clock.now()
        assert wait == pytest.approx(100 * turn, abs=3)
    account.clock.sleep(800)
    account.row("n0")
    account.run(99, "n0", why="", seconds=20.0)
    assert account.row("n0").state is NodeStatus.READY


def test_quarantine_that_turns_out_unfounded_is_lifted():
    account = Account(count=8)
    account.run(0, "n7", why="", seconds=100.0)
    for number in (1, 2, 3):
        assert account.run(number, "n0", why=BUG) is not None
    assert account.row("n0").state is NodeStatus.QUARANTINED
    assert account.run(1, "n1", why=BUG) is None
    assert account.row("n0").state is NodeStatus.READY
    assert "failed elsewhere, too" in account.said[-1]


def test_known_error_of_a_bad_node_costs_at_most_one_trial():
    account = Account(count=4)
    for name in account.infos:
        account.run(0, name, why="", seconds=100.0)
    account.run(1, "n1", why="out of memory")
    assert account.run(1, "n2", why="out of memory") is None, "too large: it fails anywhere"
    lost = [
        number for number in range(2, 12) if account.run(number, "n0", why="out of memory") is None
    ]
    assert len(lost) <= 1
    assert account.row("n0").state is NodeStatus.QUARANTINED


def test_one_incident_on_several_slots_or_nodes_quarantines_nothing():
    account = Account(count=4)
    for incident in range(3):
        assert account.row("n0").state is NodeStatus.READY
        trials = {8 * incident + slot: "n0" for slot in range(8)}
        trials |= {100 + 8 * incident + slot: "n1" for slot in range(8)} if incident < 2 else {}
        for number, node in trials.items():
            account.book.started(number, node)
        account.clock.sleep(120.0)
        for number, node in trials.items():
            account.clock.sleep(0.3)
            account.end(number, node, seconds=120.0, why="worker died", cause=EndCause.LOST)
    assert account.row("n1").state is NodeStatus.READY
    assert account.row("n0").state is NodeStatus.QUARANTINED
    assert "17 trials in a row" in account.row("n0").reason


def test_probe_that_another_driver_took_over_leaves_its_place_to_the_next():
    account = Account(retry_seconds=100.0, give_up_seconds=500.0, count=1)
    for number in (1, 2, 3):
        account.run(number, "n0", cause=EndCause.LOST)
    account.clock.sleep(100.0)
    account.row("n0")
    account.book.started(4, "n0")
    assert account.book.closed() == {"n0"}
    account.book.forget(4)
    assert account.book.closed() == frozenset()
    account.clock.sleep(500.0)
    assert account.book.no_healthy_nodes() is not None, "nothing runs any more"


def test_ten_failures_with_one_error_abort_the_sweep_however_slow_and_varied_the_ones_before():
    account = Account(count=1)
    account.run(0, "n0", why="KeyError: 'another'")
    for number in range(1, 11):
        assert account.book.same_error() is None
        account.run(number, "n0", why="no output for 300 s", seconds=300.0, cause=EndCause.SILENT)
    assert "the last 10 all failed with the same error: no output for # s" in (
        account.book.same_error() or ""
    )
    account.book.started(11, "n0")
    account.book.progressed(11)
    assert account.book.same_error() is None


def test_failures_zero_never_quarantines():
    account = Account(failures=0)
    for number in range(20):
        account.run(number, "n0", cause=EndCause.LOST)
    assert account.row("n0").state is NodeStatus.READY


def test_what_the_launcher_refuses_and_drains_is_said_once_and_listed():
    account = Account()
    refusal = Finding(
        what="GPU 3 is in use", where="n0", got="70 GB", expected="nothing", next_step="kill it"
    )
    retry_at = account.clock.now() + 30
    account.infos["n0"] = NodeInfo(
        name="n0", state=NodeState.REFUSED, refusals=(refusal,), retry_at=retry_at
    )
    drains_at = account.clock.now() + 60
    account.infos["n1"] = NodeInfo(name="n1", state=NodeState.DRAINING, drains_at=drains_at)
    row = account.row("n0")
    assert (row.state, row.retry_at, row.refusals) == (NodeStatus.REFUSED, retry_at, (refusal,))
    assert "GPU 3 is in use" in row.reason
    assert account.row("n1").drains_at == drains_at
    account.row("n1")
    assert len(account.said) == 2
    assert "REFUSED" in account.said[0]
    assert "draining" in account.said[1]


def test_node_of_which_some_slots_are_refused_is_not_called_refused():
    account = Account()
    refusal = Finding(
        what="GPU 3 is in use", where="n0", got="70 GB", expected="nothing", next_step="kill it"
    )
    account.infos["n0"] = NodeInfo(name="n0", refusals=(refusal,))
    assert account.row("n0").state is NodeStatus.READY
    (said,) = account.said
    assert said.startswith("node n0 works in part: some of its slots take no trials: GPU 3")


def test_status_document_lists_nodes_as_plain_data(make_bench):
    import json

    bench = make_bench(run_cap=2)
    final = bench.driver().run()
    (row,) = json.loads(json.dumps(status_document(final)))["nodes"]
    assert row["node"] == "sim-0"
    assert row["state"] == "ready"
    assert {"reason", "since", "retry_at", "drains_at", "failures", "speed", "refusals"} < set(row)


def test_trials_of_a_slow_node_are_marked_where_it_may_work(make_bench):
    bench = make_bench(run_cap=8, method="random")
    nodes = Nodes(bench, bad={}, count=2)
    infos = [NodeInfo(name="sim-0", speed=1.0), NodeInfo(name="sim-1", speed=0.85)]
    nodes.launcher.nodes = lambda: infos
    bench.driver(launcher=nodes.launcher).run()
    marks = {(r.node, r.node_speed, r.reason) for r in bench.study().records() if r.attempts}
    slow = "ran on a slow node: 85% of the others' tokens per second"
    assert marks == {("sim-0", 1.0, ""), ("sim-1", 0.85, slow)}

"""Slots and runs without Ray."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from pgolf_sweep.core.paths import TrialPaths
from pgolf_sweep.core.trial import EndCause, Limits, Resources, TrialSpec
from pgolf_sweep.launch.base import Job
from pgolf_sweep.launch.ray.cluster import Node
from pgolf_sweep.launch.ray.slots import Live, Slot, nodes_by_slots
from pgolf_sweep.nodes.compare import no_answer
from pgolf_sweep.nodes.info import NodeState
from pgolf_sweep.script.logs.tail import TAIL_BYTES

if TYPE_CHECKING:
    from pathlib import Path


def slot_on(name: str, *, draining: bool = False, up: bool = True) -> Slot:
    node = Node(id=name, name=name, gpus=1, cpus=1, draining=draining)
    made = Slot(node, actor=None, ready=None, hold=None)
    made.up = up
    return made


@pytest.fixture
def live(tmp_path: Path) -> Live:
    """A run whose folder is there."""
    spec = TrialSpec(
        study="s",
        number=0,
        knobs={},
        env={},
        program_name="train_gpt.py",
        program_sha256="0",
        resources=Resources(gpus=0, cpus=1.0),
        limits=Limits(total_seconds=30, silent_seconds=30),
        proposer="test",
    )
    return Live(Job(key="0", attempt=1, spec=spec, files={}, folder=tmp_path / "trial"), "0.1.0")


def test_node_is_ready_if_one_of_its_slots_is_and_tells_why_others_are_not():
    refused, alone = slot_on("a"), slot_on("b")
    refused.refusals = alone.refusals = (no_answer("a", 1.0),)
    slots = [refused, slot_on("a"), alone, slot_on("c", up=False), slot_on("d", draining=True)]
    gone = Node(id="e", name="e", gpus=1, cpus=1, draining=True, drains_at=5.0)
    rows = {row.name: row for row in nodes_by_slots(slots, [gone])}
    assert {name: row.state for name, row in rows.items()} == {
        "a": NodeState.READY,
        "b": NodeState.REFUSED,
        "c": NodeState.CHECKING,
        "d": NodeState.DRAINING,
        "e": NodeState.DRAINING,
    }
    assert rows["a"].refusals == refused.refusals
    assert rows["e"].drains_at == 5.0


def test_worker_that_starts_owes_no_answer_and_one_that_runs_owes_the_older_of_two(live):
    slot, now = slot_on("a", up=False), time.monotonic()
    slot.held_at = now - 50.0
    assert slot.silent_seconds(now) == 0.0
    slot.up, slot.live, live.asked_at = True, live, now - 70.0
    assert slot.silent_seconds(now) == pytest.approx(70.0)
    slot.extend_lease(60.0)
    assert slot.silent_seconds(now) == pytest.approx(10.0)
    live.finish_log()


def test_lost_run_keeps_the_tail_of_what_it_printed(live):
    slot = slot_on("a")
    slot.live = live
    assert live.append_log(b"first\n" + b"x" * TAIL_BYTES + b"\nlast\n")
    ended = slot.vacate(live, slot.lost("its node is gone"))
    assert ended.end.cause is EndCause.LOST
    assert ended.end.detail == "its node is gone"
    assert ended.end.log_tail[-1] == "last"
    assert "first" not in ended.end.log_tail
    assert slot.takes_jobs
    assert TrialPaths(live.job.folder).log.read_bytes().startswith(b"first\n")


def test_run_is_given_up_a_minute_after_its_limit_or_its_cancelling_whatever_is_heard(live):
    limit = live.held_from + 30.0
    assert live.overdue(limit + 59.0) == ""
    assert live.overdue(limit + 61.0) == "the run has not ended 60 s after its time limit"
    live.held_from = live.due_at = 0.0  # it waited long to be started
    live.note_started()
    assert live.overdue(time.monotonic() + 89.0) == ""
    live.note_cancelled()
    assert live.overdue(time.monotonic() + 59.0) == ""
    said = "the run has not ended 60 s after it was cancelled"
    assert live.overdue(time.monotonic() + 61.0) == said
    slot = slot_on("a")
    slot.live = live
    slot.extend_lease(60.0)  # the driver slept: the end may lie in a socket
    assert live.overdue(time.monotonic() + 61.0) == ""
    live.finish_log()


def test_call_that_starts_a_run_is_waited_for_until_it_is_answered(live):
    slot = slot_on("a")
    slot.answered, slot.live = True, live
    live.ref, live.order = "poll", "start"
    assert list(slot.unanswered()) == [None, "poll", "start"]
    live.order = None
    assert list(slot.unanswered()) == [None, "poll"]
    live.finish_log()


def test_run_whose_node_is_taken_away_was_not_lost_by_its_own_fault(live):
    slot = slot_on("a", draining=True)
    slot.live = live
    assert slot.vacate(live, slot.lost("gone")).end.cause is EndCause.PREEMPTED
    assert not slot.takes_jobs

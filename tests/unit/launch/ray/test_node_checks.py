"""Node checks over time, with nodes that do not answer."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pgolf_sweep.config.types import NodesBlock
from pgolf_sweep.launch.ray import node_checks
from pgolf_sweep.launch.ray.cluster import Node
from pgolf_sweep.launch.ray.node_checks import Checks
from pgolf_sweep.launch.ray.slots import Slot
from pgolf_sweep.nodes.check import CheckOrder, NodeReport
from pgolf_sweep.nodes.compare import NodeComparison, check_failed


class Actor:
    """Counts how often it is asked; each question is its number."""

    def __init__(self) -> None:
        self.asked = 0
        self.check = self

    def options(self, **_options: Any) -> Actor:
        return self

    def remote(self, _order: CheckOrder) -> int:
        self.asked += 1
        return self.asked


def slot_on(name: str) -> Slot:
    return Slot(Node(id=name, name=name, gpus=0, cpus=1), Actor(), ready=None, hold=None)


def sound(name: str) -> NodeReport:
    now = time.time()
    return NodeReport(
        node=name, began_at=now, ended_at=now, faults=(), compared={}, tokens_per_second=None
    )


@pytest.fixture
def checks() -> Checks:
    return Checks(NodeComparison(CheckOrder(gpus=0), NodesBlock()))


def test_node_whose_check_hangs_is_refused_and_asked_again_and_taken_once_it_answers(
    checks: Checks, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = slot_on("a")
    checks.begin(slot)
    monkeypatch.setattr(node_checks, "CHECK_SECONDS", 0.0)
    checks.again([slot])
    assert [refusal.what for refusal in slot.refusals] == ["the node check does not end"]
    assert not checks.hears(slot, 1), "a late answer is that of another time"
    assert 29.0 < slot.check_at - time.monotonic() <= 30.0
    checks.again([slot])
    assert slot.actor.asked == 1
    slot.check_at = 0.0
    checks.again([slot])
    assert slot.actor.asked == 2
    checks.judge(slot, sound("a"), [slot])
    assert slot.takes_jobs


def test_node_on_which_the_check_breaks_stays_refused_whatever_others_answer(
    checks: Checks,
) -> None:
    broken, other = slot_on("a"), slot_on("b")
    for slot in (broken, other):
        checks.begin(slot)
        checks.judge(slot, sound(slot.node.name), [broken, other])
    checks.begin(broken)
    checks.refuse(broken, check_failed("a", "OSError(5, 'Input/output error')"))
    checks.judge(other, sound("b"), [broken, other])
    assert not broken.takes_jobs
    assert broken.refusals[0].got == "OSError(5, 'Input/output error')"
    assert other.takes_jobs

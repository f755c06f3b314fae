"""Slots on a cluster of which others hold a part, without Ray."""

from __future__ import annotations

import pytest

from pgolf_sweep.core.trial import Resources
from pgolf_sweep.launch.ray.cluster import Node
from pgolf_sweep.launch.ray.placement import LONGEST_MOVE_SECONDS, MOVE_SECONDS, Placement
from pgolf_sweep.launch.ray.slots import Slot

ONE_GPU = Resources(gpus=1, cpus=1.0)


def node(name: str, free: float | None, *, gpus: float = 2) -> Node:
    """A node of two GPUs, some of them free."""
    return Node(id=name, name=name, gpus=gpus, cpus=8, free_gpus=free, free_cpus=8)


def slot(on: Node, *, answered: bool, waited: float = 0.0) -> Slot:
    made = Slot(on, actor=None, ready=None, hold=None)
    made.answered = answered
    made.held_at -= waited
    return made


def names(nodes: list[Node]) -> list[str]:
    return [one.name for one in nodes]


def test_nodes_with_room_come_first_and_the_limit_holds() -> None:
    nodes = [node("full", 0), node("half", 1), node("empty", 2)]
    assert names(Placement(ONE_GPU, 2).further(nodes, [])) == ["half", "empty"]
    assert names(Placement(ONE_GPU, 4).further(nodes, [])) == ["half", "empty", "empty", "full"]
    assert len(Placement(ONE_GPU, None).further(nodes, [])) == 6


def test_slot_that_waits_takes_the_room_it_waits_for() -> None:
    nodes = [node("a", 1), node("b", 2)]
    waiting = [slot(nodes[0], answered=False)]
    assert names(Placement(ONE_GPU, 2).further(nodes, waiting)) == ["b"]


def test_node_that_says_nothing_of_itself_has_room_for_all() -> None:
    assert names(Placement(ONE_GPU, None).further([node("a", None)], [])) == ["a", "a"]


@pytest.mark.parametrize(
    ("limit", "answered", "waited", "other_free", "moves"),
    [
        (1, False, MOVE_SECONDS + 1, 1, True),
        (1, False, MOVE_SECONDS / 2, 1, False),  # it may be starting
        (1, True, MOVE_SECONDS + 1, 1, False),  # it holds what makes the node full
        (1, False, MOVE_SECONDS + 1, 0, False),  # nowhere is room
        (None, False, MOVE_SECONDS + 1, 1, False),
    ],
)
def test_slot_on_a_full_node_is_moved_to_room_elsewhere(
    *, limit: int | None, answered: bool, waited: float, other_free: int, moves: bool
) -> None:
    nodes = {"full": node("full", 0), "other": node("other", other_free)}
    one = slot(nodes["full"], answered=answered, waited=waited)
    found = Placement(ONE_GPU, limit).misplaced(nodes, [one])
    assert found is (one if moves else None)


def test_each_move_is_waited_for_longer() -> None:
    nodes = {"full": node("full", 0), "other": node("other", 1)}
    placement = Placement(ONE_GPU, 1)
    one = slot(nodes["full"], answered=False, waited=1.5 * MOVE_SECONDS)
    assert placement.misplaced(nodes, [one]) is one
    assert placement.misplaced(nodes, [one]) is None
    one.held_at -= LONGEST_MOVE_SECONDS
    assert placement.misplaced(nodes, [one]) is one

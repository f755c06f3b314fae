"""On which nodes a launcher's slots go where others hold a part of the cluster."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pgolf_sweep.core.backoff import backoff

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pgolf_sweep.core.trial import Resources
    from pgolf_sweep.launch.ray.cluster import Node
    from pgolf_sweep.launch.ray.slots import Slot

MOVE_SECONDS = 20.0
"""For a worker to come up before its slot is moved; a loaded machine needs as long to start one."""
LONGEST_MOVE_SECONDS = 300.0


class Placement:
    """Chooses nodes for slots, and says which slots wait where nothing will become free.

    Args:
        resources: What one trial occupies.
        limit: At most that many slots, or None for as many as the cluster has room for.
    """

    def __init__(self, resources: Resources, limit: int | None) -> None:
        self._resources = resources
        self._limit = limit
        self._moves = 0

    def further(self, nodes: Iterable[Node], slots: Sequence[Slot]) -> list[Node]:
        """The nodes of the slots that are missing, one for each; those with room come first."""
        with_room: list[Node] = []
        without: list[Node] = []
        for node in nodes:
            spare, room = self._spare(node, slots), self._room(node, slots)
            with_room += [node] * room
            without += [node] * (spare - room)
        missing = None if self._limit is None else max(0, self._limit - len(slots))
        return [*with_room, *without][:missing]

    def misplaced(self, nodes: Mapping[str, Node], slots: Sequence[Slot]) -> Slot | None:
        """A slot whose worker waits on a full node while another node has room.

        Without a limit there is none: each node has all its slots then, and they wait.
        """
        if self._limit is None or not any(self._room(node, slots) for node in nodes.values()):
            return None
        made_before = time.monotonic() - backoff(
            MOVE_SECONDS, self._moves, most=LONGEST_MOVE_SECONDS
        )
        for slot in slots:
            node = nodes.get(slot.node.id)
            full = node is not None and not node.room(self._resources)
            if full and not slot.answered and slot.held_at < made_before:
                self._moves += 1
                return slot
        return None

    def full(self, nodes: Iterable[Node]) -> bool:
        """Whether no node has room for a trial now."""
        return not any(node.room(self._resources) for node in nodes)

    def _spare(self, node: Node, slots: Sequence[Slot]) -> int:
        """How many more slots a node could hold if nobody else were there."""
        held = sum(slot.node.id == node.id for slot in slots)
        return max(0, node.capacity(self._resources) - held)

    def _room(self, node: Node, slots: Sequence[Slot]) -> int:
        """How many more it has room for now, beside what waits for it already."""
        waiting = sum(slot.node.id == node.id and not slot.answered for slot in slots)
        return min(self._spare(node, slots), max(0, node.room(self._resources) - waiting))

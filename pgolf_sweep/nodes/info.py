"""A node as its launcher sees it, and why it is refused."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgolf_sweep.core.errors import Finding


class NodeState(StrEnum):
    """What a launcher makes of a node."""

    READY = "ready"
    CHECKING = "checking"
    """It is looked at before its first trial."""
    REFUSED = "refused"
    """It was looked at and takes no trials; it is looked at again at `NodeInfo.retry_at`."""
    DRAINING = "draining"
    """It will be taken away: what runs there may go on until `NodeInfo.drains_at`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """One node as its launcher sees it. Times are epoch seconds.

    Attributes:
        name: As `SlotInfo.node` names it.
        refusals: Why it is refused; of a node that is ready, why some of its slots are.
        retry_at: When a refused node is looked at again.
        drains_at: When a draining node goes, or None if nobody said.
        speed: Its tokens per second as a share of the other nodes' median, where measured.
        lacks: Packages of codecs that are not installed there.
    """

    name: str
    state: NodeState = NodeState.READY
    refusals: tuple[Finding, ...] = ()
    retry_at: float | None = None
    drains_at: float | None = None
    speed: float | None = None
    lacks: tuple[str, ...] = ()

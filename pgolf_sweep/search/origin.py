"""Where an enqueued trial comes from, as the study stores it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.record import former_origin
from pgolf_sweep.core.trial import Change

if TYPE_CHECKING:
    from collections.abc import Mapping

PROPOSER = "proposer"
RUNG = "rung"
_REQUEST, _EXPORT, _REPAIR = "key", "export_of", "repair_of"
"""User attributes of a trial."""

PRIOR = "prior"
"""Attribute of a study: answers and scores, less is better, of trials under another program."""

NO_CHANGE = Change()


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who wants a trial and why; origins are equal where a second trial would be the same one.

    Attributes:
        proposer: Its name for people; not compared.
        request: Name of the request that asks for it, which is never parsed: a `ProposalRequest`'s
            id, or an anchor's key.
        export_of: The trial whose weights it stores smaller.
        repair_of: The trial over the cap that it replaces.
        change: Program, parent, idea and seed; not compared.
        rung: Number of the cheaper rung that it runs on; None for the sweep's own; not compared.
    """

    proposer: str = field(compare=False)
    request: str | None = None
    export_of: int | None = None
    repair_of: int | None = None
    change: Change = field(default=NO_CHANGE, compare=False)
    rung: int | None = field(default=None, compare=False)

    @classmethod
    def export(cls, number: int, change: Change = NO_CHANGE) -> Origin:
        """That of a trial's smaller artifact."""
        return cls(proposer=f"export of {number}", export_of=number, change=change)

    @classmethod
    def repair(cls, number: int, change: Change = NO_CHANGE, *, rung: int | None = None) -> Origin:
        """That of what fits instead of a trial."""
        return cls(proposer=f"repair of {number}", repair_of=number, change=change, rung=rung)

    @classmethod
    def advance(cls, number: int, *, rung: int | None) -> Origin:
        """That of a trial which runs on the next rung what another one ran."""
        key = f"advance of {number}"
        return cls(proposer=key, request=key, rung=rung)

    @classmethod
    def read(cls, attributes: Mapping[str, Any], *, sampler: str = "") -> Origin:
        """Inverse of `attributes`; `sampler` proposes what nobody enqueued.

        Up to version 0.1 the request's attribute held the text "export of 7", too.
        """
        request = attributes.get(_REQUEST)
        former = former_origin(request or "")
        return cls(
            proposer=str(attributes.get(PROPOSER, sampler)),
            request=None if former else request,
            export_of=attributes.get(_EXPORT, former.get("export_of")),
            repair_of=attributes.get(_REPAIR, former.get("repair_of")),
            change=Change.from_json(attributes),
            rung=attributes.get(RUNG),
        )

    def attributes(self) -> dict[str, Any]:
        """User attributes for a trial."""
        values = {
            _REQUEST: self.request,
            _EXPORT: self.export_of,
            _REPAIR: self.repair_of,
            RUNG: self.rung,
        }
        known = {name: value for name, value in values.items() if value is not None}
        return {PROPOSER: self.proposer, **known, **self.change.to_json()}

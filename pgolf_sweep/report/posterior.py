"""The columns of a trial's posterior."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgolf_sweep.core.record import Posterior

POSTERIOR = ("posterior_bpb", "posterior_low", "posterior_high", "tied_with_best")


def posterior_row(posterior: Posterior | None) -> dict[str, Any]:
    """What the row of a trial says of its posterior; None: too few have completed."""
    if posterior is None:
        return dict.fromkeys(POSTERIOR)
    values = (posterior.mean, posterior.low, posterior.high, posterior.tied)
    return dict(zip(POSTERIOR, values, strict=True))

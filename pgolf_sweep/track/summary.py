"""The summary of a trial's end for its W&B run, as plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgolf_sweep.core.classify import artifact_bytes, classify
from pgolf_sweep.core.record import SCORE
from pgolf_sweep.core.trial import Completed, EndCause, Pruned

if TYPE_CHECKING:
    from pgolf_sweep.core.trial import KnobValue, RunEnd


def final_summary(
    end: RunEnd,
    *,
    cap_bytes: int,
    last_val_bpb: float | None,
    last_step: int | None,
    metric: str = "",
    bytes_per_token: float | None = None,
) -> dict[str, KnobValue]:
    """What a run's summary says of its end; what is not known is left out.

    ``status`` is one of completed, pruned, failed, cancelled, lost. The score stands under its
    `metric`'s name, where that is not the contest's.
    """
    summary = end.summary
    outcome = classify(
        end,
        last_val_bpb=last_val_bpb,
        last_step=last_step,
        bytes_per_token=bytes_per_token,
        contest=not metric,
    )
    match outcome:
        case Completed():
            status = "completed"
        case Pruned():
            status = "pruned"
        case _ if end.cause in {EndCause.CANCELLED, EndCause.LOST, EndCause.PREEMPTED}:
            status = end.cause.value
        case _:
            status = "failed"
    total = artifact_bytes(end)
    values: dict[str, KnobValue | None] = {
        "status": status,
        "reason": outcome.reason or None,
        "end_cause": end.cause.value,
        "exit_code": end.exit_code,
        metric or SCORE: outcome.val_bpb
        if isinstance(outcome, Completed | Pruned)
        else summary.val_bpb,
        "val_loss_nats": summary.val_loss_nats,
        "artifact_bytes": total,
        "headroom_bytes": None if total is None else cap_bytes - total,
        "model_bytes": summary.model_bytes or end.model_file_bytes,
        "code_bytes": summary.code_bytes,
        "train_seconds": summary.train_seconds,
        "slot_seconds": end.slot_seconds,
        "steps": summary.steps,
        "node": end.node,
    }
    return {name: value for name, value in values.items() if value is not None}

from __future__ import annotations

import pytest

from pgolf_sweep.core.trial import EndCause, LogSummary
from pgolf_sweep.track.summary import final_summary


def summary_of(end):
    return final_summary(end, cap_bytes=300_000, last_val_bpb=3.1, last_step=40)


def test_pruned_run_keeps_its_last_score_and_is_no_failure(make_end):
    end = make_end(LogSummary(), cause=EndCause.PRUNED, detail="pruned at step 40")
    found = summary_of(end)
    assert (found["status"], found["val_bpb"]) == ("pruned", 3.1)


@pytest.mark.parametrize(
    ("cause", "status"),
    [
        (EndCause.CANCELLED, "cancelled"),
        (EndCause.LOST, "lost"),
        (EndCause.TIMEOUT, "failed"),
        (EndCause.SILENT, "failed"),
        (EndCause.SETUP, "failed"),
        (EndCause.SIGNALED, "failed"),
    ],
)
def test_every_cause_has_a_status(make_end, cause, status):
    found = summary_of(make_end(LogSummary(), cause=cause, exit_code=None, detail="why"))
    assert found["status"] == status
    assert "exit_code" not in found


def test_headroom_is_negative_over_the_cap(make_end):
    found = summary_of(make_end(LogSummary(val_bpb=2.0, total_bytes=300_001)))
    assert found["headroom_bytes"] == -1

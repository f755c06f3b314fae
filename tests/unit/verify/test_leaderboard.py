from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pgolf_sweep.config.rules import Record
from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.submission.folder import read_folder
from pgolf_sweep.verify.leaderboard import Row, in_order, study_row, submission_row

if TYPE_CHECKING:
    from support.promotions import Bench


def row(name: str, **values: Any) -> Row:
    given = {
        "kind": "submission", "rules": "demo", "val_bpb": 1.2, "std": None, "seeds": 1,
        "p_value": None, "artifact_bytes": 1, "headroom_bytes": 1, "verified": True,
        "broken": (), "where": Path(), **values,
    }  # fmt: skip
    return Row(name=name, **given)


def test_best_comes_first_and_broken_rules_last() -> None:
    rows = [
        row("none", val_bpb=None),
        row("broken", val_bpb=1.0, verified=False),
        row("good", val_bpb=1.2),
        row("search", val_bpb=1.1, verified=None),
    ]
    assert [r.name for r in in_order(rows)] == ["search", "good", "broken", "none"]


def test_submission_row_carries_its_evidence(bench: Bench) -> None:
    done = bench.promote(bench.plan(seeds=3))
    record = Record(val_bpb=1.21, val_loss_nats=1.21 / 0.59226, source="a table", date="2026-04-01")
    found = submission_row(done.folder, replace(bench.rules, record=record, margin_nats=0.005))
    assert found.val_bpb == pytest.approx(done.val_bpb)
    assert found.std == pytest.approx(done.std)
    assert (found.seeds, found.verified, found.detail) == (3, True, "Ada")
    assert found.artifact_bytes == done.artifact_bytes
    assert found.p_value is not None
    assert found.p_value < 0.01
    other = replace(record, val_loss_nats=3.0)
    assert submission_row(done.folder, replace(bench.rules, record=other)).p_value is None


def test_broken_rules_are_named(bench: Bench) -> None:
    done = bench.promote()
    found = submission_row(done.folder, replace(bench.rules, artifact_cap_bytes=1000))
    assert not found.verified
    assert {"artifact", "logged_artifact"} <= set(found.broken)
    assert found.headroom_bytes == 1000 - done.artifact_bytes


def test_study_row_is_the_best_trial_that_fits(bench: Bench) -> None:
    records = [
        TrialRecord(number=n, outcome=State.COMPLETED, knobs={}, val_bpb=bpb, artifact_bytes=size,
                    headroom_bytes=300_000 - size, proposer="tpe")
        for n, (bpb, size) in enumerate([(1.3, 100), (1.1, 300_001), (1.2, 300_000)])
    ]  # fmt: skip
    found = study_row("toy", Path(), records, bench.rules)
    assert (found.val_bpb, found.headroom_bytes, found.verified) == (1.2, 0, None)
    assert found.detail == "trial 2 of 3, by tpe"
    assert study_row("toy", Path(), records[1:2], bench.rules).val_bpb is None


def test_a_log_that_goes_on_is_read_where_the_others_end(bench: Bench) -> None:
    folder = bench.promote(bench.plan(seeds=3)).folder
    log = next(folder.glob("*.log"))
    text = log.read_text()
    log.write_text(text + "final_int8_ttt val_loss:3.20805052 val_bpb:1.90000000 eval_time:9ms\n")
    odd = [one for one in read_folder(folder).logs if one.read_at is not None]
    assert [(one.name, one.last_bpb) for one in odd] == [(log.name, 1.9)]
    assert odd[0].summary.val_bpb == pytest.approx(1.2, abs=0.01)
    found = submission_row(folder, bench.rules)
    assert found.verified

"""How well the cheaper rungs rank."""

from __future__ import annotations

import random

import pytest

from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.report.rungs import rung_lines, rungs_document
from pgolf_sweep.report.search import search_document, search_lines


def study(short, whole, *, left=4):
    """Trials by functions of two knobs; the last few ran on the cheaper rung alone."""
    draw = random.Random(0)
    rows = []
    for number in range(16):
        knobs = {"MATRIX_LR": draw.random(), "DEPTH": number % 5, "SEED": 7}
        lr, depth = knobs["MATRIX_LR"], knobs["DEPTH"]
        row = {"knobs": knobs, "slot_seconds": 60.0}
        cheap = TrialRecord(
            number=number, outcome=State.SCREENED, val_bpb=short(lr, depth), rung=1, **row
        )
        rows.append(cheap)
        if number < 16 - left:
            score = whole(lr, depth)
            rows.append(
                TrialRecord(number=50 + number, outcome=State.COMPLETED, val_bpb=score, **row)
            )
    return rows


def test_a_faithful_rung_agrees_and_flips_nothing() -> None:
    rows = study(lambda lr, depth: lr + depth, lambda lr, depth: 1.5 * (lr + depth) - 0.5)
    (one,) = rungs_document(rows)["rungs"]
    assert (one["screened"], one["pairs"], one["slot_seconds"]) == (16, 12, 960)
    assert one["tau"] == pytest.approx(1)
    assert one["tau_low"] > 0.9
    assert one["flips"] == []
    (line,) = rung_lines([one])
    assert "of 12 that ran on the sweep's own rung the order agrees by tau 1.00" in line
    assert "misranks" not in line


def test_a_rung_that_likes_high_rates_is_named_with_the_knob() -> None:
    rows = study(lambda lr, depth: -2 * lr + depth / 10, lambda lr, depth: 2 * lr + depth / 10)
    (one,) = rungs_document(rows)["rungs"]
    assert one["tau"] < 0
    assert [(flip["knob"], flip["looks_too_good"]) for flip in one["flips"]] == [
        ("MATRIX_LR", "high")
    ]
    (line,) = search_lines(search_document(rows))[-1:]
    assert "it misranks; it makes high MATRIX_LR look better" in line


def test_few_pairs_say_nothing_of_the_order() -> None:
    rows = study(lambda lr, depth: lr, lambda lr, depth: lr, left=13)
    (one,) = rungs_document(rows)["rungs"]
    assert (one["pairs"], one["tau"], one["flips"]) == (3, None, [])
    assert "3 ran on the sweep's own rung, too few" in rung_lines([one])[0]


def test_a_study_without_rungs_has_no_key_of_them() -> None:
    rows = [row for row in study(lambda *_: 1.0, lambda *_: 1.0) if row.rung is None]
    assert rungs_document(rows) == {}
    assert "rungs" not in search_document(rows)

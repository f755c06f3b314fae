from __future__ import annotations

import pytest

from pgolf_sweep.core.trial import Interval, Verdict, VerdictKind
from pgolf_sweep.gate.repair import nearest_values, repair
from pgolf_sweep.space.domains import Choices, Range


def verdict(knobs):
    """Width times bits against a cap of 1000."""
    size = knobs["WIDTH"] * knobs["BITS"]
    kind = VerdictKind.FITS if size <= 1000 else VerdictKind.TOO_BIG
    return Verdict(
        kind=kind, reason="", code_bytes=0, cap_bytes=1000, confidence=0.99, regime="test",
        artifact_bytes=Interval(low=size, mid=size, high=size),
    )  # fmt: skip


def test_the_nearest_value_that_fits_is_taken():
    assert repair(verdict, {"WIDTH": 160, "BITS": 8}, {"BITS": [7, 6, 5, 4]}) == {
        "WIDTH": 160,
        "BITS": 6,
    }


def test_a_second_knob_gives_where_the_first_is_not_enough():
    fixed = repair(
        verdict, {"WIDTH": 300, "BITS": 8}, {"BITS": [7, 6, 5], "WIDTH": [250, 200, 150]}
    )
    assert fixed == {"WIDTH": 200, "BITS": 5}


def test_what_cannot_fit_is_not_repaired():
    assert repair(verdict, {"WIDTH": 300, "BITS": 8}, {"BITS": [7, 6]}) is None
    assert repair(verdict, {"WIDTH": 300, "BITS": 8}, {}) is None


def test_values_come_from_the_parameter_nearest_first():
    assert nearest_values(Choices((4, 5, 6, 8)), 6) == [5, 4, 8]
    found = nearest_values(Range(low=0.0, high=1.0, log=False), 0.5)
    assert found[:2] == pytest.approx([0.49, 0.51])
    assert min(found) < 0.01
    assert max(found) > 0.99
    assert all(0 <= value <= 1 for value in found)

"""Waits double up to a limit, however often a try was in vain."""

from __future__ import annotations

from pgolf_sweep.core.backoff import backoff


def test_waits_double_up_to_the_limit():
    assert [backoff(15.0, tries, most=100.0) for tries in range(5)] == [15, 30, 60, 100, 100]


def test_a_node_that_is_refused_for_weeks_is_waited_for_still():
    assert backoff(15.0, 1_000_000, most=300.0) == 300.0

"""Comparison across nodes."""

from __future__ import annotations

import pytest

from pgolf_sweep.config.types import NodesBlock
from pgolf_sweep.core.errors import Finding
from pgolf_sweep.nodes.check import CheckOrder, NodeReport
from pgolf_sweep.nodes.compare import CLOCK_SECONDS, NodeComparison, unfit

ALIKE = {"Python": "3.11.7", "torch": "2.13.0+cu128", "NVIDIA driver": "550.90", "GPU": "H100"}


def report(node, *, tokens=None, faults=(), began=1000.0, ended=1001.0, **compared):
    named = {key.replace("_", " "): value for key, value in compared.items()}
    return NodeReport(
        node=node,
        began_at=began,
        ended_at=ended,
        faults=faults,
        compared=ALIKE | named,
        tokens_per_second=tokens,
    )


def comparison_of(*reports, **rules):
    made = NodeComparison(CheckOrder(gpus=8, speed=True), NodesBlock(**rules))
    for one in reports:
        made.take(one.node, one, sent_at=1000.0, received_at=1001.0)
    return made


def whats(comparison, node):
    return [refusal.what for refusal in comparison.refusals(node)]


def test_equal_nodes_are_all_fit_and_one_that_has_not_answered_is_not_refused():
    comparison = comparison_of(report("a"), report("b"), report("c"))
    assert [whats(comparison, name) for name in "abcd"] == [[], [], [], []]


@pytest.mark.parametrize("name", list(ALIKE))
def test_odd_one_out_is_refused_even_if_it_came_first(name):
    odd = report("odd", **{name.replace(" ", "_"): "other"})
    comparison = comparison_of(odd, report("b"))
    assert whats(comparison, "odd") == [], "of two the first stands"
    assert whats(comparison, "b") == [f"{name} differs from other nodes'"]
    comparison.take("c", report("c"), sent_at=1000.0, received_at=1001.0)
    assert whats(comparison, "odd") == [f"{name} differs from other nodes'"]
    assert whats(comparison, "b") == whats(comparison, "c") == []
    (refusal,) = comparison.refusals("odd")
    assert (refusal.got, refusal.where) == ("other", "odd")
    assert "as 2 of 3 workers have" in refusal.expected


def test_node_without_a_driver_among_nodes_that_have_one_is_refused():
    comparison = comparison_of(report("a"), report("b"), report("c", NVIDIA_driver="none"))
    assert whats(comparison, "c") == ["NVIDIA driver differs from other nodes'"]


def test_one_shard_instead_of_80_is_refused():
    shards = {"training_shards": "80 of 16000000000 bytes"}
    few = {"training_shards": "1 of 200000000 bytes"}
    comparison = comparison_of(report("a", **shards), report("b", **shards), report("c", **few))
    assert whats(comparison, "c") == ["training shards differs from other nodes'"]


@pytest.mark.parametrize(("slowest", "refused"), [(0.85, True), (0.91, False), (1.3, False)])
def test_node_slower_than_the_median_of_the_others_is_refused(slowest, refused):
    comparison = comparison_of(
        report("a", tokens=1.00e6), report("b", tokens=0.99e6), report("c", tokens=slowest * 1e6)
    )
    assert comparison.speed("c") == pytest.approx(slowest / 0.99)
    assert bool(whats(comparison, "c")) == refused
    assert whats(comparison, "a") == whats(comparison, "b") == []


def test_slow_node_may_be_marked_instead():
    comparison = comparison_of(report("a", tokens=1e6), report("b", tokens=0.85e6), speed="mark")
    assert whats(comparison, "b") == []
    assert comparison.speed("b") == pytest.approx(0.85)


def test_lone_node_is_compared_with_nobody():
    comparison = comparison_of(report("a", tokens=1e6))
    assert comparison.speed("a") is None
    assert whats(comparison, "a") == []


@pytest.mark.parametrize(
    ("began", "ended", "got"),
    [
        (1000 + 60, 1001 + 60, "60 s ahead of the driver's"),
        (1000 - 60, 1001 - 60, "60 s behind the driver's"),
        (1000 + CLOCK_SECONDS - 1, 1001 + CLOCK_SECONDS - 1, None),
        (1000 - CLOCK_SECONDS + 1, 1001 - CLOCK_SECONDS + 1, None),
    ],
)
def test_clock_is_judged_by_question_and_answer(began, ended, got):
    (*found,) = comparison_of(report("a", began=began, ended=ended)).refusals("a")
    assert [refusal.got for refusal in found] == ([got] if got else [])


def test_slow_answer_is_no_wrong_clock():
    made = NodeComparison(CheckOrder(gpus=8), NodesBlock())
    made.take("a", report("a", began=1050, ended=1051), sent_at=1000.0, received_at=1100.0)
    assert made.refusals("a") == ()


def test_node_that_left_counts_no_more():
    comparison = comparison_of(report("a"), report("b", torch="2.14"), report("c", torch="2.14"))
    assert whats(comparison, "a")
    comparison.forget("b")
    comparison.forget("c")
    assert whats(comparison, "a") == []


def test_error_of_an_unfit_cluster_names_every_node_and_its_fault():
    refusals = [
        Finding(what="w1", where="n1", got="g1", expected="e1", next_step="s1"),
        Finding(what="w2", where="n2", got="g2", expected="e2", next_step="s2"),
    ]
    text = str(unfit(refusals))
    assert unfit(refusals).exit_code == 3
    assert "n1: w1 (g1); n2: w2 (g2)" in text
    assert "s1" in text
    assert "check: false" in text

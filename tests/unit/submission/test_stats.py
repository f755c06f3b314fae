from __future__ import annotations

import pytest

from pgolf_sweep.config.rules import Record
from pgolf_sweep.core.errors import PromotionError
from pgolf_sweep.submission.stats import compare, same_yardstick, sample, seeds_needed

# Source: t table, t(0.975, 2) = 4.3027.
RECORD = Record(val_bpb=1.2, val_loss_nats=2.0, source="table", date="2026-01-01")
LOSSES = (1.990, 1.992, 1.988)


def test_sample_matches_a_computation_by_hand() -> None:
    ours = sample([1.0, 2.0, 3.0])
    assert (ours.mean, ours.std) == (2.0, 1.0)
    assert ours.high == pytest.approx(2 + 4.302653 / 3**0.5, rel=1e-6)
    assert ours.low == pytest.approx(2 - 4.302653 / 3**0.5, rel=1e-6)


def test_one_seed_has_no_spread_and_no_p() -> None:
    assert sample([2.0]).std is None
    with pytest.raises(PromotionError, match="no p-value"):
        compare([2.0], RECORD, 0.005)
    with pytest.raises(PromotionError, match="no finished seed"):
        sample([])


def test_one_sample_t_matches_the_distribution_in_closed_form() -> None:
    # Two degrees of freedom have a closed form: P(T > t) = 1/2 - t / (2 sqrt(2 + t^2)).
    result = compare(LOSSES, RECORD, 0.005)
    t = 0.005 / (0.002 / 3**0.5)
    assert result.method == "one-sample t"
    assert result.improvement_nats == pytest.approx(0.01)
    assert result.p_value == pytest.approx(0.5 - t / (2 * (2 + t * t) ** 0.5), rel=1e-6)


def test_welch_matches_scipy() -> None:
    from scipy import stats

    record = Record(
        val_bpb=1.2,
        val_loss_nats=2.0,
        seed_losses_nats=(2.001, 1.998, 2.0015, 1.9995),
        source="table",
        date="2026-01-01",
    )
    expected = stats.ttest_ind(LOSSES, record.seed_losses_nats, equal_var=False, alternative="less")
    result = compare(LOSSES, record, 0.0)
    assert result.method == "Welch"
    assert result.p_value == pytest.approx(expected.pvalue, rel=1e-9)


def test_a_worse_candidate_has_p_above_half() -> None:
    assert compare([2.1, 2.11, 2.09], RECORD, 0.0).p_value > 0.99
    assert seeds_needed([2.1, 2.11, 2.09], RECORD, 0.0, 0.01) is None


def test_seeds_without_spread_are_certain() -> None:
    assert compare([1.9, 1.9], RECORD, 0.005).p_value == 0.0
    assert compare([2.1, 2.1], RECORD, 0.005).p_value == 1.0


def test_seeds_needed_is_the_first_count_that_suffices() -> None:
    assert compare(LOSSES, RECORD, 0.005).p_value > 0.01
    assert seeds_needed(LOSSES, RECORD, 0.005, 0.01) == 4


def test_scores_of_different_tokenizers_are_told_apart() -> None:
    # sp1024 and sp8192 of the contest: 0.59226 and 0.38713 bits per byte and nat.
    sp1024 = Record(val_bpb=1.2244, val_loss_nats=2.0673, source="", date="2026-01-01")
    assert same_yardstick(1.1, 1.1 / 0.59226, sp1024)
    assert not same_yardstick(1.1, 1.1 / 0.38713, sp1024)

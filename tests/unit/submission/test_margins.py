from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pgolf_sweep.config.rules import Record, RulesError, load_record
from pgolf_sweep.core.errors import InputError, PromotionError

if TYPE_CHECKING:
    from pathlib import Path

    from support.promotions import Bench

RATIO = 0.59226


def record(val_bpb: float, ratio: float = RATIO) -> Record:
    return Record(
        val_bpb=val_bpb, val_loss_nats=val_bpb / ratio, source="a table", date="2026-04-01"
    )


def test_both_margins_stand_in_the_result_and_in_the_readme(bench: Bench) -> None:
    rules = replace(bench.rules, record=record(1.21))
    done = bench.promote(bench.plan(rules=rules, seeds=3))
    strict, frontier = done.margins
    assert (strict.name, strict.margin_nats, strict.p_limit) == ("strict", 0.005, 0.01)
    assert (frontier.name, frontier.margin_nats, frontier.p_limit) == ("frontier", 0.0, 0.25)
    assert strict.met
    assert frontier.met
    assert strict.seeds_needed is not None
    text = (done.folder / "README.md").read_text()
    assert str(strict) in text
    assert f"{strict.seeds_needed} seeds needed" in text


def test_refusal_says_both_margins_and_the_seeds_that_would_do(bench: Bench) -> None:
    # The mean is 0.0052 nats better: shown by the frontier's margin, not by the strict one.
    rules = replace(
        bench.rules, record=record(1.2 + 0.0052 * RATIO), margin_nats=0.005, p_value=1e-6
    )
    with pytest.raises(PromotionError) as caught:
        bench.promote(bench.plan(rules=rules, seeds=3))
    text = str(caught.value)
    assert "strict: " in text
    assert "frontier: shown" in text
    assert "seeds needed" in text


def test_nothing_is_compared_across_tokenizers(bench: Bench) -> None:
    rules = replace(bench.rules, record=record(1.21, 0.38713))
    with pytest.raises(PromotionError, match="another tokenizer or validation set") as caught:
        bench.promote(bench.plan(rules=rules))
    assert "strict" not in str(caught.value)


def test_record_is_data_with_a_date(tmp_path: Path) -> None:
    path = tmp_path / "record.yaml"
    path.write_text(
        "val_bpb: 1.0565\nval_loss_nats: 2.31\nsource: PR 2135\ndate: 2026-05-01\n"
        "seed_losses_nats: [2.309, 2.31, 2.311]\n"
    )
    found = load_record(path)
    assert (found.date, found.seed_losses_nats) == ("2026-05-01", (2.309, 2.31, 2.311))
    path.write_text("val_bpb: 1.0565\nval_loss_nats: 2.31\nsource: PR 2135\n")
    with pytest.raises(RulesError, match="date: missing"):
        load_record(path)
    with pytest.raises(InputError, match="no such record file"):
        load_record(tmp_path / "absent.yaml")

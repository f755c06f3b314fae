"""A prediction that nobody has checked ends no sweep; a checked one does, with a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.sweeps import build_bench

from pgolf_sweep.core.record import State
from pgolf_sweep.driver.anchors import DISCARDS_UNTIL_ANCHOR, DISCARDS_UNTIL_INFEASIBLE

if TYPE_CHECKING:
    from pathlib import Path

TOO_WIDE = "{distribution: q_uniform, min: 200, max: 256, q: 8}"


def test_discards_in_a_row_bring_the_smallest_as_an_anchor_and_then_the_end(tmp_path: Path) -> None:
    bench = build_bench(tmp_path, method="random", run_cap=10, width=TOO_WIDE)
    gate = bench.session.gate
    gate.checked = False  # type: ignore[attr-defined]
    gate.cap_bytes = 20_000
    final = bench.driver().run()
    records = bench.study().records()
    ran = [one for one in records if one.outcome is State.COMPLETED]
    assert [one.proposer for one in ran] == ["anchor"]
    before = [one for one in records if one.number < ran[0].number][:DISCARDS_UNTIL_ANCHOR]
    assert ran[0].knobs["MODEL_DIM"] == min(int(one.knobs["MODEL_DIM"]) for one in before)
    said = next(text for text in bench.watcher.messages if "anchor" in text)
    assert f"last {DISCARDS_UNTIL_ANCHOR} proposals" in said
    assert f"trial {ran[0].number}" in said
    discarded = [one for one in records if one.outcome is State.DISCARDED]
    assert len(discarded) <= 2 * DISCARDS_UNTIL_ANCHOR + DISCARDS_UNTIL_INFEASIBLE
    assert "over the cap by predictions that finished trials have checked" in final.reason
    assert "with MODEL_DIM=13 it would fit" in final.reason


def test_a_program_whose_predictions_were_checked_needs_no_anchor(tmp_path: Path) -> None:
    bench = build_bench(tmp_path, method="random", run_cap=10, width=TOO_WIDE)
    bench.session.gate.cap_bytes = 20_000
    final = bench.driver().run()
    assert {one.outcome for one in bench.study().records()} == {State.DISCARDED}
    assert f"the last {DISCARDS_UNTIL_INFEASIBLE} proposals" in final.reason


def test_a_sampler_that_only_proposes_what_is_too_big_is_given_what_fits(tmp_path: Path) -> None:
    bench = build_bench(
        tmp_path,
        method="random",
        run_cap=3,
        width="{distribution: q_uniform, min: 32, max: 256, q: 32}",
    )
    bench.session.gate.cap_bytes = 50_000  # of widths 32 to 256 only the first fits
    study = bench.study()
    for rate in range(3 * DISCARDS_UNTIL_INFEASIBLE):
        study.enqueue({"MODEL_DIM": 256, "MATRIX_LR": 0.01 + 0.0001 * rate}, by="stuck")
    final = bench.driver().run()
    ran = [one for one in bench.study().records() if one.outcome is State.COMPLETED]
    assert {one.knobs["MODEL_DIM"] for one in ran} == {32}
    assert "random" in {one.proposer for one in ran}
    assert "run_cap" in final.reason

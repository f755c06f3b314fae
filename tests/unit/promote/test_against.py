"""A promoted trial against another: both on fresh seeds, with a p that means something."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest
from support.promotions import Bench, log_text, stored

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.launch.inline import Finish
from pgolf_sweep.promote.against import FILE, against, document, keep, rival
from pgolf_sweep.promote.seeds import run_plans

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgolf_sweep.submission.evidence import SeedRun


def both(bench: Bench, worse: Sequence[float], *, seeds: int = 3) -> list[tuple[SeedRun, ...]]:
    """Runs of trial 7, and of trial 2 which is worse by that much on each of its seeds."""
    ours, theirs = bench.plan(7, seeds=seeds), bench.plan(2, seeds=seeds)
    for seed, by in zip(theirs.seeds, worse, strict=True):
        text = log_text(seed, code_bytes=len(theirs.script), val_bpb=1.2 + by)
        files = {"train.log": text.encode(), "final_model.int8.ptz": stored(200_000, seed)}
        bench.results[seed] = [Finish(files=files)]
    return run_plans(
        [(ours, bench.job), (theirs, bench.job)], launcher=bench.launcher(), clock=bench.clock
    )


def test_better_by_far_more_than_the_seeds_differ_has_a_small_p(bench: Bench) -> None:
    ours, theirs = both(bench, (0.05, 0.051, 0.052))
    other = dataclasses.replace(bench.candidate(2), proposer="baseline")
    found = against(ours, other, theirs)
    assert found is not None
    assert found.improvement_bpb == pytest.approx(0.051, abs=0.002)
    assert found.p_value is not None
    assert found.p_value < 0.001
    assert len(found.seeds) == 3
    assert not {run.seed for run in ours} & set(found.seeds), "each has seeds of its own"
    said = str(found)
    assert said.startswith("better by 0.05")
    assert "trial 2, the program's own configuration: 1.2510 +- 0.0010; p = " in said
    keep(found, bench.root)
    kept = json.loads((bench.root / FILE).read_text())
    assert kept["text"] == said
    assert document(found).items() <= kept.items()


def test_no_better_is_said_so_with_a_large_p(bench: Bench) -> None:
    ours, theirs = both(bench, (-0.01, -0.011, -0.012))
    found = against(ours, bench.candidate(2), theirs)
    assert found is not None
    assert found.p_value is not None
    assert found.p_value > 0.99
    assert str(found).startswith("worse by 0.01")


def test_one_seed_has_no_p(bench: Bench) -> None:
    ours, theirs = both(bench, (0.05,), seeds=1)
    found = against(ours, bench.candidate(2), theirs)
    assert found is not None
    assert (found.p_value, found.std) == (None, None)
    assert "no p from one seed" in str(found)


def test_seeds_that_failed_are_left_out_and_without_any_there_is_no_comparison(
    bench: Bench,
) -> None:
    ours, theirs = both(bench, (0.05, 0.06, 0.07))
    failed = dataclasses.replace(theirs[0], end=dataclasses.replace(theirs[0].end, exit_code=1))
    found = against(ours, bench.candidate(2), [failed, *theirs[1:]])
    assert found is not None
    assert len(found.seeds) == 2
    assert against(ours, bench.candidate(2), [failed]) is None


def test_rival_is_named_by_its_number_or_as_the_baseline(bench: Bench) -> None:
    first = dataclasses.replace(bench.candidate(0), proposer="baseline")
    trials = [first, bench.candidate(3)]
    assert rival(trials, "baseline") is first
    assert rival(trials, "3").number == 3
    for wrong in ("4", "tpe", ""):
        with pytest.raises(InputError, match="no completed trial to compare with"):
            rival(trials, wrong)

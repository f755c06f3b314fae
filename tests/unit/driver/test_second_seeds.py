"""Second seeds of the leading trials."""

from __future__ import annotations

import dataclasses

import pytest

from pgolf_sweep.core.record import ranked, second_seeds
from pgolf_sweep.core.spending import Spending


def with_block(bench, **changes):
    """The bench, its sweep file's block changed."""
    block = dataclasses.replace(bench.session.spec.pgolf, **changes)
    spec = dataclasses.replace(bench.session.spec, pgolf=block)
    return dataclasses.replace(bench, session=dataclasses.replace(bench.session, spec=spec))


def repeats(records):
    return [record for record in records if record.seed is not None]


@pytest.fixture
def seeded(make_bench):
    """A bench whose program reads a seed."""

    def make(**options):
        bench = make_bench(method="gp", **options)
        assert "SEED" in bench.session.program.knobs
        return bench

    return make


def test_the_last_trials_of_a_sweep_repeat_the_leaders_on_one_seed(seeded):
    bench = seeded(run_cap=24)
    bench.driver().run()
    study = bench.study()
    records = study.records()
    again = repeats(records)
    assert len(again) == 3
    (first,) = {record.knobs["SEED"] for record in records if record.seed is None}
    (pair,) = {(record.seed, record.knobs["SEED"]) for record in again}
    assert pair[0] == pair[1] != first, "one for all"
    assert (
        min(record.number for record in again)
        > max(record.number for record in records if record.seed is None and record.slot_seconds)
        - 3
    )
    best = ranked(records)[0].number
    assert best in second_seeds(records).values()
    assert all(record.parent == second_seeds(records)[record.number] for record in again)
    assert sum(record.slot_seconds > 0 for record in records) == 24
    assert not {record.number for record in ranked(records)} & {r.number for r in again}


def test_a_small_sweep_another_method_and_a_zero_repeat_nothing(seeded, make_bench):
    small = seeded(run_cap=12, name="small")
    small.driver().run()
    assert repeats(small.study().records()) == []
    random = make_bench(run_cap=24, method="random", name="random")
    random.driver().run()
    assert repeats(random.study().records()) == []
    none = with_block(seeded(run_cap=24, name="none"), second_seeds=0)
    none.driver().run()
    assert repeats(none.study().records()) == []


def test_a_sweep_file_that_asks_gets_them_from_any_sampler_and_budget(make_bench):
    bench = with_block(make_bench(run_cap=8, method="random"), second_seeds=2)
    bench.driver().run()
    assert len(repeats(bench.study().records())) == 2
    by_time = with_block(make_bench(run_cap=1000, method="random", name="t"), second_seeds=2)
    by_time.driver(spending=Spending(deadline_at=by_time.clock.now() + 60)).run()
    assert len(repeats(by_time.study().records())) == 2


def test_a_sweep_that_goes_on_repeats_only_new_leaders(seeded):
    bench = seeded(run_cap=24)
    bench.driver().run()
    before = second_seeds(bench.study().records())
    bench.driver(run_cap=27).run()
    records = bench.study().records()
    after = second_seeds(records)
    assert before.items() <= after.items()
    assert len(set(after.values())) == len(after), "no trial is repeated twice"

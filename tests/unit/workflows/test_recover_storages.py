"""A study rebuilt in each kind of database is the original: rows, ranks, and what comes next."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from support.postgres import empty_database
from support.postgres import server as server  # noqa: PLC0414 - a fixture is found by its name

from pgolf_sweep.core.record import ranked
from pgolf_sweep.search.study import open_study
from pgolf_sweep.workflows.recover import needs_recovery, recover
from pgolf_sweep.workflows.study_folder import begin_study, prepare_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.sweeps import Bench

TRIALS, LATER = 6, 9
ALL_FIT = "{values: [32, 64, 96, 128]}"


def databases(request: pytest.FixtureRequest, kind: str) -> tuple[str, str]:
    """The storage of a study, and an empty one that takes its place."""
    if kind == "postgresql":
        server = request.getfixturevalue("server")
        return empty_database(server, "first"), empty_database(server, "second")
    folder = request.getfixturevalue("tmp_path")
    return f"sqlite:///{folder}/first.db", f"sqlite:///{folder}/second.db"


def drive(bench: Bench, run_cap: int) -> list[Any]:
    with closing(bench.study()) as study:
        begin_study(bench.session, study, bench.paths.root.parent)
        bench.driver(study=study, run_cap=run_cap).run()
        return study.records()


def what_the_sampler_sees(bench: Bench) -> list[tuple[Any, ...]]:
    """Of each trial; what it draws itself is no other driver's in a database."""
    with closing(open_study(bench.session.spec, bench.paths)) as study:
        return [
            (one.params, one.state, one.values, one.constraints, one.intermediate_values)
            for one in study._study.get_trials()
        ]


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_rebuilt_study_goes_on_as_the_original_does(
    make_bench: Callable[..., Bench], request: pytest.FixtureRequest, kind: str
) -> None:
    first, second = databases(request, kind)
    bench = make_bench(run_cap=TRIALS, width=ALL_FIT)
    sweep = bench.folder / "study.yaml"
    prepare_folder(bench.session, bench.paths, sweep=sweep, data_root=bench.folder / "data")
    bench.paths.storage_url.write_text(first + "\n")
    before = drive(bench, TRIALS)
    seen = what_the_sampler_sees(bench)

    bench.paths.storage_url.write_text(second + "\n")
    assert needs_recovery(bench.session, bench.paths)
    found = recover(bench.session, bench.paths)
    assert (found.trials, found.ended, found.unknown) == (len(before), len(before), ())
    with closing(open_study(bench.session.spec, bench.paths)) as study:
        rebuilt = study.records()
    assert [row.to_json() for row in rebuilt] == [row.to_json() for row in before]
    assert [row.number for row in ranked(rebuilt)] == [row.number for row in ranked(before)]
    assert what_the_sampler_sees(bench) == seen

    goes_on = drive(bench, LATER)
    assert [row.to_json() for row in goes_on[: len(before)]] == [row.to_json() for row in before]
    assert sum(row.attempts > 0 for row in goes_on) == LATER
    assert len({row.identity for row in goes_on}) == len(goes_on)

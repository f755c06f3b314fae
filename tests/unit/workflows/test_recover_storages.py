"""A study rebuilt in each kind of database is the original: rows, ranks, and what comes next."""

from __future__ import annotations

import shutil
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

TRIALS, LATER = 12, 16
"""More than the sampler's first ten, which hang on nothing that was told."""
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
    original = bench.elsewhere("original")
    shutil.copytree(bench.paths.root, original.paths.root, dirs_exist_ok=True)

    bench.paths.storage_url.write_text(second + "\n")
    assert needs_recovery(bench.session, bench.paths)
    found = recover(bench.session, bench.paths)
    assert (found.trials, found.ended, found.unknown) == (len(before), len(before), ())
    with closing(open_study(bench.session.spec, bench.paths)) as study:
        rebuilt = study.records()
    assert [row.to_json() for row in rebuilt] == [row.to_json() for row in before]
    assert [row.number for row in ranked(rebuilt)] == [row.number for row in ranked(before)]

    gone_on, as_before = drive(bench, LATER), drive(original, LATER)
    assert sum(row.attempts > 0 for row in gone_on) == LATER
    assert [(row.number, row.knobs, row.outcome) for row in gone_on] == [
        (row.number, row.knobs, row.outcome) for row in as_before
    ]
    assert [row.number for row in ranked(gone_on)] == [row.number for row in ranked(as_before)]

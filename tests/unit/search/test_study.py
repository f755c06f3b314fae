"""The study on disk: told once, read back, repaired."""

from __future__ import annotations

import dataclasses

import optuna
import pytest

from pgolf_sweep.core.errors import InfraError, InputError
from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.search.journal import repair_journal
from pgolf_sweep.search.origin import Origin
from pgolf_sweep.search.study import open_study


def told(study, state=State.COMPLETED, **changes):
    proposal = study.ask()
    row = TrialRecord(number=proposal.number, outcome=state, knobs=proposal.knobs, val_bpb=2.0)
    row = dataclasses.replace(row, **changes)
    assert study.tell(row)
    return row


def frozen(bench, number):
    raw = optuna.load_study(
        study_name=bench.session.spec.name,
        storage=optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(bench.paths.journal))
        ),
    )
    return raw.trials[number]


def test_telling_twice_changes_nothing(make_bench):
    study = make_bench().study()
    row = told(study)
    assert not study.tell(dataclasses.replace(row, val_bpb=1.0))
    assert study.records()[row.number].val_bpb == 2.0


@pytest.mark.parametrize("method", ["tpe", "bayes"])
def test_no_sampler_learns_of_a_discard(make_bench, method):
    bench = make_bench(method=method)
    study = bench.study()
    row = told(study, State.DISCARDED, val_bpb=None, headroom_bytes=-5000)
    trial = frozen(bench, row.number)
    assert trial.state is optuna.trial.TrialState.FAIL
    assert not trial.constraints
    assert study.records()[row.number].outcome is State.DISCARDED
    assert study.records()[row.number].headroom_bytes == -5000


def test_completed_carries_the_measured_excess(make_bench):
    bench = make_bench()
    row = told(bench.study(), headroom_bytes=700)
    assert frozen(bench, row.number).constraints == {"measured_excess_bytes": -700.0}


def test_reader_sees_what_the_writer_told_and_writes_nothing(make_bench):
    bench = make_bench()
    writer = bench.study()
    row = told(writer)
    before = bench.paths.journal.read_bytes()
    reader = open_study(bench.session.spec, bench.paths)
    assert [r.number for r in reader.records()] == [row.number]
    assert bench.paths.journal.read_bytes() == before


def test_study_that_was_never_launched_is_an_input_error(make_bench):
    bench = make_bench()
    with pytest.raises(InputError, match="no trials yet"):
        open_study(bench.session.spec, bench.paths)


@pytest.mark.parametrize("tail", [b'{"op_code": 4, "wor', b"\x00" * 300, b"x" * 200_000])
def test_torn_last_record_is_cut_and_the_rest_kept(make_bench, tail):
    bench = make_bench()
    told(bench.study())
    whole = bench.paths.journal.read_bytes()
    bench.paths.journal.write_bytes(whole + tail)
    assert repair_journal(bench.paths.journal) == len(tail)
    assert bench.paths.journal.read_bytes() == whole
    assert len(bench.study().records()) == 1


def test_journal_that_is_none_is_named_with_its_record(make_bench):
    bench = make_bench()
    bench.paths.journal.parent.mkdir(parents=True)
    bench.paths.journal.write_text("not a journal\n")
    with pytest.raises(InputError, match="record 1 of the study's journal is damaged"):
        bench.study()


def test_proposal_that_died_half_way_is_completed(make_bench):
    bench = make_bench()
    study = bench.study()
    trial = study._study.ask()
    width = trial.suggest_int("MODEL_DIM", 32, 256, step=32)
    ((proposal, noted),) = bench.study().unfinished()
    assert proposal.knobs["MODEL_DIM"] == width
    assert set(proposal.knobs) == {"MODEL_DIM", "MATRIX_LR", "SEED"}
    assert noted is None


def test_enqueued_knobs_come_first_and_name_their_proposer(make_bench):
    study = make_bench().study()
    study.enqueue({"MODEL_DIM": 96, "MATRIX_LR": 0.01, "SEED": 7}, by="alice")
    proposal = study.ask()
    assert (proposal.knobs["MODEL_DIM"], proposal.proposer) == (96, "alice")


@pytest.mark.parametrize(
    "url",
    ["mysql://me:secret@db/x", "redis://db:6379", "mysql+pymysql://db/x", "journal.log", "x://"],
)
def test_storage_of_another_kind_is_refused_with_those_that_there_are(make_bench, url):
    bench = make_bench()
    with pytest.raises(InputError, match="not kept in such a storage") as caught:
        open_study(bench.session.spec, bench.paths, storage=url, write=True)
    assert "postgresql://" in (caught.value.expected or "")
    assert "secret" not in str(caught.value)


def test_any_optuna_storage_holds_the_study(make_bench, tmp_path):
    bench = make_bench()
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    bench.paths.root.mkdir(parents=True)
    study = open_study(bench.session.spec, bench.paths, storage=url, write=True)
    row = told(study)
    bench.paths.storage_url.write_text(url + "\n")
    reader = open_study(bench.session.spec, bench.paths)
    assert reader.records() == [row]
    assert not bench.paths.journal.exists()


def test_unreachable_storage_is_named_without_its_password(make_bench):
    bench = make_bench()
    url = "postgresql://me:secret@127.0.0.1:1/none"
    with pytest.raises(InfraError) as caught:
        open_study(bench.session.spec, bench.paths, storage=url, write=True)
    assert "secret" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


@pytest.mark.parametrize(
    ("origin", "key"),
    [
        (Origin.export(3), "export of 3"),
        (Origin.repair(3), "repair of 3"),
        (Origin(proposer="propose:ada", request="a1"), "a1"),
    ],
)
def test_a_trial_is_enqueued_once_for_its_origin_and_found_under_the_key_of_version_0_1(
    make_bench, origin, key
):
    study = make_bench().study()
    knobs = {"MODEL_DIM": 64, "MATRIX_LR": 0.02}
    for other in (Origin.export(4), Origin.repair(4), Origin(proposer="ada", request="a2")):
        study.enqueue_once(knobs, other)
    attributes = {"proposer": origin.proposer, "key": key}  # as version 0.1 wrote them
    study._study.enqueue_trial(study._space.encode(knobs), user_attrs=attributes)
    assert study.enqueue_once(knobs, origin) == 3
    assert [record.repair_of for record in study.records()] == [None, 4, None, origin.repair_of]
    assert [record.export_of for record in study.records()] == [4, None, None, origin.export_of]
    assert study.enqueue_once(knobs, Origin.export(5)) == 4
    assert study.enqueue_once(knobs, Origin.export(5)) == 4
    assert Origin.read(origin.attributes()) == origin
    assert [study.ask().repair_of for _ in range(4)] == [None, 4, None, origin.repair_of]

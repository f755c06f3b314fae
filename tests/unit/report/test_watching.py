"""A study that is looked at again and again is read on, not anew, and never wrongly."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from optuna.storages.journal import JournalFileBackend

from pgolf_sweep.cli.study import live_document
from pgolf_sweep.core.paths import write_bytes, write_text
from pgolf_sweep.core.record import State
from pgolf_sweep.report.read import study_status
from pgolf_sweep.report.watching import StudyWatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.sweeps import Bench

    from pgolf_sweep.search.study import Study


@pytest.fixture
def ended(make_bench) -> Bench:
    """A study of six trials."""
    bench = make_bench(run_cap=6)
    bench.driver().run()
    write_text(bench.paths.sweep, bench.session.spec.text)
    return bench


@pytest.fixture
def read_records(monkeypatch) -> list[int]:
    """Records of a journal that each reading of it takes."""
    taken: list[int] = []
    real = JournalFileBackend.read_logs

    def counting(self: JournalFileBackend, log_number_from: int) -> Iterator[object]:
        taken.append(0)
        for record in real(self, log_number_from):
            taken[-1] += 1
            yield record

    monkeypatch.setattr(JournalFileBackend, "read_logs", counting)
    return taken


def end_one_more(study: Study) -> int:
    proposal = study.ask()
    assert proposal is not None
    row = study.records()[0]
    row = dataclasses.replace(row, number=proposal.number, knobs=proposal.knobs)
    study.note(dataclasses.replace(row, outcome=State.RUNNING, val_bpb=None))
    study.tell(dataclasses.replace(row, outcome=State.COMPLETED, val_bpb=1.0))
    return proposal.number


def test_a_further_look_reads_what_came_since_and_says_the_same_as_a_first(
    ended: Bench, read_records: list[int]
) -> None:
    with StudyWatch(ended.paths) as watch:
        assert watch.look().records == study_status(ended.paths).records
        number = end_one_more(ended.study())
        whole = max(read_records)
        read_records.clear()
        found = watch.look()
        assert 0 < sum(read_records) < whole / 2
    again = study_status(ended.paths)
    assert found.records == again.records
    assert found.curves == again.curves
    assert found.records[-1].number == number


def test_a_journal_that_was_copied_anew_is_read_on(ended: Bench, read_records: list[int]) -> None:
    with StudyWatch(ended.paths) as watch:
        before = watch.look()
        write_bytes(ended.paths.journal, ended.paths.journal.read_bytes())
        read_records.clear()
        assert watch.look().records == before.records
        assert not sum(read_records)


def test_a_record_that_is_half_written_is_read_when_it_is_whole(ended: Bench) -> None:
    whole = ended.paths.journal.read_bytes()
    middle = whole[:-1].rindex(b"\n") + 20
    ended.paths.journal.write_bytes(whole[:middle])
    with StudyWatch(ended.paths) as watch:
        watch.look()
        with ended.paths.journal.open("ab") as file:
            file.write(whole[middle:])
        assert watch.look().records == study_status(ended.paths).records


def test_another_journal_in_its_place_is_read_from_its_start(ended: Bench, make_bench) -> None:
    other = make_bench(name="other", run_cap=12)
    other.driver().run()
    with StudyWatch(ended.paths) as watch:
        before = watch.look().records
        write_bytes(ended.paths.journal, other.paths.journal.read_bytes())
        found = watch.look().records
    assert len(found) > len(before)
    assert found == study_status(ended.paths).records


def test_posteriors_are_those_of_a_single_look_and_the_best_is_by_them(make_bench) -> None:
    bench = make_bench(run_cap=9)
    bench.driver().run()
    write_text(bench.paths.sweep, bench.session.spec.text)
    once = study_status(bench.paths)
    assert once.posteriors
    with StudyWatch(bench.paths) as watch:
        found = watch.look()
        assert found.posteriors == once.posteriors
        assert watch.look().posteriors is found.posteriors
    assert live_document(found)["best"]["number"] == found.to_json()["best"]["number"]

"""A study that is read gives rows and frames, whether it ran or was simulated."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.paths import write_text
from pgolf_sweep.core.record import State, TrialRecord
from pgolf_sweep.report.trials import StudyRead, read_study

RUNS = Path(__file__).parents[2] / "data/studies/version_0_1/runs"


@pytest.fixture(scope="module")
def older() -> StudyRead:
    return read_study("older", runs=RUNS)


def test_trials_are_a_frame_with_the_columns_of_the_json(older):
    frame = older.trials()
    row = older.rows()[0]
    assert list(frame.columns) == list(row)
    assert frame.to_dict("records")[0]["knobs"] == row["knobs"]
    assert len(frame) == len(older.records)
    assert list(frame["number"]) == list(range(len(frame)))


def test_best_is_ranked_and_within_the_cap(older):
    frame = older.best(2)
    assert len(frame) == 2
    assert list(frame["val_bpb"]) == sorted(frame["val_bpb"])
    assert (frame["headroom_bytes"] >= 0).all()
    assert older.winner is not None
    assert frame["number"].iloc[0] == older.winner.number


def test_interim_scores_are_in_the_rows(make_bench):
    bench = make_bench(run_cap=3)
    bench.driver().run()
    write_text(bench.paths.sweep, bench.session.spec.text)
    found = read_study(bench.paths.root)
    completed = next(row for row in found.rows() if row["outcome"] == "completed")
    assert [one["validation"] for one in completed["intermediate"]] == [1, 2, 3]
    scores = [one["val_bpb"] for one in completed["intermediate"]]
    assert scores == sorted(scores, reverse=True)


def test_a_table_has_plain_cells_and_a_column_a_knob(older):
    table = older.table()
    for name in older.records[0].knobs:
        assert name in table.columns
    assert {"predicted_bytes_low", "predicted_bytes_mid", "predicted_bytes_high"} <= set(table)
    assert not any(isinstance(cell, dict | list) for cell in table.iloc[0])


def test_a_knob_named_like_a_column_keeps_both():
    record = TrialRecord(number=0, outcome=State.COMPLETED, knobs={"steps": 7}, steps=100)
    table = StudyRead(name="one", records=(record,)).table()
    assert (table["steps"][0], table["knob.steps"][0]) == (100, 7)


def test_a_study_without_trials_has_the_same_columns(older):
    assert list(StudyRead(name="none", records=()).trials().columns) == list(older.trials().columns)


def test_a_study_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(InputError, match="no study named 'nothing'"):
        read_study("nothing", runs=tmp_path)

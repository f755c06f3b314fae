"""A study of another metric: its name and its direction in tables, documents, frames and charts."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pgolf_sweep.cli.render import trials_table
from pgolf_sweep.cli.study import status_page
from pgolf_sweep.core.event_text import trial_line
from pgolf_sweep.core.record import State, TrialRecord, named, ranked
from pgolf_sweep.report.figures import figures
from pgolf_sweep.report.page import page
from pgolf_sweep.report.read import Status
from pgolf_sweep.report.story import Story
from pgolf_sweep.report.trials import StudyRead

REWARDS = (-3.0, 0.05, -7.5, 2.25)


def record(number: int, reward: float) -> TrialRecord:
    return TrialRecord(
        number=number,
        outcome=State.COMPLETED,
        knobs={"lr": 0.1 * (number + 1), "layers": number % 2},
        val_bpb=reward,
        slot_seconds=9.0,
        ended_at=100.0 + number,
        maximize=True,
        metric="reward",
    )


RECORDS = [record(number, reward) for number, reward in enumerate(REWARDS)]
CURVES = {n: [reward - 2, reward - 1, reward] for n, reward in enumerate(REWARDS)}


@pytest.fixture
def status() -> Status:
    return Status(name="mine", state="finished", driver=None, records=RECORDS, last={})


def text_of(shown: object) -> str:
    console = Console(file=io.StringIO(), width=200, highlight=False)
    console.print(shown)
    return console.file.getvalue()  # type: ignore[attr-defined]


def drawn(status: Status) -> dict[str, object]:
    story = Story(status=status, cap_bytes=None, curves=CURVES)
    return {figure.name: figure for figure in figures(story)}


def test_the_best_is_the_highest_and_any_finite_number_counts() -> None:
    assert [one.number for one in ranked(RECORDS)] == [3, 1, 0, 2]


def test_tables_and_lines_call_the_score_by_its_name(status: Status) -> None:
    table = text_of(trials_table(RECORDS, {"lr"}))
    said = text_of(status_page(status))
    assert "reward" in table
    assert "headroom" not in table + said
    assert "best      trial 3: reward 2.2500" in said
    assert trial_line(RECORDS[0]) == "trial 0: reward -3.0000"
    assert "val_bpb" not in table + said


def test_documents_and_frames_have_the_score_under_its_name(status: Status) -> None:
    document = status.to_json()
    assert document["metric"] == "reward"
    assert document["best"]["reward"] == 2.25
    study = StudyRead(name="mine", records=tuple(RECORDS), curves={3: [(1, 0.25)]})
    row = study.rows()[3]
    assert (row["reward"], row["intermediate"]) == (2.25, [{"validation": 1, "reward": 0.25}])
    assert "val_bpb" not in row
    assert list(study.best(2)["reward"]) == [2.25, 0.05]
    assert list(study.table()["reward"]) == list(REWARDS)
    assert [one.number for one in study.in_order("-reward", RECORDS)] == [3, 1, 0, 2]
    assert repr(study) == "<study mine: 4 completed, best reward 2.2500 (trial 3)>"


def test_a_name_that_a_document_has_for_something_else_stays_apart() -> None:
    assert named({"steps": 7, "val_bpb": 0.5}, "steps") == {"steps": 7, "metric.steps": 0.5}
    assert named({"knobs": {"val_bpb": 1}}, "loss") == {"knobs": {"val_bpb": 1}}


def test_the_charts_rise_towards_the_better(status: Status) -> None:
    charts = drawn(status)
    progress = charts["progress"]
    best = next(trace for trace in progress.traces if trace["name"] == "best so far")
    assert best["y"] == [-3.0, 0.05, 0.05, 2.25, 2.25]
    assert progress.layout["yaxis"]["title"] == "reward"
    assert charts["curves"].traces[-1]["name"] == "trial 3"
    low, high = charts["curves"].layout["yaxis"]["range"]
    assert low > -9.5 - 1.0
    assert high > 2.25
    top = next(trace for trace in charts["parallel"].traces if trace["name"] == "trial 3")
    assert top["y"][-1] == 1.0
    assert top["x"][-1] == "reward"


def test_the_page_says_neither_bits_per_byte_nor_cap(status: Status) -> None:
    text = page(Story(status=status, cap_bytes=None, curves=CURVES))
    body = text.partition("<body>")[2].partition("<script")[0]
    assert "best reward" in body
    assert "val_bpb" not in body
    assert "within the cap" not in body
    assert "headroom" not in body

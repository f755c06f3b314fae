"""Tables of trials at every width: nothing that must stay together is broken."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pgolf_sweep.cli.render import StudiesTable, trials_table
from pgolf_sweep.core.record import Posterior, State, TrialRecord

KNOBS = {"MODEL_DIM": 512, "NUM_LAYERS": 11, "MATRIX_LR": 0.02345, "LR_SCHEDULE": "cosine"}
REASON = "pruned at validation 3 with val_bpb 1.2345"


def shown(width: int, *records: TrialRecord) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(trials_table(records, set(KNOBS), title="best trials"))
    return console.file.getvalue()  # type: ignore[attr-defined]


def record(number: int, reason: str = "") -> TrialRecord:
    return TrialRecord(
        number=number,
        outcome=State.PRUNED if reason else State.COMPLETED,
        knobs=KNOBS,
        val_bpb=1.23456,
        artifact_bytes=15_987_654,
        headroom_bytes=12_346,
        slot_seconds=905.0,
        reason=reason,
    )


@pytest.mark.parametrize("width", [200, 120, 100, 80, 60, 40, 30])
def test_numbers_and_knobs_stay_whole_at_every_width(width: int) -> None:
    text = shown(width, record(1), record(12, REASON))
    assert max(map(len, text.splitlines())) <= width
    for pair in ("MODEL_DIM=512", "NUM_LAYERS=11", "MATRIX_LR=0.02345", "LR_SCHEDULE=cosine"):
        assert text.count(pair) == 2, text
    assert text.count("1.2346") == 2, text
    assert "val_bpb" in text
    assert " ".join(text.split()).count("best trials") == 1


def test_a_wide_terminal_has_one_line_a_trial_and_a_narrow_one_stacks() -> None:
    assert len(shown(200, record(1), record(2)).splitlines()) == 4
    narrow = shown(80, record(1), record(2)).splitlines()
    assert narrow[2].split() == [
        "1", "completed", "1.2346", "15,987,654", "B", "12,346", "B", "15", "min", "05", "s",
    ]  # fmt: skip
    assert narrow[3].startswith("    MODEL_DIM=512")


def test_a_table_without_trials_is_its_header() -> None:
    assert "val_bpb" in shown(80)


def test_the_means_that_an_order_is_by_have_a_column_of_their_own() -> None:
    known = {1: Posterior(mean=1.24567, low=1.2, high=1.3, tied=True)}
    console = Console(file=io.StringIO(), width=200)
    console.print(trials_table([record(1), record(2)], {"MODEL_DIM"}, posteriors=known))
    head, first, second = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert head.split()[2:5] == ["val_bpb", "by", "all"]
    assert first.split()[2:4] == ["1.2346", "1.2457"]
    assert second.split()[2:4] == ["1.2346", "15,987,654"]
    assert "by all" not in shown(200, record(1))


@pytest.mark.parametrize("width", [120, 80, 60, 40, 30])
def test_a_table_of_studies_keeps_names_and_breaks_no_number(width: int) -> None:
    row = {
        "study": "a-study-of-some-length",
        "state": "finished",
        "completed": "16",
        "all": "2,000",
        "val_bpb": "1.2346",
        "headroom": "119,380 B",
        "changed": "2026-11-28 13:45",
    }
    console = Console(file=io.StringIO(), width=width)
    console.print(StudiesTable([row]))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    head, *lines = text.splitlines()
    assert "".join(line[: head.index("state")] for line in lines).replace(" ", "") == row["study"]
    for name in head.split()[1:]:
        assert row[name] in text, name
    assert "val_bpb" in head

"""A sweep in which nearly every trial is in trouble: each ends as what it is, and it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TROUBLES = [
    "good",
    "bug",
    "raises",
    "hoards",
    "nan",
    "silent",
    "hangs",
    "endless",
    "ignores_sigterm",
    "chatty",
    "garbage",
    "killed",
    "crashes",
    "exits",
    "orphans",
    "reads_stdin",
]
LIMIT_SECONDS, SILENT_SECONDS = 8, 3


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory, address: str) -> Iterator[Terminal]:
    with Terminal(tmp_path_factory.mktemp("trouble"), address=address) as made:
        yield made


@pytest.fixture(scope="module")
def trials(terminal: Terminal) -> dict[str, dict[str, Any]]:
    """Rows of a sweep over all troubles, by trouble."""
    file = terminal.sweep(
        "trouble",
        program="trouble.py",
        method="grid",
        run_cap=None,
        parameters={"TROUBLE": {"values": TROUBLES}, "MATRIX_LR": None},
        pgolf={
            "files": [f"{name}.py" for name in TROUBLES],
            "limits": {"total_seconds": LIMIT_SECONDS, "silent_seconds": SILENT_SECONDS},
            "max_retries": 1,
        },
    )
    said = terminal.launch(file)
    assert said.code == 0, said.err
    assert "Traceback" not in said.err
    rows = terminal.trials("trouble")
    assert len(rows) == len(TROUBLES)
    return {row["knobs"]["TROUBLE"]: row for row in rows}


@pytest.mark.parametrize(
    ("trouble", "outcome", "failure", "reason"),
    [
        ("good", "completed", None, ""),
        ("bug", "failed", "deterministic", "exit code 1: KeyError: 3"),
        ("raises", "failed", "deterministic", "out of memory"),
        ("hoards", "failed", "deterministic", "out of memory"),
        ("nan", "failed", "deterministic", "a loss was not finite (NaN or inf)"),
        ("silent", "failed", "deterministic", "exited without printing a final score"),
        ("hangs", "failed", "deterministic", f"no output for {SILENT_SECONDS} s"),
        ("endless", "failed", "deterministic", f"still running after {LIMIT_SECONDS} s"),
        ("ignores_sigterm", "failed", "deterministic", f"no output for {SILENT_SECONDS} s"),
        ("chatty", "completed", None, ""),
        ("garbage", "completed", None, ""),
        (
            "killed",
            "failed",
            "infrastructure",
            "killed by SIGKILL (infrastructure; 2 attempts)",
        ),
        ("crashes", "failed", "deterministic", "killed by SIGSEGV"),
        ("exits", "failed", "deterministic", "exit code 3: no output"),
        ("orphans", "completed", None, ""),
        ("reads_stdin", "failed", "deterministic", "exit code 1: EOFError: "),
    ],
)
def test_trouble_ends_as_what_it_is(
    trials: dict[str, dict[str, Any]],
    trouble: str,
    outcome: str,
    failure: str | None,
    reason: str,
) -> None:
    row = trials[trouble]
    assert (row["outcome"], row["failure"]) == (outcome, failure)
    assert row["reason"].startswith(reason)
    assert row["attempts"] == (2 if trouble == "killed" else 1)
    assert (row["val_bpb"] is not None) == (outcome == "completed")


def test_counts_add_up_and_only_a_submittable_trial_is_best(
    terminal: Terminal, trials: dict[str, dict[str, Any]]
) -> None:
    status = terminal.run("status", "trouble", "--json").json()
    assert status["state"] == "finished"
    assert sum(status["trials"].values()) == len(TROUBLES)
    assert status["trials"]["failed"] == 12
    assert status["trials"]["running"] == status["trials"]["queued"] == 0


def test_logs_of_troubled_trials_are_kept_whole_or_bounded(
    terminal: Terminal, trials: dict[str, dict[str, Any]]
) -> None:
    def log(trouble: str) -> str:
        number = trials[trouble]["number"]
        path = terminal.study("trouble") / "trials" / str(number) / "train.log"
        return path.read_text(errors="replace")

    assert "Traceback" in log("bug")
    assert "val_bpb:1.71755400" in log("chatty")
    assert "val_bpb:1.71755400" in log("garbage")
    assert log("silent") == ""
    number = str(trials["bug"]["number"])
    said = terminal.run("logs", "trouble", "--trial", number)
    assert said.code == 0
    assert said.out == log("bug")
    parsed = terminal.run("logs", "trouble", "--trial", number, "--json")
    assert parsed.code == 1  # no final score
    assert parsed.json()["val_bpb"] is None


def test_no_process_of_a_troubled_trial_is_left(
    terminal: Terminal, trials: dict[str, dict[str, Any]]
) -> None:
    assert terminal.wait_until_alone(5.0) == {}


def test_a_sweep_of_which_every_trial_fails_ends_with_one(terminal: Terminal) -> None:
    file = terminal.sweep(
        "hopeless",
        program="bug.py",
        method="grid",
        parameters={"MATRIX_LR": None, "ITERATIONS": {"values": [5, 6, 7]}},
    )
    said = terminal.launch(file, "--json")
    assert said.code == 1
    assert said.json()["trials"]["failed"] == 3
    assert "no trial gave a submittable score" in said.err
    assert "pgolf-sweep trials hopeless" in said.err
    assert terminal.run("best", "hopeless").code == 1


def test_a_log_without_end_does_not_fill_the_disk(terminal: Terminal) -> None:
    file = terminal.sweep(
        "endless",
        program="chatty.py",
        run_cap=1,
        parameters={"MATRIX_LR": None, "ITERATIONS": None, "CHATTY_BYTES": {"value": 300_000_000}},
        pgolf={"limits": {"total_seconds": 300}},
    )
    said = terminal.launch(file, timeout=200)
    assert said.code == 0, said.err
    (row,) = terminal.trials("endless")
    assert row["val_bpb"] == 1.717554
    folder = terminal.study("endless") / "trials" / "0"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 65_000_000

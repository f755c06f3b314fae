"""A sweep in which nearly every trial is in trouble: each ends as what it is, and it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.terminal import SCRIPTS, Terminal

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
    "bar",
    "downloads",
    "forks",
]
GOOD = SCRIPTS / "good.py"
LIMIT_SECONDS, SILENT_SECONDS = 15, 5


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
            # Ends are judged here; a probe would run each trouble as well.
            "gate": {"enabled": False},
        },
    )
    said = terminal.launch(file, timeout=240)
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
        ("bar", "completed", None, ""),
        ("downloads", "failed", "deterministic", "exit code 1: urllib.error.URLError: "),
        ("forks", "completed", None, ""),
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
    assert status["trials"]["failed"] == 13
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
        "aborted_same_error",
        program="bug.py",
        method="grid",
        parameters={"MATRIX_LR": None, "ITERATIONS": {"values": [5, 6, 7]}},
    )
    said = terminal.launch(file, "--json")
    assert said.code == 1
    assert said.json()["trials"]["failed"] == 3
    assert "no trial gave a submittable score" in said.err
    assert "pgolf-sweep trials aborted_same_error" in said.err
    assert terminal.run("best", "aborted_same_error").code == 1


def test_a_missing_package_fails_once_and_says_what_to_do(terminal: Terminal) -> None:
    terminal.write("needs.py", "import no_such_package\n" + GOOD.read_text())
    terminal.write("requirements.txt", "no-such-package\n")
    try:
        file = terminal.sweep("needs", program="needs.py", run_cap=1, pgolf={"max_retries": 2})
        assert terminal.launch(file).code == 1
    finally:
        (terminal.folder / "requirements.txt").unlink()
    (row,) = terminal.trials("needs")
    assert (row["outcome"], row["failure"], row["attempts"]) == ("failed", "deterministic", 1)
    assert "requirements.txt asks for no-such-package; it is not installed" in row["reason"]
    assert "install it where the trials run" in row["reason"]


def test_a_knob_that_changes_nothing_is_flagged(terminal: Terminal) -> None:
    file = terminal.sweep(
        "idle",
        program="idle_knob.py",
        method="grid",
        run_cap=None,
        parameters={
            "MATRIX_LR": {"values": [0.02, 0.03]},
            "EMA_DECAY": {"values": [0.0, 0.9]},
            "ITERATIONS": {"value": 5},
        },
    )
    assert terminal.launch(file).code == 0
    rows = terminal.trials("idle")
    assert len({row["val_bpb"] for row in rows}) == 2
    for command in ("trials", "status"):
        (found,) = terminal.run(command, "idle", "--json").json()["no_op_knobs"]
        assert found["knobs"] == ["EMA_DECAY"]
        assert sorted(found["trials"]) == [0, 1, 2, 3]
        said = terminal.run(command, "idle")
        assert "EMA_DECAY changes nothing" in said.out + said.err


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

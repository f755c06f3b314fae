"""A sweep with W&B offline whose worst trial is pruned, and W&B switched off or out of reach."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.offline_runs import OfflineRun, read_offline_runs
from support.terminal import SCRIPTS, Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RATES = [0.024, 0.022, 0.02, 5.0]
STEP_SECONDS, STEPS, EVERY = 0.1, 40, 5

# Good, but deaf to SIGTERM: what a script in a compiler or in a collective is.
DEAF = "import signal\n\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory, address: str) -> Iterator[Terminal]:
    with Terminal(tmp_path_factory.mktemp("tracked"), address=address) as made:
        yield made


@pytest.fixture(scope="module")
def trials(terminal: Terminal) -> list[dict[str, Any]]:
    """Rows of the sweep, in the order of `RATES`."""
    script = (SCRIPTS / "good.py").read_text()
    terminal.write("deaf.py", script.replace("import math\n", "import math\n" + DEAF, 1))
    file = terminal.sweep(
        "tracked",
        program="deaf.py",
        method="grid",
        run_cap=None,
        parameters={
            "MATRIX_LR": {"values": RATES},
            "MODEL_DIM": {"value": 32},
            "ITERATIONS": {"value": STEPS},
            "VAL_LOSS_EVERY": {"value": EVERY},
            "STEP_SECONDS": {"value": STEP_SECONDS},
        },
        early_terminate={"type": "median", "min_iter": 1, "startup_trials": 2},
    )
    said = terminal.launch(file, "--wandb", "offline")
    assert said.code == 0, said.err
    rows = terminal.trials("tracked")
    return sorted(rows, key=lambda row: RATES.index(row["knobs"]["MATRIX_LR"]))


@pytest.fixture(scope="module")
def runs(terminal: Terminal, trials: list[dict[str, Any]]) -> dict[str, OfflineRun]:
    """Offline runs of the sweep, by name."""
    found = read_offline_runs(terminal.study("tracked"))
    return {run.run.display_name: run for run in found}


def test_a_pruned_trial_is_gone_within_three_seconds(trials: list[dict[str, Any]]) -> None:
    assert [row["outcome"] for row in trials] == ["completed"] * 3 + ["pruned"]
    pruned = trials[-1]
    word, ordinal = pruned["reason"].split(" with ")[0].rsplit(" ", 1)
    assert word == "pruned at validation"
    decided = int(ordinal) * EVERY * STEP_SECONDS
    assert decided < STEPS * STEP_SECONDS
    assert pruned["slot_seconds"] < decided + 3.0
    assert pruned["val_bpb"] > trials[0]["val_bpb"]


def test_nothing_of_a_pruned_trial_is_left(
    terminal: Terminal, trials: list[dict[str, Any]]
) -> None:
    assert terminal.wait_until_alone(5.0) == {}


def test_each_trial_is_a_run_grouped_by_study_and_there_is_a_summary(
    runs: dict[str, OfflineRun], trials: list[dict[str, Any]]
) -> None:
    assert set(runs) == {f"tracked-{row['number']}" for row in trials} | {"tracked-summary"}
    assert {run.run.run_group for run in runs.values()} == {"tracked"}
    assert all(run.exit_code is not None for run in runs.values())


def test_a_run_has_config_curves_final_metrics_bytes_headroom_and_status(
    runs: dict[str, OfflineRun], trials: list[dict[str, Any]]
) -> None:
    for row in trials:
        run = runs[f"tracked-{row['number']}"]
        for name, value in row["knobs"].items():
            assert run.config[name] == value
        points = [point for point in run.history if "val/bpb" in point]
        steps = [point["step"] for point in points]
        assert steps == sorted(set(steps))
        assert run.summary["status"] == row["outcome"]
        if row["outcome"] == "completed":
            assert steps[-1] == STEPS
            assert len(points) == STEPS // EVERY + 1
            assert run.summary["val_bpb"] == row["val_bpb"]
            assert run.summary["artifact_bytes"] == row["artifact_bytes"]
            assert run.summary["headroom_bytes"] == row["headroom_bytes"]
            assert run.exit_code == 0


def test_offline_is_said_once_where_no_key_is_set_and_disabled_leaves_nothing(
    terminal: Terminal,
) -> None:
    file = terminal.sweep("said", run_cap=2)
    said = terminal.run("launch", file, "--address", str(terminal.address))
    assert said.code == 0, said.err
    assert said.err.count("kept offline") == 1
    assert said.err.count("upload them with: wandb sync") == 1
    assert len(read_offline_runs(terminal.study("said"))) == 3

    file = terminal.sweep("off", run_cap=2)
    assert terminal.launch(file, "--wandb", "disabled").code == 0
    assert not list(terminal.study("off").rglob("*wandb*"))


def test_a_server_out_of_reach_costs_a_warning_and_no_trial(terminal: Terminal) -> None:
    file = terminal.sweep("cut", run_cap=3)
    began = time.monotonic()
    said = terminal.launch(
        file,
        "--wandb",
        "online",
        "--json",
        WANDB_API_KEY="0f1e" * 10,
        WANDB_BASE_URL="http://127.0.0.1:9",
    )
    assert said.code == 0, said.err
    assert time.monotonic() - began < 60.0
    assert said.json()["trials"]["completed"] == 3
    assert "cannot be reached" in said.err
    assert "Traceback" not in said.err
    assert len(read_offline_runs(terminal.study("cut"))) == 4
    stored = "".join(path.read_text(errors="replace") for path in terminal.study("cut").glob("*.*"))
    assert "0f1e0f1e" not in stored
    assert json.loads((terminal.study("cut") / "origin.json").read_text())

"""What lies where `launch` is typed changes nothing of a sweep."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.offline_runs import read_offline_runs
from support.terminal import Terminal

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_modules_there_are_not_imported_and_a_long_temporary_folder_will_do(tmp_path: Path) -> None:
    with Terminal(tmp_path) as terminal:
        for name in (
            "wandb.py",
            "ray.py",
            "optuna.py",
            "cloudpickle.py",
            "pgolf_sweep/__init__.py",
        ):
            file = terminal.folder / name
            file.parent.mkdir(exist_ok=True)
            file.write_text("raise RuntimeError('this is not the real one')\n")
        long = terminal.folder / ("t" * 60)
        long.mkdir()
        file_name = terminal.sweep("there", run_cap=1)
        # As the installed command does: its folder is not the current one.
        root = str(Path(__file__).parents[2])
        said = terminal.run(
            "launch", file_name, "--wandb", "offline", "--slots", "1",
            PYTHONSAFEPATH="1", PYTHONPATH=root, TMPDIR=str(long),
        )  # fmt: skip
        assert said.code == 0, said.err
        shown = terminal.run("trials", "there", "--json", PYTHONSAFEPATH="1", PYTHONPATH=root)
        (row,) = shown.json()["trials"]
        assert row["outcome"] == "completed"
        (run,) = [
            r for r in read_offline_runs(terminal.study("there")) if r.run.job_type == "trial"
        ]
        assert run.summary["status"] == "completed"
        assert terminal.wait_until_alone(30.0) == {}

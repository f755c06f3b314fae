"""W&B's files as people have them, from `launch` to `report`, on real Ray."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from support.wandb_corpus import CORPUS, program_of, said, stub

if TYPE_CHECKING:
    from support.terminal import Terminal

pytestmark = [pytest.mark.ray, pytest.mark.slow]

OURS = "run_cap: 2\npgolf: {rules: none, resources: {gpus: 0, cpus: 1}}\n"
FORMS = (
    "int, float and text",
    "nested twice",
    "a module of a package",
    "args_json_file",
    "environment",
    "wandb.config",
)
PYTHON = {"a module of a package": ("'uv', 'run', ", "")}
"""What a form asks for that is not installed here."""
REWARD = """\
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float)
lr = parser.parse_args().lr
for step in range(1, 4):
    print(f"step:{step}/3 reward={step - 100 * lr:.4f}", flush=True)
"""


@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_each_form_trains_two_trials(terminal: Terminal, form: str) -> None:
    text, reader = CORPUS[form]
    text = text.replace(*PYTHON.get(form, ("", "")))
    out = terminal.folder / "got.jsonl"
    program = terminal.folder / program_of(text)
    program.parent.mkdir(exist_ok=True)
    program.write_text(stub(text, "env" if reader == "config" else reader, str(out)))
    (terminal.folder / "mine.yaml").write_text(text + OURS)
    launched = terminal.launch(terminal.folder / "mine.yaml", "--json")
    assert launched.code == 0, launched.err
    document = launched.json()
    assert (document["trials"]["completed"], document["metric"]) == (2, "loss")
    assert document["best"]["loss"] == 1.25
    assert len(said(out)) == 2


def test_a_study_that_maximizes_from_launch_to_report(terminal: Terminal) -> None:
    (terminal.folder / "reward.py").write_text(REWARD)
    file = terminal.folder / "up.yaml"
    file.write_text(
        "program: reward.py\nmethod: grid\nmetric: {name: reward, goal: maximize}\n"
        "parameters: {lr: {values: [0.05, 0.01, 0.1, 0.02]}}\n"
        "pgolf: {rules: none, resources: {gpus: 0, cpus: 1}}\n"
    )
    launched = terminal.launch(file)
    assert launched.code == 0, launched.err
    assert "val_bpb" not in launched.out + launched.err
    assert "best      trial 1: reward 2.0000" in terminal.run("status", "up").out
    rows = terminal.run("trials", "up", "--json").json()["trials"]
    assert [row["reward"] for row in rows] == [-2.0, 2.0, -7.0, 1.0]
    assert [point["reward"] for point in rows[1]["intermediate"]] == [0.0, 1.0, 2.0]
    best = terminal.run("best", "up", "--top", "2", "--json").json()["trials"]
    assert [row["number"] for row in best] == [1, 3]
    assert terminal.run("report", "up").code == 0
    text = (terminal.folder / "runs" / "up" / "report.html").read_text()
    figures = json.loads(text.partition('id="figures">')[2].partition("</script>")[0])
    progress = next(one for one in figures if one["name"] == "chart-progress")
    line = next(trace for trace in progress["traces"] if trace["name"] == "best so far")
    assert max(line["y"]) == line["y"][-1] == 2.0

"""Broken sweep files: exit code 2, and where it is wrong, before Ray starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.terminal import Said

GOOD = """program: good.py
method: {method}
metric: {{name: val_bpb, goal: minimize}}
run_cap: 4
parameters:
  ITERATIONS: {{value: 10}}
  {parameter}
pgolf:
  rules: {rules}
  resources: {{gpus: 0, cpus: 1}}
  {pgolf}
"""


def sweep(
    *,
    method: str = "random",
    parameter: str = "MATRIX_LR: {value: 0.02}",
    pgolf: str = "max_retries: 0",
    rules: str = "demo",
) -> str:
    return GOOD.format(method=method, parameter=parameter, pgolf=pgolf, rules=rules)


CASES = {
    "empty": ("", ["the file is empty"]),
    "only a comment": ("# soon\n", ["the file is empty"]),
    "a list": ("- a\n- b\n", ["must be a mapping of keys, not a list"]),
    "not YAML": ("program: [good.py\nmethod: random\n", ["bad.yaml:", "YAML"]),
    "a tab": ("program: good.py\n\tmethod: random\n", ["bad.yaml:2"]),
    "the same key twice": (sweep() + "run_cap: 5\n", ["bad.yaml:12", "run_cap"]),
    "unknown key": (sweep() + "runcap: 5\n", ["bad.yaml:12", "runcap", "run_cap"]),
    "unknown key of ours": (sweep(pgolf="budgets: {}"), ["bad.yaml:11", "pgolf.budgets", "budget"]),
    "unknown knob": (
        sweep(parameter="MATRIXLR: {value: 0.02}"),
        ["bad.yaml:7", "parameters.MATRIXLR", "MATRIX_LR"],
    ),
    "min over max": (
        sweep(parameter="MATRIX_LR: {min: 0.08, max: 0.01}"),
        ["bad.yaml:7", "parameters.MATRIX_LR", "0.08", "0.01"],
    ),
    "a grid without values": (
        sweep(method="grid", parameter="MATRIX_LR: {min: 0.01, max: 0.08}"),
        ["bad.yaml:7", "parameters.MATRIX_LR", "grid"],
    ),
    "no values": (
        sweep(parameter="MATRIX_LR: {values: []}"),
        ["bad.yaml:7", "parameters.MATRIX_LR"],
    ),
    "value and values": (
        sweep(parameter="MATRIX_LR: {value: 0.02, values: [0.01, 0.02]}"),
        ["bad.yaml:7", "parameters.MATRIX_LR", "values"],
    ),
    "text for a number": (
        sweep(parameter="MATRIX_LR: {value: fast}"),
        ["bad.yaml:7", "parameters.MATRIX_LR", "fast"],
    ),
    "unknown method": (sweep(method="annealing"), ["bad.yaml:2", "method", "annealing"]),
    "run_cap of nought": (sweep().replace("run_cap: 4", "run_cap: 0"), ["bad.yaml:4", "run_cap"]),
    "no parameters": (
        "program: good.py\nmethod: random\n",
        ["bad.yaml:", "parameters", "at least one"],
    ),
    "a program that does not exist": (
        sweep().replace("good.py", "god.py"),
        ["bad.yaml:1", "program", "god.py", "does not exist"],
    ),
    "a program that is not Python": (
        sweep().replace("good.py", "bad.yaml"),
        ["bad.yaml:1", "program", "not valid Python"],
    ),
    "a file beside the program that does not exist": (
        sweep(pgolf="files: [lost.py]"),
        ["bad.yaml:11", "pgolf.files", "lost.py"],
    ),
    "rules that do not exist": (
        sweep(rules="parameter-golf-2062"),
        ["bad.yaml:9", "pgolf.rules", "parameter-golf-2062", "parameter-golf-2026"],
    ),
    "a data set without a vocabulary": (
        sweep(pgolf="data: mydata"),
        ["bad.yaml:11", "pgolf.data", "mydata", "pgolf-sweep data"],
    ),
    "no rungs": (
        sweep(pgolf="fidelity: []"),
        ["bad.yaml:11", "pgolf.fidelity"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_sweep_file_is_told_with_its_line(
    typed_here: Callable[..., Said], tmp_path: Path, case: str
) -> None:
    text, expected = CASES[case]
    (tmp_path / "bad.yaml").write_text(text)
    said = typed_here("launch", "bad.yaml")
    assert said.code == 2, said.err
    for part in expected:
        assert part in said.err
    assert "next: " in said.err or "expected: " in said.err
    assert said.out == ""
    assert not (tmp_path / "runs").exists()


def test_every_problem_of_a_file_is_told_at_once(
    typed_here: Callable[..., Said], tmp_path: Path
) -> None:
    text = sweep(method="annealing", parameter="MATRIX_LR: {min: 1, max: 0}") + "runcap: 5\n"
    (tmp_path / "bad.yaml").write_text(text)
    said = typed_here("plan", "bad.yaml")
    assert said.code == 2
    for place in ("bad.yaml:2: method", "bad.yaml:7: parameters.MATRIX_LR", "bad.yaml:12: runcap"):
        assert place in said.err


@pytest.mark.parametrize("command", ["launch", "plan"])
def test_a_sweep_file_that_is_missing(typed_here: Callable[..., Said], command: str) -> None:
    said = typed_here(command, "lost.yaml")
    assert said.code == 2
    assert "lost.yaml" in said.err
    assert "pgolf-sweep define lost.yaml" in said.err


def test_a_folder_or_bytes_in_place_of_a_sweep_file(
    typed_here: Callable[..., Said], tmp_path: Path
) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "bytes.yaml").write_bytes(b"\x93NUMPY\xff\xfe\x00")
    for name in ("folder.yaml", "bytes.yaml"):
        said = typed_here("launch", name)
        assert said.code == 2, said.err
        assert name in said.err


@pytest.mark.parametrize(
    "command",
    [
        "status lost",
        "trials lost",
        "best lost",
        "logs lost",
        "logs --parse lost.log",
        "stop lost",
        "cancel lost",
        "promote lost",
        "verify lost",
        "watch lost",
        "knobs lost.py",
        "gate --set MODEL_DIMS=64",
        "gate --set MODEL_DIM=wide",
        "gate --program lost.py",
        "launch good.yaml --wandb sometimes",
        "launch good.yaml --name ../elsewhere",
    ],
)
def test_a_command_on_what_does_not_exist(
    typed_here: Callable[..., Said], tmp_path: Path, command: str
) -> None:
    (tmp_path / "good.yaml").write_text(sweep())
    said = typed_here(*command.split())
    assert said.code == 2, (said.code, said.out, said.err)
    assert said.err
    assert said.out == ""

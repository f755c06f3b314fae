"""Sweep files made to hang, fill the memory, escape or crash are mistakes with a line."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import pytest

from pgolf_sweep.config.blocks import is_study_name
from pgolf_sweep.config.sweep_file import load_spec, parse_spec
from pgolf_sweep.core.errors import InputError, SpecError
from pgolf_sweep.script.program import load_program

HEAD = "program: trainer\nmethod: random\nparameters: {MATRIX_LR: {value: 0.02}}\n"


@pytest.fixture(autouse=True)
def _little_memory() -> Any:
    """What fills the memory fails here instead of on the machine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (used + 500_000_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def laughs(levels: int, *, merge: bool = False) -> str:
    one = "&a0 {lol: 1}" if merge else "&a0 [lol, lol]"
    lines = [f"x0: {one}"]
    for level in range(1, levels):
        inner = ", ".join([f"*a{level - 1}"] * 9)
        body = f"{{<<: [{inner}], k{level}: 1}}" if merge else f"[{inner}]"
        lines.append(f"x{level}: &a{level} {body}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (laughs(9), "aliases, written out"),
        (laughs(9, merge=True), "aliases, written out"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested more than 50 deep"),
        ("a: " + "{b: " * 3000 + "1" + "}" * 3000, "nested more than 50 deep"),
        ("a:\n" + "".join(f"{' ' * n}- \n" for n in range(100)), "nested more than"),
        ("description: " + "x" * 400_000, "longer than"),
        ("a: &x [*x]", "alias that contains itself"),
        (HEAD + "run_cap: !!bool abc", "is no bool"),
        (HEAD + "run_cap: !!int ''", "is no int"),
        (HEAD + "run_cap: !!timestamp abc", "is no timestamp"),
        (HEAD + "run_cap: !!float ''", "cannot be read as a value"),
        (HEAD + "run_cap: !!python/object/apply:os.system [id]", "must be a whole number"),
        (HEAD + "run_cap: " + "9" * 400, "the number is beyond 1e+300"),
        (HEAD + "run_cap: " + "9" * 5000, "cannot be read as a value"),
        (HEAD + "run_cap: 1e999", "run_cap"),
    ],
)  # fmt: skip
def test_hostile_yaml_is_a_mistake(text: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(text, Path("hostile.yaml"))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("'%1000000000d' % 1", "raises TypeError"),
        ("not " * 5000 + "MATRIX_LR", "longer than 1000 characters"),
        ("not " * 200 + "MATRIX_LR", "nested more than"),
        ("(" * 400 + "1" + ")" * 400, "not an expression"),
        ("-" * 900 + "1", "nested more than"),
        ("MATRIX_LR % 0 == 0", "raises ZeroDivisionError whatever the values are"),
        ("9**9**9**9 > MATRIX_LR", "not an expression"),
        ("'a' * 10**9 == MATRIX_LR", "not an expression"),
        ("__import__('os').system('id')", "not an expression"),
        ("MATRIX_LR.__class__", "not an expression"),
        ("\0", "not an expression"),
    ],
)
def test_hostile_requirement_is_a_mistake(expression: str, words: str) -> None:
    quoted = expression.replace("\\", "\\\\").replace('"', '\\"').replace("\0", "\\0")
    with pytest.raises(SpecError) as caught:
        parse_spec(HEAD + f'pgolf: {{require: ["{quoted}"]}}', Path("hostile.yaml"))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["...yaml", "-rf.yaml", "a\nb.yaml", "<b>.yaml", "$(id).yaml", ".hidden.yaml", "a .yaml"],
)
def test_file_whose_stem_names_no_folder_needs_a_name(tmp_path: Path, name: str) -> None:
    sweep = tmp_path / name
    sweep.write_text(HEAD)
    with pytest.raises(SpecError, match="nor does the file's"):
        load_spec(sweep)
    sweep.write_text(f"name: good\n{HEAD}")
    assert load_spec(sweep).name == "good"


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../x", "x.", "a\\nb", "-x", "x" * 101])
def test_name_that_names_no_folder_is_cleaned_or_the_files_own(name: str) -> None:
    spec = parse_spec(f'name: "{name}"\n{HEAD}', Path("s.yaml"))
    assert is_study_name(spec.name)
    assert (Path("runs") / spec.name).resolve().parent == Path("runs").resolve()


def test_devices_pipes_and_folders_are_no_sweep_files(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.yaml"
    os.mkfifo(fifo)
    for path in (Path("/dev/zero"), fifo, tmp_path):
        with pytest.raises(InputError, match="cannot read the sweep file"):
            load_spec(path)


@pytest.mark.parametrize("value", ["a\\0b", "x" * 140_000])
def test_text_that_no_variable_can_hold_is_a_mistake(value: str) -> None:
    with pytest.raises(SpecError, match="NUL, and at most"):
        parse_spec(HEAD.replace("0.02", f'"{value}"'), Path("s.yaml"))


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("../../x", "leaves the program's folder"),
        ("/etc/passwd", "leaves the program's folder"),
        ("a/../../x", "leaves the program's folder"),
        ("result.json", "a file of every trial's folder"),
        ("*.json", "a file of every trial's folder"),
        ("nothing*", "matches nothing"),
    ],
)
def test_files_stay_in_the_programs_folder(tmp_path: Path, pattern: str, words: str) -> None:
    (tmp_path / "x").write_text("out")
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "train_gpt.py").write_text("print(1)")
    (inner / "result.json").write_text("{}")
    with pytest.raises(InputError, match=words):
        load_program("train_gpt.py", base=inner, extra_files=[pattern])


def test_program_that_is_too_large_for_every_trial_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train_gpt.py").write_text("print(1)")
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(65_000_000)
    with pytest.raises(InputError, match="cannot be read"):
        load_program("train_gpt.py", base=tmp_path, extra_files=["*.bin"])

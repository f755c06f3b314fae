"""`define` writes a file that can be launched, or writes nothing and says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pgolf_sweep.cli import app
from pgolf_sweep.config.sweep_file import load_spec
from pgolf_sweep.core.errors import InputError, SpecError
from pgolf_sweep.driver.opening import open_session

runner = CliRunner()

EXAMPLE = [
    *("--width", "384:640:64"),
    *("--depth", "7:13"),
    *("--lr", "0.015:0.08:log"),
    *("--schedule", "linear,cosine,wsd"),
    *("--bits", "4,5,6,8"),
]


def define(path: Path, *arguments: str) -> str:
    """Run the command; what it printed on stdout."""
    result = runner.invoke(
        app, ["define", str(path), *arguments], catch_exceptions=False, standalone_mode=False
    )
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_the_documented_example_writes_a_commented_file(tmp_path: Path) -> None:
    path = tmp_path / "sweeps" / "mine.yaml"
    assert define(path, *EXAMPLE) == ""
    spec = load_spec(path)
    assert list(spec.space.parameters) == [
        "MODEL_DIM",
        "NUM_LAYERS",
        "MATRIX_LR",
        "LR_SCHEDULE",
        "MATRIX_BITS",
    ]
    assert path.read_text().startswith("# Which width, depth,")


def test_json_says_what_share_would_fit(tmp_path: Path) -> None:
    document = json.loads(define(tmp_path / "mine.yaml", *EXAMPLE, "--json"))
    assert document["file"].endswith("mine.yaml")
    assert 0 < document["fit_share"] < 1
    assert document["configurations"] is None
    assert document["parameters"]["NUM_LAYERS"] == "7 to 13"


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("mine\n")
    with pytest.raises(InputError, match="exists already") as caught:
        define(path, "--depth", "7:9")
    assert caught.value.exit_code == 2
    assert path.read_text() == "mine\n"
    define(path, "--depth", "7:9", "--force")
    assert load_spec(path).space.size() == 3


def test_a_knob_that_the_program_never_reads_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    with pytest.raises(SpecError, match="did you mean 'NUM_LAYERS'") as caught:
        define(path, "--knob", "NUM_LAYER=7:9")
    assert "mine.yaml:" not in str(caught.value)  # a line of a file that is not there
    assert "mine.yaml is not written" in str(caught.value)
    assert not path.exists()


def test_a_knob_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="MODEL_DIM is given by its flag and by --knob"):
        define(tmp_path / "mine.yaml", "--width", "512", "--knob", "MODEL_DIM=384")


def test_from_lays_flags_over_another_sweep(tmp_path: Path) -> None:
    define(tmp_path / "a.yaml", *EXAMPLE)
    define(tmp_path / "b.yaml", "--from", str(tmp_path / "a.yaml"), "--depth", "9")
    assert load_spec(tmp_path / "b.yaml").space.parameters["NUM_LAYERS"].domain.count() == 1
    assert "MODEL_DIM" in load_spec(tmp_path / "b.yaml").space.parameters


def test_a_script_is_named_from_the_sweep_files_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train_gpt.py").write_text("import os\nDEPTH = int(os.environ.get('DEPTH', 4))\n")
    define(Path("sweeps/mine.yaml"), "--program", "train_gpt.py", "--knob", "DEPTH=2:5")
    assert load_spec(Path("sweeps/mine.yaml")).program == "../train_gpt.py"


def test_a_text_knobs_words_stay_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reads = "MODE = os.environ.get('MODE', 'auto')\nFAST = bool(int(os.environ.get('FAST', '1')))"
    Path("train.py").write_text(f"import os\n{reads}\nprint(MODE.upper())\n")
    define(Path("mine.yaml"), "--program", "train.py", "--knob", "MODE=off,On,auto")
    assert list(load_spec(Path("mine.yaml")).space.parameters["MODE"].domain.values()) == [
        "off",
        "On",
        "auto",
    ]
    by_hand = Path("mine.yaml").read_text().replace("'off'", "off")
    Path("mine.yaml").write_text(by_hand)
    with pytest.raises(SpecError, match="YAML reads off as False; quote it: 'off'"):
        open_session(Path("mine.yaml"), data_root=tmp_path, need_data=False)


def test_an_underscore_is_a_trap_but_between_thousands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text("import os\nprint(os.environ.get('NAME', 'x').upper())\n")
    define(Path("mine.yaml"), "--program", "train.py", "--knob", "NAME=a,b")
    text = Path("mine.yaml").read_text()

    def names(values: str) -> list[object]:
        Path("mine.yaml").write_text(text.replace("[a, b]", values))
        session = open_session(Path("mine.yaml"), data_root=tmp_path, need_data=False)
        return list(session.spec.space.parameters["NAME"].domain.values())

    assert names("[10_000_000, 1_000]") == [10_000_000, 1000]
    with pytest.raises(SpecError, match="YAML reads 2024_01_01 as 20240101; quote it"):
        names("[2024_01_01, 2024_01_02]")

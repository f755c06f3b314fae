import ast
import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import pgolf_sweep.cli.knobs  # noqa: F401 - registers the command
from pgolf_sweep.cli.common import app
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.script.knobs.knobs import LAUNCHER_VARIABLES, Knob, nearest_knob, read_knobs

SCRIPTS = Path(__file__).parents[3] / "data" / "scripts"
TRAINER = Path(__file__).parents[4] / "trainer"


@pytest.fixture(scope="module")
def dialects() -> dict[str, Knob]:
    return read_knobs((SCRIPTS / "dialect_knobs.py").read_text())


@pytest.mark.parametrize(
    ("name", "kind", "default"),
    [
        ("MODEL_DIM", "int", 512),
        ("TRAIN_BATCH_TOKENS", "int", 524288),
        ("MATRIX_LR", "float", 0.04),
        ("TIE_EMBEDDINGS", "bool", True),
        ("VOCAB_SIZE", "int", 1024),
        ("NUM_LAYERS", "int", 9),
        ("USE_EMA", "bool", True),
        ("USE_SWA", "bool", False),
        ("WEIGHT_DECAY", "float", 0.1),
        ("COMPILE", "bool", False),
        ("CODEC", "str", "brotli"),
        ("OPT_BETA1", "float", 0.9),
        ("GRAD_CLIP_NORM", "float", 0.0),
        ("ITERATIONS", "int", 20000),
        ("NEW_LR", "float", 0.5),
        ("OLD_LR", "float", 0.5),
        ("RUN_ID", "str", None),
        ("DATA_PATH", "str", None),
        ("LOOP_START", "int", 3),
        ("LOOP_END", "int", 5),
        ("SCALE_2", "str", None),
    ],
)
def test_every_form_of_reading_gives_name_type_and_default(
    dialects: dict[str, Knob], name: str, kind: str, default: object
) -> None:
    knob = dialects[name]
    assert (knob.kind, knob.default) == (kind, default)
    assert type(knob.default) is type(default)


def test_nothing_is_read_that_is_no_knob(dialects: dict[str, Knob]) -> None:
    assert len(dialects) == 23


def test_line_is_where_the_knob_is_read(dialects: dict[str, Knob]) -> None:
    lines = (SCRIPTS / "dialect_knobs.py").read_text().splitlines()
    assert "TIE_EMBEDDINGS" in lines[dialects["TIE_EMBEDDINGS"].line - 1]
    assert "NUM_LAYERS" in lines[dialects["NUM_LAYERS"].line - 1]


def test_knobs_come_in_the_order_of_the_script(dialects: dict[str, Knob]) -> None:
    assert [knob.line for knob in dialects.values()] == sorted(k.line for k in dialects.values())


def test_minified_script_with_named_constants_is_read() -> None:
    source = (
        "import os\n_A='MODEL_DIM';_B='1'\nE=os.environ.get\nd=int(E(_A,64));f=bool(int(E('F',_B)))"
    )
    found = read_knobs(source)
    assert {n: (k.kind, k.default) for n, k in found.items()} == {
        "MODEL_DIM": ("int", 64),
        "F": ("bool", True),
    }


def test_name_bound_twice_is_not_guessed() -> None:
    source = (
        "import os\nname = 'A'\nname = 'B'\nx = os.environ.get(name)\ny = os.environ.get('C', name)"
    )
    assert read_knobs(source) == {"C": Knob(name="C", kind="str", default=None, line=5)}


def test_recursive_wrapper_ends() -> None:
    source = "import os\ndef f(n, d):\n    return f(n, d) or os.environ.get(n, d)\nf('A', 'x')"
    assert read_knobs(source)["A"].default == "x"


def test_gigantic_default_is_not_computed() -> None:
    assert read_knobs("import os\nint(os.environ.get('A', 10 ** 10 ** 10))")["A"].default is None


def test_script_of_a_newer_python_loses_no_wrapped_knob() -> None:
    source = (
        "import os\ndef env_int(n, d):\n    return int(os.environ.get(n, d))\n"
        "heads = env_int('NUM_HEADS', 8)\n"
        "f = bool(int(os.environ.get('FLAG', '0')))\nprint(f'{'a' if heads else 'b'}')\n"
    )
    found = read_knobs(source)
    assert {n: (k.kind, k.default) for n, k in found.items()} == {
        "NUM_HEADS": ("int", 8),
        "FLAG": ("bool", False),
    }


def test_broken_script_is_a_syntax_error() -> None:
    with pytest.raises(SyntaxError):
        read_knobs("import os\nx = int(os.environ.get('A', 1)\n")


@given(st.text(max_size=200))
def test_any_text_gives_knobs_or_a_syntax_error(text: str) -> None:
    with contextlib.suppress(SyntaxError):
        assert isinstance(read_knobs(text), dict)


def test_all_knobs_of_the_trainer_have_a_default() -> None:
    source = (TRAINER / "config.py").read_text()
    found = read_knobs(source)
    read = {
        node.args[0].value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "os.environ.get"
    }
    assert read - LAUNCHER_VARIABLES == found.keys()
    assert [knob.name for knob in found.values() if knob.default is None] == []
    assert (found["NUM_LAYERS"].kind, found["NUM_LAYERS"].default) == ("int", 9)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("MATRIXLR", "MATRIX_LR"), ("matrix_lr", "MATRIX_LR"), ("NUM_LAYER", "NUM_LAYERS")],
)
def test_nearest_knob_is_the_one_that_was_meant(typed: str, meant: str) -> None:
    assert nearest_knob(typed, ["MATRIX_LR", "NUM_LAYERS", "SEED"]) == meant


def test_no_knob_is_near_to_nonsense() -> None:
    assert nearest_knob("QQQQ", ["MATRIX_LR", "SEED"]) is None


def test_command_prints_one_json_document() -> None:
    result = CliRunner().invoke(app, ["knobs", str(SCRIPTS / "good.py"), "--json"])
    document = json.loads(result.stdout)
    named = {knob["name"]: knob for knob in document["knobs"]}
    source = (SCRIPTS / "good.py").read_text().splitlines()
    line = 1 + next(i for i, text in enumerate(source) if text.startswith("MATRIX_LR"))
    assert named["MATRIX_LR"] == {
        "name": "MATRIX_LR", "kind": "float", "default": 0.04, "line": line, "texts": [],
    }  # fmt: skip
    assert document["unnamed"] == []


def test_command_prints_a_table() -> None:
    result = CliRunner().invoke(app, ["knobs", str(SCRIPTS / "good.py")])
    assert result.exit_code == 0
    assert "MODEL_DIM" in result.stdout


def test_command_says_which_reads_it_cannot_name(tmp_path: Path) -> None:
    script = tmp_path / "train_gpt.py"
    script.write_text("import os\nimport names\nfor n in names.ALL:\n    os.environ.get(n)\n")
    result = CliRunner().invoke(app, ["knobs", str(script)])
    assert "1 reads have names that only the running script knows" in result.stderr
    assert "train_gpt.py:4" in result.stderr


def test_command_on_a_script_with_a_syntax_error_is_wrong_input(tmp_path: Path) -> None:
    script = tmp_path / "train_gpt.py"
    script.write_text("import os\nwidth = int(os.environ.get('MODEL_DIM', 512)\n")
    error = CliRunner().invoke(app, ["knobs", str(script)]).exception
    assert isinstance(error, InputError)
    assert error.exit_code == 2
    assert "is not valid Python: '(' was never closed" in str(error)
    assert f"{script}:2" in str(error)


def test_command_reads_a_script_with_a_byte_order_mark(tmp_path: Path) -> None:
    script = tmp_path / "train_gpt.py"
    script.write_bytes(b"\xef\xbb\xbfimport os\nwidth = int(os.environ.get('MODEL_DIM', 512))\n")
    result = CliRunner().invoke(app, ["knobs", str(script), "--json"])
    assert [knob["name"] for knob in json.loads(result.stdout)["knobs"]] == ["MODEL_DIM"]


def test_command_on_a_missing_script_is_wrong_input(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["knobs", str(tmp_path / "none.py")])
    assert type(result.exception).__name__ == "InputError"

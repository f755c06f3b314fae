"""A program is a script and the files beside it, whichever of them reads the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.script.program import from_files, load_program

if TYPE_CHECKING:
    from pathlib import Path

SIBLING = (
    b"import os\ndef env_int(n, d):\n    return int(os.environ.get(n, d))\nB = env_int('B', 2)\n"
)


def test_knobs_that_siblings_read_are_the_programs_too() -> None:
    script = b"import os\nfrom parts.env import env_int\nA = env_int('A', 3)\nB = env_int('B', 5)\n"
    program = from_files("train.py", {"parts/env.py": SIBLING, "train.py": script}, builtin=False)
    assert {name: knob.default for name, knob in program.knobs.items()} == {"A": 3, "B": 5}


def test_sibling_that_does_not_parse_is_left_out_and_the_script_is_not() -> None:
    files = {"train.py": b"import os\nA = os.environ.get('A')\n", "old.py": b"print 'x'\n"}
    assert list(from_files("train.py", files, builtin=False).knobs) == ["A"]
    with pytest.raises(InputError, match=r"old\.py is not valid Python"):
        from_files("old.py", files, builtin=False)


def test_sibling_that_the_script_execs_comes_along_and_is_read(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("exec(open('real.py').read())\n")
    (tmp_path / "real.py").write_bytes(SIBLING)
    (tmp_path / "other.py").write_text("import os\nos.environ.get('OTHER')\n")
    program = load_program("train.py", base=tmp_path)
    assert set(program.files) == {"train.py", "real.py"}
    assert list(program.knobs) == ["B"]
    again = from_files("train.py", program.files, builtin=False)
    assert again.knobs == program.knobs
    (tmp_path / "real.py").unlink()
    assert from_files("train.py", program.files, builtin=False).knobs == program.knobs


def test_byte_order_mark_is_no_syntax_error() -> None:
    script = b"\xef\xbb\xbfimport os\nA = int(os.environ.get('A', 1))\n"
    program = from_files("train.py", {"train.py": script}, builtin=False)
    assert list(program.knobs) == ["A"]
    assert program.source.startswith("import")
    assert program.code_bytes == len(script)


def test_program_tells_of_reads_that_it_cannot_name() -> None:
    script = b"import os, names\nfor n in names.ALL:\n    os.environ.get(n)\n"
    assert from_files("a.py", {"a.py": script}, builtin=False).unnamed == ("a.py:3",)


def test_modules_beside_the_script_come_along_where_they_are_asked_for(tmp_path: Path) -> None:
    files = {
        "train.py": "import os, model.net\nfrom tools import clean\nimport missing\n",
        "model/__init__.py": "",
        "model/net.py": "from . import parts\nfrom .deep.inner import x\n",
        "model/parts.py": "import train\n",
        "model/deep/inner.py": "x = 1\n",
        "tools/clean.py": "def broken(:\n",
        "other.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert set(load_program("train.py", base=tmp_path).files) == {"train.py"}
    taken = load_program("train.py", base=tmp_path, imports=True)
    assert set(taken.files) == files.keys() - {"other.py"}


def test_a_module_that_is_started_brings_its_package(tmp_path: Path) -> None:
    (tmp_path / "src" / "lib").mkdir(parents=True)
    (tmp_path / "src" / "__init__.py").write_text("")
    (tmp_path / "src" / "main.py").write_text("from src.lib import a\nfrom . import b\n")
    (tmp_path / "src" / "lib" / "a.py").write_text("")
    (tmp_path / "src" / "b.py").write_text("")
    found = load_program("src.main", base=tmp_path, imports=True)
    assert found.name == "src/main.py"
    assert set(found.files) == {"src/main.py", "src/__init__.py", "src/lib/a.py", "src/b.py"}

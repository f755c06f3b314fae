"""Knobs that are read of a script are those that it has: each form is run and compared."""

from __future__ import annotations

import os
from typing import Any

import pytest

from pgolf_sweep.script.knobs.knobs import read_knobs, survey

TYPED = """
import os
def env(name, default):
    raw = os.environ.get(name)
    if raw is None:
        return default
    {branches}
    return {last}
A = env("A", 9)
B = env("B", 0.04)
C = env("C", "cosine")
D = env("D", True)
E = env("E", False)
"""
IF_BOOL = 'if isinstance(default, bool): return raw.lower() in ("1", "true")'
IF_BOOL_SIMPLE = 'if isinstance(default, bool): return raw == "1"'
IF_NUMBER = "if isinstance(default, (int, float)): return type(default)(raw)"


def knobs_of(source: str) -> dict[str, tuple[str, Any]]:
    return {name: (knob.kind, knob.default) for name, knob in read_knobs(source).items()}


@pytest.mark.parametrize(
    ("branches", "last"),
    [
        (IF_BOOL, "type(default)(raw)"),
        (IF_BOOL_SIMPLE + "\n    " + IF_NUMBER, "raw"),
        (IF_BOOL_SIMPLE + "\n    if isinstance(default, int): return int(raw)\n"
         "    if isinstance(default, float): return float(raw)", "raw"),
    ],
)  # fmt: skip
def test_wrapper_that_converts_by_its_default_gives_each_knob_its_own_type(
    branches: str, last: str
) -> None:
    source = TYPED.format(branches=branches, last=last)
    assert knobs_of(source) == {
        "A": ("int", 9),
        "B": ("float", 0.04),
        "C": ("str", "cosine"),
        "D": ("bool", True),
        "E": ("bool", False),
    }
    for name, text in {"A": "11", "B": "0.1", "D": "0", "E": "1"}.items():
        assert read_knobs(source)[name].takes(text)
        assert ran(source, {name: text})[name] == {"D": False, "E": True}.get(name, float(text))


@pytest.mark.parametrize(
    "last",
    [
        "default if v is None else type(default)(v)",
        "type(default)(v) if v is not None else default",
        "(kind or type(default))(v) if v else default",
    ],
)
def test_wrapper_of_one_expression_takes_kind_and_default_from_its_calls(last: str) -> None:
    source = (
        "import os\ndef env(name, default, kind=None):\n    v = os.environ.get(name)\n"
        f"    return {last}\nA = env('A', 7)\nB = env('B', 0.5)\n"
    )
    assert knobs_of(source) == {"A": ("int", 7), "B": ("float", 0.5)}


def test_wrapper_with_a_converter_asks_it_first() -> None:
    source = (
        "import os\ndef env(name, default, kind=None):\n    raw = os.environ.get(name)\n"
        "    if raw is None: return default\n"
        "    if isinstance(default, bool) and kind is None: return raw == '1'\n"
        "    return kind(raw) if kind else type(default)(raw)\n"
        "A = env('A', 3, float)\nB = env('B', None, int)\nC = env('C', 3)\nD = env('D', True)\n"
    )
    assert knobs_of(source) == {
        "A": ("float", 3.0),
        "B": ("int", None),
        "C": ("int", 3),
        "D": ("bool", True),
    }


def test_boolean_that_a_wrapper_reads_as_a_number_takes_numbers() -> None:
    source = (
        "import os\ndef env(name, default):\n    raw = os.environ.get(name)\n"
        "    if raw is None: return default\n"
        "    if isinstance(default, int): return int(raw)\n    return raw\nA = env('A', False)\n"
    )
    assert read_knobs(source)["A"].texts == ("1", "0")
    assert not ran(source, {"A": "0"})["A"]


def test_parameter_is_not_taken_for_a_name_of_another_function() -> None:
    source = (
        "import os\ndef env_int(name, default):\n    return int(os.environ.get(name, default))\n"
        "def banner():\n    name = 'hello'\n    print(name)\n"
        "A = env_int('A', 9)\nB = env_int('B', 512)\n"
    )
    assert knobs_of(source) == {"A": ("int", 9), "B": ("int", 512)}


def test_name_of_a_function_is_not_seen_from_another() -> None:
    source = (
        "import os\nKEY = 'A'\ndef one():\n    KEY = 'B'\n    return os.environ.get(KEY)\n"
        "def two():\n    return os.environ.get(KEY)\n"
    )
    assert list(read_knobs(source)) == ["B", "A"]


FLAGS = [
    'bool(os.environ.get("X", "0"))',
    'bool(os.environ.get("X", ""))',
    'bool(int(os.environ.get("X", "0")))',
    'os.environ.get("X", "false").lower() == "true"',
    'os.environ.get("X", "TRUE").strip().lower() == "true"',
    'os.environ.get("X", "1") != "0"',
    'os.environ.get("X", "0") not in ("0", "")',
    'os.environ.get("X", "yes") == "1"',
    'os.environ.get("X", "True") == "True"',
    'os.environ.get("X", "no") in {"1", "true", "yes"}',
    '"1" == os.environ.get("X", "0")',
    'parse(os.environ.get("X", "on"))',
    '(lambda text: text == "1")(os.environ.get("X", "1"))',
    'os.environ.get("X", "OFF").upper() == "ON"',
]
PARSE = """
import os
def parse(text):
    if text.lower() in ("0", "off", "no"):
        return False
    return True
"""


def ran(source: str, env: dict[str, str]) -> dict[str, Any]:
    names: dict[str, Any] = {}
    kept = dict(os.environ)
    os.environ.update(env)
    try:
        exec(source, names)  # noqa: S102 - the forms above
    finally:
        os.environ.clear()
        os.environ.update(kept)
    return names


@pytest.mark.parametrize("flag", FLAGS)
def test_boolean_has_its_default_and_the_texts_that_make_it_true_and_false(flag: str) -> None:
    source = f"{PARSE}value = {flag}\n"
    knob = read_knobs(source)["X"]
    assert (knob.kind, knob.default) == ("bool", ran(source, {})["value"])
    true, false = knob.texts
    assert ran(source, {"X": true})["value"] is True
    assert ran(source, {"X": false})["value"] is False
    for text in ("0", "1", "true", "True", "false", "yes", "no", "on", "off", ""):
        if knob.takes(text):
            says = text.lower() in {"1", "true", "yes", "on"}
            assert ran(source, {"X": text})["value"] is says


def test_flag_that_says_no_shows_what_the_script_makes_of_it() -> None:
    source = 'import os\nvalue = os.environ.get("NO_X", "0") != "1"\n'
    knob = read_knobs(source)["NO_X"]
    assert (knob.default, knob.texts) == (True, ("0", "1"))
    assert knob.takes(0)
    assert knob.takes("1")
    assert not knob.takes(value=True)  # of the variable, or of what it says no to?


PARTIAL = """
from functools import partial
def f(n, d): return int(G(n, d))
e = partial(f, d=3)
e("A")
"""
FIELDS = """
from dataclasses import dataclass, fields
@dataclass
class H:
    depth: int = 9
    rate: float = 0.5
    def __post_init__(self):
        for f in fields(self):
            k = f.name.upper()
            if k in os.environ:
                setattr(self, f.name, type(f.default)(os.environ[k]))
"""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("for i in range(2): int(G(f'LAYER_{i}_DIM', 64))",
         {"LAYER_0_DIM": ("int", 64), "LAYER_1_DIM": ("int", 64)}),
        ("for i in range(1, 3): G(f'L{i:02d}')", {"L01": ("str", None), "L02": ("str", None)}),
        ("for p in ('A', 'B'): float(G('LR_%s' % p, 0.1))",
         {"LR_A": ("float", 0.1), "LR_B": ("float", 0.1)}),
        ("for p in ('A', 'B'): float(G('WD_{}'.format(p), 0.1))",
         {"WD_A": ("float", 0.1), "WD_B": ("float", 0.1)}),
        ("for p in 'AB',:\n  for i in range(2):\n    key = f'{p}_{i}'\n    int(G(key, 1))",
         {"AB_0": ("int", 1), "AB_1": ("int", 1)}),
        ("for k, v in dict(j=1, l=2.0).items(): type(v)(G(k.upper(), v))",
         {"J": ("int", 1), "L": ("float", 2.0)}),
        ("for i, p in enumerate(('A', 'B')): int(G(f'{p}{i}', i))",
         {"A0": ("int", 0), "B1": ("int", 1)}),
        ("def load(e):\n  return int(e['A']), e.get('B', '3')\nload(os.environ)",
         {"B": ("str", "3"), "A": ("int", None)}),
        ("def load(e=os.environ):\n  return e.get('A', '3')\nload()", {"A": ("str", "3")}),
        (PARTIAL, {"A": ("int", 3)}),
        ("class Env:\n  def __call__(self, n, d): return int(G(n, d))\ne = Env()\ne('A', 3)",
         {"A": ("int", 3)}),
        ("N = int(v) if (v := G('A')) else 5", {"A": ("int", None)}),
        ("n = int(G('A') or '7')", {"A": ("int", 7)}),
        ("f = [lambda k=k: int(G(k, 1)) for k in ('A', 'B')]",
         {"A": ("int", 1), "B": ("int", 1)}),
        (FIELDS, {"DEPTH": ("int", 9), "RATE": ("float", 0.5)}),
    ],
)  # fmt: skip
def test_names_that_the_text_implies_are_read(source: str, expected: dict[str, Any]) -> None:
    assert knobs_of(f"import os\nG = os.environ.get\n{source}\n") == expected


@pytest.mark.parametrize(
    "source",
    [
        "for n in open('names'): os.environ.get(n)",
        "def f(n): return os.environ.get(n)\nlist(map(f, names))",
        "def f(names):\n  for n in names: os.environ.get(n)\nf(['A'])",
        "for i in range(10 ** 9): os.environ.get(f'A{i}')",
        "for i in range(2): os.environ.get(f'{i:999999999}')",
        "for i in range(2): os.environ.get('%999999999d' % i)",
    ],
)
def test_reads_whose_names_only_the_running_script_knows_are_counted(source: str) -> None:
    found = survey({"train.py": f"import os\n{source}\n"})
    assert len(found.unnamed) == 1
    assert found.unnamed[0].startswith("train.py:")
    assert found.knobs == {}


def test_wrapper_that_nothing_calls_reads_nothing() -> None:
    source = "import os\ndef f(n):\n    return os.environ.get(n)\nf('A')\n"
    assert survey({"a.py": source}).unnamed == ()
    assert survey({"a.py": source.replace("f('A')\n", "")}).unnamed == ()


def test_doubling_names_do_not_take_for_ever() -> None:
    lines = ["import os", "a0 = 'x'"] + [f"a{i + 1} = a{i} + a{i}" for i in range(29)]
    assert read_knobs("\n".join([*lines, "os.environ.get('A', a29)"]))["A"].default is None

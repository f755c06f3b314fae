from __future__ import annotations

import subprocess
import sys

import pytest

from pgolf_sweep.core.errors import PromotionError
from pgolf_sweep.promote.defaults import with_defaults

SCRIPT = """\
# Grüße: a byte-counted comment
import os
from os import getenv

def env_int(name, default): return int(os.environ.get(name, default))

class Hyperparameters:
    layers = int(os.environ.get("NUM_LAYERS", 9)); dim = int(getenv("MODEL_DIM", "512"))
    lr = float(os.environ.get("MATRIX_LR",
        0.04))  # ü
    tie = bool(int(os.environ.get("TIE", "1")))
    schedule = os.environ.get("LR_SCHEDULE", "linear")
    clip = os.environ.get("CLIP")
    heads = env_int("NUM_HEADS", 8)

h = Hyperparameters
print(h.layers, h.dim, h.lr, h.tie, h.schedule, h.clip, h.heads)
"""
KNOBS = {
    "NUM_LAYERS": 11,
    "MODEL_DIM": 448,
    "MATRIX_LR": 0.0213,
    "TIE": False,
    "LR_SCHEDULE": "cosine",
    "CLIP": 0.3,
    "NUM_HEADS": 7,
}


def printed(source: str, env: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", source], env=env, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_bare_run_prints_what_a_run_with_the_environment_prints() -> None:
    env = {name: str(int(v) if isinstance(v, bool) else v) for name, v in KNOBS.items()}
    assert printed(with_defaults(SCRIPT, KNOBS), {}) == printed(SCRIPT, env)


def test_every_other_byte_stays() -> None:
    changed = with_defaults(SCRIPT.replace("\n", "\r\n"), {"MATRIX_LR": 0.02})
    assert changed == SCRIPT.replace("\n", "\r\n").replace("0.04", "0.02")
    assert with_defaults(SCRIPT, {"NUM_LAYERS": 9, "MODEL_DIM": 512, "TIE": True}) == SCRIPT


def test_the_environment_still_wins() -> None:
    changed = with_defaults(SCRIPT, KNOBS)
    assert printed(changed, {"NUM_LAYERS": "3"}).startswith("3 448 ")


def test_knobs_without_a_default_are_named() -> None:
    with pytest.raises(PromotionError, match="no default for MUON, WD"):
        with_defaults(SCRIPT, {"NUM_LAYERS": 3, "WD": 0.1, "MUON": 1})


def test_a_script_that_does_not_parse_is_refused() -> None:
    with pytest.raises(PromotionError, match="does not parse"):
        with_defaults("def f(:\n", {"A": 1})


def test_flag_of_words_gets_the_word_and_a_typed_wrapper_keeps_a_number() -> None:
    source = (
        "import os\ndef env(name, default):\n    raw = os.environ.get(name)\n"
        "    if raw is None: return default\n"
        "    if isinstance(default, bool): return raw == '1'\n    return type(default)(raw)\n"
        "flag = os.environ.get('FLAG', 'false').lower() == 'true'\n"
        "print(flag, int(env('TIED', True)), env('DEPTH', 9) + 1)\n"
    )
    changed = with_defaults(source, {"FLAG": True, "TIED": False, "DEPTH": 11})
    assert printed(changed, {}) == "True 0 12\n"


def test_a_minified_script_is_read_by_its_own_names_for_os() -> None:
    source = (
        "import os as C\nfrom os import getenv as g\na=int(C.environ.get('A',1))\nb=g('B','x')\n"
    )
    changed = with_defaults(source, {"A": 2, "B": "y"})
    found: dict[str, object] = {}
    exec(changed, found)  # noqa: S102 - the test's own script
    assert (found["a"], found["b"]) == (2, "y")

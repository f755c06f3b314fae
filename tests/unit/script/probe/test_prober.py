"""Somebody else's script is counted without being run; nothing that it does gets out."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.probing import MODEL, probed, program, reason

from pgolf_sweep.script.probe.prober import Probed, Prober, Unprobed, stop_helper
from pgolf_sweep.script.program import from_files

if TYPE_CHECKING:
    from collections.abc import Iterator

TINY = Path(__file__).parents[3] / "data" / "scripts" / "tiny_gpt.py"
LAYER = 128 * 128 + 4 * 128 * 128 + 128


@pytest.fixture(scope="module", autouse=True)
def _helper_ends() -> Iterator[None]:
    yield
    stop_helper()


@pytest.fixture(scope="module")
def tiny() -> Prober:
    return Prober(program(TINY.read_text()))


def test_parameters_are_counted_by_the_scripts_own_constructor_call(tiny: Prober) -> None:
    result = tiny.probe({})
    assert isinstance(result, Probed)
    assert result.model_params == 256 * 128 + 2 * LAYER
    assert {t.name: t.shape for t in result.tensors}["blocks.1.mlp.weight"] == (512, 128)
    assert "GPT(args.vocab_size" in result.how
    assert result.stand_ins == ("flash_attn_interface",)
    assert not result.notes
    deeper = tiny.probe({"NUM_LAYERS": 3})
    assert isinstance(deeper, Probed)
    assert deeper.model_params == 256 * 128 + 3 * LAYER


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was asked of the helper process from here on."""
    requests: list[object] = []
    ask = Prober._ask
    monkeypatch.setattr(
        Prober, "_ask", lambda self, values: requests.append(values) or ask(self, values)
    )
    return requests


def test_knobs_that_do_not_matter_cost_no_probe(tiny: Prober, asked: list[object]) -> None:
    tiny.probe({})
    asked.clear()
    for rate in range(100):
        assert isinstance(tiny.probe({"MATRIX_LR": rate / 1000}), Probed)
    assert asked == []


RATES = [{"MATRIX_LR": rate / 1000} for rate in range(200)]
IN_MODULE = """
import os
from torch import nn
MODEL_DIM = int(os.environ.get("MODEL_DIM", 16))
MATRIX_LR = float(os.environ.get("MATRIX_LR", 0.02))
class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.Linear(MODEL_DIM, MODEL_DIM, bias=False)
def train(model):
    print(MATRIX_LR)
def main():
    model = GPT()
    train(model)
if __name__ == "__main__":
    main()
"""
IN_CONSTRUCTOR = MODEL.replace(
    '    dim = int(os.environ.get("MODEL_DIM", 16))',
    "    def __init__(self):\n"
    '        width = int(os.environ.get("MODEL_DIM", 16))\n'
    "        self.dim = width\n"
    '        self.rate = float(os.environ.get("MATRIX_LR", 0.02))',
).replace("Hyperparameters.dim", "Hyperparameters().dim")
AS_CLASS = MODEL.replace(
    "class GPT", '    rate = float(os.environ.get("MATRIX_LR", 0.02))\nclass GPT'
).replace("model = GPT(Hyperparameters.dim)", "h = Hyperparameters\n    model = GPT(h.dim)")


@pytest.mark.parametrize("source", [IN_MODULE, IN_CONSTRUCTOR, AS_CLASS])
def test_only_knobs_that_the_model_depends_on_cost_a_probe(
    source: str, asked: list[object]
) -> None:
    prober = Prober(program(source))
    assert isinstance(prober.probe({}), Probed)
    for rate in RATES:
        assert isinstance(prober.probe(rate), Probed)
    assert len(asked) == 1
    wide = prober.probe({"MODEL_DIM": 32})
    assert isinstance(wide, Probed)
    assert wide.model_params == 32 * 32


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "no torch module"),
        ("input()\n", "standard input"),
        ("import torch\ntorch.zeros(1, device='cuda')\n", "needs CUDA"),
    ],
)
def test_failure_that_no_knob_decides_is_found_once(
    source: str, words: str, asked: list[object]
) -> None:
    read = "import os\nR = float(os.environ.get('MATRIX_LR', 1))\n"
    prober = Prober(program(read + source))
    first = prober.probe({})
    assert isinstance(first, Unprobed)
    assert words in first.reason
    assert all(prober.probe(rate) is first for rate in RATES)
    assert len(asked) == 1


def test_failure_that_a_knob_decides_is_asked_again_for_another_value() -> None:
    head = "import os\nassert os.environ.get('MODE', 'a') == 'a', 'no such mode'\n"
    prober = Prober(program(head + MODEL))
    assert isinstance(prober.probe({"MODE": "b"}), Unprobed)
    assert isinstance(prober.probe({"MODE": "a"}), Probed)


def test_another_shape_costs_no_import_of_its_own(tiny: Prober) -> None:
    tiny.probe({})
    costs = [tiny.probe({"NUM_LAYERS": depth}).cpu_seconds for depth in range(4, 13)]
    fresh = Prober(program(TINY.read_text()), fresh=True)
    imported = [fresh.probe({"NUM_LAYERS": depth}).cpu_seconds for depth in range(4, 7)]
    assert sorted(costs)[4] < sorted(imported)[1] / 3


def same(prober: Prober, knobs: dict[str, object]) -> bool:
    """Whether the kept process answers as a fresh one."""
    fresh = Prober(prober._program, fresh=True)
    kept, other = (one.probe(knobs) for one in (prober, fresh))
    return replace(kept, seconds=0, cpu_seconds=0) == replace(other, seconds=0, cpu_seconds=0)


def test_kept_process_answers_as_a_fresh_one() -> None:
    prober = Prober(program(TINY.read_text()))
    rng = random.Random(5)
    for _ in range(12):
        knobs = {
            "MODEL_DIM": rng.choice([16, 96, 128, 160, 384]),
            "NUM_LAYERS": rng.randint(1, 5),
            "NUM_HEADS": rng.choice([2, 4, 5]),  # five heads are refused
        }
        assert same(prober, knobs), knobs


MESSY = """
import os, random, sys, types
import torch
from torch import nn
from parts import LAYERS
DIM = int(os.environ.get("MODEL_DIM", 16))
if DIM == 64:
    import helper_that_is_missing
torch.manual_seed(DIM)
torch.set_default_dtype(torch.bfloat16 if DIM == 32 else torch.float32)
torch.set_grad_enabled(False)
_plain = nn.Linear
class Doubled(_plain):
    def __init__(self, width, *rest, **more):
        super().__init__(2 * width, *rest, **more)
nn.Linear = Doubled
nn.Embedding.reset_parameters = lambda self: None
torch.seen_before = getattr(torch, "seen_before", 0) + 1
sys.path.append(str(DIM))
os.environ["LEFT_BEHIND"] = os.environ.get("LEFT_BEHIND", "") + "x"
sys.modules["made_up"] = types.ModuleType("made_up")
if DIM == 48:
    os._exit(3)
if DIM == 80:
    raise RuntimeError("no such width")
class GPT(nn.Module):
    def __init__(self, dim):
        super().__init__()
        more = torch.seen_before + len(os.environ["LEFT_BEHIND"]) + random.randint(0, 3)
        self.matrices = nn.ModuleList(nn.Linear(dim, dim + more) for _ in range(LAYERS))
        self.table = nn.Embedding(7, sys.path.count(str(DIM)))
def main():
    model = GPT(DIM)
"""
PARTS = 'import os\nLAYERS = int(os.environ.get("MODEL_DIM", 16)) // 8\n'


def test_what_a_script_does_to_its_process_is_undone() -> None:
    prober = Prober(program(MESSY, parts_py=PARTS))
    for width in (16, 32, 64, 24, 48, 80, 128, 40):
        assert same(prober, {"MODEL_DIM": width}), width


def test_process_is_kept_and_ends_with_its_helper() -> None:
    # By the tick of its start: its number is 1 wherever it has a namespace of its own.
    started = 'int(open("/proc/self/stat").read().rpartition(")")[2].split()[19])'
    telling = MODEL.replace(
        "        self.matrix",
        f"        self.started = nn.Linear({started}, 1)\n        self.matrix",
    )
    prober = Prober(program(telling))
    ticks = set()
    for width in (8, 16, 24):
        result = prober.probe({"MODEL_DIM": width})
        assert isinstance(result, Probed), result
        ticks |= {one.shape[1] for one in result.tensors if one.name == "started.weight"}
    (tick,) = ticks
    pids = [int(one.name) for one in Path("/proc").glob("[0-9]*")]
    ours = [pid for pid in pids if _start(pid) == tick]
    assert ours
    stop_helper()
    deadline = time.monotonic() + 60
    while any(_start(pid) == tick for pid in ours) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_start(pid) == tick for pid in ours)


def _start(pid: int) -> int | None:
    """The tick at which a process started, None where there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None


def test_refusal_of_the_constructor_is_told_in_its_words(tiny: Prober) -> None:
    result = tiny.probe({"NUM_HEADS": 3})
    assert isinstance(result, Unprobed)
    assert result.refused_by_script
    assert "model_dim must be divisible by num_heads" in result.reason


def test_sibling_of_the_script_can_be_imported() -> None:
    result = probed("from parts import WIDTH\n" + MODEL, parts_py="WIDTH = 3\n")
    assert isinstance(result, Probed)
    assert not result.stand_ins


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("import sys\nsys.exit(3)\n", "calls sys.exit(3)"),
        ("name = input()\n", "reads its standard input"),
        ("import os\nos.fork()\n", "forks"),
        ("import subprocess\nsubprocess.run(['curl', 'x'])\n", "starts a program"),
        ("import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9/x')\n", "downloads"),
        ("import socket\nsocket.create_connection(('127.0.0.1', 9))\n", "looks up a host name"),
        ("raise RuntimeError('no')\n", "RuntimeError: no"),
        ("import os\nos._exit(4)\n", "ended the process"),
        ("import torch\ntorch.zeros(1, device='cuda')\n", "needs CUDA at import"),
    ],
)
def test_trouble_at_import_is_named(head: str, words: str) -> None:
    assert words in reason(head + MODEL)


def test_gpu_that_is_only_asked_for_is_pretended() -> None:
    result = probed("import torch\nassert torch.cuda.is_available(), 'needs a GPU'\n" + MODEL)
    assert isinstance(result, Probed)
    assert "it was told of one" in result.notes[0]


def test_endless_import_is_killed_even_if_it_ignores_signals() -> None:
    ignoring = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: pass\n"
    assert "takes longer than 1 s" in reason(ignoring + MODEL, seconds=1.0)


def test_script_that_runs_when_imported_is_not_run() -> None:
    result = probed(MODEL + "    raise SystemExit('ran')\nmain()\n")
    assert isinstance(result, Probed)
    assert "that was left out" in result.notes[0]


def test_part_of_the_model_from_a_missing_package_is_never_counted_silently() -> None:
    mixed = MODEL.replace("from torch", "import mamba_thing\nfrom torch").replace(
        "        self.matrix", "        self.mixer = mamba_thing.Mixer(dim)\n        self.matrix"
    )
    result = probed(mixed)
    assert isinstance(result, Probed)
    assert result.incomplete
    assert "mamba_thing.Mixer" in result.notes[0]


def test_script_without_a_model_says_so() -> None:
    assert "no torch module" in reason("import os\nX = os.environ.get('X', 1)\n")


def test_packed_script_is_probed_by_its_text() -> None:
    import base64
    import lzma

    packed = base64.b85encode(lzma.compress(MODEL.encode())).decode()
    result = probed(f"import lzma, base64\nexec(lzma.decompress(base64.b85decode('{packed}')))\n")
    assert isinstance(result, Probed)
    assert result.model_params == 256


def test_newer_fstrings_are_read() -> None:
    result = probed(MODEL + 'def say(h):\n    print(f"{h["x"]} {", ".join(h)}")\n')
    assert isinstance(result, Probed)


def test_a_script_that_cannot_be_probed_is_soon_left_alone(asked):
    script = "import os\nraise RuntimeError(os.environ.get('MATRIX_LR', '0.02'))\n"
    prober = Prober(from_files("train_gpt.py", {"train_gpt.py": script.encode()}, builtin=False))
    found = [prober.probe({"MATRIX_LR": 0.01 * turn}) for turn in range(1, 9)]
    assert all(isinstance(one, Unprobed) for one in found)
    given_up = "given up after 3 failures, the last: RuntimeError"
    assert all(given_up in one.reason for one in found[3:])
    assert len(asked) <= 4  # the defaults are asked, too


def test_failures_of_three_configurations_do_not_speak_for_the_others() -> None:
    refusing = MODEL.replace(
        "        self.matrix",
        "        if dim % 3 == 0:\n            raise RuntimeError('bad')\n        self.matrix",
    )
    prober = Prober(program(refusing))
    assert all(isinstance(prober.probe({"MODEL_DIM": dim}), Unprobed) for dim in (3, 6, 9, 12))
    assert isinstance(prober.probe({"MODEL_DIM": 64}), Probed)

"""The model that is counted is the one that the script makes, or it is said to be uncertain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.probing import MODEL, counted, program

from pgolf_sweep.script.probe.prober import Probed, Prober, Unprobed, stop_helper

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = """
import os
import torch
from dataclasses import dataclass
from torch import nn
class GPT(nn.Module):
    def __init__(self, dim, depth):
        super().__init__()
        self.emb = nn.Embedding(256, dim)
        self.head = nn.Linear(dim, 256, bias=False)
        self.blocks = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(depth))
class Hyperparameters:
    dim = int(os.environ.get("MODEL_DIM", 16))
    depth = int(os.environ.get("NUM_LAYERS", 2))
    rate = float(os.environ.get("MATRIX_LR", 0.02))
"""
TAIL = """
if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module", autouse=True)
def _helper_ends() -> Iterator[None]:
    yield
    stop_helper()


def params(dim: int, depth: int) -> int:
    return 2 * 256 * dim + depth * dim * dim


def test_settings_are_made_as_the_script_makes_them() -> None:
    source = HEAD + (
        "@dataclass\n"
        "class Config:\n"
        "    dim: int = 8\n"
        "    depth: int = 1\n"
        "    @classmethod\n"
        "    def from_env(cls):\n"
        '        return cls(int(os.environ.get("WIDTH", 24)), int(os.environ.get("DEPTH", 3)))\n'
        "def build(args):\n"
        "    return GPT(args.dim, args.depth)\n"
        "def main():\n"
        "    args = Config.from_env()\n"
        "    model = build(args)\n" + TAIL
    )
    source = source.replace(HEAD, HEAD[: HEAD.index("class Hyper")])
    prober = Prober(program(source))
    first, wide = prober.probe({}), prober.probe({"WIDTH": 48})
    assert isinstance(first, Probed)
    assert isinstance(wide, Probed)
    assert (first.model_params, wide.model_params) == (params(24, 3), params(48, 3))
    assert not first.notes


@pytest.mark.parametrize(
    "build",
    [
        (
            "def make(args, dim, depth):\n    return GPT(dim, depth)\n"
            "def main():\n    args = Hyperparameters()\n"
            "    model = make(args, args.dim * 2, depth=args.depth * 3)\n"
        ),
        (
            "def make(args, depth, dim=32):\n    return GPT(dim, depth)\n"
            "def train(args, more):\n    return make(args, more)\n"
            "def main():\n    args = Hyperparameters()\n    model = train(args, 6)\n"
        ),
        (
            "class Trainer:\n    def __init__(self, dim, depth):\n        model = GPT(dim, depth)\n"
            "def main():\n    Trainer(32, 6)\n"
        ),
    ],
)
def test_parameters_of_a_function_are_what_its_call_passes(build: str) -> None:
    result = counted(HEAD + build + TAIL)
    assert result.model_params == params(32, 6)
    assert not result.incomplete


def test_argument_that_no_call_decides_is_said_to_be_a_guess() -> None:
    make = "def make(dim, depth):\n    return GPT(dim, depth)\n"
    for rest in (
        "launch = make\n",  # called by another name
        "def main():\n    a = make(8, 1)\n    b = make(16, 2)\n",
        "def main():\n    model = make(*read())\n",
    ):
        result = counted(HEAD + make + rest + TAIL)
        assert result.incomplete, rest
        assert "of dim in make is a guess" in " ".join(result.notes)


def test_calls_that_pass_the_same_leave_no_doubt() -> None:
    twice = (
        "def make(args):\n    return GPT(args.dim, args.depth)\n"
        "def train():\n    args = Hyperparameters()\n    model = make(args)\n"
        "def final():\n    args = Hyperparameters()\n    model = make(args)\n"
    )
    result = counted(HEAD + twice)
    assert result.model_params == params(16, 2)
    assert not result.incomplete


MADE = "def main():\n    args = Hyperparameters()\n    model = GPT(args.dim, args.depth).float()\n"


@pytest.mark.parametrize(
    ("later", "count"),
    [
        ("model.head.weight = model.emb.weight", params(16, 2) - 256 * 16),
        ("if args.depth > 1:\n        model.head.weight = model.emb.weight", params(16, 2) - 4096),
        ("core = model\n    core.extra = nn.Linear(args.dim, 100)", params(16, 2) + 1700),
        ("extra = nn.Linear(args.dim, 100)\n    setattr(model, 'extra', extra)", 8704 + 1700),
        ("del model.head", params(16, 2) - 256 * 16),
        ("model.blocks.append(nn.Linear(args.dim, args.dim, bias=False))", params(16, 3)),
        ("for block in model.blocks:\n        block.gate = nn.Linear(16, 1)", 8704 + 34),
        ("model = wrap(model)\n    model.extra = nn.Linear(16, 100)", params(16, 2)),
        ("model.emb.weight.requires_grad = False", params(16, 2)),
    ],
)
def test_changes_of_the_model_after_its_constructor_count(later: str, count: int) -> None:
    result = counted(HEAD + MADE + f"    {later}\n" + TAIL)
    assert result.model_params == count
    assert not result.incomplete


def test_changes_count_where_a_function_returns_the_model() -> None:
    build = (
        "def build(args):\n    net = GPT(args.dim, args.depth)\n    del net.head\n    return net\n"
        "def main():\n    args = Hyperparameters()\n    model = build(args)\n"
        "    model.extra = nn.Linear(args.dim, 100)\n"
    )
    result = counted(HEAD + build + TAIL)
    assert result.model_params == params(16, 2) - 4096 + 1700


def test_change_that_cannot_be_repeated_is_noted() -> None:
    result = counted(HEAD + MADE + "    model.head = torch.load('head.pt')\n" + TAIL)
    assert result.incomplete
    assert "a change of the model after its constructor fails: line" in result.notes[0]


def test_what_a_training_does_to_its_model_is_not_repeated() -> None:
    training = (
        "    model.warm = False\n"
        "    for step in range(9):\n        model(step).backward()\n"
        "        model.extra = nn.Linear(9, 9)\n"
        "    model.more = nn.Linear(9, 9)\n"
    )
    result = counted(HEAD + MADE + training + TAIL)
    assert result.model_params == params(16, 2)
    assert not result.notes


def test_knob_of_a_sibling_is_asked_again_for_another_value() -> None:
    source = HEAD + (
        "import config\n"
        'print(os.environ.get("DEPTH", 2))\n'
        "def main():\n    model = GPT(Hyperparameters.dim, config.DEPTH)\n"
    )
    sibling = (
        'import os\nDEPTH = int(os.environ.get("DEPTH", 2)) + int(os.environ.get("MORE", 0))\n'
    )
    prober = Prober(program(source, config_py=sibling))
    asked = [{}, {"DEPTH": 8}, {"MORE": 1}, {"DEPTH": 8, "MORE": 1}, {}]
    found = [prober.probe(one) for one in asked]
    assert all(isinstance(one, Probed) for one in found)
    assert [one.model_params for one in found] == [params(16, n) for n in (2, 8, 3, 9, 2)]
    assert all(prober.probe({"MATRIX_LR": rate / 100}) is found[0] for rate in range(9))


CHECKED = MODEL.replace("from torch", "import torch\nfrom torch").replace(
    "        self.matrix", "        CHECK\n        self.matrix"
)


@pytest.mark.parametrize(
    ("check", "refused"),
    [
        ("assert dim != 24, 'no such width'", True),
        ("if not torch.cuda.device_count() and dim == 24: raise ValueError('no device')", None),
        ("assert dim != 24 or torch.cuda.is_available(), 'width 24 needs CUDA'", None),
        ("assert not (torch.cuda.is_available() or dim == 24), 'no such width'", True),
        ("assert dim != 24, 'this width wants two GPUs'", False),
        ("assert dim != 24 or dim in absent.WIDTHS, 'no such width'", False),
    ],
)
def test_only_what_a_run_would_refuse_too_is_refused_by_the_script(
    check: str, refused: bool | None
) -> None:
    prober = Prober(program("import absent\n" + CHECKED.replace("CHECK", check)))
    assert isinstance(prober.probe({}), Probed)
    result = prober.probe({"MODEL_DIM": 24})
    if refused is None:
        assert isinstance(result, Probed), result.reason
        assert "it was told of one" in result.notes[0]
    else:
        assert isinstance(result, Unprobed)
        assert result.refused_by_script == refused

"""A run of a script's `main()` counts what the script constructs and weighs what it exports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.contest_scripts import BLOCKS, HEAD, MAIN, TABLE, TRAINING
from support.probing import program

from pgolf_sweep.script.probe.client import stop_helper
from pgolf_sweep.script.probe.runner import FAILURES_ALIKE, Counted, Exported, RunFailed, Runner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pgolf_sweep.core.trial import KnobValue


@pytest.fixture(scope="module", autouse=True)
def _helper_ends() -> Iterator[None]:
    yield
    stop_helper()


def runner(source: str) -> Runner:
    return Runner(program(source))


def counted(source: str, knobs: Mapping[str, KnobValue] | None = None) -> Counted:
    found = runner(source).count(knobs or {})
    assert isinstance(found, Counted), found.reason
    return found


def exported(source: str, sigma: float = 0.02, knobs: Mapping[str, KnobValue] | None = None):
    one = runner(source)
    model = one.count(knobs or {})
    assert isinstance(model, Counted), model.reason
    found = one.export(knobs or {}, {tensor.name: sigma for tensor in model.tensors})
    assert isinstance(found, Exported), found.reason
    return found


CONSTRUCTING = {
    "expression": "model = Table(64) if args.kind == 'table' else GPT(args.layers, args.dim)",
    "dictionary": "model = {'table': lambda: Table(64), "
    "'blocks': lambda: GPT(args.layers, args.dim)}[args.kind]()",
    "if": "if args.kind == 'table':\n        model = Table(64)\n"
    "    else:\n        model = GPT(args.layers, args.dim)",
    "else": "if args.kind == 'blocks':\n        model = GPT(args.layers, args.dim)\n"
    "    else:\n        model = Table(64)",
    "class": "cls = Table if args.kind == 'table' else GPT\n"
    "    model = cls(64) if args.kind == 'table' else cls(args.layers, args.dim)",
    "helper": "model = make(args)",
}


@pytest.mark.parametrize("constructing", CONSTRUCTING.values(), ids=CONSTRUCTING)
def test_each_branch_is_counted_as_the_model_that_it_constructs(constructing: str) -> None:
    helper = (
        "def make(args):\n"
        "    for name, kind, rest in (('table', Table, (64,)),"
        " ('blocks', GPT, (args.layers, args.dim))):\n"
        "        if name == args.kind:\n            return kind(*rest)\n"
    )
    source = HEAD + helper + MAIN.replace("model = GPT(args.layers, args.dim)", constructing)
    one = runner(source)
    blocks, table = one.count({}), one.count({"MODEL_KIND": "table"})
    assert isinstance(blocks, Counted)
    assert isinstance(table, Counted)
    assert (blocks.model_params, table.model_params) == (BLOCKS, TABLE)
    assert not blocks.incomplete
    assert not table.incomplete


def test_a_class_variable_of_another_branch_counts() -> None:
    source = HEAD.replace('blocks")', 'blocks")\n    model = None') + (
        "Hyperparameters.model = Table if Hyperparameters.kind == 'table' else GPT\n"
        + MAIN.replace(
            "GPT(args.layers, args.dim)",
            "args.model(*((64,) if args.kind == 'table' else (args.layers, args.dim)))",
        )
    )
    one = runner(source)
    assert one.count({}).model_params == BLOCKS  # type: ignore[union-attr]
    assert one.count({"MODEL_KIND": "table"}).model_params == TABLE  # type: ignore[union-attr]


@pytest.mark.parametrize("knob", ["", 'decay = float(os.environ.get("MATRIX_FORGETS", "0.04"))'])
def test_decay_that_the_script_applies_itself_is_seen_under_any_name(knob: str) -> None:
    decay = "args.decay" if knob else "0.04"
    head = HEAD.replace("    dim = int", f"    {knob}\n    dim = int") if knob else HEAD
    body = MAIN.replace(
        "    export(",
        "    with torch.no_grad():\n        for p in model.blocks.parameters():\n"
        f"            p.mul_(1.0 - args.rate * {decay})\n    export(",
    )
    found = counted(head + body)
    assert set(found.factors) == {"blocks.0.weight", "blocks.1.weight"}
    assert found.factors["blocks.0.weight"] == pytest.approx(1 - 0.02 * 0.04)


def test_a_blob_beside_the_tensors_is_counted_once() -> None:
    returned = MAIN.replace(
        "export(quantize(model.state_dict()))",
        "stored, blob = build(model.state_dict())\n    export(stored)",
    )
    build = (
        "def build(state):\n    stored = quantize(state)\n    buffer = io.BytesIO()\n"
        "    torch.save(stored, buffer)\n    return stored, zlib.compress(buffer.getvalue(), 9)\n"
    )
    assert exported(HEAD + build + returned).model_bytes == exported(HEAD + MAIN).model_bytes


def test_tables_beside_the_weights_count() -> None:
    more = "{'w': quantize(model.state_dict()), 'table': torch.randint(0, 255, (200_000,), "
    more += "dtype=torch.uint8)}"
    with_table = exported(HEAD + MAIN.replace("quantize(model.state_dict())", more))
    plain = exported(HEAD + MAIN)
    assert with_table.model_bytes - plain.model_bytes == pytest.approx(200_000, rel=0.01)


def test_a_quantizer_gets_the_statistics_that_it_asks_for() -> None:
    source = (HEAD + MAIN).replace("def quantize(state):", "def quantize(state, hessians, stats):")
    source = source.replace(
        "    export(",
        "    hessians = {n: torch.eye(p.shape[1], device='cuda') for n, p in "
        "model.named_parameters()}\n"
        "    stats = {n: torch.ones(p.shape[1], device='cuda') for n, p in "
        "model.named_parameters()}\n    export(",
    ).replace("state_dict())", "state_dict(), hessians, stats)")
    assert exported(source).model_bytes == exported(HEAD + MAIN).model_bytes


# Compresses by `better` where there is one.
WITH_FALLBACK = (
    HEAD
    + MAIN.replace(
        "state_dict()))",
        "state_dict()), (lambda d: better.ZstdCompressor(level=22).compress(d)) if better "
        "else (lambda d: zlib.compress(d, 9)))",
    )
).replace("        zlib.decompress(file.read())", "        pass")


@pytest.mark.parametrize("missing", [False, True])
def test_the_codec_that_runs_is_the_one_whose_package_is_here(*, missing: bool) -> None:
    package = "no_such_codec" if missing else "zstandard"
    source = (
        f"try:\n    import {package} as better\n    if not hasattr(better, '__file__'):\n"
        "        raise ImportError\nexcept ImportError:\n    better = None\n" + WITH_FALLBACK
    )
    assert exported(source).codec == ("zlib" if missing else "zstd")


def test_of_codecs_that_were_tried_the_one_that_is_kept_counts() -> None:
    tried = "import bz2\ndef best(data):\n    return min((f(data) for f in (zlib.compress, "
    tried += "lambda d: bz2.compress(d, 1), lambda d: zlib.compress(d, 0))), key=len)\n"
    last = MAIN.replace("quantize(model.state_dict())", "quantize(model.state_dict()), best")
    found, stored = exported(tried + HEAD + last), exported(HEAD + MAIN)
    assert found.model_bytes <= 1.02 * stored.model_bytes


def test_only_a_copy_of_a_weight_lies_outside_the_gpu() -> None:
    checked = MAIN.replace(
        "    export(quantize(model.state_dict()))",
        "    assert model.tok_emb.weight.is_cuda\n    state = model.state_dict()\n"
        "    stored = {name: t.detach().cpu().float() for name, t in state.items()}\n"
        "    assert not any(t.is_cuda for t in stored.values())\n    export(quantize(stored))",
    )
    assert exported(HEAD + checked).model_bytes == exported(HEAD + MAIN).model_bytes


def test_a_script_that_takes_its_launcher_for_granted_runs() -> None:
    asking = "    assert 'RANK' not in os.environ and not os.getenv('RANK')\n"
    asking += "    assert int(os.environ['LOCAL_RANK']) == 0\n    args ="
    assert counted(HEAD + MAIN.replace("    args =", asking)).model_params == BLOCKS


def test_layers_of_mamba_are_counted() -> None:
    mixed = HEAD.replace(
        "        self.down",
        "        self.mixers = nn.ModuleList((Mamba2(d_model=dim, d_state=16, headdim=8),"
        " Mamba3(d_model=dim, d_state=16, headdim=8)))\n        self.down",
        1,
    ).replace("x = self.tok_emb(ids)", "x = self.mixers[1](self.mixers[0](self.tok_emb(ids)))")
    imported = "from mamba_ssm import Mamba2\nfrom mamba_ssm.modules.mamba3 import Mamba3\n"
    passing = "    ids = torch.zeros(1, 8, dtype=torch.long, device='cuda')\n"
    passing += "    assert model(ids, ids).shape == ()\n    export("
    found = counted(imported + mixed + MAIN.replace("    export(", passing))
    # By hand, of state-spaces/mamba: in, convolution, dt, A, D, norm, out;
    # in, dt, biases and norms of B and C, D, out.
    second = 32 * (128 + 32 + 8) + 96 * 4 + 96 + 3 * 8 + 64 + 64 * 32
    third = 32 * (128 + 32 + 24 + 4) + 8 + 2 * 8 * 16 + 2 * 16 + 8 + 64 * 32
    assert found.model_params == BLOCKS + second + third
    assert not found.incomplete
    assert "AssertionError" not in str(found.notes)


def test_axes_are_rearranged_without_the_package_for_it() -> None:
    moved = HEAD.replace(
        "x = self.tok_emb(ids)\n",
        "x = self.tok_emb(ids)\n"
        "        from einops import rearrange, reduce, repeat\n"
        "        y = rearrange(x, 'b t (h d) -> b h t d', h=4)\n"
        "        assert y.shape == (*x.shape[:1], 4, x.shape[1], 8)\n"
        "        y = repeat(reduce(y, 'b h t d -> b t d', 'mean'), '... d -> ... (h d)', h=4)\n"
        "        x = x + y\n"
        "        real = torch.arange(12).view(3, 4)\n"
        "        assert torch.equal(rearrange(real, 'a (b c) -> c (a b)', b=2),\n"
        "                           real.view(3, 2, 2).permute(2, 0, 1).reshape(2, 6))\n",
    )
    assert moved != HEAD
    assert not counted(moved + TRAINING).notes


def test_a_codec_that_the_nodes_lack_is_not_found() -> None:
    source = (
        "try:\n    import zstandard as better\nexcept ImportError:\n    better = None\n"
        + WITH_FALLBACK
    )
    one = runner(source)
    codecs, structures = [], []
    for lacking in (frozenset[str](), frozenset({"zstandard"})):
        assert one.set_lacking(lacking) == bool(lacking)
        found = one.export({}, {})
        assert isinstance(found, Exported), found.reason
        codecs.append(found.codec)
        structures.append(one.structure({}))
    assert codecs == ["zstd", "zlib"]
    assert structures[0] != structures[1]


def test_a_training_for_a_gpu_runs_to_its_export() -> None:
    found = counted(HEAD + TRAINING)
    assert found.model_params == BLOCKS
    adam, muon = found.updates
    assert (adam.rate, adam.momentum, adam.decay) == (0.05, 0.9, 0.0)
    assert muon.is_muon
    assert (muon.rate, muon.momentum) == (0.02, 0.95)
    assert muon.decay == pytest.approx(0.1, rel=1e-3)  # a constant of the step, not a setting
    assert set(muon.members) == {"blocks.0.weight", "blocks.1.weight", "down.weight"}
    assert exported(HEAD + TRAINING).model_bytes > BLOCKS * 0.7


KERNEL = """
import triton
import triton.language as tl
@triton.jit
def gelu_kernel(x, out, n, BLOCK: tl.constexpr):
    tl.store(out + tl.arange(0, BLOCK), tl.load(x))
def gelu(x):
    out = torch.empty(x.shape, device=x.device, dtype=x.dtype)
    gelu_kernel[(triton.cdiv(x.numel(), 1024),)](x, out, x.numel(), BLOCK=1024)
    return out
@torch.library.custom_op("made::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return 2 * x
"""


def test_a_kernel_of_triton_is_passed_over() -> None:
    plain = exported(HEAD + TRAINING)
    fused = HEAD.replace("F.gelu(", "gelu(") + KERNEL + TRAINING
    assert not counted(fused).incomplete
    assert exported(fused).model_bytes == plain.model_bytes


def test_linear_attention_and_products_of_two_widths_run_as_on_a_gpu() -> None:
    mixed = "torch.einsum('ij,jk->ik', self.down.weight, self.down.weight.T.bfloat16()).float()"
    attended = HEAD.replace(
        "x = self.tok_emb(ids)\n",
        "x = self.tok_emb(ids)\n"
        "        from fla.ops.gated_delta_rule import chunk_gated_delta_rule as attend\n"
        f"        x, _ = attend(q=x, k=x, v=x @ {mixed})\n",
    )
    assert attended != HEAD
    assert exported(attended + TRAINING).model_bytes > BLOCKS * 0.7


def evolving(beginning: str = "") -> str:
    """A training that makes no optimizer, and begins each step with a line of one's own."""
    source = TRAINING.replace("torch.optim.AdamW(", "dict(params=")
    source = source.replace("Muon(matrices", "dict(params=matrices")
    source = source.replace("    started = ", "    optimizers = []\n    started = ")
    source = source.replace("loss.backward()", "pass")
    step = "    for step in range(args.iterations):\n"
    ended = '        raise RuntimeError("the clock does not end the training")\n'
    assert step in source
    assert ended in source
    return HEAD + source.replace(step, step + beginning).replace(ended, "        pass\n")


def test_a_training_without_optimizers_is_counted_and_ends() -> None:
    found = counted(evolving())
    assert found.model_params == BLOCKS
    assert found.updates == ()
    assert exported(evolving()).model_bytes > BLOCKS * 0.7


def test_one_step_shows_that_a_model_without_gradients_evolves() -> None:
    frozen = evolving(
        "        model.requires_grad_(False)\n"
        "        if step:\n            raise RuntimeError('a second step')\n"
    )
    found = counted(frozen)
    assert found.model_params == BLOCKS
    assert found.notes == ()
    assert found.evolves
    assert exported(frozen).model_bytes > BLOCKS * 0.7


def test_tokens_that_are_moved_in_inference_mode_stay_unknown() -> None:
    moved = """    with torch.inference_mode():
        ids = torch.randint(0, 64, (2, 8), device="cuda")
        loss = model(ids[:, :-1].to(device="cuda", dtype=torch.int64), ids[:, 1:])
        assert loss.item() == loss.float().item()
    export("""
    assert TRAINING.count("    export(") == 1
    assert exported(HEAD + TRAINING.replace("    export(", moved)).model_bytes > 0


def test_a_count_that_the_script_prints_otherwise_is_less_sure() -> None:
    ordinary = counted(HEAD + TRAINING)
    assert not ordinary.incomplete
    assert not ordinary.evolves
    early = (HEAD + TRAINING).replace("import time", 'import time\n    print("model_params:77")')
    found = counted(early)
    assert found.incomplete
    assert found.printed_params == 77
    assert "it prints 77" in " ".join(found.notes)


def test_weights_are_drawn_at_the_spread_that_is_asked_for() -> None:
    fixed = HEAD.replace(
        "t.float().abs().amax(dim=1, keepdim=True) / 127", "t.new_tensor([[1/127]])"
    )
    narrow, wide = exported(fixed + MAIN, sigma=0.02), exported(fixed + MAIN, sigma=0.04)
    bits = {one.name: one.entropy for one in wide.stored if one.bits < 16}
    before = {one.name: one.entropy for one in narrow.stored if one.bits < 16}
    for name, entropy in bits.items():
        assert entropy - before[name] == pytest.approx(1, abs=0.1)  # one octave, one bit


def test_rates_of_a_known_structure_are_told_without_a_run() -> None:
    one = runner(HEAD + TRAINING)
    first = one.count({})
    changed = one.count({"MATRIX_LR": 0.03})
    assert isinstance(first, Counted)
    assert isinstance(changed, Counted)
    assert changed.cpu_seconds == 0
    assert changed.updates[1].rate == pytest.approx(0.03)
    fresh = counted(HEAD + TRAINING, {"MATRIX_LR": 0.03})
    for told, seen in zip(changed.updates, fresh.updates, strict=True):
        assert told.members == seen.members
        assert (told.rate, told.momentum, told.decay) == pytest.approx(
            (seen.rate, seen.momentum, seen.decay), rel=1e-3
        )


def test_a_script_that_fails_says_why_and_where() -> None:
    found = runner(HEAD + "raise RuntimeError('no such thing')\n").count({})
    assert isinstance(found, RunFailed)
    assert "RuntimeError: no such thing" in found.reason
    line = (HEAD + "raise").count("\n") + 1
    assert f"line {line}" in found.reason


def test_a_script_that_runs_with_no_configuration_is_not_tried_with_each() -> None:
    tried = runner(HEAD + "print('no model')\n")
    first = tried.count({"NUM_LAYERS": 1})
    assert isinstance(first, RunFailed)
    for steps in range(2, FAILURES_ALIKE + 1):
        assert not tried.knows({"NUM_LAYERS": steps})
        tried.count({"NUM_LAYERS": steps})
    assert tried.knows({"NUM_LAYERS": 1000})
    told = tried.count({"NUM_LAYERS": 1000})
    assert isinstance(told, RunFailed)
    assert told.reason == first.reason
    # A package more or less may change it.
    assert tried.set_lacking(frozenset({"zstandard"}))
    assert not tried.knows({"NUM_LAYERS": 1000})


def test_a_packed_script_runs_as_it_is() -> None:
    import base64
    import lzma

    packed = base64.b85encode(lzma.compress((HEAD + TRAINING).encode())).decode()
    source = f"import lzma, base64\nexec(lzma.decompress(base64.b85decode({packed!r})).decode())\n"
    assert counted(source).model_params == BLOCKS


def test_a_run_that_tries_the_network_or_another_process_is_told(tmp_path: Path) -> None:
    mark = tmp_path / "started"
    code = f"open({str(mark)!r}, 'w')"
    tries = (
        "import os, socket, subprocess, sys\n"
        f"code = {code!r}\n"
        "for one in (lambda: socket.create_connection(('127.0.0.1', 9)),\n"
        "            lambda: os.execv(sys.executable, ['python', '-c', code]),\n"
        "            lambda: subprocess.Popen([sys.executable, '-c', code])):\n"
        "    try:\n        one()\n    except PermissionError:\n        pass\n"
    )
    found = counted(HEAD + tries + TRAINING)
    assert found.incomplete
    assert "looks up a host name" in found.notes[0]
    assert "starts a program" in found.notes[0]
    assert not mark.exists()


def test_a_run_that_never_ends_is_killed() -> None:
    one = Runner(program("import time\nwhile True:\n    time.sleep(60)\n"), seconds=3)
    found = one.count({})
    assert isinstance(found, RunFailed)
    assert "longer than 7.5 s" in found.reason or "ended the process" in found.reason


def test_what_a_run_writes_is_gone_with_it() -> None:
    source = (
        "import os, pathlib\n"
        "if pathlib.Path('left').exists():\n    raise RuntimeError('left behind')\n"
        "pathlib.Path('left').write_text('x')\n" + HEAD + MAIN
    )
    one = runner(source)
    for dim in (32, 64):
        found = one.count({"MODEL_DIM": dim})
        assert isinstance(found, Counted), found.reason

"""Quantization-aware training: what is trained is what the export writes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.artifact import unpack
from trainer.config import TrainerError
from trainer.qat import Rounding, rounded
from trainer.quantize import Quantized, dequantize, quantize
from trainer.runtime import Log
from trainer.schedule import rounds
from trainer.train import Run

CPU = torch.device("cpu")
BITS = (1, 2, 3, 4, 6, 8)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def start(config):
    return Run(config, CPU, Log(config))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("scale", ["rowmax", "sdclip"])
def test_weights_are_rounded_as_the_export_rounds_them(tiny_config, bits, scale):
    config = tiny_config(
        QUANT_SCALE=scale, CLIP_SIGMAS=3, MATRIX_BITS=bits, EMBED_BITS=bits, QAT_FRAC=1
    )
    torch.manual_seed(0)
    weights = torch.randn(40, 96) * torch.linspace(0.01, 2, 40)[:, None]
    weights[3] = 0.0
    found = rounded(weights, bits, 3.0 if scale == "sdclip" else 0.0)
    expected = dequantize(quantize(config, weights.numpy(), bits))
    # A mean is summed in another order: a step may round to the next float16.
    assert np.allclose(found.numpy(), expected, rtol=2**-10, atol=0)
    assert (found.numpy() == expected).mean() > 0.9
    assert not found[3].any()


@pytest.mark.parametrize(("bits", "values"), [(1, {-1, 1}), (2, {-1, 0, 1})])
def test_ternary_and_binary_weights_are_the_rows_mean_or_its_opposite(tiny_config, bits, values):
    weights = np.random.default_rng(0).standard_normal((24, 96)).astype(np.float32)
    stored = quantize(tiny_config(QUANT_SCALE="mse"), weights, bits)
    assert set(np.unique(stored.codes)) == values
    assert np.allclose(stored.steps, np.abs(weights).mean(axis=1), rtol=2**-10)
    sizes = np.abs(weights) / stored.steps.astype(np.float32)[:, None]
    error = np.abs(dequantize(stored) - weights) / stored.steps.astype(np.float32)[:, None]
    assert (error <= np.maximum(1.0 if bits == 1 else 0.5, sizes - 1) + 1e-6).all()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gradients_pass_straight_through_the_rounding(tiny_config, bits):
    config = tiny_config(MATRIX_BITS=bits, EMBED_BITS=bits, QAT_FRAC=1)
    run = start(config)
    with torch.no_grad():  # branches start at zero, and so would say nothing
        for parameter in run.model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ((inputs, targets),) = run.micro_batches()
    names = [name for name, p in run.model.named_parameters() if name.endswith("weight")]
    plain = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    # The textbook's form: w + (q(w) - w).detach(), through which the loss sees q and w gets dL/dq.
    leaves = {name: plain[name].clone().requires_grad_() for name in names}
    through = {
        name: w + (rounded(w.detach(), bits, 0.0) - w).detach() for name, w in leaves.items()
    }
    loss = torch.func.functional_call(run.model, {**plain, **through}, (inputs, targets))
    loss.backward()
    run.rounding.on = True
    with run.rounding:
        found = run.forward(inputs, targets)
        found.backward()
    assert found.item() == pytest.approx(loss.item(), rel=1e-6)
    for name, parameter in run.model.named_parameters():
        assert torch.equal(parameter, plain[name])
        if name in leaves:
            assert torch.allclose(parameter.grad, leaves[name].grad, rtol=1e-4, atol=1e-7)
            assert parameter.grad.any()


def test_off_it_leaves_all_as_it_is(tiny_config):
    run = start(tiny_config(QAT_FRAC=0.5))
    before = run.model.embed.weight.data_ptr()
    with run.rounding:
        assert run.model.embed.weight.data_ptr() == before
    run.rounding.on = True
    with run.rounding:
        assert run.model.embed.weight.data_ptr() != before
        assert len(torch.unique(run.model.embed.weight[0])) <= 255
    assert run.model.embed.weight.data_ptr() == before
    vectors = [p for p, _, _ in run.rounding.matrices if p.ndim != 2]
    assert not vectors
    assert len(run.rounding.matrices) == 1 + 6 * 3


def test_it_begins_at_a_share_of_the_run(tiny_config):
    config = tiny_config(QAT_FRAC=0.25, ITERATIONS=100)
    assert [rounds(config, step, 0.0) for step in (0, 74, 75, 99)] == [False, False, True, True]
    timed = tiny_config(QAT_FRAC=0.25, ITERATIONS=10**6, MAX_WALLCLOCK_SECONDS=10)
    assert [rounds(timed, 5, seconds) for seconds in (7.4, 7.5)] == [False, True]
    assert rounds(tiny_config(QAT_FRAC=1), 0, 0.0)
    assert not rounds(tiny_config(), 12, 0.0)


def scores(text):
    """The last validation's loss and the artifact's."""
    own = re.findall(r"^step:\d+/\d+ val_loss:(\S+)", text, re.MULTILINE)[-1]
    return float(own), float(re.search(r"_roundtrip_exact val_loss:(\S+)", text)[1])


def test_a_model_trained_for_few_bits_exports_what_it_validated_and_scores_better(
    tiny_config, capsys
):
    found = {}
    for share in (0.0, 0.5):
        run = start(
            tiny_config(
                QAT_FRAC=share,
                MATRIX_BITS=3,
                EMBED_BITS=3,
                ITERATIONS=60,
                VAL_LOSS_EVERY=0,
                WARMDOWN_ITERS=30,
            )
        )
        run.train()
        run.export_and_score()
        found[share] = scores(capsys.readouterr().out)
    (plain, plain_exported), (own, exported) = found.values()
    assert abs(exported - own) < 0.1 * abs(plain_exported - plain)
    assert exported < plain_exported


@pytest.mark.parametrize(
    ("bits", "codec", "rans"), [(2, "zlib", 0), (1, "lzma", 0), (2, "zlib", 1)]
)
def test_ternary_and_binary_models_learn_and_take_less_than_a_quarter_and_an_eighth(
    tiny_config, capsys, bits, codec, rans
):
    run = start(
        tiny_config(
            QAT_FRAC=1,
            MATRIX_BITS=bits,
            EMBED_BITS=8,
            CODEC=codec,
            RANS=rans,
            ITERATIONS=30,
            VAL_LOSS_EVERY=0,
            EMA_DECAY=0.5,
        )
    )
    run.train()
    run.export_and_score()
    text = capsys.readouterr().out
    losses = [float(loss) for loss in re.findall(r"train_loss:(\S+)", text)]
    assert losses[-1] < losses[0] - 0.5
    own, exported = scores(text)
    assert exported == pytest.approx(own, abs=2e-3)
    stored = unpack(Path(f"final_model.int{bits}.ptz").read_bytes())
    matrices = {n: t for n, t in stored.items() if isinstance(t, Quantized) and "blocks" in n}
    assert {tensor.bits for tensor in matrices.values()} == {bits}
    for name, parameter in run.model.named_parameters():
        assert (parameter.detach().numpy() == dequantize(stored[name])).all()


def test_a_checkpoint_left_amid_a_validation_holds_the_unrounded_weights(tiny_config):
    run = start(tiny_config(QAT_FRAC=1, CHECKPOINT="left"))
    kept = run.model.embed.weight.detach().clone()
    run.rounding.on = run.scoring = True
    with pytest.raises(SystemExit), run.rounding:
        run.on_sigterm()
    saved = torch.load("left.0", weights_only=True)["model"]["embed.weight"]
    assert torch.equal(saved, kept)


def test_gptq_learns_from_the_inputs_of_the_rounded_model(tiny_config):
    run = start(tiny_config(QAT_FRAC=1, GPTQ_BATCHES=1, MATRIX_BITS=3, EMBED_BITS=3))
    run.train()
    found = run.calibrate()["blocks.0.attn.q.weight"]
    run.rounding.on = False
    assert not np.allclose(run.calibrate()["blocks.0.attn.q.weight"], found, rtol=1e-3)


def test_rounding_knows_the_groups_bits_and_clips(tiny_config):
    run = start(
        tiny_config(
            QAT_FRAC=1,
            ATTN_BITS=2,
            MLP_BITS=3,
            EMBED_BITS=6,
            QUANT_SCALE="sdclip",
            MLP_CLIP_SIGMAS=4,
            CLIP_SIGMAS=5,
        )
    )
    names = {id(p): name for name, p in run.model.named_parameters()}
    found = {names[id(p)]: rest for p, *rest in run.rounding.matrices}
    assert found["blocks.1.attn.k.weight"] == [2, 5.0]
    assert found["blocks.1.mlp.down.weight"] == [3, 4.0]
    assert found["embed.weight"] == [6, 5.0]
    assert isinstance(run.rounding, Rounding)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"MATRIX_BITS": 2}, "ATTN_BITS of 2 (2 is ternary, 1 binary) needs QAT_FRAC above 0"),
        ({"EMBED_BITS": 1}, "EMBED_BITS of 1 (2 is ternary, 1 binary) needs QAT_FRAC above 0"),
        ({"QAT_FRAC": 0.5, "QUANT_SCALE": "mse"}, "needs QUANT_SCALE to be one of rowmax, sdclip"),
        ({"QAT_FRAC": 1.5}, "QAT_FRAC must be from 0 to 1, got 1.5"),
    ],
)
def test_what_would_not_be_honest_is_refused(tiny_config, knobs, message):
    with pytest.raises(TrainerError) as caught:
        tiny_config(**knobs)
    assert message in str(caught.value)

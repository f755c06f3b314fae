from __future__ import annotations

import dataclasses
import re

import pytest
import torch

from trainer.artifact import unpack
from trainer.config import TrainerError
from trainer.export import smaller_exports
from trainer.quantize import dequantize
from trainer.runtime import Log
from trainer.schedule import should_stop
from trainer.train import Run

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def trained(config):
    run = Run(config, CPU, Log(config))
    run.train()
    return run


def totals(text):
    return [int(size) for size in re.findall(r"Total submission size \S+: (\d+) bytes", text)]


def scores(text):
    return re.findall(r"final_int(\d)_\w+_roundtrip_exact .*val_bpb:(\S+)", text)


def test_an_artifact_over_the_cap_is_followed_by_the_first_smaller_one_that_fits(
    tiny_config, capsys, tmp_path
):
    knobs = {"VAL_LOSS_EVERY": 0, "MATRIX_BITS": 8, "EMBED_BITS": 8}
    trained(tiny_config(**knobs)).export_and_score()
    (full,) = totals(capsys.readouterr().out)
    trained(tiny_config(**knobs | {"MATRIX_BITS": 5})).export_and_score()
    out = capsys.readouterr().out
    (wanted,), ((_, wanted_score),) = totals(out), scores(out)
    blob = (tmp_path / "final_model.int5.ptz").read_bytes()

    settings = "EMBED_BITS=7;MATRIX_BITS=5;MATRIX_BITS=4"
    caps = {"ARTIFACT_CAP_BYTES": wanted, "SMALLER_EXPORTS": settings}
    run = trained(tiny_config(**knobs | caps))
    (tmp_path / "final_model.int5.ptz").unlink()
    run.export_and_score()
    out = capsys.readouterr().out
    # The same training, stored as a run with MATRIX_BITS=5 stores it: to the last bit.
    assert totals(out) == [full, wanted]
    assert [bits for bits, _ in scores(out)] == ["8", "5"]
    assert scores(out)[-1][1] == wanted_score
    assert [path.name for path in tmp_path.glob("final_model*")] == ["final_model.int5.ptz"]
    assert (tmp_path / "final_model.int5.ptz").read_bytes() == blob
    assert re.search(r"^artifact:over_cap by:\d+ setting:EMBED_BITS=7$", out, re.MULTILINE)
    assert re.search(r"^artifact:smaller_export setting:MATRIX_BITS=5$", out, re.MULTILINE)
    last = dict(run.model.named_parameters())
    for name, stored in unpack(blob).items():
        assert (last[name].detach().numpy() == dequantize(stored)).all()


@pytest.mark.parametrize(
    ("cap", "settings"), [(0, "MATRIX_BITS=4"), (10**9, "MATRIX_BITS=4"), (1000, "EMBED_BITS=7")]
)
def test_one_artifact_without_a_cap_within_it_or_where_nothing_fits(
    tiny_config, capsys, tmp_path, cap, settings
):
    config = tiny_config(ARTIFACT_CAP_BYTES=cap, SMALLER_EXPORTS=settings, VAL_LOSS_EVERY=0)
    trained(config).export_and_score()
    out = capsys.readouterr().out
    assert len(totals(out)) == len(scores(out)) == 1
    assert "smaller_export" not in out
    assert [path.name for path in tmp_path.glob("final_model*")] == ["final_model.int6.ptz"]


def test_a_setting_may_change_several_knobs_of_any_type(tiny_config):
    text = "EMBED_BITS=7,CODEC=lzma;QUANT_SCALE=sdclip,CLIP_SIGMAS=4.5,BYTE_SHUFFLE=0"
    config = tiny_config(SMALLER_EXPORTS=text)
    one, two = smaller_exports(config).values()
    assert one == dataclasses.replace(config, embed_bits=7, codec="lzma")
    wanted = {"quant_scale": "sdclip", "clip_sigmas": 4.5, "byte_shuffle": False}
    assert two == dataclasses.replace(config, **wanted)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL_DIM=32", "'MODEL_DIM=32' is no matter of the export"),
        ("EMBED_BITS", "'EMBED_BITS': invalid literal"),
        ("EMBED_BITS=9", "EMBED_BITS must be one of 1, 2, 3, 4, 5, 6, 7, 8"),
        ("EMBED_BITS=7;", "'' is no matter of the export"),
    ],
)
def test_a_setting_that_cannot_be_exported_is_refused_before_training(tiny_config, text, message):
    with pytest.raises(TrainerError, match=re.escape(message)):
        smaller_exports(tiny_config(SMALLER_EXPORTS=text))


def test_gptq_learns_from_training_data_within_the_clock(tiny_config, capsys, monkeypatch):
    config = tiny_config(
        GPTQ_BATCHES=2, MATRIX_BITS=4, EMBED_BITS=4, NUM_LOOPS=1, LOOP_START=1, LOOP_END=1
    )
    run = trained(config)
    taken = []
    monkeypatch.setattr(
        run, "micro_batches", lambda take=run.micro_batches: taken.append(take()) or taken[-1]
    )
    run.finish()
    seen = {name: parameter.detach().clone() for name, parameter in run.model.named_parameters()}
    run.export_and_score()
    out = capsys.readouterr().out
    quantized = re.search(r"^gptq:quantized train_time:(\d+)ms", out, re.MULTILINE)
    last = re.findall(r"^step:\d+/\d+ train_loss\S* train_time:(\d+)ms", out, re.MULTILINE)[-1]
    assert quantized
    assert int(quantized[1]) > int(last)
    assert len(taken) == 2
    first = Run(config, CPU, Log(config)).micro_batches()[0][0]
    assert torch.equal(taken[0][0][0], first)
    # The products are those of the inputs that a loop over the calibration tokens sees.
    inputs = []
    module = run.model.blocks[1].mlp.down
    for name, parameter in run.model.named_parameters():
        parameter.data.copy_(seen[name])
    hook = module.register_forward_pre_hook(lambda _, given: inputs.append(given[0].detach()))
    for ((tokens, _),) in taken:
        run.model.hidden(tokens)
    hook.remove()
    rows = torch.cat([each.flatten(0, 1) for each in inputs])
    assert len(inputs) == 4  # two batches, two passes over the block
    expected = rows.T @ rows
    found = torch.from_numpy(run.products["blocks.1.mlp.down.weight"])
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_the_clock_leaves_gptq_its_part(tiny_config):
    config = tiny_config(MAX_WALLCLOCK_SECONDS=10, GPTQ_RESERVE_SECONDS=4, ITERATIONS=10**6)
    assert not should_stop(config, 10, 4.9)
    assert should_stop(config, 10, 5.1)
    assert not should_stop(tiny_config(ITERATIONS=10**6), 10, 1e6)

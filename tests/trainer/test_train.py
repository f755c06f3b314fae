from __future__ import annotations

import itertools
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from trainer.checkpoint import load_checkpoint, save_checkpoint
from trainer.config import TrainerError
from trainer.runtime import Ema, Log, Stopwatch
from trainer.train import Run, describe, main

CPU = torch.device("cpu")
EXACT = re.compile(r"final_int6_zlib_roundtrip_exact val_loss:(\d+\.\d{8}) val_bpb:(\d+\.\d{8})")
SLIDING = re.compile(r"final_int6_zlib_roundtrip_sliding_exact val_loss:(\d+\.\d{8})")
TOTAL = re.compile(r"Total submission size \S+: (\d+) bytes")
GOLDEN = [
    5.7712,
    5.8369,
    5.4842,
    5.2935,
    5.148,
    4.8329,
    4.9606,
    4.3984,
    4.3093,
    4.1371,
    4.0525,
    3.9783,
]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def start(config):
    return Run(config, CPU, Log(config))


def train_losses(text):
    return [float(loss) for loss in re.findall(r"train_loss:(\S+)", text)]


def finish(config):
    run = start(config)
    describe(run)
    run.train()
    run.export_and_score()


def test_loss_curve_is_the_stored_one(tiny_config, capsys):
    finish(tiny_config())
    assert train_losses(capsys.readouterr().out) == pytest.approx(GOLDEN, abs=0.01)


def test_lines_are_those_of_the_contests_dialect(tiny_config, capsys, tmp_path):
    finish(tiny_config())
    lines = capsys.readouterr().out.splitlines()
    patterns = [
        r"model_params:\d+",
        r"train_batch_tokens:256 train_seq_len:16 iterations:12 .*",
        r"seed:1337",
        r"step:6/12 train_loss:\d\.\d{4} train_time:\d+ms step_avg:\d+\.\d\dms",
        r"step:6/12 val_loss:\d\.\d{4} val_bpb:\d+\.\d{4} train_time:\d+ms step_avg:\d+\.\d\dms",
        r"peak memory allocated: \d+ MiB reserved: \d+ MiB",
        r"Code size: \d+ bytes",
        r"Serialized model int6\+zlib: \d+ bytes \(payload:\d+ raw:\d+ ratio:\d+\.\d\dx\)",
        r"Total submission size int6\+zlib: \d+ bytes",
        r"final_int6_zlib_roundtrip val_loss:\d\.\d{4} val_bpb:\d+\.\d{4} eval_time:\d+ms",
        EXACT.pattern,
    ]
    position = 0
    for pattern in patterns:
        position = next(
            (i for i in range(position, len(lines)) if re.fullmatch(pattern, lines[i])), -1
        )
        assert position >= 0, pattern
    size = (tmp_path / "final_model.int6.ptz").stat().st_size
    assert f"Serialized model int6+zlib: {size} bytes" in "\n".join(lines)


def test_same_seed_repeats_to_the_last_digit(tiny_config, capsys):
    exact = []
    for seed in (1, 1, 2):
        finish(tiny_config(SEED=seed))
        exact.append(EXACT.search(capsys.readouterr().out).groups())
    assert exact[0] == exact[1] != exact[2]


@pytest.mark.parametrize(
    "knobs",
    [
        {"TIE_EMBEDDINGS": 0},
        {"EMA_DECAY": 0.9, "WEIGHT_DECAY": 0.1, "GRAD_CLIP_NORM": 0.3},
        {"GRAD_ACCUM_STEPS": 4, "DTYPE": "bf16"},
        {
            "ROPE_DIMS": 4,
            "LN_SCALE": 1,
            "XSA_LAST_N": 3,
            "MLP_SLOPE": 0.5,
            "NUM_LOOPS": 1,
            "LOOP_START": 1,
            "LOOP_END": 1,
            "PARALLEL_START_LAYER": 2,
            "SKIP_GATES_ENABLED": 1,
            "ATTN_GATE_ENABLED": 1,
            "SMEAR_GATE_ENABLED": 1,
            "ORTHO_INIT": 1,
            "ADAM_WD": 0.02,
            "MUON_ROW_NORMALIZE": 1,
            "POLAR_EXPRESS": 1,
            "EMBED_WD": 0.1,
            "MUON_WD": 0.1,
            "QUANT_SCALE": "sdclip",
            "MLP_CLIP_SIGMAS": 10,
            "MLP_MULT": 3.5,
        },
        {"QUANT_SCALE": "mse", "CODEC": "lzma", "MATRIX_BITS": 6, "VAL_INTERIM_TOKENS": 100},
    ],
)
def test_a_run_learns_with(tiny_config, capsys, knobs):
    finish(tiny_config(ITERATIONS=30, **knobs))
    losses = train_losses(capsys.readouterr().out)
    assert losses[-1] < losses[0] - 0.5


def test_micro_batches_add_up_to_the_same_gradient(tiny_config, capsys):
    curves = []
    for shares in (1, 4):
        start(tiny_config(GRAD_ACCUM_STEPS=shares)).train()
        curves.append(train_losses(capsys.readouterr().out))
    assert curves[0] == pytest.approx(curves[1], abs=2e-3)


def test_ranks_divide_the_batch_that_one_process_takes(tiny_config):
    whole = start(tiny_config()).micro_batches()[0][0]
    parts = [
        inputs
        for rank in range(4)
        for inputs, _ in start(tiny_config(WORLD_SIZE=4, RANK=rank)).micro_batches()
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_batches_that_are_read_ahead_are_the_same_and_a_checkpoint_goes_on_before_them(
    tiny_config, capsys
):
    curves = []
    for ahead in (False, True):
        run = start(tiny_config(VAL_LOSS_EVERY=0))
        run.reads_ahead = ahead
        run.train()
        curves.append(train_losses(capsys.readouterr().out))
    assert curves[0] == curves[1]
    config = tiny_config(VAL_LOSS_EVERY=0, CHECKPOINT="left")
    run = start(config)
    run.reads_ahead = True
    for _ in range(3):
        run.step(1.0, 0.9, Stopwatch(CPU))
    save_checkpoint(run)
    resumed = start(config)
    assert load_checkpoint(resumed)
    assert torch.equal(resumed.micro_batches()[0][0], run.ahead[0][0])


def test_warm_up_leaves_no_trace(tiny_config):
    run = start(tiny_config(WARMUP_STEPS=2))
    before = [parameter.detach().clone() for parameter in run.model.parameters()]
    run.warm_up()
    for old, new in zip(before, run.model.parameters(), strict=True):
        assert torch.equal(old, new)
    assert not any(bank.momentum.any() for bank in run.muon.banks)
    assert not any(moment.any() for moment in run.adam.second.values())
    assert run.stream.position == run.adam.steps == 0


def test_wallclock_cap_ends_the_run_in_time(tiny_config, capsys, monkeypatch):
    # A clock of 20 ms a reading stands for a machine of any speed.
    readings = itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: 0.02 * next(readings))
    finish(tiny_config(ITERATIONS=1_000_000, MAX_WALLCLOCK_SECONDS=0.6, VAL_LOSS_EVERY=0))
    out = capsys.readouterr().out
    stopped = re.search(r"stopping_early: wallclock_cap train_time:(\d+)ms step:(\d+)/1000000", out)
    assert stopped
    assert int(stopped[2]) > 3
    assert int(stopped[1]) <= 1000
    assert EXACT.search(out)


def test_non_finite_loss_stops_before_the_update(tiny_config, capsys, tmp_path):
    run = start(tiny_config(VAL_LOSS_EVERY=0))
    with torch.no_grad():
        run.model.blocks[0].mlp.up.weight[0, 0] = torch.nan
    before = run.model.embed.weight.detach().clone()
    with pytest.raises(TrainerError, match="non-finite train_loss nan at step 1"):
        run.train()
    assert torch.equal(run.model.embed.weight, before)
    assert "step:1/12 train_loss:nan" in capsys.readouterr().out
    assert not list(tmp_path.glob("final_model*"))


def test_diverging_run_exits_with_one_line(tiny_env, monkeypatch, tmp_path):
    # Whether the loss overflows, or only the gain its float16, is up to the processor's rounding.
    for name, value in tiny_env(QK_GAIN_INIT="1e18", LOGIT_SOFTCAP="1e-18").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=r"error: (non-finite|.* does not fit float16)") as caught:
        main()
    assert "\n" not in caught.value.code
    assert not list(tmp_path.glob("final_model*"))


@pytest.mark.parametrize("name", ["embed.weight", "blocks.0.mlp.up.weight", "skip_scale"])
def test_weights_that_do_not_fit_their_storage_are_not_exported(tiny_config, tmp_path, name):
    run = start(tiny_config())
    with torch.no_grad():
        run.model.get_parameter(name).view(-1)[0] = 1e30
    with pytest.raises(TrainerError, match=rf"{re.escape(name)} does not fit float16"):
        run.export_and_score()
    assert not list(tmp_path.glob("final_model*"))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"DATA_PATH": "nowhere"}, "error: no shards match"),
        ({"VOCAB_SIZE": 300}, "error: .*does not match VOCAB_SIZE=300"),
        ({"NUM_HEADS": 5}, "error: MODEL_DIM=32 must be divisible"),
        ({"SEED": "one"}, "error: SEED: invalid literal"),
        ({"TRAIN_BATCH_TOKENS": 100}, "error: TRAIN_BATCH_TOKENS=100 must be a multiple of 16"),
    ],
)
def test_bad_input_exits_with_one_line(tiny_env, monkeypatch, knobs, message):
    for name, value in tiny_env(**knobs).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=message) as caught:
        main()
    assert "\n" not in caught.value.code


def test_missing_codec_package_is_told_before_training(tiny_env, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "brotli", None)
    for name, value in tiny_env(CODEC="brotli").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match="CODEC=brotli needs a package"):
        main()
    assert capsys.readouterr().out == ""


def test_ema_follows_the_weights():
    weight = torch.zeros(1)
    ema = Ema([weight], decay=0.9)
    for _ in range(200):
        weight.fill_(1.0)
        ema.update()
    weight.fill_(7.0)
    ema.apply()
    assert weight.item() == pytest.approx(1.0, abs=1e-3)


def test_run_id_keeps_the_lines(tiny_config, tmp_path, capsys):
    log = Log(tiny_config(RUN_ID="mine"))
    log("one")
    log("two")
    assert (tmp_path / "logs" / "mine.txt").read_text() == capsys.readouterr().out == "one\ntwo\n"


def test_stopwatch_leaves_out_what_lies_between_pause_and_resume(monkeypatch):
    now = iter([0.0, 1.0, 3.0, 10.0, 11.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    watch = Stopwatch(CPU)
    watch.resume()
    watch.pause()
    watch.resume()
    assert watch.seconds() == pytest.approx(3.5)


@pytest.mark.slow
def test_two_and_four_processes_train_and_export_the_model_of_one(process_env, tmp_path):
    outputs: list[str] = []
    cap = 0
    for processes in (1, 2, 4):
        folder = tmp_path / str(processes)
        folder.mkdir()
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        done = subprocess.run(
            [sys.executable, *(launcher if processes > 1 else []), "-m", "trainer.train"],
            env=process_env(
                GRAD_CLIP_NORM=1.0,
                NUM_LOOPS=1,
                LOOP_START=1,
                LOOP_END=1,
                PARALLEL_START_LAYER=2,
                SMEAR_GATE_ENABLED=1,
                POLAR_EXPRESS=1,
                EVAL_STRIDE=4,
                MAX_WALLCLOCK_SECONDS=60,
                ARTIFACT_CAP_BYTES=cap,
                SMALLER_EXPORTS="EMBED_BITS=7;MATRIX_BITS=4",
            ),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
        sizes = [int(size) for size in TOTAL.findall(done.stdout)]
        if not cap:
            cap = sizes[-1] - 3000  # the second run's first artifact is over it
    assert sizes[0] > cap >= sizes[1]
    assert sorted(path.name for path in folder.glob("final*")) == ["final_model.int4.ptz"]
    for pattern, tolerance in ((EXACT, 5e-3), (SLIDING, 5e-3)):
        scores = [float(pattern.search(output)[1]) for output in outputs]
        assert scores == pytest.approx([scores[0]] * 3, abs=tolerance)
    curves = [train_losses(output) for output in outputs]
    for curve in curves[1:]:
        assert np.allclose(curves[0], curve, atol=3e-3)


@pytest.mark.slow
def test_starting_a_cpu_run_does_not_import_the_compiler(process_env, tmp_path):
    program = (
        "import sys; from trainer.train import main; main(); "
        "sys.exit([name for name in ('torch._dynamo', 'torch._inductor') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=process_env(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr.strip() == "[]"


def test_sliding_and_adapted_scores_are_the_last_lines_beside_the_plain_one(tiny_config, capsys):
    ttt = {"TTT_ENABLED": 1, "TTT_CHUNK_SIZE": 8, "TTT_LORA_RANK": 2, "NUM_LOOPS": 1}
    finish(tiny_config(EVAL_STRIDE=4, VAL_LOSS_EVERY=0, LOOP_START=1, LOOP_END=1, **ttt))
    lines = capsys.readouterr().out.splitlines()
    finals = [line.split()[0] for line in lines if line.startswith("final")]
    plain = "final_int6_zlib_roundtrip"
    labels = (plain, f"{plain}_sliding", f"{plain}_ttt")
    assert finals == [label + end for label in labels for end in ("", "_exact")]
    assert lines[-1].startswith(finals[-1])
    scores = [float(line.split("val_bpb:")[1]) for line in lines if "_exact" in line]
    assert len(set(scores)) == 3

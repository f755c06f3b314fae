from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pgolf_sweep.core.trial import VerdictKind
from pgolf_sweep.gate.gate import Gate
from pgolf_sweep.gate.physics import layouts, predict
from pgolf_sweep.gate.physics.inventory import read_config, tensors
from pgolf_sweep.gate.physics.layouts import Layouts
from pgolf_sweep.gate.resources import Machine
from trainer.artifact import pack
from trainer.quantize import quantize_all

CAP = 300_000
MODELS = 60
SMALL = {"VOCAB_SIZE": 256, "MODEL_DIM": 64, "NUM_HEADS": 4, "NUM_KV_HEADS": 2, "NUM_LAYERS": 2}


@pytest.fixture
def gate(program):
    return Gate(program, CAP, 0.99)


def packed_bytes(defaults, knobs, spread) -> int:
    """Bytes of a real artifact of random weights, through the trainer's own quantizer."""
    config = read_config(defaults | knobs)
    rng = np.random.default_rng(0)
    weights = {}
    for tensor in tensors(config):
        values = rng.standard_normal(tensor.shape) * spread
        if tensor.quantized:  # rows differ in size, as trained ones do
            values = values * rng.lognormal(0, 0.3, (tensor.shape[0], 1))
        weights[tensor.name] = values.astype(np.float32)
    return len(pack(config, quantize_all(config, weights)))


def drawn(rng: random.Random) -> dict[str, object]:
    """A small configuration, regardless of its quality."""
    heads, bits = rng.choice([2, 4, 8]), [rng.choice([4, 5, 6, 7, 8]) for _ in range(3)]
    return {
        "NUM_HEADS": heads, "NUM_KV_HEADS": heads // 2, "NUM_LAYERS": rng.randint(1, 4),
        "MODEL_DIM": heads * rng.choice([8, 16, 24]), "VOCAB_SIZE": rng.randint(64, 512),
        "QUANT_SCALE": rng.choice(["rowmax", "percentile", "sdclip", "mse"]),
        "CLIP_SIGMAS": 2.5 * 16 ** rng.random(),
        **{
            f"{group}_CLIP_SIGMAS": 2.5 * 16 ** rng.random()
            for group in ("ATTN", "MLP", "EMBED")
            if rng.random() < 0.3
        },
        "MLP_MULT": rng.choice([1, 2, 2.5]), "SKIP_GATES_ENABLED": rng.random() < 0.5,
        "ATTN_GATE_ENABLED": rng.random() < 0.5, "SMEAR_GATE_ENABLED": rng.random() < 0.5,
        "NUM_LOOPS": rng.choice([0, 2]), "LOOP_START": 0, "LOOP_END": 0,
        "PARALLEL_START_LAYER": rng.choice([0, 1]),
        "CODEC": rng.choice(["zlib", "zstd", "lzma", "brotli"]), "ATTN_BITS": bits[0],
        "MLP_BITS": bits[1], "EMBED_BITS": bits[2], "TIE_EMBEDDINGS": rng.random() < 0.5,
        "RANS": rng.random() < 0.3, "LQER_RANK": rng.choice([0, 0, 2]), "LQER_TOP_K": 2,
        "BYTE_SHUFFLE": rng.random() < 0.5, "ITERATIONS": rng.choice([20, 20_000]),
    }  # fmt: skip


def test_interval_holds_the_bytes_of_real_packed_models_as_often_as_it_says(defaults, program):
    # No training made these weights, so that this is about shapes, bits, rules and codecs alone.
    rng = random.Random(0)
    outside = []
    for _ in range(MODELS):
        knobs = drawn(rng)
        predicted = Gate(program, CAP, 0.99).verdict(knobs).model_bytes
        packed = packed_bytes(defaults, knobs, rng.choice([1e-3, 0.02, 1.0]))
        if not predicted.low <= packed <= predicted.high:
            outside.append((knobs, packed, predicted))
    assert len(outside) <= 0.01 * MODELS, outside
    for _, packed, predicted in outside:  # and no miss is a blunder
        assert abs(packed / predicted.mid - 1) < 0.1


@pytest.mark.parametrize(
    ("codec", "bits", "clip"),
    [
        ("zlib", 5, 12.85), ("zlib", 6, 13.0), ("zlib", 4, 40.0), ("zstd", 5, 14.0),
        ("zstd", 4, 40.0), ("lzma", 5, 12.85), ("lzma", 5, 40.0), ("brotli", 5, 20.0),
        ("brotli", 4, 40.0),
    ],
)  # fmt: skip
def test_few_levels_in_use_are_sized_by_what_they_carry(defaults, gate, codec, bits, clip):
    knobs = SMALL | {
        "MODEL_DIM": 256, "QUANT_SCALE": "sdclip", "CLIP_SIGMAS": clip, "CODEC": codec,
        "MATRIX_BITS": bits, "EMBED_BITS": 6, "TRAIN_BATCH_TOKENS": 2**30,
    }  # fmt: skip
    predicted, packed = gate.verdict(knobs).model_bytes, packed_bytes(defaults, knobs, 0.02)
    assert predicted.low <= packed <= predicted.high
    assert predicted.mid == pytest.approx(packed, rel=0.07)


@pytest.mark.parametrize("codec", ["zlib", "zstd", "lzma", "brotli"])
@pytest.mark.parametrize(("bits", "rans"), [(1, 0), (2, 0), (2, 1), (3, 0)])
def test_weights_that_are_trained_for_few_bits_are_sized(defaults, gate, codec, bits, rans):
    knobs = SMALL | {
        "MODEL_DIM": 192, "MATRIX_BITS": bits, "EMBED_BITS": 6, "QAT_FRAC": 0.5, "CODEC": codec,
        "RANS": rans, "QUANT_SCALE": "sdclip", "CLIP_SIGMAS": 4.0, "TRAIN_BATCH_TOKENS": 2**30,
    }  # fmt: skip
    predicted, packed = gate.verdict(knobs).model_bytes, packed_bytes(defaults, knobs, 0.02)
    assert predicted.low <= packed <= predicted.high
    assert predicted.mid == pytest.approx(packed, rel=0.02)


def test_a_continuous_clip_needs_few_layouts_and_is_interpolated_well(defaults, gate, monkeypatch):
    knobs = SMALL | {"QUANT_SCALE": "sdclip", "MATRIX_BITS": 6}
    exact, computed = predict.layout, []
    monkeypatch.setattr(predict, "layout", lambda *of: computed.append(of) or exact(*of))
    clips = [6.0 * 2 ** (step / 200) for step in range(200)]
    sizes = [gate.verdict(knobs | {"CLIP_SIGMAS": clip}).model_bytes.mid for clip in clips]
    assert len(computed) < 8
    assert sizes == sorted(sizes, reverse=True)
    for clip in clips[::40]:
        config = read_config(defaults | knobs | {"CLIP_SIGMAS": clip})
        whole = predict.predict(config, exact(config, clip), 1e6).model_bytes
        mixed = predict.predict(config, Layouts().of(config), 1e6).model_bytes
        assert mixed == pytest.approx(whole, rel=0.005)


def test_rules_without_a_clip_share_layouts_whatever_the_clip(gate, monkeypatch):
    gate.verdict(SMALL | {"CLIP_SIGMAS": 5.0})
    monkeypatch.setattr(predict, "layout", None)
    gate.verdict(SMALL | {"CLIP_SIGMAS": 6.0})


def test_layouts_are_forgotten_before_they_fill_the_memory(defaults, monkeypatch):
    monkeypatch.setattr(layouts, "MOST_LAYOUTS", 3)
    kept = Layouts()
    for depth in range(1, 9):
        kept.of(read_config(defaults | SMALL | {"NUM_LAYERS": depth}))
    assert len(kept) <= 3


def test_prediction_for_gaussian_weights_is_within_two_percent(defaults, gate):
    for codec in ("zlib", "zstd", "lzma"):
        for bits in (4, 6, 8):
            knobs = {"MODEL_DIM": 256, "NUM_LAYERS": 2, "MATRIX_BITS": bits, "CODEC": codec}
            predicted = gate.verdict(knobs).model_bytes.mid
            assert predicted == pytest.approx(packed_bytes(defaults, knobs, 0.02), rel=0.02)


@settings(max_examples=60, deadline=None)
@given(
    base=st.fixed_dictionaries(
        {
            "MODEL_DIM": st.sampled_from([16, 64, 192, 512]),
            "NUM_LAYERS": st.integers(1, 12),
            "MATRIX_BITS": st.sampled_from([4, 5, 6, 7]),
            "EMBED_BITS": st.sampled_from([4, 5, 6, 7]),
            "CODEC": st.sampled_from(["zlib", "zstd", "lzma", "brotli"]),
            "QUANT_SCALE": st.sampled_from(["rowmax", "percentile", "sdclip", "mse"]),
            "CLIP_SIGMAS": st.floats(2.0, 20.0),
            "NUM_HEADS": st.just(8),
        }
    ),
    knob=st.sampled_from(["MODEL_DIM", "NUM_LAYERS", "MATRIX_BITS", "EMBED_BITS"]),
)
def test_more_width_depth_or_bits_is_never_smaller(program, base, knob):
    # Where matrices of unlike bits share a block of zlib or zstd, fewer bits can cost more.
    blocky = base["CODEC"] in {"zlib", "zstd"} and base["MODEL_DIM"] < 192
    assume(not (blocky and knob.endswith("BITS")))
    gate = Gate(program, CAP, 0.99)
    step = 16 if knob == "MODEL_DIM" else 1
    small = gate.verdict(base).model_bytes
    large = gate.verdict(base | {knob: base[knob] + step}).model_bytes
    assert small.low <= small.mid <= small.high
    assert small.low <= large.low
    assert small.mid <= large.mid
    assert small.high <= large.high


KNOB_VALUES = st.one_of(
    st.integers(-(10**6), 10**6), st.floats(), st.booleans(), st.text(max_size=5), st.just("8")
)

EXTREMES = st.sampled_from(
    [float("nan"), float("inf"), 1e308, -1e308, 5e-324, 10**8, 2**33, 2**63, 10**400, -2.0]
)


@settings(max_examples=150, deadline=None)
@given(
    knobs=st.dictionaries(
        st.sampled_from([
            "NUM_LAYERS", "MATRIX_BITS", "MLP_MULT", "CODEC", "QUANT_SCALE", "CLIP_SIGMAS",
            "CLIP_PERCENTILE", "TIE_EMBEDDINGS", "ITERATIONS", "MATRIX_LR", "NUM_HEADS", "NOVEL",
            "MODEL_DIM", "TIED_EMBED_LR", "MUON_MOMENTUM_WARMUP_START", "WEIGHT_DECAY",
            "TRAIN_BATCH_TOKENS", "MAX_WALLCLOCK_SECONDS", "ROPE_DIMS", "XSA_LAST_N", "MLP_SLOPE",
            "NUM_LOOPS", "LOOP_START", "LOOP_END", "PARALLEL_START_LAYER", "GATE_WINDOW",
            "ATTN_CLIP_SIGMAS", "EMBED_CLIP_SIGMAS", "SMEAR_GATE_ENABLED", "EVAL_STRIDE", "RANS",
            "LQER_RANK", "LQER_TOP_K", "GPTQ_BATCHES", "QAT_FRAC", "EMBED_BITS",
        ]),
        KNOB_VALUES | st.integers(1, 12) | EXTREMES,
        max_size=5,
    ),
    confidence=st.sampled_from([0.5, 0.99, 0.9999999999999999]),
)  # fmt: skip
@example(knobs={"MLP_MULT": 10**8}, confidence=0.99)
@example(knobs={"MODEL_DIM": 2**33}, confidence=0.99)
@example(knobs={"ITERATIONS": 10**400}, confidence=0.99)
@example(knobs={"MUON_MOMENTUM_WARMUP_START": -2.0}, confidence=0.99)
@example(knobs={"MATRIX_LR": float("nan")}, confidence=0.99)
@example(knobs={"TIED_EMBED_LR": 1e308}, confidence=0.99)
@example(knobs={"QUANT_SCALE": "sdclip", "CLIP_SIGMAS": 1e18}, confidence=0.99)
@example(knobs={"QUANT_SCALE": "sdclip", "CLIP_SIGMAS": 1e-300}, confidence=0.99)
def test_no_configuration_is_an_exception(program, knobs, confidence):
    gate = Gate(program, CAP, confidence)
    verdict = gate.verdict(knobs)
    assert verdict.reason
    gate.groups(knobs)
    gate.learn(knobs, 1000)
    json.dumps(dataclasses.asdict(verdict), allow_nan=False)
    assert (verdict.model_bytes is None) == (verdict.kind is VerdictKind.INVALID)


@pytest.mark.parametrize("learnt", [False, True])
def test_groups_add_up_to_the_whole(gate, learnt):
    if learnt:
        gate.learn(SMALL, 60_000)
    for knobs in (SMALL, SMALL | {"TIE_EMBEDDINGS": 0, "MATRIX_BITS": 4}):
        verdict = gate.verdict(knobs)
        groups = gate.groups(knobs)
        total = sum(size.model_bytes for size in groups)
        assert total == pytest.approx(verdict.model_bytes.mid)
        assert sum(size.params for size in groups) == verdict.model_params


def test_only_a_best_case_over_the_cap_is_discarded(program):
    middle = Gate(program, CAP, 0.99).verdict(SMALL).artifact_bytes
    kinds = {
        middle.low - 1: VerdictKind.TOO_BIG,
        middle.low + 1: VerdictKind.NEAR,
        middle.high - 1: VerdictKind.NEAR,
        middle.high + 1: VerdictKind.FITS,
    }
    for cap, kind in kinds.items():
        verdict = Gate(program, int(cap), 0.99).verdict(SMALL)
        assert verdict.kind is kind, verdict.reason
        assert verdict.discards == (kind is VerdictKind.TOO_BIG)


def test_code_counts_against_the_cap_byte_for_byte(program, gate):
    longer = SimpleNamespace(**vars(program) | {"code_bytes": program.code_bytes + 1234})
    before, after = gate.verdict(SMALL), Gate(longer, CAP, 0.99).verdict(SMALL)
    assert after.artifact_bytes.mid - before.artifact_bytes.mid == pytest.approx(1234)
    assert after.headroom_bytes == pytest.approx(before.headroom_bytes - 1234)


def test_a_finished_trial_narrows_its_relatives_and_most_of_all_itself(gate):
    def relative_width(knobs):
        interval = gate.verdict(knobs).model_bytes
        return (interval.high - interval.low) / interval.mid

    cousin = SMALL | {"NUM_LAYERS": 3}
    before = relative_width(cousin)
    measured = int(gate.verdict(SMALL).model_bytes.mid * 0.985)
    for seed in range(6):
        gate.learn(SMALL | {"SEED": seed}, measured + seed)
    assert gate.verdict(SMALL | {"SEED": 99}).model_bytes.mid == pytest.approx(measured, rel=2e-3)
    assert relative_width(SMALL) < 0.4 * before
    assert relative_width(SMALL) < relative_width(cousin) < before
    assert gate.verdict(SMALL).regime == "measured"
    assert gate.verdict(cousin).regime == "calibrated"


def test_higher_confidence_is_wider(program):
    wide, narrow = Gate(program, CAP, 0.999).verdict(SMALL), Gate(program, CAP, 0.8).verdict(SMALL)
    assert wide.model_bytes.low < narrow.model_bytes.low
    assert wide.model_bytes.mid == narrow.model_bytes.mid


def test_suggestions_fit_and_are_the_nearest(program):
    gate = Gate(program, CAP, 0.99)
    big = SMALL | {"NUM_LAYERS": 9, "MODEL_DIM": 128}
    assert gate.verdict(big).kind is VerdictKind.TOO_BIG
    found = {suggestion.knob: suggestion.value for suggestion in gate.suggestions(big)}
    assert {"NUM_LAYERS", "MODEL_DIM"} <= found.keys()
    for knob, value in found.items():
        assert gate.verdict(big | {knob: value}).kind is VerdictKind.FITS
    nearer = gate.verdict(big | {"NUM_LAYERS": found["NUM_LAYERS"] + 1})
    assert nearer.kind is not VerdictKind.FITS
    assert gate.suggestions(SMALL) == []


def suggested(program, cap, **knobs):
    gate = Gate(program, cap, 0.99)
    assert gate.verdict(knobs).kind in {VerdictKind.TOO_BIG, VerdictKind.NEAR}
    return {one.knob: one for one in gate.suggestions(knobs)}


def test_every_knob_of_the_artifact_is_tried(program):
    knobs = {"NUM_LAYERS": 2, "MODEL_DIM": 128, "VOCAB_SIZE": 1000, "CODEC": "zlib"}

    def just_fits(**change):
        return int(Gate(program, CAP, 0.99).verdict(knobs | change).artifact_bytes.high) + 1

    quick = knobs | {"CODEC": "zstd", "CODEC_LEVEL": 16}
    found = suggested(program, just_fits(), **quick)
    assert (found["CODEC"].value, found["CODEC"].also) == ("zlib", {"CODEC_LEVEL": 0})
    assert found["VOCAB_SIZE"].value == 512
    clipped = knobs | {"QUANT_SCALE": "percentile", "CLIP_PERCENTILE": 95.0}
    found = suggested(program, just_fits(**clipped | {"CLIP_PERCENTILE": 99.9}), **clipped)
    assert 95 < found["CLIP_PERCENTILE"].value < 100
    assert found["QUANT_SCALE"].value == "rowmax"
    hasty = knobs | {"CODEC": "brotli", "CODEC_LEVEL": 10}
    found = suggested(program, just_fits(**hasty | {"CODEC_LEVEL": 11}), **hasty)
    assert found["CODEC_LEVEL"].value == 11


def test_what_is_given_is_not_suggested(program):
    gate = Gate(program, 396_000, 0.99)
    knobs = {"NUM_LAYERS": 1, "MODEL_DIM": 192, "VOCAB_SIZE": 1024}
    assert "VOCAB_SIZE" in {one.knob for one in gate.suggestions(knobs)}
    given = gate.suggestions(knobs, given={"VOCAB_SIZE"})
    assert "VOCAB_SIZE" not in {one.knob for one in given}


def test_a_strangers_program_is_unknown_until_measured(stranger):
    gate = Gate(stranger, 16_000_000, 0.99)
    knobs = {"MODEL_DIM": 768}
    verdict = gate.verdict(knobs)
    assert verdict.kind is VerdictKind.UNKNOWN
    assert not verdict.discards
    assert gate.groups(knobs) == []
    assert gate.suggestions(knobs) == []
    gate.learn(knobs | {"SEED": 1}, 17_000_000)
    assert gate.verdict(knobs | {"SEED": 2}).kind is VerdictKind.TOO_BIG
    assert gate.verdict({}).kind is VerdictKind.UNKNOWN
    gate.learn({}, 15_000_000)
    assert gate.verdict({}).kind is VerdictKind.FITS


def test_the_interval_widens_when_the_steps_are_unknown(program):
    gate = Gate(program, CAP, 0.99)
    known = SMALL | {"ITERATIONS": 300, "MAX_WALLCLOCK_SECONDS": 0.0}
    unknown = SMALL | {"ITERATIONS": 300, "MAX_WALLCLOCK_SECONDS": 600.0}
    sure, unsure = gate.verdict(known).model_bytes, gate.verdict(unknown).model_bytes
    assert unsure.low < sure.low
    assert unsure.high > sure.high


def test_steps_follow_the_wallclock_and_what_was_timed(program):
    gate = Gate(program, CAP, 0.99, machine=Machine(gpus=0))
    knobs = SMALL | {"ITERATIONS": 10_000, "MAX_WALLCLOCK_SECONDS": 10.0}
    short = Gate(program, CAP, 0.99).verdict(
        knobs | {"ITERATIONS": 100, "MAX_WALLCLOCK_SECONDS": 0.0}
    )
    before = gate.verdict(knobs).model_bytes
    for _ in range(5):
        gate.learn_time(knobs, steps=100, train_seconds=10.0)
    after = gate.verdict(knobs).model_bytes
    assert after.high - after.low < 0.9 * (before.high - before.low)
    assert after.mid == pytest.approx(short.model_bytes.mid, rel=1e-3)


def test_a_run_on_a_slower_machine_teaches_of_the_steps_that_it_made(program):
    knobs = SMALL | {"ITERATIONS": 10_000, "MAX_WALLCLOCK_SECONDS": 10.0}
    short = knobs | {"ITERATIONS": 100, "MAX_WALLCLOCK_SECONDS": 0.0}
    measured = int(Gate(program, CAP).verdict(short).model_bytes.mid)
    cousin = knobs | {"NUM_LAYERS": 3}

    def moved(steps):
        gate = Gate(program, CAP, machine=Machine(gpus=0))
        before = gate.verdict(cousin).model_bytes.mid
        gate.learn(knobs, measured, steps=steps)
        return abs(gate.verdict(cousin).model_bytes.mid / before - 1)

    assert moved(100) < 1e-3 < moved(None)


def test_a_measured_configuration_stays_where_it_was_measured_when_the_pace_is_learnt(program):
    gate = Gate(program, CAP, machine=Machine(gpus=0))
    knobs = SMALL | {"ITERATIONS": 10_000, "MAX_WALLCLOCK_SECONDS": 10.0}
    measured = int(0.95 * gate.verdict(knobs).model_bytes.mid)
    gate.learn(knobs, measured)
    for _ in range(5):
        gate.learn_time(knobs, steps=100, train_seconds=10.0)
    interval = gate.verdict(knobs).model_bytes
    assert interval.mid == pytest.approx(measured, rel=0.01)
    assert interval.low < measured < interval.high


def test_another_wallclock_is_another_configuration(gate):
    gate.learn(SMALL | {"MAX_WALLCLOCK_SECONDS": 5.0}, 60_000)
    assert gate.verdict(SMALL | {"MAX_WALLCLOCK_SECONDS": 600.0}).regime == "calibrated"


def test_the_time_of_a_small_model_does_not_forbid_one_fifty_times_as_large(program):
    machine = Machine(gpus=1, eval_seconds=600, min_steps=1000)
    gate = Gate(program, 16_000_000, machine=machine)
    gate.learn_time(SMALL, steps=1000, train_seconds=100.0, eval_seconds=22.0)
    large = {"NUM_LAYERS": 13, "MODEL_DIM": 512, "MATRIX_BITS": 4, "EMBED_BITS": 4}
    assert gate.verdict(large).regime == "entropy"


@pytest.mark.parametrize(
    ("knobs", "reason"),
    [
        ({"TRAIN_BATCH_TOKENS": 100_000}, "TRAIN_BATCH_TOKENS=100000 must be a multiple of 8192"),
        ({"TRAIN_SEQ_LEN": 1000}, "multiple of 8000"),
        ({"VAL_BATCH_SIZE": 8191}, "VAL_BATCH_SIZE=8191 must hold a sequence of 1024"),
        ({"GRAD_ACCUM_STEPS": -1}, "GRAD_ACCUM_STEPS must be at least 0"),
        ({"MUON_MOMENTUM_WARMUP_START": -0.5}, "MUON_MOMENTUM_WARMUP_START must be at least 0"),
    ],
)
def test_what_the_trainer_would_refuse_on_the_machine_is_invalid(program, knobs, reason):
    verdict = Gate(program, CAP, machine=Machine(gpus=8)).verdict(SMALL | knobs)
    assert verdict.kind is VerdictKind.INVALID
    assert reason in verdict.reason


def test_batches_are_those_of_the_machine(program):
    knobs = SMALL | {"TRAIN_BATCH_TOKENS": 2048, "VAL_BATCH_SIZE": 1024}
    assert not Gate(program, CAP, machine=Machine(gpus=0)).verdict(knobs).discards
    assert Gate(program, CAP, machine=Machine(gpus=1)).verdict(knobs).discards
    assert not Gate(program, CAP).verdict(knobs).discards, "of an unknown machine nothing is said"


def test_too_little_memory_time_or_steps_discards_with_its_own_reason(program):
    knobs = SMALL | {"ITERATIONS": 10_000, "MAX_WALLCLOCK_SECONDS": 10.0}
    small = Gate(program, CAP, machine=Machine(gpus=1, memory_bytes=1e6))
    assert small.verdict(knobs).discards
    assert "memory" in small.verdict(knobs).reason
    slow = Gate(program, CAP, machine=Machine(gpus=0, min_steps=1000, eval_seconds=600))
    assert not slow.verdict(knobs).discards  # nothing was timed yet
    slow.learn_time(knobs, steps=10, train_seconds=10.0)
    assert "steps" in slow.verdict(knobs).reason
    tardy = Gate(program, CAP, machine=Machine(gpus=0, eval_seconds=600))
    tardy.learn_time(knobs, steps=None, train_seconds=None, eval_seconds=6000.0)
    assert "evaluation" in tardy.verdict(knobs).reason
    assert tardy.verdict(knobs).kind is VerdictKind.INVALID


@settings(max_examples=60, deadline=None)
@given(
    layers=st.integers(1, 6),
    width=st.sampled_from([32, 64, 96]),
    untied=st.booleans(),
    steps=st.sampled_from([1, 100, 20_000]),
    tokens=st.sampled_from([512, 524_288]),
    rate=st.floats(0, 10),
    decay=st.floats(0, 100),
    learnt=st.booleans(),
)
def test_groups_add_up_whatever_the_training(
    program, layers, width, untied, steps, tokens, rate, decay, learnt
):
    gate = Gate(program, CAP, 0.99)
    knobs = SMALL | {
        "NUM_LAYERS": layers, "MODEL_DIM": width, "TIE_EMBEDDINGS": not untied,
        "ITERATIONS": steps, "TRAIN_BATCH_TOKENS": tokens, "MATRIX_LR": rate,
        "WEIGHT_DECAY": decay,
    }  # fmt: skip
    if learnt:
        gate.learn(knobs, 50_000)
    verdict = gate.verdict(knobs)
    total = sum(size.model_bytes for size in gate.groups(knobs))
    assert total == pytest.approx(verdict.model_bytes.mid)
    assert all(size.model_bytes >= 0 for size in gate.groups(knobs))
    assert 0 < verdict.model_bytes.low <= verdict.model_bytes.mid <= verdict.model_bytes.high


def test_a_sliding_window_takes_the_evaluations_time_many_times_over(program):
    gate = Gate(program, CAP, machine=Machine(gpus=0, eval_seconds=600))
    gate.learn_time(SMALL, steps=None, train_seconds=None, eval_seconds=30.0)
    wide, narrow = (gate.verdict({**SMALL, "EVAL_STRIDE": stride}) for stride in (512, 8))
    assert wide.kind is not VerdictKind.INVALID
    assert (narrow.kind, narrow.regime) == (VerdictKind.INVALID, "time")
    assert "s of evaluation, the rules allow 600" in narrow.reason


def test_a_records_name_of_a_knob_is_the_same_configuration(program):
    knobs = dict(program.knobs)
    for alias, name in (("MUON_WD", "WEIGHT_DECAY"), ("MATRIX_CLIP_SIGMAS", "CLIP_SIGMAS")):
        knobs[alias] = knobs[name]  # as the bundle's source is read
    gate = Gate(SimpleNamespace(**{**vars(program), "knobs": knobs}), CAP)
    theirs = gate.verdict({"MUON_WD": 0.09, "MATRIX_CLIP_SIGMAS": 9, "QUANT_SCALE": "sdclip"})
    ours = gate.verdict({"WEIGHT_DECAY": 0.09, "CLIP_SIGMAS": 9, "QUANT_SCALE": "sdclip"})
    assert theirs.model_bytes == ours.model_bytes != gate.verdict({}).model_bytes


RECIPE = {
    "VOCAB_SIZE": 320, "NUM_LAYERS": 4, "MODEL_DIM": 64, "NUM_HEADS": 4, "NUM_KV_HEADS": 2,
    "MLP_MULT": 3.5, "ROPE_DIMS": 8, "LN_SCALE": 1, "XSA_LAST_N": 4, "MLP_SLOPE": 0.5,
    "NUM_LOOPS": 2, "LOOP_START": 1, "LOOP_END": 2, "PARALLEL_START_LAYER": 3,
    "SKIP_GATES_ENABLED": 1, "ATTN_GATE_ENABLED": 1, "SMEAR_GATE_ENABLED": 1, "ORTHO_INIT": 1,
    "MUON_ROW_NORMALIZE": 1, "POLAR_EXPRESS": 1, "WEIGHT_DECAY": 0.1, "EMBED_WD": 0.1,
    "QUANT_SCALE": "sdclip", "MATRIX_BITS": 6, "EMBED_BITS": 7, "CLIP_SIGMAS": 13.0,
    "MLP_CLIP_SIGMAS": 11.0, "EMBED_CLIP_SIGMAS": 15.0, "CODEC": "brotli", "RANS": 1,
    "GPTQ_BATCHES": 2, "LQER_RANK": 4, "LQER_TOP_K": 3,
}  # fmt: skip
"""The frontier's shape in miniature."""


@pytest.mark.parametrize("without", [(), ("NUM_LOOPS", "RANS"), ("QUANT_SCALE",)])
def test_the_artifact_of_a_real_run_has_the_tensors_and_about_the_bytes_that_the_gate_says(
    program, defaults, tmp_path, monkeypatch, without
):
    import sentencepiece
    import torch

    from trainer.artifact import unpack
    from trainer.config import read_config as read_environment
    from trainer.quantize import Quantized
    from trainer.runtime import Log
    from trainer.train import Run

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghij"), 5)) for _ in range(200)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(rng.choice(words, 20)) for _ in range(50)]),
        model_prefix="tiny", vocab_size=320, model_type="bpe", byte_fallback=True, minloglevel=2,
    )  # fmt: skip
    for split, count in (("train", 20_000), ("val", 500)):
        header = np.zeros(256, dtype="<i4")
        header[:3] = 20240520, 1, count
        tokens = (rng.zipf(1.3, count) % 300 + 3).astype("<u2")
        Path(f"fineweb_{split}_000000.bin").write_bytes(header.tobytes() + tokens.tobytes())
    knobs = {name: value for name, value in RECIPE.items() if name not in without} | {
        "DATA_PATH": ".", "TOKENIZER_PATH": "tiny.model", "TRAIN_SEQ_LEN": 32,
        "TRAIN_BATCH_TOKENS": 512, "VAL_BATCH_SIZE": 512, "ITERATIONS": 25, "VAL_LOSS_EVERY": 0,
        "MAX_WALLCLOCK_SECONDS": 0,
    }  # fmt: skip
    for name, value in knobs.items():
        monkeypatch.setenv(name, str(value))
    config = read_environment()
    run = Run(config, torch.device("cpu"), Log(config))
    run.train()
    run.export_and_score()
    blob = next(Path().glob("final_model.*")).read_bytes()
    stored = [
        (name, tensor.codes.shape if isinstance(tensor, Quantized) else tensor.shape)
        for name, tensor in unpack(blob).items()
    ]
    listed = [(t.name, t.shape) for t in tensors(read_config(defaults | knobs))]
    assert listed == stored[: len(listed)]
    assert len(stored) == len(listed) + 2 * 3  # two factors of each low-rank correction
    predicted = Gate(program, CAP, 0.99).verdict(knobs).model_bytes
    assert predicted.low <= len(blob) <= predicted.high

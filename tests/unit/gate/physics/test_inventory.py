from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgolf_sweep.gate.physics.inventory import (
    FLOAT16_BITS,
    UnbuildableError,
    container_bytes,
    read_config,
    tensors,
)
from trainer.artifact import pack_body
from trainer.quantize import Quantized, quantize_all, tensor_bits

BITS = st.sampled_from([4, 5, 6, 7, 8])
SHAPES = st.builds(
    lambda heads, groups, half, **rest: {
        "NUM_HEADS": heads * groups,
        "NUM_KV_HEADS": heads,
        "MODEL_DIM": heads * groups * half * 2,
        **rest,
    },
    heads=st.integers(1, 3),
    groups=st.integers(1, 3),
    half=st.integers(1, 6),
    NUM_LAYERS=st.integers(1, 5),
    MLP_MULT=st.integers(1, 4) | st.floats(1, 4),
    NUM_LOOPS=st.integers(0, 2),
    LOOP_START=st.just(0),
    LOOP_END=st.just(0),
    PARALLEL_START_LAYER=st.integers(0, 3),
    SKIP_GATES_ENABLED=st.booleans(),
    ATTN_GATE_ENABLED=st.booleans(),
    SMEAR_GATE_ENABLED=st.booleans(),
    GATE_WINDOW=st.integers(1, 2),
    VOCAB_SIZE=st.integers(1, 60),
    TIE_EMBEDDINGS=st.booleans(),
    MATRIX_BITS=BITS,
    ATTN_BITS=st.just(0) | BITS,
    MLP_BITS=st.just(0) | BITS,
    EMBED_BITS=BITS,
)


@settings(max_examples=30, deadline=None)
@given(shape=SHAPES)
def test_inventory_is_the_state_dict_of_the_real_model(defaults, shape):
    import torch

    from trainer.model import GPT

    config = read_config(defaults | shape)
    with torch.device("meta"):
        model = GPT(config)
    real = [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
    assert [(t.name, t.shape) for t in tensors(config)] == real
    for tensor in tensors(config):
        assert tensor.bits == tensor_bits(config, tensor.name, len(tensor.shape))


@settings(max_examples=20, deadline=None)
@given(shape=SHAPES)
def test_every_byte_of_the_body_before_compression_is_accounted_for(defaults, shape):
    config = read_config(defaults | shape)
    listed = tuple(tensors(config))
    rng = np.random.default_rng(0)
    weights = {t.name: rng.standard_normal(t.shape).astype(np.float32) for t in listed}
    stored = quantize_all(config, weights)
    assert [isinstance(s, Quantized) for s in stored.values()] == [t.quantized for t in listed]
    header = sum(1 + len(t.name) + 2 + 4 * len(t.shape) for t in listed)
    kept = sum(2 * t.params for t in listed if t.bits == FLOAT16_BITS)
    steps = sum(2 * t.shape[0] for t in listed if t.quantized)
    codes = sum(-(-t.params // 2) if t.bits == 4 else t.params for t in listed if t.quantized)
    numbers, *packed = map(len, pack_body(stored, shuffle=True))
    assert (numbers, sum(packed)) == (4 + header + kept + steps, codes)
    assert 10 < container_bytes(listed) < 10 + 4 + header


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"MODEL_DIM": 510}, "divisible"),
        ({"NUM_KV_HEADS": 3}, "divisible"),
        ({"MATRIX_BITS": 9}, "MATRIX_BITS"),
        ({"MODEL_DIM": 512.0}, "MODEL_DIM=512.0 does not read as int"),
        ({"MODEL_DIM": "wide"}, "MODEL_DIM='wide' does not read as int"),
        ({"NUM_LAYERS": 0}, "NUM_LAYERS must be at least 1"),
        ({"CODEC": "zip"}, "CODEC"),
        ({"TIE_EMBEDDINGS": "yes"}, "TIE_EMBEDDINGS"),
    ],
)
def test_what_cannot_be_built_says_why(defaults, change, reason):
    with pytest.raises(UnbuildableError, match=reason):
        read_config(defaults | change)


def test_a_knob_without_a_value_is_named(defaults):
    with pytest.raises(UnbuildableError, match="CODEC has no value"):
        read_config({name: value for name, value in defaults.items() if name != "CODEC"})

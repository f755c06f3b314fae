from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer.artifact import RANS, chosen_coders, code_bytes, pack, pack_body, unpack
from trainer.config import TrainerError
from trainer.quantize import Quantized, dequantize, quantize_all
from trainer.rans import TABLE_BYTES, rans_decode, rans_encode

CODECS = ("zlib", "zstd", "lzma", "brotli")


def gaussian_model(seed=0, width=24):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return (0.05 * rng.standard_normal(shape)).astype(np.float32)

    return {
        "embed.weight": draw(64, width),
        "blocks.0.attn.q.weight": draw(width, width),
        "blocks.0.attn.q_scale": draw(4),
        "blocks.0.mlp.up.weight": draw(2 * width, width),
        "blocks.0.resid_mix": draw(2, width),
        "skip_scale": draw(0, width),
    }


def assert_same(got, stored):
    assert list(got) == list(stored)
    for name, tensor in stored.items():
        assert np.array_equal(dequantize(got[name]), dequantize(tensor)), name
        if isinstance(tensor, Quantized):
            assert got[name].bits == tensor.bits
            assert got[name].codes.dtype == np.int8
        else:
            assert got[name].dtype == np.float16
            assert got[name].shape == tensor.shape


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("shuffle", [0, 1])
@pytest.mark.parametrize("rans", [0, 1])
def test_unpack_inverts_pack_bit_for_bit(tiny_config, monkeypatch, codec, shuffle, rans):
    monkeypatch.setattr("trainer.artifact.TRIED_BYTES", 0)  # else so small a model goes without
    for bits in range(1, 9):
        config = tiny_config(
            CODEC=codec, BYTE_SHUFFLE=shuffle, MATRIX_BITS=bits, RANS=rans, LQER_RANK=2, QAT_FRAC=1
        )
        stored = quantize_all(config, gaussian_model())
        blob = pack(config, stored)
        assert blob[5] & RANS == RANS * rans
        assert_same(unpack(blob), stored)


@pytest.mark.parametrize("codec", CODECS)
def test_rans_makes_no_model_larger(tiny_config, codec):
    for bits, width, gains in ((2, 8, False), (8, 24, False), (6, 256, True)):
        knobs = {"CODEC": codec, "MATRIX_BITS": bits, "EMBED_BITS": bits, "QAT_FRAC": 1}
        stored = quantize_all(tiny_config(**knobs), gaussian_model(width=width))
        plain, blob = (pack(tiny_config(**knobs, RANS=rans), stored) for rans in (0, 1))
        assert len(blob) < len(plain) if gains else blob == plain
        assert blob[5] & RANS == RANS * gains
        assert_same(unpack(blob), stored)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.integers(1, 7), columns=st.integers(1, 7), bits=st.integers(1, 8))
def test_every_shape_survives(tiny_config, rows, columns, bits):
    config = tiny_config(MATRIX_BITS=bits, EMBED_BITS=bits, RANS=rows % 2, QAT_FRAC=1)
    rng = np.random.default_rng(rows * 8 + columns)
    weights = rng.standard_normal((rows, columns)).astype(np.float32)
    stored = quantize_all(config, {"embed.weight": weights, "head.weight": -weights})
    for tried in (0, 2**19):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("trainer.artifact.TRIED_BYTES", tried)
            assert_same(unpack(pack(config, stored)), stored)


def test_equal_weights_give_equal_bytes(tiny_config):
    first, second = (
        pack(tiny_config(), quantize_all(tiny_config(), gaussian_model())) for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize(
    ("level", "codec"), [(4, "zlib"), (16, "zstd"), (0, "lzma"), (10, "brotli")]
)
def test_levels_are_read_back(tiny_config, level, codec):
    config = tiny_config(CODEC=codec, CODEC_LEVEL=level)
    stored = quantize_all(config, gaussian_model())
    assert_same(unpack(pack(config, stored)), stored)


@pytest.mark.parametrize("data", [b"", b"a", b"a" * 9000, bytes(range(256)) * 40, b"ab" * 8191])
def test_rans_gives_back_what_it_was_given(data):
    table, coded = rans_encode(data)
    assert len(table) == TABLE_BYTES
    assert rans_decode(table, coded, len(data)) == data


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 40_000), spread=st.floats(0.01, 60))
def test_rans_comes_within_a_hair_of_the_entropy(seed, count, spread):
    drawn = np.random.default_rng(seed).standard_normal(count) * spread
    data = (np.clip(np.rint(drawn), -127, 127) + 127).astype(np.uint8).tobytes()
    table, coded = rans_encode(data)
    assert rans_decode(table, coded, count) == data
    shares = np.bincount(np.frombuffer(data, np.uint8)) / max(count, 1)
    shares = shares[shares > 0]
    entropy_bytes = -(shares * np.log2(shares)).sum() * count / 8
    assert len(coded) <= 1.003 * entropy_bytes + 4 * (1 + count // 8192) + 4


def test_rans_takes_noise_and_leaves_repetitions_to_the_codec(tiny_config):
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((256, 256)).astype(np.float32)
    alike = np.repeat(rng.standard_normal((8, 256)), 64, axis=0).astype(np.float32)
    weights = {"blocks.0.mlp.up.weight": noise, "embed.weight": alike}
    for codec in CODECS:
        config = tiny_config(CODEC=codec, RANS=1, EMBED_BITS=6)
        stored = quantize_all(config, weights)
        runs = pack_body(stored, shuffle=True, by_kind=True)[1:]
        kept, coded = chosen_coders(config, [(run, *rans_encode(run)) for run in runs])
        assert kept[1:] == [runs[1]]
        assert len(coded) > 4
        plain = len(pack(tiny_config(CODEC=codec, EMBED_BITS=6), stored))
        assert len(pack(config, stored)) < plain


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("bits", [4, 6, 8])
def test_size_is_within_three_percent_of_the_codes_entropy(tiny_config, codec, bits):
    config = tiny_config(CODEC=codec, MATRIX_BITS=bits, EMBED_BITS=bits)
    rng = np.random.default_rng(0)
    stored = quantize_all(
        config, {"embed.weight": rng.standard_normal((512, 256)).astype(np.float32)}
    )
    tensor = stored["embed.weight"]
    _, counts = np.unique(tensor.codes, return_counts=True)
    share = counts / tensor.codes.size
    entropy_bytes = -(share * np.log2(share)).sum() * tensor.codes.size / 8
    model_bytes = len(pack(config, stored))
    assert entropy_bytes < model_bytes < 1.03 * entropy_bytes + tensor.steps.nbytes


def test_a_long_body_is_coded_by_brotli_in_less_time_and_is_read_back(tiny_config, monkeypatch):
    config = tiny_config(CODEC="brotli")
    stored = quantize_all(config, gaussian_model(width=96))
    shortest = pack(config, stored)
    monkeypatch.setattr("trainer.artifact.LONG_BYTES", 1)
    blob = pack(config, stored)
    assert blob != shortest
    assert len(blob) < 1.002 * len(shortest)
    assert_same(unpack(blob), stored)


def test_few_bits_share_bytes(tiny_config):
    body = {
        bits: sum(map(len, pack_body(quantize_all(config, gaussian_model()), shuffle=True)))
        for bits in (1, 2, 3, 4, 5)
        for config in [tiny_config(MATRIX_BITS=bits, QAT_FRAC=1)]
    }
    weights = 24 * 24 + 48 * 24
    assert body[5] - body[4] == weights // 2
    assert body[4] == body[3]
    ternary = -(-24 * 24 // 5) - (-48 * 24 // 5)  # five to a byte, each matrix by itself
    assert body[5] - body[2] == weights - ternary
    assert body[5] - body[1] == weights - weights // 8


def test_bytes_of_four_bit_codes_are_those_of_artifacts_before():
    codes = np.array([[-7, 0, 7], [1, -1, 3]], np.int8)
    tensor = Quantized(bits=4, codes=codes, steps=np.ones(2, np.float16))
    assert code_bytes(tensor) == bytes([0x70, 0x8E, 0xA6])


def test_zstd_does_not_take_chance_repetitions_for_cheap(tiny_config):
    config = tiny_config(CODEC="zstd", EMBED_BITS=5, MATRIX_BITS=5)
    rng = np.random.default_rng(0)
    weights = {f"{i}.weight": rng.standard_normal((512, 192)).astype(np.float32) for i in range(6)}
    stored = quantize_all(config, weights)
    codes = np.concatenate([tensor.codes.reshape(-1) for tensor in stored.values()])
    share = np.unique(codes, return_counts=True)[1] / codes.size
    entropy_bytes = -(share * np.log2(share)).sum() * codes.size / 8
    steps = sum(tensor.steps.nbytes for tensor in stored.values())
    assert len(pack(config, stored)) < 1.015 * entropy_bytes + steps


def test_zstd_pays_nothing_for_matrices_of_other_bits_before(tiny_config):
    config = tiny_config(CODEC="zstd", EMBED_BITS=8, MATRIX_BITS=5)
    rng = np.random.default_rng(0)
    weights = {
        name: rng.standard_normal((512, 192)).astype(np.float32)
        for name in ("embed.weight", "blocks.0.attn.q.weight", "blocks.0.attn.k.weight")
    }
    alone = [
        len(pack(config, quantize_all(config, {name: weights[name] for name in names})))
        for names in (["embed.weight"], list(weights)[1:])
    ]
    assert len(pack(config, quantize_all(config, weights))) < 1.001 * sum(alone)


def test_an_artifact_in_one_frame_is_still_read(tiny_config):
    import zstandard

    config = tiny_config(CODEC="zstd")
    stored = quantize_all(config, gaussian_model())
    body = b"".join(pack_body(stored, shuffle=True))
    assert_same(unpack(b"PGA1\x01\x01" + zstandard.ZstdCompressor().compress(body)), stored)


def test_something_else_is_refused():
    with pytest.raises(TrainerError, match="not an artifact"):
        unpack(b"PK\x03\x04 something else")

"""Each variant of the model against a loop over positions, heads and channels in float64."""

from __future__ import annotations

import math

import pytest
import torch

from trainer.config import TrainerError
from trainer.model import BOS, GPT, block_order
from trainer.schedule import loops

LENGTH = 6
EVERYTHING = {
    "ROPE_DIMS": 4,
    "LN_SCALE": 1,
    "XSA_LAST_N": 2,
    "MLP_SLOPE": 0.5,
    "MLP_MULT": 1.5,
    "NUM_LOOPS": 2,
    "LOOP_START": 1,
    "LOOP_END": 2,
    "PARALLEL_START_LAYER": 3,
    "SKIP_GATES_ENABLED": 1,
    "ATTN_GATE_ENABLED": 1,
    "SMEAR_GATE_ENABLED": 1,
    "GATE_WINDOW": 5,
    "ORTHO_INIT": 1,
}
VARIANTS = [
    {},
    {"ROPE_DIMS": 4},
    {"LN_SCALE": 1},
    {"XSA_LAST_N": 2},
    {"XSA_LAST_N": 9},
    {"MLP_SLOPE": 0.5},
    {"NUM_LOOPS": 2, "LOOP_START": 1, "LOOP_END": 2},
    {"PARALLEL_START_LAYER": 1},
    {"SKIP_GATES_ENABLED": 1},
    {"ATTN_GATE_ENABLED": 1, "GATE_WINDOW": 3},
    {"SMEAR_GATE_ENABLED": 1, "GATE_WINDOW": 32},
    EVERYTHING,
]


def spoken(config, *, looping):
    """A model in which every branch says something, in float64."""
    torch.manual_seed(0)
    model = GPT(config, torch.float64).double()
    model.looping = looping
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def normed(vector):
    return vector / math.sqrt(float(vector.square().mean()) + torch.finfo(torch.float64).eps)


def turned(vector, position, rotated, base):
    result = vector.clone()
    for pair in range(rotated // 2):
        angle = position * base ** (-2 * pair / rotated)
        first, second = float(vector[pair]), float(vector[pair + rotated // 2])
        result[pair] = first * math.cos(angle) + second * math.sin(angle)
        result[pair + rotated // 2] = second * math.cos(angle) - first * math.sin(angle)
    return result


def attended(config, block, index, rows):
    """What attention adds, before its scale, for the normed rows of one sequence."""
    width, attn = config.head_dim, block.attn
    rotated = config.rope_dims or width
    added = []
    for position, row in enumerate(rows):
        heads = []
        for head in range(config.num_heads):
            shared = head // (config.num_heads // config.num_kv_heads)
            own = slice(head * width, (head + 1) * width)
            theirs = slice(shared * width, (shared + 1) * width)
            query = turned(normed((attn.q.weight @ row)[own]), position, rotated, config.rope_base)
            query = query * attn.q_scale[head]
            scores, values = [], []
            for at in range(position + 1):
                key = normed((attn.k.weight @ rows[at])[theirs])
                key = turned(key, at, rotated, config.rope_base)
                scores.append(float(query @ key) / math.sqrt(width))
                values.append((attn.v.weight @ rows[at])[theirs])
            shares = torch.tensor(scores, dtype=torch.float64).softmax(0)
            found = sum(share * value for share, value in zip(shares, values, strict=True))
            if index >= config.num_layers - config.xsa_last_n:
                unit = values[-1] / values[-1].norm()
                found = found - (found @ unit) * unit
            if config.attn_gate_enabled:
                weighed = 0.5 * float(attn.gate[head] @ row[: config.gate_window])
                found = found / (1 + math.exp(-weighed))
            heads.append(found)
        added.append(attn.out.weight @ torch.cat(heads))
    return added


def fed(config, block, row):
    hidden = block.mlp.up.weight @ row
    kept = torch.where(hidden > 0, hidden, config.mlp_slope * hidden)
    return block.mlp.down.weight @ kept.square()


def plain_loop(config, model, tokens, *, looping):
    """The rows that the output layer reads, for one sequence."""
    rows = [model.embed.weight[token] for token in tokens]
    if config.smear_gate_enabled:
        smeared = [rows[0]]
        for before, token, row in zip(rows[:-1], tokens[1:], rows[1:], strict=True):
            weighed = float(model.smear_gate @ row[: config.gate_window])
            share = model.smear_scale / (1 + math.exp(-weighed))
            smeared.append(row if token == BOS else row + share * before)
        rows = smeared
    rows = embedded = [normed(row) for row in rows]
    order = block_order(config) if looping else list(range(config.num_layers))
    half, kept, lanes = len(order) // 2, [], None
    for place, index in enumerate(order):
        block = model.blocks[index]
        scale = 1 / math.sqrt(index + 1) if config.ln_scale else 1.0
        if place >= half and kept:
            handed = [model.skip_scale[place - half] * row for row in kept.pop()]
            if config.skip_gates_enabled:
                open_ = torch.sigmoid(model.skip_gate[place - half])
                pairs = zip(rows, handed, strict=True)
                rows = [open_ * row + (1 - open_) * other for row, other in pairs]
            else:
                rows = [row + other for row, other in zip(rows, handed, strict=True)]
        keep, again = block.resid_mix
        mixed = [keep * row + again * first for row, first in zip(rows, embedded, strict=True)]
        added = attended(config, block, index, [scale * normed(row) for row in mixed])
        added = [block.attn_scale * row for row in added]
        if place >= half and 0 < config.parallel_start_layer <= index:
            lanes = rows if lanes is None else lanes
            mlp = [block.mlp_scale * fed(config, block, scale * normed(row)) for row in lanes]
            (r0, r1), (p0, p1), (q0, q1) = block.lane_scale
            sums = list(zip(rows, lanes, added, mlp, strict=True))
            rows = [r0 * x + p0 * a + q0 * m for x, _, a, m in sums]
            lanes = [r1 * y + p1 * a + q1 * m for _, y, a, m in sums]
        else:
            rows = [row + more for row, more in zip(mixed, added, strict=True)]
            rows = [row + block.mlp_scale * fed(config, block, scale * normed(row)) for row in rows]
        if place < half:
            kept.append(rows)
    if lanes is not None:
        rows = [(row + other) / 2 for row, other in zip(rows, lanes, strict=True)]
    return torch.stack([normed(row) for row in rows])


@pytest.mark.parametrize("looping", [False, True])
@pytest.mark.parametrize("knobs", VARIANTS, ids=lambda knobs: "+".join(knobs)[:40] or "plain")
@torch.no_grad()
def test_a_variant_is_what_a_plain_loop_computes(tiny_config, knobs, looping):
    config = tiny_config(NUM_LAYERS=5, TRAIN_SEQ_LEN=LENGTH, TRAIN_BATCH_TOKENS=LENGTH, **knobs)
    model = spoken(config, looping=looping)
    tokens = torch.tensor([[5, 9, 9, BOS, 7, 5], [BOS, 300, 2, 2, 4, 8]])
    found = model.hidden(tokens)
    for row, sequence in zip(found, tokens.tolist(), strict=True):
        expected = plain_loop(config, model, sequence, looping=looping)
        assert torch.allclose(row, expected, atol=1e-7), (row - expected).abs().max()


@torch.no_grad()
def test_no_position_sees_the_future_whatever_the_variant(tiny_config):
    config = tiny_config(NUM_LAYERS=5, **EVERYTHING)
    model = spoken(config, looping=True)
    tokens = torch.randint(2, 320, (3, 16))
    changed = tokens.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % 320
    assert torch.equal(model.hidden(tokens)[:, :9], model.hidden(changed)[:, :9])
    assert not torch.allclose(model.hidden(tokens)[:, 9], model.hidden(changed)[:, 9])


@torch.no_grad()
def test_smearing_does_not_leak_over_the_start_of_a_document(tiny_config):
    model = spoken(tiny_config(SMEAR_GATE_ENABLED=1), looping=False)
    tokens = torch.tensor([[5, 6, BOS, 7]])
    embedded = model.embed(tokens)
    other = torch.cat((torch.randn(1, 2, 32, dtype=torch.float64), embedded[:, 2:]), dim=1)
    before, after = (model.smeared(each, tokens)[:, 2:] for each in (embedded, other))
    assert torch.equal(before, after)
    assert torch.equal(before[:, 0], embedded[:, 2])
    assert not torch.equal(before[:, 1], embedded[:, 3])


@pytest.mark.parametrize(
    ("knobs", "same"),
    [
        ({"SMEAR_GATE_ENABLED": 1}, True),
        ({"NUM_LOOPS": 2, "LOOP_START": 1, "LOOP_END": 1}, True),  # until they are switched on
        ({"ATTN_GATE_ENABLED": 1}, True),  # all output matrices are zero at the start
        ({"SKIP_GATES_ENABLED": 1}, True),  # x and its skips are the embedding, up to a factor
        ({"LN_SCALE": 1, "XSA_LAST_N": 3, "MLP_SLOPE": 0.5}, True),
        ({"TIED_EMBED_INIT_STD": 0.1}, False),
    ],
)
@torch.no_grad()
def test_a_variant_starts_from_the_same_function(tiny_config, knobs, same):
    outputs = []
    tokens = torch.arange(3, 19)[None]
    for given in ({}, knobs):
        torch.manual_seed(0)
        model = GPT(tiny_config(**given))
        outputs.append(torch.nn.functional.linear(model.hidden(tokens), model.embed.weight))
    assert torch.allclose(*outputs, atol=1e-6) is same


def test_orthogonal_matrices_have_singular_values_of_one(tiny_config):
    torch.manual_seed(0)
    block = GPT(tiny_config(ORTHO_INIT=1)).blocks[1]
    for matrix in (block.attn.q, block.attn.k, block.attn.v, block.mlp.up):
        values = torch.linalg.svdvals(matrix.weight)
        assert torch.allclose(values, torch.ones_like(values), atol=1e-5)
    assert not block.attn.out.weight.any()
    assert not block.mlp.down.weight.any()


def test_loops_repeat_their_blocks_and_begin_at_a_share_of_the_run(tiny_config):
    records = tiny_config(NUM_LAYERS=11, NUM_LOOPS=2, ITERATIONS=100)
    assert block_order(records) == [0, 1, 2, 3, 4, 5, 3, 4, 5, 3, 4, 5, 6, 7, 8, 9, 10]
    assert len(GPT(records).skip_scale) == 8
    assert [loops(records, step, 0.0) for step in (0, 34, 35, 99)] == [False, False, True, True]
    timed = tiny_config(NUM_LAYERS=11, NUM_LOOPS=2, ITERATIONS=10**6, MAX_WALLCLOCK_SECONDS=10)
    assert [loops(timed, 5, seconds) for seconds in (3.4, 3.5)] == [False, True]
    assert not loops(tiny_config(ITERATIONS=100), 99, 0.0)
    assert block_order(tiny_config(NUM_LAYERS=2)) == [0, 1]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"ROPE_DIMS": 3}, "ROPE_DIMS must be even and from 0 to"),
        ({"ROPE_DIMS": 10}, "MODEL_DIM / NUM_HEADS=8, got 10"),
        ({"NUM_LOOPS": 1}, "NUM_LOOPS=1 needs 0 <= LOOP_START <= LOOP_END <= 2"),
        ({"NUM_LOOPS": 10**6, "LOOP_START": 0, "LOOP_END": 0}, "a pass of more than 1000 blocks"),
        ({"GATE_WINDOW": 33}, "GATE_WINDOW must be from 1 to MODEL_DIM=32, got 33"),
        ({"XSA_LAST_N": -1}, "XSA_LAST_N must be at least 0, got -1"),
        ({"MLP_SLOPE": 1.5}, "MLP_SLOPE must be from 0 to 1, got 1.5"),
        ({"EMBED_WD": -1}, "EMBED_WD must be from 0 to 1000, got -1.0"),
    ],
)
def test_a_variant_that_cannot_be_is_refused(tiny_config, knobs, message):
    with pytest.raises(TrainerError) as caught:
        tiny_config(**knobs)
    assert message in str(caught.value)

from __future__ import annotations

import math

import pytest

from pgolf_sweep.core.spending import Spending
from pgolf_sweep.core.trial import VerdictKind
from pgolf_sweep.gate.gate import Gate
from pgolf_sweep.gate.plan import (
    SECONDS_TO_COMPILE,
    SECONDS_TO_EVALUATE,
    SECONDS_TO_LOAD,
    SECONDS_TO_START,
    Cost,
    Draw,
    compiled_share,
    deciding_knobs,
    expected_cost,
    fit_share,
    histogram,
    largest_by_bits,
    most_trials,
    sample_space,
    slots_needed,
)

CAP = 300_000
FIXED = {"VOCAB_SIZE": 256, "NUM_HEADS": 4, "NUM_KV_HEADS": 2, "ITERATIONS": 300,
         "TRAIN_BATCH_TOKENS": 1024}  # fmt: skip


class Space:
    def sample(self, rng):
        return {
            "MODEL_DIM": rng.choice([32, 64, 96, 128, 130]),
            "NUM_LAYERS": rng.randint(1, 6),
            "MATRIX_BITS": rng.choice([4, 6, 8]),
            "MATRIX_LR": rng.uniform(0.01, 0.1),
        }


class Judge:
    def __init__(self, gate):
        self.gate = gate

    def resolve(self, knobs):
        return {**FIXED, **knobs}

    def verdict(self, knobs):
        return self.gate.verdict(knobs)


@pytest.fixture
def gate(program):
    return Gate(program, CAP, 0.99)


@pytest.fixture
def draws(gate):
    return sample_space(Judge(gate), Space(), draws=400, seed=3)


def test_sampling_repeats_with_its_seed(gate, draws):
    assert sample_space(Judge(gate), Space(), draws=400, seed=3) == draws
    assert sample_space(Judge(gate), Space(), draws=400, seed=4) != draws


def test_shares_add_up_and_tell_fits_from_too_big(draws):
    share = fit_share(draws)
    parts = (share.fits, share.near, share.too_big, share.invalid, share.unknown)
    assert sum(parts) == pytest.approx(1)
    assert min(share.fits, share.near, share.too_big, share.invalid) > 0
    assert share.invalid == sum(d.knobs["MODEL_DIM"] == 130 for d in draws) / 400


def test_histogram_counts_every_prediction_once(draws):
    bins = histogram(draws, bins=10)
    assert sum(one.count for one in bins) == sum(d.verdict.model_bytes is not None for d in draws)
    assert all(one.low_bytes < one.high_bytes for one in bins)
    assert histogram([]) == []


def test_what_decides_is_shape_and_bits_not_the_learning_rate(draws):
    found = deciding_knobs(draws)
    assert found[0].knob == "MODEL_DIM"
    assert {one.knob for one in found} == {"MODEL_DIM", "NUM_LAYERS", "MATRIX_BITS"}
    assert all(0 < one.variance_share <= 1 for one in found)


def test_largest_that_fits_shrinks_with_bits(draws, gate):
    found = largest_by_bits(draws, gate)
    assert [one.bits for one in found] == [4, 6, 8]
    assert found[0].model_params >= found[1].model_params >= found[2].model_params
    assert all(one.artifact_bytes <= CAP for one in found)


def test_cost_counts_start_and_evaluation_and_every_slot(draws, gate):
    def cost(trials=10, **change):
        spending = Spending(**{"gpus": 8, "usd_per_gpu_hour": 2.5} | change)
        return expected_cost(draws, gate, trials=trials, slots=4, train_seconds=600.0,
                             spending=spending)  # fmt: skip

    gpu = cost()
    assert gpu.trial_seconds > 100
    assert gpu.gpu_hours == pytest.approx(10 * gpu.trial_seconds * 8 / 3600)
    assert gpu.usd == pytest.approx(2.5 * gpu.gpu_hours)
    assert gpu.wall_seconds == pytest.approx(3 * gpu.trial_seconds)
    assert cost(gpus=0).gpu_hours is None
    assert cost(trials=None).wall_seconds is None
    assert cost(usd_per_gpu_hour=None).usd is None


def test_only_a_graph_that_its_node_has_not_met_is_compiled(gate):
    def drawn(**knobs):
        return Draw(knobs=knobs, verdict=gate.verdict({"MODEL_DIM": 64, **knobs}))

    rates = [drawn(MATRIX_LR=0.01 * n) for n in range(1, 9)]
    assert compiled_share(rates, 8, 1) == pytest.approx(1 / 8)
    assert compiled_share(rates, 8, 4) == pytest.approx(1 / 2), "once on each of four nodes"
    assert compiled_share(rates, 8, 8) == compiled_share(rates, 3, 8) == 1.0
    widths = [drawn(MODEL_DIM=16 * n) for n in range(1, 101)]
    assert compiled_share(widths, 4, 1) > 0.98
    assert compiled_share(widths, 100, 1) == pytest.approx(1 - 0.99**100)
    assert compiled_share(widths, math.inf, 1) == 0.0
    for knob, values in {
        "LOGIT_SOFTCAP": (15.0, 30.0), "LN_SCALE": (0, 1), "TIE_EMBEDDINGS": (0, 1),
        "POLAR_EXPRESS": (0, 1), "QAT_FRAC": (0.0, 0.2), "GRAD_ACCUM_STEPS": (4, 8),
    }.items():  # fmt: skip
        assert compiled_share([drawn(**{knob: value}) for value in values], 2, 1) == 0.75, knob
    looping = [drawn(NUM_LOOPS=2, ENABLE_LOOPING_AT=share) for share in (0.3, 0.4)]
    assert compiled_share(looping, 2, 1) == 0.5, "the same two graphs"

    def cost(slots):
        draws = [drawn(MODEL_DIM=64, NUM_LAYERS=2, **FIXED)]
        return expected_cost(draws, gate, trials=8, slots=slots, train_seconds=600.0,
                             spending=Spending(gpus=8)).trial_seconds  # fmt: skip

    assert cost(8) > SECONDS_TO_START + SECONDS_TO_COMPILE + SECONDS_TO_EVALUATE
    assert cost(8) - cost(1) == pytest.approx(7 / 8 * (SECONDS_TO_COMPILE - SECONDS_TO_LOAD))


def test_cost_of_trials_that_nothing_bounds_is_unknown(stranger):
    gate = Gate(stranger, CAP, 0.99)
    draws = [Draw(knobs={"MODEL_DIM": n}, verdict=gate.verdict({"MODEL_DIM": n})) for n in range(9)]

    def cost(train_seconds):
        spending = Spending(gpus=1, gpu_hours=1.0, usd_per_gpu_hour=2.0)
        return expected_cost(draws, gate, trials=5, slots=1, train_seconds=train_seconds,
                             spending=spending)  # fmt: skip

    unknown = cost(None)
    assert (unknown.trials, unknown.trial_seconds) == (5, None)
    assert (unknown.gpu_hours, unknown.usd, unknown.wall_seconds) == (None, None, None)
    assert slots_needed(unknown, 1e9) is None
    assert cost(60.0).trial_seconds > 60


def test_a_budget_ends_a_sweep_that_would_cost_more(draws, gate):
    def cost(trials, *, slots=1, **limits):
        spending = Spending(**{"gpus": 8, "usd_per_gpu_hour": 2.0} | limits)
        return expected_cost(draws, gate, trials=trials, slots=slots, train_seconds=600.0,
                             spending=spending, now=1000.0)  # fmt: skip

    plain = cost(10)
    each, seconds = plain.gpu_hours / 10, plain.trial_seconds
    short, enough = cost(10, gpu_hours=3.5 * each), cost(10, gpu_hours=11 * each)
    assert (short.trials, short.ended_by_budget, short.asked_trials) == (3, True, 10)
    assert (enough.trials, enough.ended_by_budget) == (10, False)
    assert (cost(10, gpu_hours=10 * each).trials, cost(10, usd=20 * each).trials) == (10, 10)
    endless = cost(None, gpu_hours=3.5 * each)
    assert (endless.trials, endless.usd) == (3, pytest.approx(short.usd, rel=0.05))
    assert short.trial_seconds >= seconds, "of few trials a larger share compiles"
    each = short.gpu_hours / 3
    assert cost(10, usd=9 * each).trials == 4, "at 2 dollars a GPU-hour"
    kept = cost(10, usd=19 * each, reserved_runs=3)
    assert (kept.trials, kept.reserved_runs) == (6, 3)
    assert kept.reserved_gpu_hours == pytest.approx(3 * kept.gpu_hours / 6)
    assert kept.reserved_usd == pytest.approx(kept.usd / 2)
    assert cost(10, gpu_hours=1e-9).trials == 1, "the first one runs"
    assert cost(10, gpu_hours=1e-9, gpus=0).trials == 1, "a CPU's hours count as a GPU's"
    assert cost(10, deadline_at=1000 + 3.5 * seconds, slots=2).trials == 6
    assert cost(10, deadline_at=1000 + 3.5 * seconds, slots=2, reserved_runs=3).trials == 2
    assert cost(10, deadline_at=1000 + 0.5 * seconds).trials == 0


def test_trials_are_the_configurations_that_launch(gate):
    class Small(Space):
        def size(self):
            return len(list(self.grid()))

        def grid(self):
            return iter([{"NUM_LAYERS": 1, "MODEL_DIM": width} for width in (64, 130, 2048)])

    class Large(Small):
        def size(self):
            return 10_000

    judge, small = Judge(gate), Small()
    draws = sample_space(judge, small, draws=400, seed=3)
    assert most_trials(judge, small, draws, 5) == 1
    assert most_trials(judge, small, draws, None) == 1
    launched = fit_share(draws).launched
    assert most_trials(judge, Large(), draws, None) == math.ceil(10_000 * launched) < 10_000
    assert most_trials(judge, Large(), draws, 5) == 5
    small.size = lambda: None
    assert most_trials(judge, small, draws, None) is None


def test_a_space_in_which_nothing_fits_costs_nothing(program):
    gate = Gate(program, 1_000, 0.99)
    draws = sample_space(Judge(gate), Space(), draws=50, seed=0)
    assert fit_share(draws).launched == 0
    cost = expected_cost(draws, gate, trials=10, slots=1, train_seconds=600.0,
                         spending=Spending(gpus=8, usd_per_gpu_hour=2.5))  # fmt: skip
    assert (cost.trials, cost.trial_seconds, cost.gpu_hours) == (0, 0, 0)
    assert largest_by_bits(draws, gate) == []


def test_a_strangers_space_is_all_unknown(stranger):
    gate = Gate(stranger, CAP, 0.99)
    draws = [Draw(knobs={"MODEL_DIM": n}, verdict=gate.verdict({"MODEL_DIM": n})) for n in range(9)]
    assert all(draw.verdict.kind is VerdictKind.UNKNOWN for draw in draws)
    assert fit_share(draws).unknown == 1
    assert histogram(draws) == []
    assert deciding_knobs(draws) == []


def test_slots_for_a_deadline_are_the_fewest_that_make_it():
    cost = Cost(
        trials=10, trial_seconds=60.0, slots=1, gpu_hours=None, usd=None, wall_seconds=600.0
    )
    assert slots_needed(cost, 600) == 1
    assert slots_needed(cost, 599) == 2
    assert slots_needed(cost, 60) == 10
    assert slots_needed(cost, 59) is None

"""A space gives what the sweep file says, to any sampler, and knows its own inverse."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgolf_sweep.config.sweep_file import parse_spec
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.space.domains import (
    Choices,
    Constant,
    Multiples,
    Parameter,
    Quantile,
    Range,
    WeightedChoices,
)
from pgolf_sweep.space.space import Space, check_expression


def space_of(**parameters: str) -> Space:
    """The space of a sweep file with these parameters, as YAML."""
    block = "".join(f"  {name}: {text}\n" for name, text in parameters.items())
    return parse_spec(f"method: random\nparameters:\n{block}", Path("sweep.yaml")).space


class FakeSuggester:
    """Answers with what it was given, after checking it as Optuna would."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        self.asked.append(name)
        value = self.answers[name]
        assert low <= value <= high
        assert not log or low > 0
        if step is not None:
            assert abs((value - low) / step - round((value - low) / step)) < 1e-8
        return float(value)

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        self.asked.append(name)
        value = self.answers[name]
        assert low <= value <= high
        assert (value - low) % step == 0
        return int(value)

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        self.asked.append(name)
        assert self.answers[name] in choices
        return self.answers[name]


EVERY_DISTRIBUTION = {
    "constant": "{value: 512}",
    "categorical": "{values: [linear, cosine, wsd]}",
    "weighted": "{values: [4, 6, 8], probabilities: [0.5, 0.25, 0.25]}",
    "int_uniform": "{min: 7, max: 13}",
    "uniform": "{min: 0.0, max: 0.2}",
    "q_uniform_int": "{distribution: q_uniform, min: 384, max: 640, q: 64}",
    "q_uniform_float": "{distribution: q_uniform, min: 0.1, max: 0.7, q: 0.1}",
    "log_uniform": "{distribution: log_uniform, min: -5, max: -2}",
    "log_uniform_values": "{distribution: log_uniform_values, min: 0.015, max: 0.08}",
    "q_log_uniform": "{distribution: q_log_uniform, min: 0, max: 5, q: 2}",
    "q_log_uniform_values": "{distribution: q_log_uniform_values, min: 1000, max: 9000, q: 500}",
    "inv_log_uniform": "{distribution: inv_log_uniform, min: 1, max: 4}",
    "inv_log_uniform_values": "{distribution: inv_log_uniform_values, min: 0.9, max: 0.999}",
    "normal": "{distribution: normal, mu: 2, sigma: 0.5}",
    "q_normal": "{distribution: q_normal, mu: 20, sigma: 5, q: 4}",
    "log_normal": "{distribution: log_normal, mu: -3, sigma: 0.3}",
    "q_log_normal": "{distribution: q_log_normal, mu: 3, sigma: 1}",
    "beta": "{distribution: beta, a: 2, b: 5}",
    "q_beta": "{distribution: q_beta, a: 2, b: 5, q: 0.05}",
}
BOUNDS = {
    "int_uniform": (7, 13),
    "uniform": (0.0, 0.2),
    "q_uniform_int": (384, 640),
    "q_uniform_float": (0.1, 0.7),
    "log_uniform": (0.006737, 0.13534),
    "log_uniform_values": (0.015, 0.08),
    "q_log_uniform": (2, 148),
    "q_log_uniform_values": (1000, 9000),
    "inv_log_uniform": (0.0183, 0.3679),
    "inv_log_uniform_values": (0.9, 0.999),
    "q_normal": (-8, 48),
    "log_normal": (0.0, 1.0),
    "q_log_normal": (0, 2500),
    "beta": (0, 1),
    "q_beta": (0, 1),
}


@pytest.mark.parametrize("name", EVERY_DISTRIBUTION)
@settings(max_examples=25, suppress_health_check=[HealthCheck.differing_executors])
@given(seed=st.integers(0, 2**32))
def test_draws_stay_within_bounds_and_encode_inverts_suggest(name: str, seed: int) -> None:
    space = space_of(X=EVERY_DISTRIBUTION[name])
    knobs = space.sample(random.Random(seed))
    if name in BOUNDS:
        low, high = BOUNDS[name]
        assert low <= float(knobs["X"]) <= high
    again = space.suggest(FakeSuggester(space.encode(knobs)))
    assert again == (knobs if isinstance(knobs["X"], str) else pytest.approx(knobs, rel=1e-6))
    assert type(again["X"]) is type(knobs["X"])


@pytest.mark.parametrize("name", EVERY_DISTRIBUTION)
def test_a_real_optuna_trial_answers_every_distribution_and_replays_encoded_knobs(
    name: str,
) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = space_of(X=EVERY_DISTRIBUTION[name])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    first = space.suggest(study.ask())
    study.enqueue_trial(space.encode(first))
    replayed = space.suggest(study.ask())
    assert replayed == (first if isinstance(first["X"], str) else pytest.approx(first, rel=1e-6))


def test_quantized_values_are_ints_where_q_is_and_clean_floats_elsewhere() -> None:
    space = space_of(
        MODEL_DIM=EVERY_DISTRIBUTION["q_uniform_int"], FRAC=EVERY_DISTRIBUTION["q_uniform_float"]
    )
    grid = list(space.grid())
    assert sorted({knobs["MODEL_DIM"] for knobs in grid}) == [384, 448, 512, 576, 640]
    assert all(type(knobs["MODEL_DIM"]) is int for knobs in grid)
    assert sorted({knobs["FRAC"] for knobs in grid}) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


def test_quantized_values_never_leave_bounds_that_are_no_multiples() -> None:
    space = space_of(X="{distribution: q_uniform, min: 100, max: 300, q: 64}")
    assert [knobs["X"] for knobs in space.grid()] == [128, 192, 256]


def test_log_uniform_bounds_are_exponents_and_inverse_is_one_over() -> None:
    rng = random.Random(0)
    space = space_of(
        A="{distribution: log_uniform, min: -1, max: 1}",
        B="{distribution: inv_log_uniform, min: 1, max: 2}",
    )
    draws = [space.sample(rng) for _ in range(300)]
    assert min(d["A"] for d in draws) < 0.5
    assert max(d["A"] for d in draws) > 2
    assert all(0.1353 <= d["B"] <= 0.3679 for d in draws)


def test_weights_decide_how_often_a_choice_is_drawn() -> None:
    space = space_of(X="{values: [a, b, c], probabilities: [0.7, 0.3, 0.0]}")
    rng = random.Random(1)
    counts = Counter(space.sample(rng)["X"] for _ in range(2000))
    assert counts["a"] == pytest.approx(1400, rel=0.1)
    assert "c" not in counts


CONDITIONAL = {
    "LR_SCHEDULE": "{values: [linear, cosine, wsd]}",
    "MIN_LR_FRAC": "{values: [0.0, 0.1], when: {LR_SCHEDULE: [cosine, wsd]}}",
    "DECAY": "{values: [1, 2, 3], when: {MIN_LR_FRAC: 0.1}}",
    "NUM_LAYERS": "{min: 7, max: 9}",
    "VOCAB_SIZE": "{value: 512}",
}


def test_conditions_chain_and_inactive_parameters_are_neither_asked_nor_given() -> None:
    space = space_of(**CONDITIONAL)
    trial = FakeSuggester({"LR_SCHEDULE": "linear", "NUM_LAYERS": 8})
    assert space.suggest(trial) == {"LR_SCHEDULE": "linear", "NUM_LAYERS": 8, "VOCAB_SIZE": 512}
    assert sorted(trial.asked) == ["LR_SCHEDULE", "NUM_LAYERS"]
    full = space.suggest(
        # Lists of numbers are asked by place.
        FakeSuggester({"LR_SCHEDULE": "wsd", "MIN_LR_FRAC": 1, "DECAY": 1, "NUM_LAYERS": 7})
    )
    assert list(full) == list(CONDITIONAL)
    assert (full["MIN_LR_FRAC"], full["DECAY"]) == (0.1, 2)


def test_a_list_of_numbers_is_ordered_whatever_its_order_in_the_file() -> None:
    space = space_of(BITS="{values: [8, 4, 6]}", CODEC="{values: [zstd, brotli]}")
    answers = [space.encode({"BITS": bits})["BITS"] for bits in (4, 6, 8)]
    assert answers == [0, 1, 2]
    for bits in (4, 6, 8):
        assert space.decode(space.encode({"BITS": bits, "CODEC": "zstd"})) == {
            "BITS": bits,
            "CODEC": "zstd",
        }


def test_the_nearest_configuration_lies_inside_the_space() -> None:
    space = space_of(
        MATRIX_LR="{distribution: log_uniform_values, min: 0.01, max: 0.03}",
        MODEL_DIM="{distribution: q_uniform, min: 384, max: 640, q: 64}",
        MLP_MULT="{values: [3, 4]}",
        LR_SCHEDULE="{values: [cosine, wsd]}",
        MIN_LR_FRAC="{min: 0.05, max: 0.1, when: {LR_SCHEDULE: wsd}}",
        SEED="{value: 7}",
    )
    program = {"MATRIX_LR": 0.04, "MODEL_DIM": 500, "MLP_MULT": 2, "MIN_LR_FRAC": 0.0, "SEED": 1}
    assert space.nearest({**program, "LR_SCHEDULE": "wsd"}) == {
        "MATRIX_LR": 0.03,
        "MODEL_DIM": 512,
        "MLP_MULT": 3,
        "LR_SCHEDULE": "wsd",
        "MIN_LR_FRAC": 0.05,
        "SEED": 7,
    }
    assert "LR_SCHEDULE" not in space.nearest({**program, "LR_SCHEDULE": "linear"})


def test_a_condition_may_stand_above_the_parameter_it_names() -> None:
    space = space_of(B="{values: [1, 2], when: {A: x}}", A="{values: [x, y]}")
    assert list(space.grid()) == [{"B": 1, "A": "x"}, {"B": 2, "A": "x"}, {"A": "y"}]


def test_a_conditional_grid_is_complete_unique_and_as_long_as_its_size() -> None:
    space = space_of(**CONDITIONAL)
    grid = list(space.grid())
    # linear: 1; cosine and wsd: 0.0 alone, or 0.1 with three decays; times three depths.
    assert len(grid) == space.size() == (1 + 2 * (1 + 3)) * 3
    assert len({tuple(sorted(knobs.items(), key=str)) for knobs in grid}) == len(grid)


def test_one_at_a_time_changes_one_parameter_with_every_seed() -> None:
    text = (
        "method: grid\nparameters:\n  SEED: {values: [1, 2]}\n  SLOPE: {values: [0.0, 0.5]}\n"
        "  BITS: {values: [8, 5, 4]}\n  GPTQ: {values: [0, 16], when: {BITS: [5, 4]}}\n"
        "  LOOPS: {values: [0, 2]}\n  LOOP_END: {value: 1, when: {LOOPS: 2}}\n"
        "pgolf: {one_at_a_time: true}\n"
    )
    space = parse_spec(text, Path("sweep.yaml")).space
    grid = list(space.grid())
    base = {"SLOPE": 0.0, "BITS": 8, "LOOPS": 0}
    alone: list[dict[str, Any]] = [
        base,
        base | {"LOOPS": 2, "LOOP_END": 1},
        base | {"BITS": 5, "GPTQ": 0},
        base | {"BITS": 5, "GPTQ": 16},
        base | {"BITS": 4, "GPTQ": 0},
        base | {"BITS": 4, "GPTQ": 16},
        base | {"SLOPE": 0.5},
    ]
    wanted = [{"SEED": seed, **knobs} for seed in (1, 2) for knobs in alone]
    assert sorted(grid, key=repr) == sorted(
        [{name: knobs[name] for name in space.parameters if name in knobs} for knobs in wanted],
        key=repr,
    )
    assert [knobs["SEED"] for knobs in grid] == [1] * 7 + [2] * 7
    assert space.size() == 14


@settings(max_examples=60)
@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    links=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=3),
    alone=st.booleans(),
)
def test_size_is_the_length_of_any_grid(
    counts: list[int], links: list[tuple[int, int]], alone: bool
) -> None:
    conditions: dict[int, dict[str, tuple[int, ...]]] = {}
    for child in range(1, len(counts)):
        for parent, value in links[child - 1 : child]:
            if parent < child and value < counts[parent]:
                conditions[child] = {f"P{parent}": (value,)}
    space = Space(
        (
            Parameter(
                name=f"P{i}",
                distribution="int_uniform",
                domain=Multiples(0, count - 1),
                when=conditions.get(i, {}),
            )
            for i, count in enumerate(counts)
        ),
        one_at_a_time=alone,
    )
    grid = [tuple(sorted(knobs.items())) for knobs in space.grid()]
    assert len(grid) == len(set(grid)) == space.size()


def test_huge_grids_are_counted_without_being_listed() -> None:
    space = space_of(A="{min: 1, max: 1000000000000}", B="{values: [1, 2], when: {A: 5}}")
    assert space.size() == 10**12 + 1
    assert next(space.grid()) == {"A": 1}
    alone = Space(space.parameters.values(), one_at_a_time=True)
    assert alone.size() == 10**12 + 1


def test_a_grid_over_a_continuous_parameter_is_refused_by_name() -> None:
    space = space_of(MATRIX_LR="{min: 0.01, max: 0.1}")
    assert space.size() is None
    with pytest.raises(InputError, match=r"MATRIX_LR.*uniform is continuous"):
        space.grid()


def test_encode_names_everything_that_is_outside() -> None:
    space = space_of(**CONDITIONAL)
    with pytest.raises(InputError) as caught:
        space.encode({"NUM_LAYERS": 12, "NUM_LAYER": 3, "MIN_LR_FRAC": 0.1, "VOCAB_SIZE": 1024})
    assert "NUM_LAYERS=12 is outside the space: 7 to 9" in caught.value.what
    assert "NUM_LAYER is not a parameter" in caught.value.what
    assert "MIN_LR_FRAC exists only when LR_SCHEDULE is cosine or wsd" in caught.value.what
    assert "VOCAB_SIZE=1024 is outside the space: always 512" in caught.value.what


@pytest.mark.parametrize(
    ("domain", "value"),
    [
        (Constant(1), 2),
        (Choices((1, 2)), 3),
        (WeightedChoices((1, 2), (0.5, 0.5)), 3),
        (Range(0.0, 1.0), 1.5),
        (Range(0.0, 1.0), "a"),
        (Multiples(1, 3, 64), 100),
        (Multiples(1, 3, 64), 256),
        (Multiples(1, 3, 64), True),
        (Quantile(kind="log_normal", shape=(0, 1)), -1.0),
        (Quantile(kind="beta", shape=(1, 1)), 1.5),
    ],
)
def test_a_domain_refuses_to_encode_what_it_does_not_hold(domain: Any, value: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        domain.encode(value)


def test_violations_are_judged_over_knobs_and_program_defaults() -> None:
    space = Space((), ["MODEL_DIM % NUM_HEADS == 0", "min(NUM_LAYERS, 3) == 3"])
    defaults = {"NUM_HEADS": 8, "NUM_LAYERS": 9}
    assert space.violations({"MODEL_DIM": 512}, defaults) == []
    assert space.violations({"MODEL_DIM": 100}, defaults) == ["MODEL_DIM % NUM_HEADS == 0"]


@pytest.mark.parametrize(
    ("expression", "knobs"),
    [("A % B == 0", {"A": 1, "B": 0}), ("A > 1", {}), ("A > 1", {"A": "wsd"})],
)
def test_a_requirement_that_cannot_be_judged_is_violated_with_the_reason(
    expression: str, knobs: dict[str, Any]
) -> None:
    (reason,) = Space((), [expression]).violations(knobs)
    assert reason.startswith(f"{expression} (")


@pytest.mark.parametrize(
    "expression", ["A ==", "A = 1", "A; B", "A.b", "open('x')", "[x for x in A]", "", "lambda: 1"]
)
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="not an expression"):
        check_expression(expression)


def test_an_expression_names_its_knobs_and_not_its_functions() -> None:
    assert check_expression("A % B == 0 or max(C, 1) / 0 > 1") == {"A", "B", "C"}

"""A new width costs few trials of the quantizer, and its bytes are as good as measured."""

from __future__ import annotations

import math

import pytest

from pgolf_sweep.script.probe.size_curves import MOST_NUMBERS, SIGMAS, Curves

KEPT_BELOW = 1000


class Quantizer:
    """Bits fall slowly with row length; below sigma 0.04 the step is fixed."""

    def __init__(self, extra_bits: float = 0.0) -> None:
        self.extra_bits = extra_bits
        self.asked: list[tuple[tuple[int, ...], float]] = []

    def __call__(self, shape: tuple[int, ...], sigma: float) -> tuple[float, bool, int]:
        self.asked.append((shape, sigma))
        if math.prod(shape) < KEPT_BELOW:
            return 2.0 * math.prod(shape), True, 0
        return math.prod(shape) * self.bytes_of(shape[1], sigma), False, 63

    def bytes_of(self, columns: int, sigma: float) -> float:
        bits = min(6 - 0.5 * math.log2(2 * math.log(columns)), 2.05 + math.log2(sigma / 0.01))
        return (bits + self.extra_bits + 16 / columns) / 8


@pytest.mark.parametrize("width", [640, 700, 900, 576])
def test_width_between_two_measured_is_free_and_right(width: int) -> None:
    curves, quantizer = Curves(), Quantizer()
    for known in (512, 1000):
        curves.of("mlp", (2048, known), quantizer)
    curves.of("mlp", (2048, 960), quantizer)
    asked = len(quantizer.asked)
    curve = curves.of("mlp", (2048, width), quantizer)
    assert curve is not None
    assert len(quantizer.asked) == asked
    for sigma in SIGMAS:
        assert curve.per_number[sigma] == pytest.approx(quantizer.bytes_of(width, sigma), rel=0.01)


def test_first_width_of_an_octave_costs_three_trials_of_bounded_size() -> None:
    curves, quantizer = Curves(), Quantizer()
    curves.of("mlp", (100_000, 512), quantizer)
    assert len(quantizer.asked) == len(SIGMAS)
    quantizer.asked.clear()
    curves.of("mlp", (100_000, 640), quantizer)
    assert [shape for shape, _ in quantizer.asked] == [(128, 1024)] * 3
    assert MOST_NUMBERS == 128 * 1024


def test_roles_that_are_quantized_alike_share_and_others_do_not() -> None:
    curves, one, other = Curves(), Quantizer(), Quantizer(extra_bits=2.0)
    curves.of("mlp", (512, 512), one)
    alike, different = Quantizer(), Quantizer(extra_bits=2.0)
    curves.of("attn", (512, 512), alike)
    found = curves.of("embed", (512, 512), different)
    assert (len(alike.asked), len(different.asked)) == (2, len(SIGMAS))
    assert found is not None
    assert found.per_number[SIGMAS[4]] == pytest.approx(other.bytes_of(512, SIGMAS[4]))


def test_small_matrix_that_is_kept_is_not_taken_for_a_quantized_one() -> None:
    curves, quantizer = Curves(), Quantizer()
    assert curves.of("mlp", (64, 64), quantizer) is not None
    assert curves.of("mlp", (16, 16), quantizer) is None
    assert curves.of("mlp", (40, 40), quantizer) is not None


def test_what_one_probe_measured_another_is_told() -> None:
    curves, quantizer = Curves(), Quantizer()
    first = curves.of("mlp", (512, 512), quantizer)
    again, silent = Curves(curves.told()), Quantizer()
    assert again.of("mlp", (512, 512), silent) == first
    assert not silent.asked


def test_quantizer_that_wants_its_models_shapes_gets_them() -> None:
    class Picky(Quantizer):
        def __call__(self, shape: tuple[int, ...], sigma: float) -> tuple[float, bool, int]:
            if shape[1] == 1024:
                raise ValueError(shape)
            return super().__call__(shape, sigma)

    curves, quantizer = Curves(), Picky()
    curves.of("mlp", (512, 512), quantizer)
    curve = curves.of("mlp", (512, 640), quantizer)
    assert curve is not None
    assert curve.per_number[SIGMAS[5]] == pytest.approx(quantizer.bytes_of(640, SIGMAS[5]))

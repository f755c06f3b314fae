"""The integer program of `fit`, and what it refuses."""

from __future__ import annotations

import itertools
import random
import select
import subprocess
import sys

import pytest

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.driver.opening import open_session
from pgolf_sweep.workflows.fit import DIES_WITH_PARENT, choices, choose, within

SWEEP = """
program: trainer
method: random
run_cap: 4
parameters:
  {knobs}
  MODEL_DIM: {{value: 512}}
  NUM_LAYERS: {{value: {layers}}}
pgolf: {{resources: {{gpus: 8}}}}
"""
GROUPS = "MLP_BITS: {values: [4, 5, 6, 8]}\n  EMBED_BITS: {values: [5, 6, 8]}"
COSTS = {
    "MLP_BITS": {4: 0.03, 5: 0.008, 6: 0.002, 8: 0.0},
    "EMBED_BITS": {5: 0.01, 6: 0.004, 8: 0.0},
}


@pytest.mark.parametrize("seed", range(20))
def test_the_choice_is_the_best_of_all(seed):
    rng = random.Random(seed)
    groups = {f"g{at}": rng.sample(range(4, 9), rng.randint(1, 5)) for at in range(3)}
    costs = {g: {v: rng.random() for v in values} for g, values in groups.items()}
    sizes = {g: {v: float(rng.randint(-9, 9)) for v in values} for g, values in groups.items()}
    every = [dict(zip(groups, one, strict=True)) for one in itertools.product(*groups.values())]
    room = float(rng.randint(-12, 12))
    fit = [one for one in every if sum(sizes[g][v] for g, v in one.items()) <= room]
    found = choose(costs, sizes, room)
    if not fit:
        assert found is None
        return
    assert found is not None
    assert found in fit
    least = min(sum(costs[g][v] for g, v in one.items()) for one in fit)
    assert sum(costs[g][v] for g, v in found.items()) == pytest.approx(least)


@pytest.fixture
def session(tmp_path):
    def opened(knobs=GROUPS, layers=9):
        path = tmp_path / "fit.yaml"
        path.write_text(SWEEP.format(knobs=knobs, layers=layers))
        return open_session(path, data_root=tmp_path, need_data=False)

    return opened


def test_what_fits_is_as_large_as_it_can_be(session):
    opened = session(layers=11)
    knobs = {"MODEL_DIM": 512, "NUM_LAYERS": 11, "MLP_BITS": 8, "EMBED_BITS": 8}
    bits, predicted = within(opened, opened.resolve(knobs), COSTS)
    assert predicted is not None
    assert predicted.mid <= 16e6
    assert bits != {"MLP_BITS": 8, "EMBED_BITS": 8}
    costs = sum(COSTS[knob][value] for knob, value in bits.items())
    for other in itertools.product(*COSTS.values()):
        one = dict(zip(COSTS, other, strict=True))
        verdict = opened.verdict(opened.resolve({**knobs, **one}))
        if verdict.artifact_bytes.high <= 16e6:
            assert costs <= sum(COSTS[knob][value] for knob, value in one.items())


def test_nothing_fits(session):
    opened = session(layers=40)
    knobs = opened.resolve({"MODEL_DIM": 512, "NUM_LAYERS": 40, "MLP_BITS": 8, "EMBED_BITS": 8})
    with pytest.raises(InputError, match="no choice of bits fits"):
        within(opened, knobs, COSTS)


def test_a_sweep_without_bits_has_no_choice(session):
    assert choices(session()) == {"MLP_BITS": [4, 5, 6, 8], "EMBED_BITS": [5, 6, 8]}
    with pytest.raises(InputError, match="no bits to choose"):
        choices(session(knobs="WARMDOWN_FRAC: {min: 0.1, max: 0.9}"))


def test_a_measurement_ends_with_the_fit_that_is_killed():
    child = f"{DIES_WITH_PARENT}; print(1, flush=True); import time; time.sleep(1000)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"1\n"  # the child's, which has the same output
        killed.kill()
        # The output ends when nobody holds it any more.
        assert select.select([killed.stdout], [], [], 30.0)[0]
        assert killed.stdout.read() == b""

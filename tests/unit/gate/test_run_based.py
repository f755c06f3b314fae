"""What a run of a script says of its artifact, of other shapes, and against a trial's log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.contest_scripts import BLOCKS, HEAD, MAIN, TABLE, TRAINING
from support.probing import program

from pgolf_sweep.core.trial import VerdictKind
from pgolf_sweep.gate.gate import Gate
from pgolf_sweep.gate.physics.predict import Prediction
from pgolf_sweep.gate.probed import Foreign, Unknown, foreign_of
from pgolf_sweep.gate.script_steps import ScriptSteps
from pgolf_sweep.script.probe.client import stop_helper

if TYPE_CHECKING:
    from collections.abc import Iterator

BRANCHES = HEAD + MAIN.replace(
    "model = GPT(args.layers, args.dim)",
    "model = Table(64) if args.kind == 'table' else GPT(args.layers, args.dim)",
)
WIDE = {"MODEL_DIM": 128, "NUM_LAYERS": 2}


@pytest.fixture(scope="module", autouse=True)
def _helper_ends() -> Iterator[None]:
    yield
    stop_helper()


def strange(source: str) -> Foreign:
    found = foreign_of(program(source))
    assert found is not None
    return found


def size(foreign: Foreign, **knobs: float | str) -> Prediction:
    found = foreign.expected(knobs)
    assert isinstance(found, Prediction), found
    return found


def test_a_verdict_is_that_of_the_export_that_ran() -> None:
    source = program(HEAD + TRAINING)
    verdict = Gate(source, 60_000, foreign=foreign_of(source)).verdict(WIDE)
    assert verdict.regime == "probed"
    assert verdict.model_params == 64 * 128 + 3 * 512 * 128
    assert verdict.model_bytes is not None
    # Row maxima of Gaussians: seven bits and a fraction a weight.
    assert 0.8 < verdict.model_bytes.mid / (verdict.model_params or 1) < 1.0
    assert verdict.kind is VerdictKind.TOO_BIG


@pytest.mark.parametrize("knobs", [{"NUM_LAYERS": 6}, {"MODEL_DIM": 192}, {"MATRIX_LR": 0.03}])
def test_an_export_is_carried_over_to_other_shapes(knobs: dict[str, float]) -> None:
    foreign = strange(HEAD + TRAINING)
    size(foreign, **WIDE)
    assert foreign.answers({**WIDE, **knobs})
    carried = size(foreign, **{**WIDE, **knobs})
    foreign.prepare({**WIDE, **knobs}, thorough=True)
    ran = size(foreign, **{**WIDE, **knobs})
    assert carried.model_params == ran.model_params
    assert carried.model_bytes == pytest.approx(ran.model_bytes, rel=0.02)


def test_a_table_beside_the_weights_does_not_grow_with_the_model() -> None:
    table = "torch.randint(0, 255, (90_000,), dtype=torch.uint8)"
    state = "quantize(model.state_dict())"
    assert TRAINING.count(state) == 1
    source = HEAD + TRAINING.replace(state, f"{{**{state}, 'table': {table}}}")
    foreign = strange(source)
    size(foreign, **WIDE)
    small = {"MODEL_DIM": 32}
    carried = size(foreign, **small)
    foreign.prepare(small, thorough=True)
    assert carried.model_bytes == pytest.approx(size(foreign, **small).model_bytes, rel=0.03)
    assert carried.traits["foreign scaled"] > 0.1 * carried.model_bytes


def test_probes_run_in_a_thread_and_the_asker_does_not_wait() -> None:
    foreign = strange(HEAD + TRAINING)
    assert not foreign.answers(WIDE)
    assert not foreign.ready(WIDE)
    while not foreign.ready(WIDE):
        pass
    assert foreign.answers(WIDE)
    assert foreign.ready({**WIDE, "SEED": 3})  # decides nothing


def test_a_log_that_contradicts_the_count_ends_the_belief_in_that_branch_alone() -> None:
    foreign = strange(BRANCHES)
    table = {"MODEL_KIND": "table"}
    assert size(foreign, **table).model_params == TABLE
    assert foreign.contradict(table, model_params=TABLE) == ""
    said = foreign.contradict(table, model_params=TABLE + 1)
    assert f"{TABLE + 1:,} parameters" in said
    assert "MODEL_KIND=table" in said
    assert foreign.contradict(table, model_params=TABLE + 1) == ""  # once
    assert foreign.expected(table) == Unknown(reason=said)
    assert size(foreign).model_params == BLOCKS


def test_a_script_that_does_not_run_is_counted_by_reading() -> None:
    broken = (HEAD + MAIN).replace("def main():", "def main():\n    open('/nowhere/needed.json')")
    foreign = strange(broken)
    assert foreign.ran({}) is None
    found = foreign.expected({})
    assert isinstance(found, Unknown)
    assert found.model_params == BLOCKS
    assert "FileNotFoundError" in found.reason
    foreign.learn({}, 100_000)
    assert size(foreign).model_bytes == 100_000


def test_a_script_that_does_not_run_is_unknown_with_both_reasons() -> None:
    found = strange(HEAD + "def main():\n    open('/nowhere/needed.json')\nmain()\n").expected({})
    assert isinstance(found, Unknown)
    assert "FileNotFoundError" in found.reason
    assert "matched by name" in found.reason
    assert "pgolf.gate.scheme" in found.reason


def test_short_runs_are_taught_by_short_runs_alone() -> None:
    source = program(HEAD + TRAINING)
    gate = Gate(source, 16_000_000, foreign=foreign_of(source))
    long, short = ({**WIDE, "ITERATIONS": steps} for steps in (6000, 200))
    before = gate.verdict(long).model_bytes, gate.verdict({**short, "MATRIX_LR": 0.03}).model_bytes
    assert before[0] is not None
    assert before[1] is not None
    gate.learn(short, round(0.9 * before[1].mid), steps=200)
    after = gate.verdict(long).model_bytes, gate.verdict({**short, "MATRIX_LR": 0.03}).model_bytes
    assert after[0] is not None
    assert after[1] is not None
    assert after[0].mid == pytest.approx(before[0].mid)
    assert after[1].mid < 0.95 * before[1].mid


def test_steps_follow_from_the_arithmetic_the_gpus_and_a_timed_trial() -> None:
    values = {"MAX_WALLCLOCK_SECONDS": 600.0, "ITERATIONS": 20_000, "TRAIN_BATCH_TOKENS": 524_288,
              "NUM_LAYERS": 9, "MODEL_DIM": 512, "TRAIN_SEQ_LEN": 1024}  # fmt: skip
    eight, one = ScriptSteps(8), ScriptSteps(1)
    steps = eight.planned(values, 17_059_912)
    assert 10_000 < steps.made < 18_000, "the baseline's logs say 13,780"
    assert one.planned(values, 17_059_912).made == pytest.approx(steps.made / 8)
    one.learn(values, 17_059_912, 1000, 400.0)
    assert one.planned(values, 17_059_912).made == pytest.approx(1500)
    assert one.planned(values, 34_119_824).made < 1500
    one.stated = 0.1
    assert one.planned(values, 17_059_912).made == pytest.approx(6000)


def test_more_steps_and_less_decay_make_weights_wider() -> None:
    fixed = (HEAD + TRAINING).replace(
        "t.float().abs().amax(dim=1, keepdim=True) / 127", "t.new_tensor([[1 / 127]])"
    )
    foreign = strange(fixed)
    slow, quick = [], []
    for seconds, sizes in ((0.5, slow), (0.05, quick)):
        foreign.state_step_seconds(seconds)
        sizes.append(size(foreign, **WIDE, MAX_WALLCLOCK_SECONDS=600).model_bytes)
    assert quick[0] > slow[0]

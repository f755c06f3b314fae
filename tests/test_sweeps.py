"""Every sweep file that we ship says what it is for, is valid, and is read by the trainer."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pgolf_sweep.config.generate import preset_file
from pgolf_sweep.config.rules import load_rules
from pgolf_sweep.config.sweep_file import check_against_program, load_spec
from pgolf_sweep.gate.gate import Gate
from pgolf_sweep.script.bundle import bundle
from pgolf_sweep.script.knobs.knobs import read_knobs
from pgolf_sweep.script.pack import as_counted
from pgolf_sweep.script.program import load_program

FOLDER = Path(__file__).parent.parent / "sweeps"
FILES = sorted(FOLDER.glob("*.yaml"))
SHIPPED = {
    "baseline",
    "bits",
    "demo",
    "frontier",
    "knobs",
    "lr",
    "quant",
    "recipe",
    "rungs",
    "schedule",
    "width_depth",
}


def test_the_promised_sweeps_are_there() -> None:
    assert {path.stem for path in FILES} >= SHIPPED


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_sweep_opens_with_its_question_and_its_cost(path: Path) -> None:
    comment = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("# "))
    assert "?" in " ".join(comment[:2])
    assert "Costs" in " ".join(comment)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_sweep_is_read_by_our_trainer_under_a_preset_that_exists(path: Path) -> None:
    spec = load_spec(path)
    assert spec.program == "trainer"
    check_against_program(spec, load_program("trainer", base=FOLDER))
    rules = load_rules(spec.pgolf.rules, base=FOLDER)
    assert spec.pgolf.gpus == (rules.gpus or 0)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_most_of_a_sweep_can_be_built(path: Path) -> None:
    space = load_spec(path).space
    defaults = {k.name: k.default for k in read_knobs(bundle().decode()).values() if k.default}
    rng = random.Random(0)
    draws = [space.sample(rng) for _ in range(200)]
    assert sum(not space.violations(knobs, defaults) for knobs in draws) > 100


def test_the_demo_needs_no_gpu_and_stops_no_trial_early() -> None:
    spec = load_spec(FOLDER / "demo.yaml")
    assert spec.pgolf.gpus == 0
    assert spec.early_terminate is None  # at 40 % of 200 steps it stopped trials that win
    assert spec.run_cap is not None


def test_the_frontier_is_the_preset_and_as_large_as_the_records() -> None:
    text = (FOLDER / "frontier.yaml").read_text()
    assert preset_file("frontier").read_text() == text
    spec = load_spec(FOLDER / "frontier.yaml")
    program = as_counted(load_program("trainer", base=FOLDER))
    gate = Gate(program, cap_bytes=16_000_000)
    start = spec.space.sample(random.Random(0)) | dict(spec.pgolf.warm_start[0].knobs)
    verdict = gate.verdict(start | {"VOCAB_SIZE": 8192})
    assert verdict.artifact_bytes is not None
    assert verdict.artifact_bytes.mid == pytest.approx(16_000_000, rel=0.02)

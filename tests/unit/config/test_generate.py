"""Flags become a sweep file that reads back as what was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgolf_sweep.config.generate import AXES, Draft, draft_text, parse_knobs, parse_range
from pgolf_sweep.config.sweep_file import SweepSpec, check_against_program, parse_spec
from pgolf_sweep.core.errors import InputError, SpecError
from pgolf_sweep.script.bundle import bundle
from pgolf_sweep.script.knobs.knobs import read_knobs
from pgolf_sweep.script.program import load_program
from pgolf_sweep.space.domains import Choices, Constant, Domain, Multiples, Range

DOCUMENTED = {
    "MODEL_DIM": "384:640:64",
    "NUM_LAYERS": "7:13",
    "MATRIX_LR": "0.015:0.08:log",
    "LR_SCHEDULE": "linear,cosine,wsd",
    "MATRIX_BITS": "4,5,6,8",
}


def spec_of(draft: Draft, *, existing: SweepSpec | None = None) -> SweepSpec:
    return parse_spec(draft_text(draft, existing=existing), Path("sweeps/mine.yaml"))


def domain_of(text: str) -> Domain:
    return spec_of(Draft(ranges={"X": text}, method="random")).space.parameters["X"].domain


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("7:13", Multiples(7, 13)),
        ("7:13.0", Range(7, 13)),
        ("0.0:0.2", Range(0.0, 0.2)),
        ("384:640:64", Multiples(6, 10, 64)),
        ("7:13:2", Choices((7, 9, 11, 13))),
        ("0.1:0.4:0.1", Multiples(1, 4, 0.1)),
        ("0.05:0.3:0.1", Choices((0.05, 0.15, 0.25))),
        ("0.015:0.08:log", Range(0.015, 0.08, log=True)),
        ("1e-4:1e-2:log", Range(1e-4, 1e-2, log=True)),
        ("1000:5000:log", Multiples(1000, 5000, 1, log=True)),
        ("4,5,6", Choices((4, 5, 6))),
        ("linear, wsd", Choices(("linear", "wsd"))),
        ("-2:3", Multiples(-2, 3)),
        ("512", Constant(512)),
        ("1e-8", Constant(1e-8)),
        ("brotli", Constant("brotli")),
        ("true,false", Choices((True, False))),
    ],
)
def test_a_range_means_what_the_grammar_says(text: str, domain: Domain) -> None:
    assert domain_of(text) == domain


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("13:7", "13 is greater than 7"),
        ("a:b", "not a range of numbers"),
        ("1:2:3:4", "not a range of numbers"),
        ("1:9:0", "the step '0'"),
        ("1:9:lg", "the step 'lg'"),
        ("0:9:log", "starts above 0"),
        ("1,,2", "'' is no value"),
        ("", "'' is no value"),
        ("1:", "'' is no value"),
        ("[1", "'[1' is no value"),
        ("{a}", "is no value"),
    ],
)
def test_a_bad_range_names_the_knob_and_the_grammar(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=r"range of X") as caught:
        parse_range("X", text)
    assert reason in caught.value.what
    assert caught.value.got == text
    assert "LOW:HIGH:log" in (caught.value.expected or "")


@given(low=st.integers(-50, 50), width=st.integers(0, 200), step=st.integers(1, 30))
def test_stepped_ranges_start_at_the_first_bound(low: int, width: int, step: int) -> None:
    wanted = list(range(low, low + width + 1, step))
    assert list(domain_of(f"{low}:{low + width}:{step}").values()) == wanted


def test_the_documented_example_reads_back_and_suits_the_trainer() -> None:
    text = draft_text(Draft(ranges=DOCUMENTED))
    spec = parse_spec(text, Path("mine.yaml"))
    assert text.startswith("# Which width, depth, learning rate, schedule and bits score best?\n")
    assert "# transformer blocks" in text
    assert (spec.method, spec.run_cap, spec.pgolf.gpus) == ("bayes", 64, 8)
    assert list(spec.space.parameters) == list(DOCUMENTED)
    check_against_program(spec, load_program("trainer", base=Path()))


def test_every_axis_is_a_knob_of_the_trainer() -> None:
    assert {axis.knob for axis in AXES} <= set(read_knobs(bundle().decode()))


def test_width_and_heads_that_both_vary_must_divide() -> None:
    both = spec_of(Draft(ranges={"MODEL_DIM": "384:640:64", "NUM_HEADS": "4,6,8"}))
    assert both.pgolf.require == ("MODEL_DIM % NUM_HEADS == 0",)
    alone = spec_of(Draft(ranges={"MODEL_DIM": "384:640:64", "NUM_HEADS": "8"}))
    assert alone.pgolf.require == ()


def test_the_demo_rules_mean_no_gpu_and_the_demo_data() -> None:
    spec = spec_of(Draft(ranges={"NUM_LAYERS": "2:3"}, rules="demo"))
    assert spec.pgolf.gpus == 0
    assert spec.pgolf.data is not None
    assert spec.pgolf.data.name == "demo"


def test_an_existing_sweep_keeps_what_the_draft_does_not_name() -> None:
    old = parse_spec(
        "name: first\nmethod: random\nrun_cap: 9\nparameters:\n"
        "  LR_SCHEDULE: {values: [linear, cosine]}\n"
        "  MIN_LR_FRAC: {min: 0.0, max: 0.2, when: {LR_SCHEDULE: cosine}}\n"
        "early_terminate: {type: median}\n"
        "pgolf: {rules: demo, seed: 7, gate: {confidence: 0.9}}\n",
        Path("old.yaml"),
    )
    new = spec_of(
        Draft(ranges={"MIN_LR_FRAC": "0,0.1", "NUM_LAYERS": "7:9"}, run_cap=20), existing=old
    )
    assert (new.name, new.method, new.run_cap) == ("first", "random", 20)
    assert list(new.space.parameters) == ["LR_SCHEDULE", "MIN_LR_FRAC", "NUM_LAYERS"]
    assert new.space.parameters["MIN_LR_FRAC"].domain == Choices((0, 0.1))
    assert new.space.parameters["MIN_LR_FRAC"].when == {"LR_SCHEDULE": ("cosine",)}
    assert new.early_terminate == old.early_terminate
    assert (new.pgolf.seed, new.pgolf.gate_confidence, new.pgolf.gpus) == (7, 0.9, 0)


def test_drafting_twice_changes_nothing() -> None:
    first = draft_text(Draft(ranges=DOCUMENTED))
    again = draft_text(Draft(), existing=parse_spec(first, Path("mine.yaml")))
    assert again == first


def test_nothing_to_search_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to search"):
        draft_text(Draft())


def test_seeds_are_for_grids() -> None:
    assert spec_of(Draft(ranges={"SEED": "1,2,3"}, method="grid")).space.size() == 3
    with pytest.raises(SpecError, match="cheating"):
        spec_of(Draft(ranges={"SEED": "1,2,3"}))


def test_other_knobs_come_as_name_and_range() -> None:
    assert parse_knobs(["A=1:2", "B=x=y"]) == {"A": "1:2", "B": "x=y"}
    for wrong in (["A"], ["A="], ["=1"], ["A=1", "A=2"]):
        with pytest.raises(InputError, match="--knob"):
            parse_knobs(wrong)

"""What a command line changes in a sweep file, and what stays as it is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pgolf_sweep.config.overrides import Overrides, replaced
from pgolf_sweep.config.sweep_file import parse_spec
from pgolf_sweep.core.errors import InputError, SpecError
from pgolf_sweep.space.domains import Constant

FILE = """\
# Which rates suit?
program: trainer
method: random
run_cap: 64   # a night
parameters:
  MATRIX_LR:
    # tuned by hand before
    distribution: log_uniform_values
    min: 0.015
    max: 0.08
  LR_SCHEDULE: {values: [linear, cosine]}
  MIN_LR_FRAC: {min: 0.0, max: 0.2, when: {LR_SCHEDULE: cosine}}
  SEED: {value: 1337}
# the contest's
pgolf:
  rules: parameter-golf-2026
"""


def test_values_change_and_comments_stay():
    overrides = Overrides(
        run_cap=8,
        settings={"MATRIX_LR": 0.03, "SEED": 7, "MIN_LR_FRAC": 0.1, "ITERATIONS": 500},
        budget={"gpu_hours": 40, "deadline": "36h"},
    )
    text, said = overrides.apply(FILE, "lr.yaml")
    spec = parse_spec(text.replace('"deadline": "36h", ', ""), Path("lr.yaml"))
    assert spec.run_cap == 8
    for name, value in overrides.settings.items():
        assert spec.space.parameters[name].domain == Constant(value=value)
    assert spec.space.parameters["MIN_LR_FRAC"].when == {"LR_SCHEDULE": ("cosine",)}
    assert spec.pgolf.budget.gpu_hours == 40
    assert "# Which rates suit?" in text
    assert "# a night" in text
    assert "# the contest's" in text
    assert said == [
        "run_cap is 8 (not 64)",
        "MATRIX_LR is fixed at 0.03 (the file searches it)",
        "SEED is 7 (not 1337)",
        "MIN_LR_FRAC is fixed at 0.1 (the file searches it)",
        "ITERATIONS is set to 500 (the file does not name it)",
        "pgolf.budget.gpu_hours is 40 (the file has none)",
        "pgolf.budget.deadline is 36h (the file has none)",
    ]
    assert overrides.apply(FILE, "lr.yaml")[0] == text, "the same command resumes the study"


@pytest.mark.parametrize(
    "text",
    [
        "{method: random, run_cap: 3}",
        "method: random\nrun_cap:\n",
        "method: random\n",
        "method: random\npgolf:\n",
        "method: random\npgolf: {}\n",
        "method: random\npgolf: {budget: {gpu_hours: 3}}\n",
        "method: random\npgolf:\n  budget:\n    gpu_hours: 3   # three\n    usd_per_gpu_hour: 2\n",
        "method: random\npgolf:\n  # none yet\n  budget:\n\n# end\n",
        "method: random\npgolf:\n  rules: none\n  budget:\n    gpu_hours: 3",
    ],
)
@pytest.mark.parametrize(
    ("path", "value"), [(("run_cap",), 9), (("pgolf", "budget", "gpu_hours"), 4)]
)
def test_a_value_is_put_wherever_the_file_may_have_it(text, path, value):
    found = yaml.safe_load(replaced(text, path, value, "x.yaml"))
    for key in path:
        found = found[key]
    assert found == value
    assert yaml.safe_load(replaced(text, path, value, "x.yaml"))["method"] == "random"


@given(st.one_of(st.integers(), st.floats(-1e30, 1e30), st.booleans(), st.text(max_size=20)))
def test_any_value_arrives_as_it_is(value):
    text = replaced("method: random\nparameters:\n  A: {min: 0, max: 1}\n", ("parameters", "A"),
                    {"value": value}, "x.yaml")  # fmt: skip
    assert yaml.safe_load(text)["parameters"]["A"] == {"value": value} or isinstance(value, float)


def test_a_shared_value_is_not_changed_behind_the_back():
    text = "method: random\nparameters:\n  A: &a {min: 0, max: 1}\n  B: *a\n"
    for name in "AB":
        with pytest.raises(InputError, match="cannot be overridden"):
            replaced(text, ("parameters", name), {"value": 1}, "x.yaml")


def test_what_is_no_yaml_is_refused_as_ever():
    with pytest.raises(SpecError):
        Overrides(run_cap=1).apply("a: [", "x.yaml")


def test_words_repeat_the_launch():
    overrides = Overrides(run_cap=8, settings={"A": 0.5}, budget={"usd": 20})
    assert overrides.words() == ["--run-cap", "8", "--set", "A=0.5", "--budget", "usd=20"]

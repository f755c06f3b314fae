"""Deadlines of a sweep file."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from pgolf_sweep.config.deadline import check_deadline, deadline_at, duration_or_time
from pgolf_sweep.config.sweep_file import parse_spec
from pgolf_sweep.core.errors import SpecError

SWEEP = "method: random\n{top}\nparameters: {{MODEL_DIM: {{values: [64, 128]}}}}\npgolf: {block}\n"


@pytest.mark.parametrize(
    ("text", "hours"), [("36h", 36), ("90m", 1.5), ("90 min", 1.5), ("1d12h", 36), ("1.5 h", 1.5)]
)
def test_durations_count_from_the_studys_beginning(text, hours):
    assert duration_or_time(text) == timedelta(hours=hours)
    assert deadline_at(text, begun=1000.0) == 1000.0 + 3600 * hours


@pytest.mark.parametrize(
    "text",
    ["2026-12-01T18:00", "2026-12-01 18:00", "2026-12-01T18:00:00", "2026-12-01T18:00:00+02:00"],
)
def test_times_are_read_as_yaml_has_them(tmp_path, text):
    block = f"{{budget: {{deadline: {text}}}}}"
    spec = parse_spec(SWEEP.format(top="", block=block), tmp_path / "s.yaml")
    deadline = spec.pgolf.budget.deadline
    assert deadline_at(deadline, begun=0.0) == datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize("value", ["soon", "0h", "2026-12-01", 90, "", "-3h", "18:00", True])
def test_what_is_no_deadline_says_what_one_looks_like(value):
    with pytest.raises(ValueError, match="36h, 90m or 1d12h"):
        check_deadline(value)


def test_a_budget_of_trials_is_a_run_cap_and_dollars_need_a_price(tmp_path):
    def run_cap(top, block):
        return parse_spec(SWEEP.format(top=top, block=block), tmp_path / "s.yaml").run_cap

    assert run_cap("", "{budget: {trials: 24}}") == 24
    assert run_cap("run_cap: 9", "{budget: {trials: 24}}") == 9
    assert run_cap("run_cap: 90", "{budget: {trials: 24}}") == 24
    assert run_cap("", "{}") is None
    with pytest.raises(SpecError, match=r"pgolf.budget.usd.*usd_per_gpu_hour"):
        run_cap("", "{budget: {usd: 200}}")

"""Quick random starts are as wide as torch's own."""

from __future__ import annotations

import math

import pytest

from pgolf_sweep.script.probe.dryrun.starts import SPREADS

GIVEN = {
    "normal_": {"std": 0.02}, "trunc_normal_": {"std": 0.02},
    "kaiming_uniform_": {"a": math.sqrt(5)}, "kaiming_normal_": {"mode": "fan_out"},
    "xavier_uniform_": {"gain": 2.0},
}  # fmt: skip


@pytest.mark.parametrize("name", SPREADS)
def test_a_start_is_as_wide_as_that_of_torch(name: str) -> None:
    import torch

    tensor = torch.empty(300, 2, 80)
    getattr(torch.nn.init, name)(
        tensor, **GIVEN.get(name, {}), generator=torch.Generator().manual_seed(1)
    )
    spread = SPREADS[name](tensor, **GIVEN.get(name, {}))
    assert float(tensor.std()) == pytest.approx(spread, rel=0.02)

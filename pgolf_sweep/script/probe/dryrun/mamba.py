"""Layers of `mamba_ssm`, which only a GPU can install: their parameters, and no state space.

Shapes are those of version 2.3 (state-spaces/mamba, `modules/mamba2.py` and `modules/mamba3.py`).
A pass goes through both projections, so that statistics of their inputs can be collected.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pgolf_sweep.script.probe.dryrun.unknown import Unknown, unknown
from pgolf_sweep.script.probe.stubs import put_package


class Norm(nn.Module):
    """A gated norm's one parameter."""

    def __init__(self, width: int, **factory: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width, **factory))

    def forward(self, x: Any, *_: Any) -> Any:
        """The input."""
        return x


class Mamba2(nn.Module):
    """Parameters of a Mamba-2 layer."""

    def __init__(
        self,
        d_model: int,
        d_state: int = 128,
        d_conv: int = 4,
        *,
        expand: int = 2,
        headdim: int = 64,
        d_ssm: int | None = None,
        ngroups: int = 1,
        rmsnorm: bool = True,
        bias: bool = False,
        conv_bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        **more: Any,
    ) -> None:
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        self.d_inner = int(expand * d_model)
        width = d_ssm or self.d_inner
        heads, mixed = width // headdim, width + 2 * ngroups * d_state
        inputs = 2 * self.d_inner + 2 * ngroups * d_state + heads
        self.in_proj = nn.Linear(d_model, inputs, bias=bias, **factory)
        self.conv1d = nn.Conv1d(
            mixed, mixed, d_conv, groups=mixed, padding=d_conv - 1, bias=conv_bias, **factory
        )
        self.dt_bias = nn.Parameter(torch.zeros(heads, **factory))
        self.A_log = nn.Parameter(torch.zeros(heads, **factory))
        self.D = nn.Parameter(torch.ones(width if more.get("D_has_hdim") else heads, device=device))
        if rmsnorm:
            self.norm = Norm(width, **factory)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias, **factory)

    def forward(self, u: Any, *_: Any, **__: Any) -> Any:
        """What both projections make of a batch."""
        return self.out_proj(self.in_proj(u)[..., : self.d_inner])


class Mamba3(nn.Module):
    """Parameters of a Mamba-3 layer, and the numbers by which a script takes it apart."""

    def __init__(
        self,
        d_model: int,
        d_state: int = 128,
        *,
        expand: float = 2,
        headdim: int = 64,
        ngroups: int = 1,
        rope_fraction: float = 0.5,
        is_outproj_norm: bool = False,
        is_mimo: bool = False,
        mimo_rank: int = 4,
        chunk_size: int = 64,
        device: Any = None,
        dtype: Any = None,
        **more: Any,
    ) -> None:
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        self.d_model, self.d_state, self.headdim = d_model, d_state, headdim
        self.expand, self.chunk_size = expand, chunk_size
        self.A_floor = more.get("A_floor", 1e-4)
        self.is_outproj_norm, self.is_mimo = is_outproj_norm, is_mimo
        self.mimo_rank = rank = mimo_rank if is_mimo else 1
        self.d_inner, self.num_bc_heads = int(expand * d_model), ngroups
        self.nheads = heads = self.d_inner // headdim
        self.rotary_dim_divisor = int(2 / rope_fraction)
        self.num_rope_angles = int(d_state * rope_fraction) // 2
        inputs = 2 * self.d_inner + 2 * d_state * ngroups * rank + 3 * heads + self.num_rope_angles
        self.in_proj = nn.Linear(d_model, inputs, bias=False, **factory)
        self.dt_bias = nn.Parameter(torch.zeros(heads, device=device))
        self.B_bias = nn.Parameter(torch.ones(heads, rank, d_state, device=device))
        self.C_bias = nn.Parameter(torch.ones(heads, rank, d_state, device=device))
        self.B_norm, self.C_norm = Norm(d_state, **factory), Norm(d_state, **factory)
        if is_mimo:
            for name in ("mimo_x", "mimo_z", "mimo_o"):
                setattr(self, name, nn.Parameter(torch.ones(heads, rank, headdim, device=device)))
        self.D = nn.Parameter(torch.ones(heads, device=device))
        if is_outproj_norm:
            self.norm = Norm(self.d_inner, **factory)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False, **factory)

    def forward(self, u: Any, *_: Any, **__: Any) -> Any:
        """What both projections make of a batch."""
        return self.out_proj(self.in_proj(u)[..., : self.d_inner])


def _scanned(*_: Any, return_final_states: bool = False, **given: Any) -> Any:
    """A scan's answer: of the shape of its values, and states that nobody knows."""
    values = given["V"]
    made = torch.zeros_like(values)
    if isinstance(values, Unknown):
        made = unknown(values.shape, values.dtype)
    return (made, None, None, None, None) if return_final_states else made


def install() -> None:
    """Put the layers where scripts import them from, for the rest of this process."""
    members: dict[str, dict[str, object]] = {
        "": {"Mamba2": Mamba2, "Mamba3": Mamba3},
        ".modules": {},
        ".modules.mamba2": {"Mamba2": Mamba2},
        ".modules.mamba3": {"Mamba3": Mamba3},
        ".ops": {},
        ".ops.triton": {},
        ".ops.triton.mamba3": {},
        ".ops.triton.mamba3.mamba3_siso_combined": {"mamba3_siso_combined": _scanned},
    }
    put_package("mamba_ssm", "2.3.0", members)

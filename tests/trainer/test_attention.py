"""The choice of the attention kernel; the kernels themselves need a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import attention

from trainer.attention import fastest, switch_flash

CPU = torch.device("cpu")
RANK = """
import sys
import torch
import torch.distributed as dist
from trainer.attention import fastest

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
for spent in (
    [{"FA3": 1.0, "cuDNN": 2.0, "FA2": 4.0}, {"FA3": 6.0, "cuDNN": 3.0, "FA2": 2.0}][rank],
    [{"FA3": 1.0, "cuDNN": 4.0, "FA2": 2.0}, {"cuDNN": 1.0, "FA2": 2.0}][rank],
):
    on = []
    def switch(name):
        if name not in spent:
            raise ImportError(name)
        on.append(name)
    kernels = {name: lambda name=name: switch(name) for name in ("FA3", "cuDNN", "FA2")}
    print(fastest(kernels, lambda: spent[on[-1]], torch.device("cpu"), 2), on[-1])
dist.destroy_process_group()
"""


def kernels(switched, missing=()):
    def switch(name):
        if name in missing:
            raise missing[name]
        switched.append(name)

    return {name: lambda name=name: switch(name) for name in ("FA3", "cuDNN", "FA2")}


@pytest.mark.parametrize(
    ("spent", "missing", "chosen"),
    [
        ({"FA3": 1.0, "cuDNN": 2.0, "FA2": 3.0}, {}, "FA3"),
        ({"FA3": 3.0, "cuDNN": 2.0, "FA2": 2.5}, {}, "cuDNN"),
        ({"cuDNN": 2.0, "FA2": 1.5}, {"FA3": ImportError("flash_attn_interface")}, "FA2"),
        ({"FA2": 9.0}, {"FA3": AttributeError("old"), "cuDNN": RuntimeError("shape")}, "FA2"),
    ],
)
def test_the_fastest_kernel_that_is_there_is_left_switched_on(spent, missing, chosen):
    switched: list[str] = []
    assert fastest(kernels(switched, missing), lambda: spent[switched[-1]], CPU) == chosen
    assert switched == [*spent, chosen]


def test_a_kernel_that_fails_when_it_runs_is_left_out():
    switched: list[str] = []

    def seconds():
        if switched[-1] == "FA3":
            raise RuntimeError("no kernel image is available")
        return 1.0

    assert fastest(kernels(switched), seconds, CPU) == "cuDNN"


def test_ranks_that_measured_otherwise_agree_on_one_kernel(tmp_path):
    # Alone the first would take FA3 and the second FA2; then FA3 is missing on the second.
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for rank in (0, 1)
    ]
    chosen = [rank.communicate(timeout=120)[0].splitlines() for rank in ranks]
    assert chosen == [["cuDNN cuDNN", "FA2 FA2"]] * 2


def test_a_torch_that_does_not_know_fa3_has_the_other_kernels(monkeypatch):
    for name in ("activate_flash_attention_impl", "restore_flash_attention_impl"):
        monkeypatch.delattr(attention, name, raising=False)
    before = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.cudnn_sdp_enabled()
    try:
        switch_flash("cuDNN")
        assert torch.backends.cuda.cudnn_sdp_enabled()
        switch_flash("FA2")
        assert torch.backends.cuda.flash_sdp_enabled()
        with pytest.raises(AttributeError):
            switch_flash("FA3")
    finally:
        torch.backends.cuda.enable_flash_sdp(before[0])
        torch.backends.cuda.enable_cudnn_sdp(before[1])

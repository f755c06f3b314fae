"""The choice of the attention kernel; the kernels themselves need a GPU."""

from __future__ import annotations

import pytest

from trainer.attention import fastest


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
    assert fastest(kernels(switched, missing), lambda: spent[switched[-1]]) == chosen
    assert switched == [*spent, chosen]


def test_a_kernel_that_fails_when_it_runs_is_left_out():
    switched: list[str] = []

    def seconds():
        if switched[-1] == "FA3":
            raise RuntimeError("no kernel image is available")
        return 1.0

    assert fastest(kernels(switched), seconds) == "cuDNN"

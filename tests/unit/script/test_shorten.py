"""Short names: the same program, and no name taken that is another's."""

from __future__ import annotations

import ast

import pytest

from pgolf_sweep.script.bundle import bundle
from pgolf_sweep.script.shorten import FOREIGN, attributes, shortened

SOURCE = """
import os
from dataclasses import dataclass, replace
from torch import nn

@dataclass(frozen=True)
class Point:
    across: int
    spelled_out: int
    scale: int = 1

    def doubled(self, times: int = 2) -> int:
        return self.across * times

    @property
    def whole(self):
        return self.across + self.spelled_out

class Layer(nn.Module):
    def __init__(self, across):
        self.across_layer = across

def area(length, width, *, scale=1, key=None):
    def inner():
        nonlocal width
        width = width + 0
    inner()
    return length * width * scale * len(sorted([1], key=key))

point = replace(Point(across=int(os.environ.get("ACROSS", 3)), spelled_out=4, scale=2), across=5)
SPELLED = getattr(point, "spelled_out")
RESULT = point.doubled() + point.whole, area(2, width=3, scale=2, key=None), SPELLED
"""


def test_a_shortened_program_computes_the_same():
    text = shortened(SOURCE)
    found: dict[str, object] = {}
    exec(compile(text, "short", "exec"), found)  # noqa: S102 - what is tested
    assert found["RESULT"] == (10 + 9, 12, 4)
    names = {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
    # A string spells one; a tensor of a module is named by the other.
    assert {"spelled_out", "across_layer"} <= names
    assert not {"across", "doubled", "whole"} & names
    assert "ACROSS" in text


def test_parameters_are_renamed_with_their_calls_unless_a_foreign_function_has_them():
    function = next(
        node
        for node in ast.walk(ast.parse(shortened(SOURCE)))
        if isinstance(node, ast.FunctionDef) and node.name == "area"
    )
    assert [each.arg for each in function.args.posonlyargs] == ["length"]
    assert [each.arg for each in function.args.args] == ["width"]  # which `nonlocal` spells
    short, foreign = (each.arg for each in function.args.kwonlyargs)
    assert (len(short), foreign) == (1, "key")


def test_no_name_is_taken_that_a_foreign_object_has():
    import lzma
    import math
    import os
    import resource
    import signal
    import struct
    import sys
    import time
    import zlib
    from pathlib import Path

    import numpy as np
    import torch
    import torch.distributed as dist
    from torch import nn

    tree = ast.parse(bundle())
    foreign = (
        torch, torch.Tensor, torch.cuda, torch.cuda.Event, torch.optim, torch.optim.AdamW,
        torch.Generator, torch.linalg, torch.device, torch.Size, dist, nn, nn.Module, nn.Linear,
        nn.Embedding, nn.init, nn.functional, np, np.ndarray, np.random, np.linalg, np.dtype,
        np.lib.stride_tricks, Path, os.stat_result, struct, time, zlib, zlib.compressobj(), lzma,
        math, os, sys, signal, resource, resource.getrusage(0), str, bytes, bytearray, list, dict,
        tuple, set, int, float, torch.autograd.Function, torch.autograd.function.FunctionCtx,
    )  # fmt: skip
    taken = {name for name in attributes(tree) for each in foreign if hasattr(each, name)}
    assert not taken
    assert "train_seq_len" in attributes(tree)


@pytest.mark.parametrize("name", sorted(FOREIGN))
def test_foreign_names_stay(name):
    assert name not in attributes(ast.parse(bundle()))

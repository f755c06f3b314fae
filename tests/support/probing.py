"""Programs of one script, probed."""

from __future__ import annotations

from pgolf_sweep.script.probe.prober import Probed, Prober, Unprobed
from pgolf_sweep.script.program import Program, from_files

MODEL = """
import os
from torch import nn
class Hyperparameters:
    dim = int(os.environ.get("MODEL_DIM", 16))
class GPT(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.matrix = nn.Linear(dim, dim, bias=False)
def main():
    model = GPT(Hyperparameters.dim)
"""


def program(source: str, **others: str) -> Program:
    """A program; of other files, ``_py`` in a name stands for ``.py``."""
    files = {"train_gpt.py": source} | {name.replace("_py", ".py"): t for name, t in others.items()}
    return from_files("train_gpt.py", {n: t.encode() for n, t in files.items()}, builtin=False)


def probed(source: str, seconds: float = 30.0, **others: str) -> Probed | Unprobed:
    """What a script's default configuration is."""
    return Prober(program(source, **others), seconds=seconds).probe({})


def counted(source: str, **others: str) -> Probed:
    """The same of a script that can be probed; its quantizer is left alone."""
    result = Prober(program(source, **others)).probe({})
    assert isinstance(result, Probed), result.reason
    return result


def reason(source: str, seconds: float = 30.0, **others: str) -> str:
    """Why a script cannot be probed."""
    result = probed(source, seconds, **others)
    assert isinstance(result, Unprobed)
    return result.reason

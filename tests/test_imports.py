"""Imports point one way (design.md), and each heavy library has one door."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pgolf_sweep"

# From the top down. A module may import its own layer and those below; one that is not named
# here is the driver's.
DRIVERS = 1
LAYERS = (
    {"cli", "__main__"},
    {"driver", "ship", "report"},
    {"launch", "track", "search", "session", "control"},
    {"size", "script", "spec", "specblocks"},
    {"data", "rules", "outcome", "record", "trial", "trialdir", "spectypes", "yamlmarks"},
    {"clock", "errors", "__init__"},
)
EXCEPTIONS = {
    # Our own quantizer and its bytes are the gate's subject.
    ("size", "trainer"),
    # What a sweep file says of parameters is the search space's to read.
    ("spec", "search"),
    ("specblocks", "search"),
    ("spectypes", "search"),
}
DOORS = {
    "optuna": {"search/study.py", "search/sampler.py", "search/pruner.py"},
    "ray": {"launch/ray.py", "launch/cluster.py", "launch/detached.py", "launch/arrival.py"},
    "wandb": {"track/wandb.py"},
}


def imported(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, wherever it does, but not for types only."""
    tree = ast.parse(path.read_text())
    for_types = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for statement in branch.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(dotted: str) -> str:
    """The part of our package that a dotted name is in."""
    parts = dotted.split(".")
    known = {path.stem for path in PACKAGE.iterdir()}
    return parts[1] if len(parts) > 1 and parts[1] in known else "__init__"


def layer(name: str) -> int:
    return next((n for n, names in enumerate(LAYERS) if name in names), DRIVERS)


FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_module_imports_only_its_own_layer_and_those_below(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imported(path):
        if name.split(".")[0] != "pgolf_sweep":
            continue
        other = room(name)
        if (own, other) not in EXCEPTIONS:
            assert layer(own) <= layer(other), f"{own} imports {name}, which is above it"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_heavy_library_has_one_door(path: Path) -> None:
    own = path.relative_to(PACKAGE).as_posix()
    for name in imported(path):
        library = name.split(".")[0]
        assert own in DOORS.get(library, {own}), f"{own} imports {library}"


@pytest.mark.parametrize("path", sorted((ROOT / "trainer").glob("*.py")), ids=lambda p: p.stem)
def test_the_trainer_imports_nothing_of_the_tool(path: Path) -> None:
    allowed = {"trainer", "torch", "numpy", "sentencepiece", "brotli", "zstandard"}
    for name in imported(path):
        top = name.split(".")[0]
        assert top in allowed or top in sys.stdlib_module_names, f"{path.name} imports {name}"

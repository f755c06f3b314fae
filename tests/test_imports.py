"""Imports point one way, each folder has its place in the order, and heavy libraries one door."""

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

# From the bottom up; the twin of the picture in docs/architecture.md. A folder imports from those
# before its own row. A folder that is not named here fails the tests.
ORDER = (
    ("core",),
    ("space", "track", "data", "script"),
    ("config", "variants"),
    ("nodes",),
    ("gate", "search", "submission"),
    ("launch",),
    ("driver", "verify"),
    ("report", "promote"),
    ("workflows",),
    ("agents",),
    ("cli",),
)
ROW = {name: row for row, names in enumerate(ORDER) for name in names}
MOST_ROWS, MOST_BOXES = 11, 24
# Only these modules may import the library.
DOORS = {
    "optuna": {"search/"},
    "ray": {"launch/ray/", "launch/remote/"},
    "wandb": {"track/wandb_run.py"},
    "mcp": {"agents/server.py"},
    "trainer": {
        "gate/physics/",
        "gate/suggest.py",
        "config/blocks.py",
        # Takes a copy of it along to the cluster.
        "launch/remote/dashboard.py",
    },
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
    yield from (name for node, name in _imports(tree) if node not in for_types)


def _imports(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node, node.module
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)


def folder(dotted: str) -> str | None:
    """The folder of our package that a dotted name lies in; None for the package itself."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else None


FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [path.relative_to(PACKAGE).as_posix() for path in FILES]
INNER = [path for path in FILES if path.parent != PACKAGE]


def test_every_folder_has_its_place() -> None:
    found = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert found == ROW.keys()


def test_the_picture_fits_on_a_screen() -> None:
    loose = {path.name for path in PACKAGE.glob("*.py")}
    assert loose <= {"__init__.py", "__main__.py"}
    assert len(ROW) + len(loose) <= MOST_BOXES
    assert len(ORDER) <= MOST_ROWS


@pytest.mark.parametrize("path", INNER, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_imports_only_its_own_folder_and_those_below(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0]
    # Types count, too: a picture that only holds at run time is none that people can trust.
    for _, name in _imports(ast.parse(path.read_text())):
        other = folder(name) if name.split(".")[0] == "pgolf_sweep" else None
        if other is not None and other != own:
            assert ROW[other] < ROW[own], f"{own} imports {name}, which is not below it"


def dotted(path: Path) -> str:
    """The name by which a file of ours is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def circles(arrows: dict[str, set[str]]) -> list[set[str]]:
    """Strongly connected components of more than one module (Tarjan 1972)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: list[set[str]] = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        path.append(module)
        for other in sorted(arrows[module]):
            if other not in order:
                visit(other)
            if other in path:
                lowest[module] = min(lowest[module], lowest[other])
        if lowest[module] == order[module]:
            start = path.index(module)
            found.append(set(path[start:]))
            del path[start:]

    for module in sorted(arrows):
        if module not in order:
            visit(module)
    return [modules for modules in found if len(modules) > 1]


def test_a_circle_is_found() -> None:
    arrows = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"e"}, "e": set[str](), "f": {"a"}}
    assert circles(arrows) == [{"a", "b", "c"}]


def test_no_modules_import_one_another_in_a_circle() -> None:
    ours = {dotted(path): path for path in FILES}
    arrows = {name: (set(imported(path)) & ours.keys()) - {name} for name, path in ours.items()}
    assert sum(map(len, arrows.values())) > len(ours)
    assert circles(arrows) == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_heavy_library_has_one_door(path: Path) -> None:
    own = path.relative_to(PACKAGE).as_posix()
    for name in imported(path):
        library = name.split(".")[0]
        if library in DOORS:
            assert own.startswith(tuple(DOORS[library])), f"{own} imports {library}"


def test_each_door_is_used() -> None:
    used = {(path, name.split(".")[0]) for path in FILES for name in imported(path)}
    for library, doors in DOORS.items():
        for door in doors:
            owners = {p.relative_to(PACKAGE).as_posix() for p, name in used if name == library}
            assert any(own.startswith(door) for own in owners), f"no {library} in {door}"


@pytest.mark.parametrize("path", sorted((ROOT / "trainer").glob("*.py")), ids=lambda p: p.stem)
def test_the_trainer_imports_nothing_of_the_tool(path: Path) -> None:
    allowed = {"trainer", "torch", "numpy", "sentencepiece", "brotli", "zstandard"}
    for name in imported(path):
        top = name.split(".")[0]
        assert top in allowed or top in sys.stdlib_module_names, f"{path.name} imports {name}"

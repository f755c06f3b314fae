"""Modules beside a script that it imports, found in its text; nothing is run."""

from __future__ import annotations

import ast
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pgolf_sweep.script.source import decoded, parsed

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_MODULE_BYTES = 4_000_000
"""Of one module; a larger file is data."""


def imported_beside(root: Path, script: str) -> list[str]:
    """The Python files below a folder that a script imports, and that those import in turn.

    Args:
        root: Folder that Python imports from.
        script: The script, relative to it.

    Returns:
        Paths relative to the folder, in order, the script left out.
    """
    found, waiting = {script}, [script]
    while waiting:
        name = waiting.pop()
        with suppress(SyntaxError, OSError, ValueError):
            tree = parsed(decoded((root / name).read_bytes()))
            for module in _named(tree, PurePosixPath(name)):
                new = [file for file in _files(root, module) if file not in found]
                found.update(new)
                waiting += new
    return sorted(found - {script})


def _named(tree: ast.AST, file: PurePosixPath) -> Iterator[tuple[str, ...]]:
    """The modules that a file names in its imports, as paths from the folder of imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                package = file.parent.parts
                parts = (*package[: len(package) + 1 - node.level], *parts)
            if parts:
                yield parts
            # What is imported from a package may be a module of it.
            yield from ((*parts, alias.name) for alias in node.names if alias.name != "*")


def _files(root: Path, module: tuple[str, ...]) -> Iterator[str]:
    """The files that importing a module reads, as far as they are there."""
    for length in range(1, len(module) + 1):
        inner = PurePosixPath(*module[:length])
        for name in (f"{inner}.py", f"{inner}/__init__.py"):
            path = root / name
            if path.is_file() and path.stat().st_size <= MOST_MODULE_BYTES:
                yield name

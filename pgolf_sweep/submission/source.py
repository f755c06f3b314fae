"""Reading a script without running it: syntax, imports, the source inside a packed one."""

from __future__ import annotations

import ast
import warnings
from typing import TYPE_CHECKING

from pgolf_sweep.script.unpack import unpack

if TYPE_CHECKING:
    from pathlib import Path


def parsed(source: str) -> ast.Module:
    """`ast.parse` without the warnings that another's escapes cause.

    Raises:
        SyntaxError: The source is not Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source)
        except ValueError as error:  # null bytes
            raise SyntaxError(str(error)) from error


def unpacked(source: str, path: Path) -> str | None:
    """The source that a self-extracting script carries, read without running it; else None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inner = unpack(source, path=path)
    return None if inner == source else inner


def imported_modules(source: str, *, hard_only: bool = False) -> set[str]:
    """Top-level names of the modules that a script imports, wherever in it.

    Args:
        source: A script that parses.
        hard_only: Leave out imports inside ``try`` that can fail without ending the script.

    Raises:
        SyntaxError: It does not parse.
    """
    tree = parsed(source)
    soft = {
        inner
        for node in ast.walk(tree)
        if hard_only and isinstance(node, ast.Try) and node.handlers
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if node in soft:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found

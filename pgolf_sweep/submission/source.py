"""What a script imports, read without running it."""

from __future__ import annotations

import ast

from pgolf_sweep.script.source import parsed


def imported_modules(source: str | ast.Module, *, hard_only: bool = False) -> set[str]:
    """Top-level names of the modules that a script imports, wherever in it.

    Args:
        source: A script that parses, or its tree.
        hard_only: Leave out imports inside ``try`` that can fail without ending the script.

    Raises:
        SyntaxError: It does not parse.
    """
    tree = parsed(source) if isinstance(source, str) else source
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

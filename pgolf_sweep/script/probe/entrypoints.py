"""A script without the calls by which it would run: what a probe imports of it."""

from __future__ import annotations

import ast
from functools import lru_cache
from typing import TYPE_CHECKING

from pgolf_sweep.script.probe.call_sites import FUNCTIONS

if TYPE_CHECKING:
    from types import CodeType

_IS_MAIN = ("__name__ == '__main__'", "'__main__' == __name__")
_WRAPPERS = ("sys.exit", "exit", "quit", "os._exit", "asyncio.run")
"""What a script hands the result of its main function to."""


@lru_cache(maxsize=8)
def without_runs(tree: ast.Module) -> tuple[ast.Module, tuple[str, ...]]:
    """The module without the calls by which it would run, when imported or when started.

    Returns:
        The module, and the names of the functions whose calls were left out.
    """
    own = {node.name for node in tree.body if isinstance(node, FUNCTIONS)}
    left_out: list[str] = []
    body = _imported(tree.body, own, left_out)
    return ast.Module(body=body, type_ignores=tree.type_ignores), tuple(left_out)


def _imported(body: list[ast.stmt], own: set[str], left_out: list[str]) -> list[ast.stmt]:
    kept: list[ast.stmt] = []
    for statement in body:
        name = _run(statement)
        if name in own:
            left_out.append(name)
        elif not isinstance(statement, ast.If) or not _asks_for_name(statement.test):
            kept.append(statement)
        elif ast.unparse(statement.test) in _IS_MAIN:  # the name is another one in a probe
            kept += _imported(statement.orelse, own, left_out)
        else:
            inner = _imported(statement.body, own, left_out) or [ast.Pass()]
            other = _imported(statement.orelse, own, left_out)
            new = ast.If(test=statement.test, body=inner, orelse=other)
            kept.append(ast.fix_missing_locations(ast.copy_location(new, statement)))
    return kept


def _asks_for_name(test: ast.expr) -> bool:
    """Whether a condition asks how the script was started."""
    return isinstance(test, ast.Compare) and any(
        isinstance(side, ast.Name) and side.id == "__name__"
        for side in (test.left, *test.comparators)
    )


def _run(statement: ast.stmt) -> str:
    """The name of the function that a statement calls for what it does, as ``sys.exit(main())``."""
    match statement:
        case ast.Expr(value=ast.Call() as call) | ast.Raise(exc=ast.Call() as call):
            pass
        case _:
            return ""
    wrapped = isinstance(statement, ast.Raise) or ast.unparse(call.func) in _WRAPPERS
    match call:
        case ast.Call(args=[ast.Call(func=ast.Name(id=name))]) if wrapped:
            return name
        case ast.Call(func=ast.Name(id=name)) if isinstance(statement, ast.Expr):
            return name
        case _:
            return ""


@lru_cache(maxsize=8)
def importable(tree: ast.Module, path: str) -> CodeType:
    """A script's code without the calls by which it would run, ready to be executed."""
    return compile(without_runs(tree)[0], path, "exec")

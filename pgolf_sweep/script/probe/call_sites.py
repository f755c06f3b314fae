"""Where a script calls what: each call with the statements around it, from its syntax tree."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True, eq=False)
class CallSite:
    """One call in a script; two are equal only if they are the same.

    Attributes:
        call: The call.
        function: The function around it; None at the module's level.
        owner: The class around that function, if any.
        before: Statements that run before it within the function, in order.
        target: Name to which its value is assigned, or an empty string.
        after: Statements that run after it within the function, in order, if its value, or what a
            method returns of it, goes to `target` alone.
        returned: Whether the function returns that value.
    """

    call: ast.Call
    function: ast.FunctionDef | ast.AsyncFunctionDef | None
    owner: ast.ClassDef | None
    before: tuple[ast.stmt, ...]
    target: str
    after: tuple[ast.stmt, ...] = ()
    returned: bool = False

    @property
    def callee(self) -> str:
        """Name of what is called, also as ``zlib.compress`` or ``Compressor().compress``."""
        return _callee(self.call)


def _callee(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id=name), attr=attribute):
            return f"{name}.{attribute}"
        case ast.Attribute(value=ast.Call() as inner, attr=attribute):
            return f"{_callee(inner)}().{attribute}"
        case _:
            return ""


def call_sites(tree: ast.Module, names: Iterable[str]) -> Iterator[CallSite]:
    """Every call by name of one of `names`, in the order of the source."""
    every = _by_callee(tree)
    found = [site for name in set(names) for site in every.get(name, ())]
    return iter(sorted(found, key=lambda site: (site.call.lineno, site.call.col_offset)))


@lru_cache(maxsize=8)
def _by_callee(tree: ast.Module) -> Mapping[str, list[CallSite]]:
    found: dict[str, list[CallSite]] = {}
    for site in _sites(tree.body, (), (), None, None):
        found.setdefault(site.callee, []).append(site)
    return found


def _sites(
    body: list[ast.stmt],
    before: tuple[ast.stmt, ...],
    after: tuple[ast.stmt, ...],
    function: ast.FunctionDef | ast.AsyncFunctionDef | None,
    owner: ast.ClassDef | None,
) -> Iterator[CallSite]:
    for place, statement in enumerate(body):
        later = (*body[place + 1 :], *after)
        if isinstance(statement, FUNCTIONS):
            yield from _sites(statement.body, (), (), statement, owner)
        elif isinstance(statement, ast.ClassDef):
            yield from _sites(statement.body, (), (), None, statement)
        else:
            target = _target(statement)
            for expression in _own_expressions(statement):
                for node in ast.walk(expression):
                    if isinstance(node, ast.Call) and _callee(node):
                        alone = root_of(expression, through=node) is node
                        returned = alone and (
                            isinstance(statement, ast.Return) or target in _returned(function)
                        )
                        rest = later if alone and target else ()
                        yield CallSite(node, function, owner, before, target, rest, returned)
            for block in blocks(statement):
                yield from _sites(block, before, later, function, owner)
        before = (*before, statement)


def root_of(expression: ast.AST, *, through: ast.AST | None = None) -> ast.AST:
    """What an expression's attributes, items and methods are taken of.

    Args:
        expression: For example ``GPT(args).to(device)``.
        through: Where to stop at the latest.
    """
    while expression is not through:
        match expression:
            case ast.Attribute(value=inner) | ast.Subscript(value=inner):
                expression = inner
            case ast.Call(func=ast.Attribute() as inner):
                expression = inner
            case _:
                break
    return expression


@lru_cache(maxsize=512)
def _returned(function: ast.FunctionDef | ast.AsyncFunctionDef | None) -> frozenset[str]:
    """Names that a function returns by themselves."""
    if function is None:
        return frozenset()
    returns = (node.value for node in ast.walk(function) if isinstance(node, ast.Return))
    return frozenset(value.id for value in returns if isinstance(value, ast.Name))


def blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """Blocks of statements within a compound one."""
    for name in ("body", "orelse", "finalbody"):
        block = getattr(statement, name, None)
        if block:
            yield block
    for handler in getattr(statement, "handlers", ()):
        yield handler.body
    for case in getattr(statement, "cases", ()):
        yield case.body


def _own_expressions(statement: ast.stmt) -> Iterator[ast.expr]:
    for child in ast.iter_child_nodes(statement):
        if isinstance(child, ast.expr):
            yield child
        elif isinstance(child, ast.withitem):
            yield child.context_expr


def _target(statement: ast.stmt) -> str:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
        case _:
            return ""


def parameters_of(site: CallSite) -> Mapping[str, ast.expr | None]:
    """Parameters of the function around a call, with their annotations."""
    if site.function is None:
        return {}
    arguments = site.function.args
    every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    return {argument.arg: argument.annotation for argument in every}


def passed(function: ast.FunctionDef | ast.AsyncFunctionDef, call: ast.Call, *,
           bound: bool) -> Mapping[str, ast.expr]:  # fmt: skip
    """What a call passes to a function's parameters, defaults too; without what is starred.

    Args:
        function: The function.
        call: A call of it.
        bound: Whether its first parameter is filled by Python, as ``self`` is.
    """
    arguments = function.args
    names = [one.arg for one in (*arguments.posonlyargs, *arguments.args)]
    found = dict(zip(names[::-1], arguments.defaults[::-1], strict=False))
    only = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    found |= {one.arg: default for one, default in only if default is not None}
    if any(keyword.arg is None for keyword in call.keywords):
        found.clear()  # ``**more`` may set any of them
    for name, value in zip(names[bound:], call.args, strict=False):
        if isinstance(value, ast.Starred):
            return {}
        found[name] = value
    return found | {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}

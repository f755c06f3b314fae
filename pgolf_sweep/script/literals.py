"""Values of expressions that need no running script: numbers, arithmetic, named constants."""

from __future__ import annotations

import ast
import operator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_DEEPEST = 30


class Literals:
    """Evaluates expressions of one script.

    Args:
        assigned: Names that the script binds exactly once, with the expression they are bound to.
        stand_in: For a call, an expression to take its place, or None; environment reads stand for
            their default.
    """

    def __init__(
        self,
        assigned: Mapping[str, ast.expr],
        stand_in: Callable[[ast.Call], ast.expr | None] = lambda _: None,
    ) -> None:
        self._assigned = assigned
        self._stand_in = stand_in

    def value(self, node: ast.expr, bound: Mapping[str, Any] | None = None) -> Any:
        """The expression's value, or None if only the running script knows it.

        Args:
            node: The expression.
            bound: Values of names that come before those of the script.
        """
        try:
            return self._evaluate(node, bound or {}, depth=0)
        except (_UnknownError, ArithmeticError, TypeError, ValueError, LookupError):
            return None

    def _evaluate(  # noqa: C901, PLR0912 - one case a form of expression
        self, node: ast.expr, bound: Mapping[str, Any], *, depth: int
    ) -> Any:
        if depth > _DEEPEST:
            raise _UnknownError

        def value(part: ast.expr) -> Any:
            return self._evaluate(part, bound, depth=depth + 1)

        match node:
            case ast.Constant(value=constant):
                return constant
            case ast.Name(id=name) if name in bound:
                return bound[name]
            case ast.Name(id=name) if name in self._assigned:
                return value(self._assigned[name])
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _arithmetic(op, value(left), value(right))
            case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items):
                return tuple(value(item) for item in items)
            case ast.Dict(keys=keys, values=values):
                pairs = zip(keys, values, strict=True)
                return {value(key): _or_none(value, item) for key, item in pairs if key is not None}
            case ast.Subscript(value=owner, slice=index):
                return value(owner)[value(index)]
            case ast.Call(func=ast.Name(id=name), args=[only]) if name in _CONVERSIONS:
                return _CONVERSIONS[name](value(only))
            case ast.Call(func=ast.Attribute(value=owner, attr="join"), args=[only]):
                return str(value(owner)).join(value(only))
            case ast.Call(func=ast.Attribute(value=owner, attr=("upper" | "lower") as attr)):
                return getattr(str(value(owner)), attr)()
            case ast.JoinedStr(values=parts):
                return "".join(
                    str(value(part.value if isinstance(part, ast.FormattedValue) else part))
                    for part in parts
                )
            case ast.Call() if (instead := self._stand_in(node)) is not None:
                return value(instead)
            case _:
                raise _UnknownError


class _UnknownError(Exception):
    """The expression's value is known only to the running script."""


_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
}
_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
}


def _arithmetic(op: ast.operator, left: Any, right: Any) -> Any:
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    if numbers and isinstance(op, ast.Pow | ast.LShift) and abs(right) > 64:
        raise _UnknownError  # 10 ** 10 ** 10 is no default
    if not numbers and not (isinstance(op, ast.Add) and type(left) is type(right)):
        raise _UnknownError
    return _OPERATORS[type(op)](left, right)


def _or_none(value: Callable[[ast.expr], Any], node: ast.expr) -> Any:
    try:
        return value(node)
    except _UnknownError:
        return None

"""Values of expressions that need no running script: numbers, arithmetic, named constants."""

from __future__ import annotations

import ast
import itertools
import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MOST_TURNS = 1024
"""No script reads a variable in longer loops."""
_DEEPEST = 30
_MOST_STEPS = 50_000
_LONGEST = 100_000
_METHODS = frozenset({"format", "join", "lower", "removeprefix", "removesuffix", "replace", "strip",
                      "title", "upper"})  # fmt: skip
_FORMAT = re.compile(
    r"(?:[^{}]|\{\{|\}\}|\{\w*(?:![rsa])?(?::[^{}\d]?\d{0,2}(?:\.\d{1,2})?[a-z]?)?\})*"
)
_PERCENT = re.compile(r"(?:[^%]|%%|%(?:\(\w+\))?0?\d{0,2}(?:\.\d{1,2})?[a-zA-Z])*")


@dataclass(frozen=True, slots=True)
class Field:
    """One of ``dataclasses.fields``: what a loop over them may ask of it."""

    name: str
    default: Any


class Literals:
    """Evaluates expressions of one script.

    Args:
        assigned: The expression that a name is bound to where it stands, or None.
        stand_in: For a call, an expression to take its place, or None; environment reads stand for
            their default.
    """

    def __init__(
        self,
        assigned: Callable[[ast.Name], ast.expr | None],
        stand_in: Callable[[ast.Call], ast.expr | None] = lambda _: None,
    ) -> None:
        self._assigned = assigned
        self._stand_in = stand_in
        self._steps = 0

    def value(self, node: ast.expr, bound: Mapping[str, Any] | None = None) -> Any:
        """The expression's value, or None if only the running script knows it.

        Args:
            node: The expression.
            bound: Values of names that come before those of the script.
        """
        self._steps = 0
        try:
            return self._evaluate(node, bound or {}, depth=0)
        except (_UnknownError, ArithmeticError, TypeError, ValueError, LookupError, MemoryError):
            return None

    def _evaluate(  # noqa: C901, PLR0912 - one case a form of expression
        self, node: ast.expr, bound: Mapping[str, Any], *, depth: int
    ) -> Any:
        if depth > _DEEPEST or self._steps > _MOST_STEPS:
            raise _UnknownError

        self._steps += 1

        def value(part: ast.expr) -> Any:
            found = self._evaluate(part, bound, depth=depth + 1)
            if isinstance(found, str) and len(found) > _LONGEST:
                raise _UnknownError
            return found

        match node:
            case ast.Constant(value=constant):
                return constant
            case ast.Name(id=name) if name in bound:
                return bound[name]
            case ast.Name() if (assigned := self._assigned(node)) is not None:
                return value(assigned)
            case ast.Attribute(value=owner, attr=("name" | "default") as attr):
                held = value(owner)
                if not isinstance(held, Field):
                    raise _UnknownError
                return getattr(held, attr)
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
            case ast.Call(func=ast.Name(id=name), args=[only], keywords=[]) if name in _CONVERSIONS:
                return _CONVERSIONS[name](value(only))
            case ast.Call(func=ast.Name(id="range"), args=bounds, keywords=[]):
                return _turns(range(*(value(one) for one in bounds)))
            case ast.Call(func=ast.Name(id="enumerate"), args=[only], keywords=[]):
                return _turns(enumerate(value(only)))
            case ast.Call(func=ast.Name(id="zip"), args=[*parts], keywords=[]):
                return _turns(zip(*(value(one) for one in parts), strict=False))
            case ast.Call(func=ast.Name(id="dict"), args=[], keywords=pairs):
                return {pair.arg: _or_none(value, pair.value) for pair in pairs if pair.arg}
            case ast.Call(
                func=ast.Attribute(value=owner, attr=attr), args=items, keywords=named
            ) if attr in _METHODS:
                text = value(owner)
                if not isinstance(text, str):
                    raise _UnknownError
                given = [value(item) for item in items]
                words = {pair.arg: value(pair.value) for pair in named if pair.arg}
                if attr == "format":
                    _check_format(text)
                return getattr(text, attr)(*given, **words)
            case ast.JoinedStr(values=parts):
                return "".join(str(value(part)) for part in parts)
            case ast.FormattedValue(value=shown, conversion=conversion, format_spec=spec):
                item = value(shown)
                item = _SHOWN[chr(conversion)](item) if conversion > 0 else item
                layout = "" if spec is None else value(spec)
                _check_format(f"{{:{layout}}}")
                return format(item, layout)
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
_SHOWN: dict[str, Callable[[Any], Any]] = {"s": str, "r": repr, "a": ascii}
_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
}


def _turns(items: Iterable[Any]) -> tuple[Any, ...]:
    """The items of a loop that ends soon."""
    found = tuple(itertools.islice(items, MOST_TURNS + 1))
    if len(found) > MOST_TURNS:
        raise _UnknownError
    return found


def _check_format(text: str) -> None:
    """Only plain places: a width of nine digits is no name, and an attribute may be anything."""
    if not _FORMAT.fullmatch(text):
        raise _UnknownError


def _arithmetic(op: ast.operator, left: Any, right: Any) -> Any:
    if isinstance(op, ast.Mod) and isinstance(left, str):
        if not _PERCENT.fullmatch(left):
            raise _UnknownError
        return left % right
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

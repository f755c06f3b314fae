"""Types that a script converts its environment to, behind `environ_reads`."""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pgolf_sweep.script.knobs.booleans import FALSE, NOT_EMPTY, TRUE, Words
from pgolf_sweep.script.knobs.scopes import Function, parameters_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pgolf_sweep.script.knobs.literals import Literals
    from pgolf_sweep.script.knobs.scopes import Scopes

KnobKind: TypeAlias = Literal["int", "float", "bool", "str"]

READERS = frozenset({"os.environ.get", "os.getenv", "os.environ.setdefault", "os.environ.pop"})
_DEEPEST = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What a script makes of a text.

    Attributes:
        kind: The type; None as long as only `by` says it.
        words: For a boolean, the texts that the script compares with; None for ``bool(int(text))``.
        by: A converter that callers or loops decide, as ``kind`` or ``type(default)``.
        boolean: How a boolean is read where `by` turns out to be one.
    """

    kind: KnobKind | None = None
    words: Words | None = None
    by: ast.expr | None = None
    boolean: Conversion | None = None


class Conversions:
    """Finds what becomes of an expression by what stands around it."""

    def __init__(self, scopes: Scopes, literals: Literals) -> None:
        self._scopes = scopes
        self._literals = literals

    def of(self, node: ast.expr, default: ast.expr | None, *, wrapped: bool) -> Conversion | None:
        """What the script makes of a text that is read; None if it takes it as it is.

        Args:
            node: What reads.
            default: What takes the text's place; where a script converts in several ways, the
                default's type says which.
            wrapped: Whether the function around it reads what its callers name.
        """
        around = self._around(node)
        function = self._scopes.function(node)
        found = [around] if around is not None else self._of_uses(node, function)
        boolean = next((one for one in found if one.kind == "bool"), None)
        if boolean is None and wrapped and function is not None:
            boolean = self._boolean_in(function)
        if boolean is None and any(one.kind == "int" for one in found):
            boolean = Conversion(kind="bool")  # a boolean default is read as the number that it is
        by = next((one.by for one in found if one.by is not None), None)
        tested = _tested_parameter(function) if wrapped and function is not None else None
        if function is not None and tested is not None:
            # `if isinstance(default, bool): ...`: which way of reading it is, the default says.
            typed = _type_of(tested)
            return Conversion(
                by=typed if by is None else ast.BoolOp(op=ast.Or(), values=[by, typed]),
                boolean=boolean,
            )
        if by is None and len({one.kind for one in found}) > 1:
            if default is None:
                return None
            by = _type_of(default)
        if by is not None:
            return Conversion(by=by, boolean=boolean)
        return found[0] if found else None

    def settled(self, conversion: Conversion, bound: Mapping[str, Any]) -> Conversion:
        """A conversion with its converter looked at, as far as it is known here."""
        if conversion.by is None:
            return conversion
        found = self._converter(conversion.by, bound)
        if found is None:
            return conversion
        return (conversion.boolean or found) if found.kind == "bool" else found

    def _of_uses(self, node: ast.expr, function: Function | None) -> list[Conversion]:
        """``text = os.environ.get(name)`` and, a line later, ``int(text)``."""
        parent = self._scopes.parent(node)
        region: ast.AST | None = function
        match parent:
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                pass
            case ast.NamedExpr(target=ast.Name(id=name)):
                outer = (one for one, _ in self._scopes.owners(node) if isinstance(one, ast.stmt))
                region = function or next(outer, None)
            case _:
                return []
        return [] if region is None else self._uses(region, name)

    def _uses(self, region: ast.AST, name: str, depth: int = 0) -> list[Conversion]:
        uses = [
            use
            for use in ast.walk(region)
            if isinstance(use, ast.Name) and use.id == name and isinstance(use.ctx, ast.Load)
        ]
        uses.sort(key=lambda use: (use.lineno, use.col_offset))
        found = (self._around(use, depth) for use in uses)
        return [one for one in found if one is not None]

    def _boolean_in(self, function: Function) -> Conversion | None:
        """How any reading in a wrapper takes a text for true."""
        compared = (
            self._compared(node, node.left, _fold_of(node.left))
            for node in ast.walk(function)
            if isinstance(node, ast.Compare)
        )
        return next((one for one in compared if one is not None and one.kind == "bool"), None)

    def _around(  # noqa: C901, PLR0912 - one case a form
        self, node: ast.expr, depth: int = 0
    ) -> Conversion | None:
        kind: KnobKind | None = None
        words: Words | None = None
        fold: str | None = None
        for parent, current in self._scopes.owners(node):
            match parent:
                case ast.Call(func=ast.Name(id="bool"), args=[only]) if only is current:
                    words = NOT_EMPTY if kind is None else words
                    kind = "bool"
                case ast.Call(func=ast.Name(id=("int" | "float") as name)) if (
                    current in parent.args
                ):
                    kind = kind or ("int" if name == "int" else "float")
                case ast.Call(args=[_, default]) if default is current and self._is_get(parent):
                    pass  # os.environ.get("NEW", os.environ.get("OLD", 7))
                case ast.Call(func=ast.Name(id="str"), args=[only]) if only is current:
                    pass
                case ast.Call(func=function, args=[only]) if only is current:
                    if kind is None:
                        return self._handed(function, depth)
                    break
                case ast.BoolOp(op=ast.Or()):
                    pass  # os.environ.get("X") or "7"
                case ast.IfExp(body=body, orelse=other) if current in (body, other):
                    pass  # int(text if text else "7")
                case ast.Attribute(attr="strip"):
                    pass
                case ast.Attribute(attr=("lower" | "upper" | "casefold") as attr):
                    fold = attr
                case ast.Call(func=func) if func is current:
                    pass
                case ast.Compare() if kind is None:
                    return self._compared(parent, current, fold)
                case _:
                    break
        return None if kind is None else Conversion(kind=kind, words=words)

    def _handed(self, function: ast.expr, depth: int) -> Conversion | None:
        """What a function that is handed the text makes of it."""
        found = self._converter(function, {}, depth)
        if found is not None:
            return found
        if inner_type(function) is not None:
            return Conversion(by=function)
        names = [n for n in ast.walk(function) if isinstance(n, ast.Name)]
        if isinstance(function, ast.Name | ast.BoolOp | ast.IfExp) and any(
            self._scopes.parameter_of(name) is not None for name in names
        ):
            return Conversion(by=function)
        return None

    def _compared(
        self, compare: ast.Compare, current: ast.AST, fold: str | None
    ) -> Conversion | None:
        """``text in ("1", "true")``, with what stands around it that turns it over."""
        if len(compare.comparators) != 1:
            return None
        other = compare.comparators[0]
        operator = compare.ops[0]
        if other is current:
            other = compare.left
            if not isinstance(operator, ast.Eq | ast.NotEq):
                return None
        if not isinstance(operator, ast.Eq | ast.NotEq | ast.In | ast.NotIn):
            return None
        listed = self._literals.value(other)
        listed = listed if isinstance(listed, tuple | list | set) else (listed,)
        texts = tuple(word for word in listed if isinstance(word, str))
        if not texts:
            return None
        if not {text.lower() for text in texts} <= {*TRUE, *FALSE, ""}:
            return Conversion(kind="str")
        meaning = isinstance(operator, ast.Eq | ast.In) != self._turned_over(compare)
        return Conversion(kind="bool", words=Words(listed=texts, meaning=meaning, fold=fold))

    def _turned_over(self, compare: ast.Compare) -> bool:
        """Whether a comparison's opposite is what a function gives back, or an expression is."""
        parent = self._scopes.parent(compare)
        match parent:
            case ast.UnaryOp(op=ast.Not()):
                return True
            case (
                ast.If(test=test, body=[ast.Return(value=ast.Constant(value=bool(then))), *_])
                | ast.IfExp(test=test, body=ast.Constant(value=bool(then)))
            ) if test is compare:
                # `if os.environ.get("SKIP") == "1": return False` says nothing of SKIP itself.
                reads = (n for n in ast.walk(compare.left) if isinstance(n, ast.Call))
                return not then and not any(self._is_get(call) for call in reads)
            case _:
                return False

    def _converter(
        self, node: ast.expr, bound: Mapping[str, Any], depth: int = 0
    ) -> Conversion | None:
        """The conversion that an expression stands for, called with a text."""
        if depth > _DEEPEST:
            return None
        match node:
            case ast.Name(id="bool"):
                return Conversion(kind="bool", words=NOT_EMPTY)
            case ast.Name(id=("int" | "float" | "str") as name):
                return Conversion(kind=name)
            case ast.Name(id=name) if name not in bound:
                assigned = self._scopes.value(node)
                if assigned is not None:
                    return self._converter(assigned, bound, depth + 1)
                function = self._scopes.definition(node)
                return None if function is None else self._made_by(function, depth)
            case ast.Lambda():
                return self._made_by(node, depth)
            case ast.BoolOp(op=ast.Or(), values=parts):
                found = (self._converter(part, bound, depth + 1) for part in parts)
                return next((one for one in found if one is not None), None)
            case ast.IfExp(body=body, orelse=other):
                return self._converter(body, bound, depth + 1) or self._converter(
                    other, bound, depth + 1
                )
            case _:
                typed = inner_type(node)
                value = None if typed is None else self._literals.value(typed, bound)
                return _CONVERSIONS.get(type(value))

    def _made_by(self, function: ast.FunctionDef | ast.Lambda, depth: int) -> Conversion | None:
        """What a function of the script makes of its first parameter."""
        names = list(parameters_of(function))
        if not names:
            return None
        uses = self._uses(function, names[0], depth + 1)
        if uses:
            return uses[0]
        if isinstance(function, ast.Lambda):
            called = {n.func.id for n in ast.walk(function.body) if isinstance(n, ast.Call)
                      and isinstance(n.func, ast.Name)}  # fmt: skip
            kinds: tuple[KnobKind, ...] = ("bool", "float", "int")
            return next((Conversion(kind=kind) for kind in kinds if kind in called), None)
        return None

    def _is_get(self, node: ast.Call) -> bool:
        return self._scopes.dotted(node.func) in READERS


_CONVERSIONS: dict[type, Conversion] = {
    bool: Conversion(kind="bool", words=NOT_EMPTY),
    int: Conversion(kind="int"),
    float: Conversion(kind="float"),
    str: Conversion(kind="str"),
}


def fallback_of(function: Function, taken: Iterable[str]) -> ast.Name | None:
    """The parameter that a wrapper gives back where the variable is not set.

    Args:
        function: The wrapper.
        taken: Parameters that are something else, as the variable's name.
    """
    candidates = parameters_of(function).keys() - set(taken)
    for node in ast.walk(function):
        match node:
            case (
                ast.Return(value=ast.Name(id=name) as found)
                | ast.IfExp(body=ast.Name(id=name) as found)
                | ast.IfExp(orelse=ast.Name(id=name) as found)
                | ast.BoolOp(op=ast.Or(), values=[*_, ast.Name(id=name) as found])
            ) if name in candidates:
                return found
            case _:
                pass
    return None


def bound_by(
    conversion: Conversion | None, scopes: Scopes, bound: Mapping[str, ast.expr]
) -> Conversion | None:
    """A wrapper's conversion with a call's arguments in place."""
    if conversion is None or conversion.by is None:
        return conversion
    return replace(conversion, by=scopes.substituted(conversion.by, bound))


def _tested_parameter(function: Function) -> ast.Name | None:
    """The parameter that a function asks for its type."""
    for node in ast.walk(function):
        match node:
            case ast.Call(func=ast.Name(id="isinstance"), args=[ast.Name(id=name) as found, _]) if (
                name in parameters_of(function)
            ):
                return found
            case _:
                pass
    return None


def _fold_of(node: ast.expr) -> str | None:
    """The method that a text goes through before it is compared."""
    match node:
        case ast.Call(func=ast.Attribute(attr=("lower" | "upper" | "casefold") as fold)):
            return fold
        case ast.Call(func=ast.Attribute(value=inner, attr="strip")):
            return _fold_of(inner)
        case _:
            return None


def _type_of(node: ast.expr) -> ast.expr:
    return ast.Call(func=ast.Name(id="type", ctx=ast.Load()), args=[node], keywords=[])


def inner_type(node: ast.expr) -> ast.expr | None:
    """``x`` of the first ``type(x)`` in an expression."""
    for inner in ast.walk(node):
        match inner:
            case ast.Call(func=ast.Name(id="type"), args=[only]):
                return only
            case _:
                pass
    return None

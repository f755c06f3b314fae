"""Reads of the environment in a script's syntax tree, behind `pgolf_sweep.script.knobs.knobs`."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgolf_sweep.script.knobs.conversions import (
    READERS,
    Conversion,
    Conversions,
    KnobKind,
    bound_by,
    fallback_of,
    inner_type,
)
from pgolf_sweep.script.knobs.literals import MOST_TURNS, Field, Literals
from pgolf_sweep.script.knobs.scopes import Function, Scopes, parameters_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgolf_sweep.script.knobs.booleans import Words

_DEEPEST_WRAPPER = 5
_MOST_READS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One variable that the script reads.

    Attributes:
        name: The variable's name.
        kind: What the script makes of its text.
        words: For a boolean, the texts that the script compares with, if it does.
        default: The default as it is written there; None if unknown.
        converted: Whether the default goes through the conversion, as the text does.
        place: Which tree it is of, and the one-based line of the read or of a wrapper's call.
    """

    name: str
    kind: KnobKind
    words: Words | None
    default: Any
    converted: bool
    place: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """One place that reads the environment; expressions may still hold a wrapper's parameters."""

    name: ast.expr
    default: ast.expr | None
    converted: bool
    conversion: Conversion | None
    node: ast.expr


class EnvironmentReads:
    """The environment reads of syntax trees that belong together.

    Attributes:
        unnamed: After `found` is through: places, as `Found` has them, of reads whose names only
            the running script knows.
    """

    def __init__(self, trees: Sequence[ast.Module]) -> None:
        self._scopes = Scopes(trees)
        self._literals = Literals(self._scopes.value, self._default_of)
        self._conversions = Conversions(self._scopes, self._literals)
        self.unnamed: list[tuple[int, int]] = []

    def found(self) -> Iterator[Found]:
        """Every read whose name is known, wrappers expanded at each call."""
        pending = [read for node in self._scopes.nodes if (read := self._direct(node)) is not None]
        for _ in range(_DEEPEST_WRAPPER + 1):
            wrapped: list[_Read] = []
            for read in pending:
                names = list(self._named(read))
                yield from names
                if not names:
                    wrapped += self._expanded(read)
            pending = wrapped
            if len(pending) > _MOST_READS:
                break  # wrappers that call each other in all ways
        self.unnamed += [self._scopes.place(read.node) for read in pending]

    # What reads the environment

    def _direct(self, node: ast.AST) -> _Read | None:
        """The read that a node is, if it is one."""
        name: ast.expr | None = None
        default: ast.expr | None = None
        match node:
            case ast.Call(args=arguments, keywords=keywords) if (
                self._scopes.dotted(node.func) in READERS
            ):
                named = {keyword.arg: keyword.value for keyword in keywords}
                name = arguments[0] if arguments else named.get("key")
                default = arguments[1] if len(arguments) > 1 else named.get("default")
            case ast.Subscript(value=owner, slice=index, ctx=ast.Load()):
                name = index if self._scopes.dotted(owner) == "os.environ" else None
            case ast.Compare(left=left, ops=[ast.In() | ast.NotIn()], comparators=[owner]):
                name = left if self._scopes.dotted(owner) == "os.environ" else None
            case _:
                pass
        if name is None or not isinstance(node, ast.expr):
            return None
        match self._scopes.parent(node):
            case ast.BoolOp(op=ast.Or(), values=[first, *_, last]) if first is node and (
                default is None or not self._literals.value(default)
            ):
                default = last  # os.environ.get("X") or "7"
            case _:
                pass
        function = self._scopes.function(node)
        taken = self._parameters_in(name, function)
        converted = True
        if default is None and function is not None and taken:
            default = fallback_of(function, taken)
            converted = False
        conversion = self._conversions.of(node, default, wrapped=bool(taken))
        return _Read(
            name=name, default=default, converted=converted, conversion=conversion, node=node
        )

    def _default_of(self, call: ast.Call) -> ast.expr | None:
        """A read as a value is its default: ``os.environ.get("NEW", os.environ.get("OLD", 7))``."""
        read = self._direct(call)
        return None if read is None else read.default

    def _parameters_in(self, node: ast.expr, function: Function | None) -> set[str]:
        """Parameters of a function that an expression in it speaks of."""
        if function is None:
            return set()
        names = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
        return names & parameters_of(function).keys()

    # Names, wrappers and loops

    def _named(self, read: _Read) -> Iterator[Found]:
        """What a read is once its name is known: one variable, or one a turn of literal loops."""
        loops = list(self._loops_around(read.node))
        seen = set()
        for bound in self._turns(loops, {}):
            name = self._literals.value(read.name, bound)
            if isinstance(name, bytes):
                name = name.decode(errors="replace")
            if not isinstance(name, str) or name in seen:
                continue
            seen.add(name)
            default, converted = read.default, read.converted
            if default is None and read.conversion is not None and read.conversion.by is not None:
                # `type(field.default)(text)`: what the text is made alike takes its place.
                default, converted = inner_type(read.conversion.by), False
            conversion = self._conversions.settled(read.conversion or Conversion(), bound)
            yield Found(
                name=name,
                kind=conversion.kind or "str",
                words=conversion.words,
                default=None if default is None else self._literals.value(default, bound),
                converted=converted,
                place=self._scopes.place(read.node),
            )

    def _loops_around(self, node: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
        """Targets and what they run over, from the outside in; parameters hide outer targets."""
        hidden: set[str] = set()
        loops: list[tuple[ast.expr, ast.expr]] = []
        for current, child in self._scopes.owners(node):
            if isinstance(current, Function) and not isinstance(child, ast.arguments):
                hidden |= parameters_of(current).keys()
            elif isinstance(current, ast.For) and child is not current.iter:
                loops.append((current.target, current.iter))
            elif isinstance(current, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
                loops += [(one.target, one.iter) for one in reversed(current.generators)]
        for target, iterated in reversed(loops):
            names = {inner.id for inner in ast.walk(target) if isinstance(inner, ast.Name)}
            if not names & hidden:
                yield target, iterated

    def _turns(
        self, loops: list[tuple[ast.expr, ast.expr]], bound: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """What the names of loops are bound to, turn by turn, where literals say it."""
        pending = [bound]
        for target, iterated in loops:
            following: list[dict[str, Any]] = []
            for before in pending:
                items = self._items(iterated, before)
                following += (
                    [before] if items is None else [before | _bind(target, item) for item in items]
                )
            pending = following if len(following) <= MOST_TURNS else pending
        yield from pending

    def _items(self, iterated: ast.expr, bound: dict[str, Any]) -> list[Any] | None:
        match iterated:
            case ast.Call(
                func=ast.Attribute(value=owner, attr=("items" | "keys" | "values") as attr)
            ):
                mapping = self._literals.value(owner, bound)
                return list(getattr(mapping, attr)()) if isinstance(mapping, dict) else None
            case ast.Call(func=function, args=[ast.Name() as held]) if (
                self._scopes.dotted(function) == "dataclasses.fields"
            ):
                made = self._scopes.class_of(held)
                return None if made is None else self._fields(made)
            case _:
                values = self._literals.value(iterated, bound)
                return list(values) if isinstance(values, tuple | list | set | dict) else None

    def _fields(self, made: ast.ClassDef) -> list[Any]:
        """The fields of a dataclass, each with its default as far as it is known."""
        return [
            Field(name, None if value is None else self._literals.value(value))
            for statement in made.body
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
            for name, value in [(statement.target.id, statement.value)]
        ]

    def _expanded(self, read: _Read) -> list[_Read]:
        """A wrapper's read at every call of it, with the call's arguments in place.

        A read that is no wrapper's has a name that only the running script knows. A wrapper that
        nothing calls reads nothing.
        """
        function = self._scopes.function(read.node)
        if function is None or not self._parameters_in(read.name, function):
            self.unnamed.append(self._scopes.place(read.node))
            return []
        expanded = []
        calls: list[tuple[ast.expr, dict[str, ast.expr]]] = [*self._scopes.calls_of(function)]
        if not calls and self._scopes.is_mentioned(function):
            # Handed on to be called by others: with its defaults, if it has them all.
            defaults = {n: d for n, d in parameters_of(function).items() if d is not None}
            if not self._parameters_in(read.name, function) <= defaults.keys():
                self.unnamed.append(self._scopes.place(read.node))
                return []
            calls = [(next(iter(defaults.values())), defaults)]
        for call, bound in calls:
            default = read.default and self._scopes.substituted(read.default, bound)
            name = self._scopes.substituted(read.name, bound)
            conversion = bound_by(read.conversion, self._scopes, bound)
            if conversion is None or (conversion.by is None and conversion.kind is None):
                taken = self._parameters_in(name, self._scopes.function(call))
                conversion = self._conversions.of(call, default, wrapped=bool(taken))
            expanded.append(
                _Read(
                    name=name,
                    default=default,
                    converted=read.converted,
                    conversion=conversion,
                    node=call,
                )
            )
        return expanded


def _bind(target: ast.expr, value: Any) -> dict[str, Any]:
    """The names that one turn of a loop binds."""
    if isinstance(target, ast.Name):
        return {target.id: value}
    if isinstance(target, ast.Tuple | ast.List) and isinstance(value, tuple | list):
        bound: dict[str, Any] = {}
        for part, item in zip(target.elts, value, strict=False):
            bound |= _bind(part, item)
        return bound
    return {}

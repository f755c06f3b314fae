"""Where a script reads its environment: the syntax behind `pgolf_sweep.script.knobs`."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pgolf_sweep.script.literals import Literals

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KnobKind: TypeAlias = Literal["int", "float", "bool", "str"]

KINDS: tuple[KnobKind, ...] = ("bool", "float", "int")
"""Conversions from the outermost in: ``bool(int(...))`` makes a boolean."""

_DEEPEST_WRAPPER = 5
_BOOL_WORDS = frozenset(
    {"", "0", "1", "true", "false", "yes", "no", "on", "off", "y", "n", "t", "f"}
)
_READERS = frozenset({"os.environ.get", "os.getenv", "os.environ.setdefault", "os.environ.pop"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One variable that the script reads.

    Attributes:
        name: The variable's name.
        kind: What the script makes of its text.
        default: The default as it is written there, not yet converted; None if unknown.
        line: One-based line of the read, or of the call of a wrapper.
    """

    name: str
    kind: KnobKind
    default: Any
    line: int


@dataclass(frozen=True, slots=True)
class _Read:
    """One place that reads the environment; expressions may still hold a wrapper's parameters."""

    name: ast.expr
    default: ast.expr | None
    kind: str | None
    """A kind, or ``$parameter`` of the wrapper that converts, or None if nothing converts."""
    line: int
    function: ast.AST | None
    node: ast.AST


class EnvironmentReads:
    """The environment reads of one syntax tree."""

    def __init__(self, tree: ast.Module) -> None:
        self._nodes = list(ast.walk(tree))
        self._parents: dict[ast.AST, ast.AST] = {}
        for node in self._nodes:
            for child in ast.iter_child_nodes(node):
                self._parents[child] = node
        self._assigned = self._single_assignments()
        self._literals = Literals(self._assigned, self._default_of)
        self._aliases: dict[str, str] = {}
        self._find_aliases()

    def found(self) -> Iterator[Found]:
        """Every read whose name is known, wrappers expanded at each call."""
        pending = [read for node in self._nodes if (read := self._direct(node)) is not None]
        for _ in range(_DEEPEST_WRAPPER):
            wrapped: list[_Read] = []
            for read in pending:
                names = list(self._names(read))
                for name, default in names:
                    yield Found(
                        name=name,
                        kind=next((kind for kind in KINDS if kind == read.kind), "str"),
                        default=None if default is None else self._literals.value(default),
                        line=read.line,
                    )
                if not names:
                    wrapped += self._expand(read)
            if not wrapped:
                return
            pending = wrapped

    # What reads the environment

    def _direct(self, node: ast.AST) -> _Read | None:
        """The read that a node is, if it is one."""
        name: ast.expr | None = None
        default: ast.expr | None = None
        if isinstance(node, ast.Call) and self._dotted(node.func) in _READERS:
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            name = node.args[0] if node.args else keywords.get("key")
            default = node.args[1] if len(node.args) > 1 else keywords.get("default")
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            if self._dotted(node.value) == "os.environ":
                name = node.slice
        elif (
            isinstance(node, ast.Compare)
            and isinstance(node.ops[0], ast.In | ast.NotIn)
            and self._dotted(node.comparators[0]) == "os.environ"
        ):
            name = node.left
        if name is None or not isinstance(node, ast.expr):
            return None
        kind = self._conversion(node)
        return _Read(name, default, kind, node.lineno, self._function(node), node)

    def _default_of(self, call: ast.Call) -> ast.expr | None:
        """A read as a value is its default: ``os.environ.get("NEW", os.environ.get("OLD", 7))``."""
        read = self._direct(call)
        return None if read is None else read.default

    def _dotted(self, node: ast.expr) -> str | None:
        """``os.environ.get`` for whatever the script calls it."""
        if isinstance(node, ast.Name):
            return self._aliases.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self._dotted(node.value)
            return f"{owner}.{node.attr}" if owner else None
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id == "__import__" and node.args:
                return str(self._literals.value(node.args[0]))
            if isinstance(node.func, ast.Name) and node.func.id == "dict" and node.args:
                return self._dotted(node.args[0])  # dict(os.environ)
            if isinstance(node.func, ast.Attribute) and node.func.attr == "copy":
                return self._dotted(node.func.value)
        return None

    def _find_aliases(self) -> None:
        """Names of os, os.environ and its methods: by import and by assignment."""
        for node in self._nodes:
            if isinstance(node, ast.Import):
                for item in node.names:
                    if item.name == "os" or item.name.startswith("os."):
                        self._aliases[item.asname or "os"] = "os"
            elif isinstance(node, ast.ImportFrom) and node.module == "os":
                for item in node.names:
                    self._aliases[item.asname or item.name] = f"os.{item.name}"
        for _ in range(3):  # an alias of an alias of an alias
            for name, value in self._assigned.items():
                dotted = self._dotted(value)
                if dotted and dotted.startswith("os.") and name not in self._aliases:
                    self._aliases[name] = dotted

    def _single_assignments(self) -> dict[str, ast.expr]:
        """Names that the script binds exactly once, anywhere: their value is no matter of order."""
        values: dict[str, list[ast.expr]] = {}
        for node in self._nodes:
            match node:
                case ast.Assign(targets=targets, value=value):
                    for target in targets:
                        if isinstance(target, ast.Name):
                            values.setdefault(target.id, []).append(value)
                case (
                    ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
                    | ast.NamedExpr(target=ast.Name(id=name), value=value)
                ):
                    values.setdefault(name, []).append(value)
                case ast.AugAssign(target=ast.Name(id=name), value=value):
                    values.setdefault(name, []).extend([value, value])
                case _:
                    pass
        return {name: found[0] for name, found in values.items() if len(found) == 1}

    def _function(
        self, node: ast.AST
    ) -> ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | None:
        """The innermost function around a node, if any."""
        current = self._parents.get(node)
        while current is not None:
            if isinstance(current, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                return current
            current = self._parents.get(current)
        return None

    # Types

    def _conversion(self, node: ast.expr) -> str | None:
        """What the script makes of the text: a kind, ``$parameter``, or None."""
        kind = self._conversion_around(node)
        if kind is not None:
            return kind
        parent = self._parents.get(node)
        if isinstance(parent, ast.Assign) and isinstance(parent.targets[0], ast.Name):
            # `text = os.environ.get(name)` and, a line later, `int(text)`.
            name, function = parent.targets[0].id, self._function(node)
            kinds = [
                kind
                for use in (function and ast.walk(function)) or ()
                if isinstance(use, ast.Name) and use.id == name and isinstance(use.ctx, ast.Load)
                if (kind := self._conversion_around(use)) is not None
            ]
            by_parameter = [kind for kind in kinds if kind.startswith("$")]
            return next(iter(by_parameter or kinds), None)
        return None

    def _conversion_around(self, node: ast.expr) -> str | None:  # noqa: C901 - one case a form
        current: ast.AST = node
        kind: str | None = None
        while (parent := self._parents.get(current)) is not None:
            match parent:
                case ast.Call(func=ast.Name(id="bool")):
                    kind = "bool"
                case ast.Call(func=ast.Name(id=("int" | "float") as name)) if (
                    current in parent.args
                ):
                    kind = kind or name
                case ast.Call(func=ast.Name(id=name), args=[only]) if only is current:
                    return kind or (f"${name}" if self._is_parameter(name, parent) else None)
                case ast.Call(args=[_, default]) if default is current and self._is_get(parent):
                    pass  # os.environ.get("NEW", os.environ.get("OLD", 7))
                case ast.BoolOp(op=ast.Or()):
                    pass  # os.environ.get("X") or "7"
                case ast.Attribute(attr="lower" | "upper" | "strip" | "casefold"):
                    pass
                case ast.Call(func=func) if func is current:
                    pass
                case ast.Compare(left=left, comparators=[other]) if left is current:
                    words = self._literals.value(other)
                    words = words if isinstance(words, tuple | list | set) else (words,)
                    texts = {word.lower() for word in words if isinstance(word, str)}
                    if kind is None and texts and texts <= _BOOL_WORDS:
                        return "bool"
                    return kind
                case _:
                    return kind
            current = parent
        return kind

    def _is_get(self, node: ast.Call) -> bool:
        return self._dotted(node.func) in _READERS

    def _is_parameter(self, name: str, node: ast.AST) -> bool:
        function = self._function(node)
        return function is not None and name in _parameters(function)

    # Wrappers and loops

    def _names(self, read: _Read) -> Iterator[tuple[str, ast.expr | None]]:
        """Names that a read has, each with its default: one, or one a turn of a literal loop."""
        name = self._literals.value(read.name)
        if isinstance(name, bytes):
            name = name.decode(errors="replace")
        if isinstance(name, str):
            yield name, read.default
            return
        loop = self._loop_over(read)
        if loop is None:
            return
        target, turns = loop
        for turn in turns:
            bound = _bind(target, turn)
            name = self._literals.value(read.name, bound)
            if isinstance(name, str):
                value = None if read.default is None else self._literals.value(read.default, bound)
                yield name, None if value is None else ast.Constant(value)

    def _loop_over(self, read: _Read) -> tuple[ast.expr, list[Any]] | None:
        """The loop or comprehension that binds a read's name, if it runs over literals."""
        wanted = {node.id for node in ast.walk(read.name) if isinstance(node, ast.Name)}
        current = self._parents.get(read.node)
        while current is not None:
            loops: list[tuple[ast.expr, ast.expr]] = []
            if isinstance(current, ast.For):
                loops = [(current.target, current.iter)]
            elif isinstance(current, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
                loops = [(generator.target, generator.iter) for generator in current.generators]
            for target, iterated in loops:
                if wanted & {n.id for n in ast.walk(target) if isinstance(n, ast.Name)}:
                    turns = self._turns(iterated)
                    return None if turns is None else (target, turns)
            current = self._parents.get(current)
        return None

    def _turns(self, iterated: ast.expr) -> list[Any] | None:
        if (
            isinstance(iterated, ast.Call)
            and isinstance(iterated.func, ast.Attribute)
            and iterated.func.attr in {"items", "keys", "values"}
        ):
            mapping = self._literals.value(iterated.func.value)
            if isinstance(mapping, dict):
                return list(getattr(mapping, iterated.func.attr)())
        values = self._literals.value(iterated)
        return list(values) if isinstance(values, tuple | list | set | dict) else None

    def _expand(self, read: _Read) -> list[_Read]:
        """A wrapper's read at every call of it, with the call's arguments in place."""
        function = read.function
        if function is None:
            return []
        names = {node.id for node in ast.walk(read.name) if isinstance(node, ast.Name)}
        parameters = _parameters(function)
        if not names & parameters.keys():
            return []
        called = self._called_as(function)
        expanded = []
        for node in self._nodes:
            if not isinstance(node, ast.Call):
                continue
            by_name = isinstance(node.func, ast.Name) and node.func.id in called
            by_attribute = isinstance(node.func, ast.Attribute) and node.func.attr in called
            if not (by_name or by_attribute):
                continue
            bound = _arguments(node, parameters, skip_self=by_attribute)
            name = _substitute(read.name, bound)
            default = None if read.default is None else _substitute(read.default, bound)
            kind = read.kind
            if kind is not None and kind.startswith("$"):
                kind = _kind_of(bound.get(kind[1:]), self._function(node))
            kind = kind or self._conversion(node)
            expanded.append(_Read(name, default, kind, node.lineno, self._function(node), node))
        return expanded

    def _called_as(self, function: ast.AST) -> set[str]:
        """Names under which a function is called; aliases of it included."""
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            names = {function.name}
        else:
            names = {name for name, value in self._assigned.items() if value is function}
        return names | {
            alias
            for alias, value in self._assigned.items()
            if isinstance(value, ast.Name) and value.id in names
        }


def _parameters(
    function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.AST,
) -> dict[str, ast.expr | None]:
    """A function's parameters in order, with their defaults."""
    if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return {}
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    missing = len(positional) - len(arguments.defaults)
    defaults: list[ast.expr | None] = [None] * missing + list(arguments.defaults)
    found = {arg.arg: default for arg, default in zip(positional, defaults, strict=True)}
    keyword = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return found | {arg.arg: default for arg, default in keyword}


def _arguments(
    call: ast.Call, parameters: Mapping[str, ast.expr | None], *, skip_self: bool
) -> dict[str, ast.expr]:
    """What a call binds to the parameters; defaults fill in."""
    names = list(parameters)
    if skip_self and names[:1] in (["self"], ["cls"]):
        names = names[1:]
    bound = {name: default for name, default in parameters.items() if default is not None}
    bound |= dict(zip(names, call.args, strict=False))
    return bound | {k.arg: k.value for k in call.keywords if k.arg and k.arg in parameters}


def _substitute(node: ast.expr, bound: Mapping[str, ast.expr]) -> ast.expr:
    """An expression of a wrapper with a call's arguments in place of its parameters."""

    class Substitution(ast.NodeTransformer):
        def visit_Name(self, name: ast.Name) -> ast.AST:
            return bound.get(name.id, name)

    copied: ast.expr = ast.parse(ast.unparse(node), mode="eval").body
    substituted: ast.expr = Substitution().visit(copied)
    return substituted


def _kind_of(argument: ast.expr | None, function: ast.AST | None) -> str | None:
    """The kind that a converter handed to a wrapper stands for."""
    if isinstance(argument, ast.Lambda):
        inner = argument.body
        names = {n.func.id for n in ast.walk(inner) if isinstance(n, ast.Call)
                 and isinstance(n.func, ast.Name)}  # fmt: skip
        return next((kind for kind in KINDS if kind in names), None)
    if not isinstance(argument, ast.Name):
        return None
    if function is not None and argument.id in _parameters(function):
        return f"${argument.id}"
    return argument.id if argument.id in {"str", *KINDS} else None


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

"""Resolution of names in a script: scopes of modules, classes and functions."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_DEEPEST = 8


class Scopes:
    """The names of one or more syntax trees that belong together.

    Attributes:
        nodes: All nodes, tree by tree.
    """

    def __init__(self, trees: Sequence[ast.Module]) -> None:
        self.nodes: list[ast.AST] = []
        self._parents: dict[ast.AST, ast.AST] = {}
        self._trees = {tree: index for index, tree in enumerate(trees)}
        for tree in trees:
            nodes = list(ast.walk(tree))
            self.nodes += nodes
            for node in nodes:
                for child in ast.iter_child_nodes(node):
                    # Contexts and operators are one object in many places of a tree.
                    self._parents[child] = node
        self._global: dict[ast.AST, set[str]] = {}
        for node in self.nodes:
            if isinstance(node, ast.Global):
                self._global.setdefault(self._scope(node), set()).update(node.names)
        # Of each scope's names what they are bound to: an expression, the dotted name of an
        # import, or None where only the running script knows.
        self._bound: dict[ast.AST, dict[str, list[ast.expr | str | None]]] = {}
        self._lambdas: dict[ast.Lambda, list[str]] = {}  # names of each
        # Of a name those that are bound to it, or to a partial of it; `C()` is an instance of C.
        self._aliases: dict[str, list[tuple[str, ast.Call | None]]] = {}
        self._calls: dict[str, list[ast.Call]] = {}
        for node in self.nodes:
            self._note(node)
        self._dotted_parameters: dict[tuple[Function, str], str | None] = {}

    def parent(self, node: ast.AST) -> ast.AST | None:
        """The node around a node."""
        return self._parents.get(node)

    def place(self, node: ast.expr) -> tuple[int, int]:
        """Which tree a node is of, and its one-based line."""
        top: ast.AST = node
        for top, _ in self.owners(node):  # noqa: B007 - the last one counts
            pass
        return self._trees.get(top, 0), node.lineno  # type: ignore[call-overload]

    def function(self, node: ast.AST) -> Function | None:
        """The innermost function around a node, if any."""
        current = self._parents.get(node)
        while current is not None and not isinstance(current, Function):
            current = self._parents.get(current)
        return current

    def value(self, name: ast.Name) -> ast.expr | None:
        """The only expression that a name is bound to where it stands, if there is one."""
        found = self._lookup(name)
        only = found[0] if isinstance(found, list) and len(found) == 1 else None
        return only if isinstance(only, ast.expr) else None

    def parameter_of(self, name: ast.Name) -> Function | None:
        """The function whose parameter a name is, if it is one."""
        found = self._lookup(name)
        return None if isinstance(found, list) else found

    def definition(self, name: ast.Name) -> ast.FunctionDef | None:
        """The only function of the script that has a name, unless something else has it here."""
        if self._lookup(name) not in ([None], []):
            return None
        named = [n for n in self.nodes if isinstance(n, ast.FunctionDef) and n.name == name.id]
        return named[0] if len(named) == 1 else None

    def class_of(self, name: ast.Name) -> ast.ClassDef | None:
        """The class that a name stands for, or the one around its ``self``."""
        if name.id in {"self", "cls"}:
            around = (one for one, _ in self.owners(name) if isinstance(one, ast.ClassDef))
            return next(around, None)
        named = (n for n in self.nodes if isinstance(n, ast.ClassDef) and n.name == name.id)
        return next(named, None)

    def dotted(self, node: ast.expr, depth: int = 0) -> str | None:
        """``os.environ.get`` for any name that the script gives it."""
        if depth > _DEEPEST:
            return None
        match node:
            case ast.Name(id=name):
                found = self._lookup(node)
                if not isinstance(found, list):
                    return self._dotted_parameter(found, name)
                kinds = {
                    self.dotted(one, depth + 1) if isinstance(one, ast.expr) else one
                    for one in found
                }
                if not kinds and name in {"os", "type", "partial"}:
                    return name  # the text that an exec runs may find its imports around it
                return next(iter(kinds)) if len(kinds) == 1 else None
            case ast.Attribute(value=owner, attr=attr):
                outer = self.dotted(owner, depth + 1)
                return f"{outer}.{attr}" if outer else None
            case ast.Call(func=ast.Name(id="__import__"), args=[ast.Constant(value=str(name))]):
                return name
            case ast.Call(func=ast.Name(id="dict"), args=[only]):
                return self.dotted(only, depth + 1)  # dict(os.environ)
            case ast.Call(func=ast.Attribute(value=owner, attr="copy")):
                return self.dotted(owner, depth + 1)
            case _:
                return None

    def calls_of(self, function: Function) -> Iterator[tuple[ast.Call, dict[str, ast.expr]]]:
        """The calls of a function from elsewhere, each with what it binds to the parameters."""
        parameters = parameters_of(function)
        for name, first in self._called_as(function).items():
            for call in self._calls.get(name, ()):
                by_name = isinstance(call.func, ast.Name)
                if by_name and self.parameter_of(call.func) is not None:  # type: ignore[arg-type]
                    continue
                if self.function(call) is function:
                    continue  # a recursion says nothing new
                given = call
                if first is not None:  # a partial: what it holds comes before what the call gives
                    given = ast.Call(
                        func=call.func,
                        args=[*first.args[1:], *call.args],
                        keywords=[*first.keywords, *call.keywords],
                    )
                yield call, _arguments(given, parameters)

    def is_mentioned(self, function: Function) -> bool:
        """Whether the script may call a function by what it hands on; a lambda is always there."""
        if isinstance(function, ast.Lambda):
            return True
        return any(
            (isinstance(node, ast.Name) and node.id == function.name)
            or (isinstance(node, ast.Attribute) and node.attr == function.name)
            for node in self.nodes
        )

    def substituted(self, node: Any, bound: Mapping[str, ast.expr]) -> Any:
        """An expression of a function with a call's arguments in place of its parameters.

        What is copied keeps its place, so that its other names are still those of the function.
        """
        if isinstance(node, list):
            return [self.substituted(item, bound) for item in node]
        if not isinstance(node, ast.AST):
            return node
        if isinstance(node, ast.Name) and node.id in bound:
            return bound[node.id]
        fields = {name: self.substituted(value, bound) for name, value in ast.iter_fields(node)}
        copied = type(node)(**fields)
        if node in self._parents:
            self._parents[copied] = self._parents[node]
        return copied

    def owners(self, node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
        """The nodes around a node from the inside out, each with the child that it was left by."""
        child = node
        while (current := self._parents.get(child)) is not None:
            yield current, child
            child = current

    # Inside

    def _lookup(self, name: ast.Name) -> list[ast.expr | str | None] | Function:
        """What a name is bound to in the innermost scope that has it, or whose parameter it is."""
        inner = False
        for current, child in self.owners(name):
            if isinstance(current, Function):
                # Defaults and decorators stand in a function's node, but outside of it.
                if isinstance(child, ast.arguments) or child in getattr(
                    current, "decorator_list", ()
                ):
                    continue
                inner = True
                if name.id in self._global.get(current, ()):
                    continue
                if name.id in parameters_of(current):
                    return current
            elif isinstance(current, ast.ClassDef):
                if inner:
                    continue
            elif not isinstance(current, (*_COMPREHENSIONS, ast.Module)):
                continue
            found = self._bound.get(current, {}).get(name.id)
            if found:
                return found
        return []

    def _scope(self, node: ast.AST) -> ast.AST:
        current, top = node, node
        while (current := self._parents.get(current)) is not None:  # type: ignore[assignment]
            top = current
            if isinstance(current, Function | ast.ClassDef):
                return current
        return top

    def _bind(self, scope: ast.AST, name: str, value: ast.expr | str | None) -> None:
        if name in self._global.get(scope, ()):
            while scope in self._parents:
                scope = self._parents[scope]
        self._bound.setdefault(scope, {}).setdefault(name, []).append(value)
        match value:
            case ast.Lambda():
                self._lambdas.setdefault(value, []).append(name)
            case ast.Name(id=other) | ast.Attribute(attr=other):
                self._aliases.setdefault(other, []).append((name, None))
            case ast.Call(
                func=ast.Name(id="partial") | ast.Attribute(attr="partial"),
                args=[ast.Name(id=other) | ast.Attribute(attr=other), *_],
            ):
                self._aliases.setdefault(other, []).append((name, value))
            case ast.Call(func=ast.Name(id=made)):
                self._aliases.setdefault(f"{made}()", []).append((name, None))
            case _:
                pass

    def _note(self, node: ast.AST) -> None:
        """Bindings that a node makes, and calls by the name that is called."""
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                scope, value = self._stored(node)
                self._bind(scope, name, value)
            case ast.Import(names=items):
                for item in items:
                    top = item.name.partition(".")[0]
                    self._bind(
                        self._scope(node), item.asname or top, item.name if item.asname else top
                    )
            case ast.ImportFrom(module=module, names=items, level=level):
                for item in items:
                    value_ = f"{module}.{item.name}" if module and not level else None
                    self._bind(self._scope(node), item.asname or item.name, value_)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                self._bind(self._scope(node), name, None)
            case ast.ExceptHandler(name=str(name)):
                self._bind(self._scope(node), name, None)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
                self._calls.setdefault(name, []).append(node)
            case ast.Call(func=ast.Call(func=ast.Name(id=name))):
                self._calls.setdefault(f"{name}()", []).append(node)
            case _:
                pass

    def _stored(self, name: ast.Name) -> tuple[ast.AST, ast.expr | None]:
        """The scope that a target belongs to, and the expression that it is bound to."""
        path: list[int] = []
        for current, child in self.owners(name):
            match current:
                case ast.Tuple(elts=items) | ast.List(elts=items):
                    path.append(items.index(child))  # type: ignore[arg-type]
                case ast.Assign(value=value):
                    for index in reversed(path):
                        items_ = getattr(value, "elts", None)
                        if items_ is None or index >= len(items_):
                            return self._scope(name), None
                        value = items_[index]
                    return self._scope(name), value
                case ast.AnnAssign(value=value_) | ast.NamedExpr(value=value_):
                    return self._scope(name), value_
                case ast.comprehension():
                    return self._parents[current], None
                case _:
                    break
        return self._scope(name), None

    def _called_as(self, function: Function) -> dict[str, ast.Call | None]:
        """Names under which a function is called, aliases and partials included."""
        owner = self._parents.get(function)
        if isinstance(function, ast.Lambda):
            start = self._lambdas.get(function, [])
        elif function.name == "__call__" and isinstance(owner, ast.ClassDef):
            start = [f"{owner.name}()"]
        else:
            start = [function.name]
        names: dict[str, ast.Call | None] = dict.fromkeys(start)
        pending = list(start)
        while pending:
            current = pending.pop()
            for alias, partial in self._aliases.get(current, ()):
                if alias not in names:
                    names[alias] = partial or names[current]
                    pending.append(alias)
        return names

    def _dotted_parameter(self, function: Function, name: str) -> str | None:
        """``os.environ`` that is handed to a function, or is a parameter's default."""
        key = function, name
        if key not in self._dotted_parameters:
            self._dotted_parameters[key] = None  # where functions call each other
            default = parameters_of(function)[name]
            given = [default] if default is not None else []
            given += [bound[name] for _, bound in self.calls_of(function) if name in bound]
            found = (self.dotted(one) for one in given)
            self._dotted_parameters[key] = next(
                (one for one in found if one is not None and one.startswith("os.")), None
            )
        return self._dotted_parameters[key]


def parameters_of(function: Function) -> dict[str, ast.expr | None]:
    """A function's parameters in order, with their defaults; ``*args`` are left out."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    missing = len(positional) - len(arguments.defaults)
    defaults: list[ast.expr | None] = [None] * missing + list(arguments.defaults)
    found = {arg.arg: default for arg, default in zip(positional, defaults, strict=True)}
    keyword = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return found | {arg.arg: default for arg, default in keyword}


def _arguments(call: ast.Call, parameters: Mapping[str, ast.expr | None]) -> dict[str, ast.expr]:
    """What a call binds to the parameters; defaults fill in."""
    names = list(parameters)
    if names[:1] in (["self"], ["cls"]):
        names = names[1:]
    bound = {name: default for name, default in parameters.items() if default is not None}
    bound |= dict(zip(names, call.args, strict=False))
    return bound | {k.arg: k.value for k in call.keywords if k.arg and k.arg in parameters}

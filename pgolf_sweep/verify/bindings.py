"""Which function a call means: names followed through imports, aliases and ``getattr``.

Flow is not followed: a name stands for everything that is ever bound to it, so that a check errs
towards seeing too much. What cannot be followed is reported, never guessed.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

DEEPEST = 12
MOST_MEANINGS = 24
LONGEST_TEXT = 10_000

_IMPORTERS = frozenset({"__import__", "builtins.__import__", "importlib.import_module"})
_ENVIRONMENT = frozenset({"os.environ.get", "os.getenv", "environ.get"})
_JOINERS = frozenset(
    {"os.path.join", "path.join", "pathlib.Path", "Path", "os.path.expanduser", "str"}
)


class Names:
    """What the names of one module stand for."""

    def __init__(self, tree: ast.Module) -> None:
        self.nodes = list(ast.walk(tree))
        self._bound: dict[str, list[ast.expr | str]] = defaultdict(list)
        self._meant: dict[str, frozenset[str]] = {}  # by name; empty while it is looked up
        self._said: dict[str, str | None] = {}
        for node in self.nodes:
            self._bind(node)

    def calls(self) -> Iterator[ast.Call]:
        """Every call of the module."""
        return (node for node in self.nodes if isinstance(node, ast.Call))

    def modules(self) -> set[str]:
        """Dotted names of what it imports, literally or by ``__import__``."""
        found = {text for bound in self._bound.values() for text in bound if isinstance(text, str)}
        for call in self.calls():
            if call.args and self.meanings(call.func) & _IMPORTERS:
                text = self.text(call.args[0])
                found |= {text} if text else set()
        return found

    def meanings(self, node: ast.expr, depth: int = 0) -> frozenset[str]:
        """Dotted names that an expression may stand for; empty where that cannot be told."""
        if depth > DEEPEST:
            return frozenset()
        found = list(self._meanings(node, depth + 1))
        return frozenset(found[:MOST_MEANINGS])

    def text(self, node: ast.expr, depth: int = 0) -> str | None:
        """The text that an expression is, where constants decide it."""
        if depth > DEEPEST:
            return None
        match node:
            case ast.Constant(value=str(value)):
                return value[:LONGEST_TEXT]
            case ast.Constant(value=bytes(value)):
                return value[:LONGEST_TEXT].decode("latin-1")
            case ast.BinOp(op=ast.Add() | ast.Div(), left=left, right=right):
                parts = [self.text(left, depth + 1), self.text(right, depth + 1)]
                middle = "/" if isinstance(node.op, ast.Div) else ""
                return None if None in parts else middle.join(map(str, parts))[:LONGEST_TEXT]
            case ast.JoinedStr(values=values):
                known = [self.text(value, depth + 1) or "{}" for value in values]
                return "".join(known)[:LONGEST_TEXT]
            case ast.Name(id=name) if name in self._bound:
                return self._name_text(name)
            case ast.Call():
                return self._called_text(node, depth + 1)
            case _:
                return None

    def texts(self, node: ast.expr) -> list[str]:
        """Every text within an expression, names followed."""
        named = [
            bound
            for part in ast.walk(node)
            if isinstance(part, ast.Name)
            for bound in self._bound.get(part.id, ())[:MOST_MEANINGS]
            if isinstance(bound, ast.List | ast.Tuple)
        ]
        parts = (part for whole in (node, *named) for part in ast.walk(whole))
        found = [self.text(part) for part in parts if isinstance(part, ast.expr)]
        return [text for text in found if text is not None]

    def _name_meanings(self, name: str) -> frozenset[str]:
        if name not in self._bound:
            return frozenset({name})
        if name not in self._meant:
            self._meant[name] = frozenset()
            found: set[str] = set()
            for bound in self._bound[name][:MOST_MEANINGS]:
                found |= {bound} if isinstance(bound, str) else self.meanings(bound)
            self._meant[name] = frozenset(sorted(found)[:MOST_MEANINGS])
        return self._meant[name]

    def _name_text(self, name: str) -> str | None:
        if name not in self._said:
            self._said[name] = None
            for bound in self._bound[name][:MOST_MEANINGS]:
                text = None if isinstance(bound, str) else self.text(bound)
                if text is not None:
                    self._said[name] = text
                    break
        return self._said[name]

    def constants(self, name: str) -> list[int]:
        """Whole numbers that a name is bound to, where it is bound to nothing else."""
        bound = self._bound.get(name, [])
        values = [b.value for b in bound if isinstance(b, ast.Constant)]
        whole = [v for v in values if isinstance(v, int) and not isinstance(v, bool)]
        return whole if len(whole) == len(bound) else []

    def _called_text(self, node: ast.Call, depth: int) -> str | None:
        meant = self.meanings(node.func, depth)
        if meant & _ENVIRONMENT and len(node.args) > 1:
            return self.text(node.args[1], depth)
        if meant & _JOINERS:
            parts = [self.text(argument, depth) for argument in node.args]
            return "/".join("{}" if part is None else part for part in parts) or None
        if isinstance(node.func, ast.Attribute):
            owner = self.text(node.func.value, depth)
            if owner is not None and node.func.attr in {"decode", "encode", "strip", "format"}:
                return owner
            if owner is not None and node.func.attr == "join" and len(node.args) == 1:
                items = getattr(node.args[0], "elts", [])
                parts = [self.text(item, depth) for item in items[:LONGEST_TEXT]]
                return owner.join(part or "{}" for part in parts) or None
        return None

    def _meanings(  # noqa: C901 - one case a form of expression
        self, node: ast.expr, depth: int
    ) -> Iterator[str]:
        match node:
            case ast.Name(id=name):
                yield from self._name_meanings(name)
            case ast.Attribute(value=owner, attr=attr):
                yield from (f"{holder}.{attr}" for holder in self.meanings(owner, depth))
            case ast.Call(func=func, args=args):
                yield from self._called(self.meanings(func, depth), args, depth)
            case ast.Subscript(value=owner, slice=index):
                key = self.text(index, depth)
                for holder in self.meanings(owner, depth) if key is not None else ():
                    if holder in {"sys.modules", "globals()", "locals()"}:
                        yield str(key)
                    elif holder.endswith((".__dict__", "vars()", "__builtins__")):
                        yield f"{holder.removesuffix('.__dict__')}.{key}".removeprefix(
                            "__builtins__."
                        )
            case ast.IfExp(body=body, orelse=other):
                yield from (*self.meanings(body, depth), *self.meanings(other, depth))
            case ast.BoolOp(values=values):
                for value in values[:MOST_MEANINGS]:
                    yield from self.meanings(value, depth)
            case ast.NamedExpr(value=value):
                yield from self.meanings(value, depth)
            case _:
                return

    def _called(self, meant: frozenset[str], args: list[ast.expr], depth: int) -> Iterator[str]:
        first = self.text(args[0], depth) if args else None
        if meant & _IMPORTERS and first is not None:
            yield first
        elif meant & {"getattr", "builtins.getattr"} and len(args) > 1:
            name = self.text(args[1], depth)
            if name is not None:
                yield from (f"{holder}.{name}" for holder in self.meanings(args[0], depth))
        elif meant & {"functools.partial", "partial"} and args:
            yield from self.meanings(args[0], depth)
        else:
            yield from (f"{name}()" for name in meant)

    def _bind(self, node: ast.AST) -> None:  # noqa: C901 - one case a form of binding
        match node:
            case ast.Import(names=names):
                for alias in names:
                    whole = alias.name if alias.asname else alias.name.partition(".")[0]
                    self._bound[alias.asname or whole].append(whole)
                    self._bound[f" {alias.name}"].append(alias.name)  # `modules` lists it
            case ast.ImportFrom(module=str(module), names=names, level=level):
                for alias in names:
                    dots = "." * level
                    self._bound[alias.asname or alias.name].append(f"{dots}{module}.{alias.name}")
            case ast.ImportFrom(names=names, level=level):
                for alias in names:
                    self._bound[alias.asname or alias.name].append("." * level + alias.name)
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._assign(target, value)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._assign(target, value)
            case ast.NamedExpr(target=target, value=value):
                self._assign(target, value)
            case ast.withitem(context_expr=value, optional_vars=ast.Name() as target):
                self._assign(target, value)
            case _:
                return

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self._bound[target.id].append(value)
        elif isinstance(target, ast.Tuple | ast.List) and isinstance(value, ast.Tuple | ast.List):
            for one, other in zip(target.elts, value.elts, strict=False):
                self._assign(one, other)

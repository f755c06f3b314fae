"""Shorter names inside our own bundled trainer, which a general minifier must leave alone.

A minifier cannot know who calls a function by keyword, or whose attribute a name is. Of the bundle
all of it is known: every caller is in the file. These changes are made to its syntax tree:

* Annotations go, with the imports and aliases that only they need. A dataclass becomes a plain
  class that keeps what its constructor is given; a field's default is an attribute of the class.
* Parameters that no call names become positional-only, so that the minifier may rename them.
* Those that calls name get short names, in the calls too, unless a foreign function is called with
  a parameter of that name.
* Fields and methods of the bundle's own plain classes get short names, except those that a foreign
  object may have too (`FOREIGN`), those that a string spells, and what a `torch.nn.Module` holds,
  whose attributes name the tensors of the artifact.
"""

from __future__ import annotations

import ast
import builtins
import keyword
from collections import Counter
from itertools import count, product
from string import ascii_letters
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

FOREIGN = frozenset({
    "apply", "backward", "compile", "config", "device", "eps", "forward", "gradient", "load", "log",
    "mean", "path", "pause", "read", "reduce", "seed", "step", "update", "wait",
})  # fmt: skip
"""Attributes of torch, numpy or the standard library that the trainer's classes have as well."""


def shortened(text: str) -> str:
    """The bundle with short names; it does the same.

    Args:
        text: Source of the whole program.
    """
    tree = ast.parse(text)
    _Unannotate(_dataclasses(tree)).visit(tree)
    _drop_unused(tree)
    _make_positional(tree)
    names = attributes(tree)
    _rename_parameters(tree)
    _Rename(names, _dataclasses(tree)).visit(tree)
    _simplify_dataclasses(tree)
    return ast.unparse(tree)


_RECORD = ast.parse("""
class Record:
    def __init__(self, /, **given):
        self.__dict__ = given
def replace(record, /, **changes):
    return type(record)(**record.__dict__ | changes)
""").body


def _simplify_dataclasses(tree: ast.Module) -> None:
    """Have dataclasses keep what they are given, without a list of it."""
    found = _dataclasses(tree)
    for node in _classes(tree):
        if node.name not in found:
            continue
        node.decorator_list, node.bases = [], [ast.Name("Record", ast.Load())]
        kept: list[ast.stmt] = []
        for part in node.body:
            if not isinstance(part, ast.AnnAssign):
                kept.append(part)
            elif part.value:
                kept.append(ast.copy_location(ast.Assign([part.target], part.value), part))
        node.body = kept or [ast.Pass()]
    for statement in list(tree.body):
        if isinstance(statement, ast.ImportFrom) and statement.module == "dataclasses":
            others = [n for n in statement.names if n.name not in {"dataclass", "replace"}]
            statement.names = others
            if not others:
                tree.body.remove(statement)
    first = next((at for at, node in enumerate(tree.body) if isinstance(node, ast.ClassDef)), 0)
    tree.body[first:first] = _RECORD if found else []


class _Unannotate(ast.NodeTransformer):
    """Removes annotations; those of dataclasses, which are made of them, become 0."""

    def __init__(self, dataclasses: frozenset[str]) -> None:
        self.dataclasses = dataclasses

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
        for part in fields if node.name in self.dataclasses else ():
            part.annotation = ast.Constant(0)
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if isinstance(node.annotation, ast.Constant):
            return node
        if node.value is None:
            return None
        return ast.copy_location(ast.Assign([node.target], node.value), node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node


def _drop_unused(tree: ast.Module) -> None:
    """Remove imported names and constants that nothing reads."""
    read = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    for node in list(tree.body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            node.names = [
                each for each in node.names if (each.asname or each.name).partition(".")[0] in read
            ]
            unused = not node.names
        else:
            unused = (
                isinstance(node, ast.Assign)
                and isinstance(node.value, ast.Constant)
                and not {each.id for each in ast.walk(node) if isinstance(each, ast.Name)} & read
            )
        if unused:
            tree.body.remove(node)


def _rename_parameters(tree: ast.Module) -> None:
    """Give parameters that only the program's own functions have short names, everywhere."""
    kept = set(_kept(tree))
    nodes = list(ast.walk(tree))
    own = _callables(tree)
    constructors = _dataclasses(tree) | {"replace"}
    calls = [n for n in nodes if isinstance(n, ast.Call) and _called(n) not in constructors]
    found: Counter[str] = Counter()
    for call in calls:
        named = [each.arg for each in call.keywords if each.arg]
        found.update(named)
        kept.update(named if _called(call) not in own else ())
    parameters = {node.arg for node in nodes if isinstance(node, ast.arg)}
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    short = _short_names(kept | parameters | used)
    names = {name: next(short) for name, _ in found.most_common() if name in parameters - kept}
    fields = {
        target
        for node in _classes(tree)
        for part in node.body
        for target in ast.walk(part)
        if isinstance(part, ast.AnnAssign | ast.Assign)
    }
    for node in nodes:
        if node in fields:
            continue
        if isinstance(node, ast.Name):
            node.id = names.get(node.id, node.id)
        elif isinstance(node, ast.arg):
            node.arg = names.get(node.arg, node.arg)
    for each in (argument for call in calls for argument in call.keywords):
        each.arg = names.get(each.arg or "", each.arg)


def _kept(tree: ast.Module) -> Iterator[str]:
    """Names that are more than a function's own: the language's, imported, global, or spelled."""
    yield from keyword.kwlist
    yield from dir(builtins)
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            yield from (each.id for each in ast.walk(statement) if isinstance(each, ast.Name))
    for node in ast.walk(tree):
        if isinstance(node, ast.alias):
            yield node.asname or node.name
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Global | ast.Nonlocal):
            yield from node.names
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name


def _called(node: ast.Call) -> str:
    """Name of the function or method that is called."""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def _callables(tree: ast.Module) -> set[str]:
    """Functions, classes and methods of the program, and `partial`, which is given one."""
    own = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    return own - FOREIGN - {"__init__"} | {*attributes(tree), "partial"}


def _short_names(taken: set[str]) -> Iterator[str]:
    """Free names, the shortest first."""
    short = ("".join(parts) for size in count(1) for parts in product(ascii_letters, repeat=size))
    return (name for name in short if name not in taken)


def _make_positional(tree: ast.Module) -> None:
    """Leave callers no way to name a parameter that none of them names."""
    named = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            given = node.args
            while given.args and given.args[0].arg not in named:
                given.posonlyargs.append(given.args.pop(0))


def _classes(tree: ast.Module) -> Iterator[ast.ClassDef]:
    return (node for node in tree.body if isinstance(node, ast.ClassDef))


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(each) for each in node.decorator_list)


def _dataclasses(tree: ast.Module) -> frozenset[str]:
    return frozenset(node.name for node in _classes(tree) if _is_dataclass(node))


def attributes(tree: ast.Module) -> dict[str, str]:
    """The attributes that get a short name, and that name: the shortest for the most frequent."""
    own: set[str] = set()
    kept = {text.lower() for text in _spelled(tree)} | FOREIGN
    for node in _classes(tree):
        is_module = any(
            "Module" in ast.unparse(base) or ast.unparse(base) == "nn.Linear" for base in node.bases
        )
        (kept if is_module else own).update(_defined(node))
    found = Counter(
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in own
    )
    taken = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    taken.update(keyword.kwlist)
    short = _short_names(taken)
    return {
        name: next(short)
        for name, _ in found.most_common()
        if name not in kept and not name.startswith("__")
    }


def _defined(node: ast.ClassDef) -> Iterator[str]:
    """Methods, fields, and what methods set on themselves."""
    for part in ast.walk(node):
        if isinstance(part, ast.FunctionDef):
            yield part.name
        elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            yield part.target.id
        elif (
            isinstance(part, ast.Attribute)
            and isinstance(part.ctx, ast.Store)
            and isinstance(part.value, ast.Name)
            and part.value.id == "self"
        ):
            yield part.attr


def _spelled(tree: ast.Module) -> Iterator[str]:
    """Strings that may be names, but for the environment's."""
    reads = {
        id(node.args[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "os.environ.get"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in reads:
            yield node.value


class _Rename(ast.NodeTransformer):
    def __init__(self, names: dict[str, str], dataclasses: frozenset[str]) -> None:
        self.names = names
        self.constructors = dataclasses | {"replace"}
        self.inside: list[ast.ClassDef] = []

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        node.attr = self.names.get(node.attr, node.attr)
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id in self.constructors:
            for keyword in node.keywords:
                keyword.arg = self.names.get(keyword.arg or "", keyword.arg)
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        for part in node.body:
            if isinstance(part, ast.FunctionDef):
                part.name = self.names.get(part.name, part.name)
            elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                part.target.id = self.names.get(part.target.id, part.target.id)
        return self.generic_visit(node)

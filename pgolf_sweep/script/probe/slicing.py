"""The statements that a value inside a script depends on, from its syntax tree.

A script makes its model and calls its quantizer in the middle of a long `main`. To repeat just
that call, the assignments before it that its arguments need are found and run; nothing else is.

What a piece of source says is found once and kept, since a process probes one script many times.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pgolf_sweep.script.probe.call_sites import FUNCTIONS
from pgolf_sweep.script.probe.entrypoints import without_runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from types import CodeType

_SEES_EVERYTHING = frozenset({"globals", "locals", "vars", "eval", "exec"})
"""Functions that reach names which are not written where they are called."""
_KEPT_PIECES = 1 << 14
"""Pieces of source of which it is kept what they say; a long script has a tenth of it."""


@dataclass(frozen=True, slots=True)
class _Said:
    """What a piece of source says.

    Attributes:
        loaded: Names that it reads.
        stored: Names that it binds, of any kind.
        imported: Names that its imports bind.
        strings: Its string constants.
        attributes: Attributes of plain names, as (name, attribute, whether it is set).
    """

    loaded: frozenset[str]
    stored: frozenset[str]
    imported: frozenset[str]
    strings: frozenset[str]
    attributes: frozenset[tuple[str, str, bool]]


@lru_cache(maxsize=_KEPT_PIECES)
def _said(node: ast.AST) -> _Said:
    read, stored, imported, strings = set(), set(), set(), set()
    attributes = set()
    for child in ast.walk(node):
        match child:
            case ast.Name(id=name, ctx=ast.Load()):
                read.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                stored.add(name)
            case ast.Constant(value=str(text)):
                strings.add(text)
            case ast.Attribute(value=ast.Name(id=name), attr=attribute, ctx=context):
                attributes.add((name, attribute, isinstance(context, ast.Store)))
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                imported |= {(item.asname or item.name).partition(".")[0] for item in names}
    return _Said(
        frozenset(read),
        frozenset(stored),
        frozenset(imported),
        frozenset(strings),
        frozenset(attributes),
    )


def loaded(node: ast.AST) -> frozenset[str]:
    """Names that a piece of source reads."""
    return _said(node).loaded


def needed_statements(
    before: Iterable[ast.stmt], names: Iterable[str], known: Iterable[str]
) -> tuple[Sequence[ast.stmt], AbstractSet[str]]:
    """The statements that decide `names`, in order, and all names that they and these need.

    Those of `known` are taken as given.
    """
    return _needed(tuple(before), frozenset(names), frozenset(known))


@lru_cache(maxsize=512)
def _needed(
    before: tuple[ast.stmt, ...], names: frozenset[str], given: frozenset[str]
) -> tuple[tuple[ast.stmt, ...], frozenset[str]]:
    needed = set(names - given)
    chosen: list[ast.stmt] = []
    for statement in reversed(before):
        if bound(statement) & needed or changed(statement) & needed:
            chosen.append(statement)
            needed |= loaded(statement) - given
    return tuple(chosen[::-1]), frozenset(needed)


def bound(statement: ast.stmt) -> frozenset[str]:
    """Names that a statement binds."""
    if isinstance(statement, (*FUNCTIONS, ast.ClassDef)):
        return frozenset({statement.name})
    said = _said(statement)
    return said.stored | said.imported


def changed(statement: ast.stmt) -> set[str]:
    """Names whose attribute or item a statement sets: ``args.vocab_size = 1024``."""
    if not isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign):
        return set()
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return {
        target.value.id
        for target in targets
        if isinstance(target, ast.Attribute | ast.Subscript) and isinstance(target.value, ast.Name)
    }


def run(statements: Iterable[ast.stmt], namespace: dict[str, Any], ran: list[ast.AST]) -> list[str]:
    """Run statements in `namespace`, and add them to `ran`.

    Returns:
        What failed, one sentence each; the names that it would have given are missing then.
    """
    failures = []
    for statement in statements:
        ran.append(statement)
        try:
            exec(_compiled(statement), namespace)  # noqa: S102 - the script's own code
        except (Exception, SystemExit) as error:  # noqa: BLE001 - all that others' code raises
            failures.append(f"line {statement.lineno}: {type(error).__name__}: {error}"[:200])
    return failures


def evaluate(expression: ast.expr, namespace: dict[str, Any]) -> Any:
    """The value of an expression of the script."""
    return eval(_compiled(expression), namespace)  # noqa: S307 - the script's own code


@lru_cache(maxsize=_KEPT_PIECES)
def _compiled(piece: ast.stmt | ast.expr) -> CodeType:
    if isinstance(piece, ast.expr):
        return compile(ast.Expression(body=piece), "<probe>", "eval")
    return compile(ast.Module(body=[piece], type_ignores=[]), "<probe>", "exec")


def class_attributes(tree: ast.Module, name: str, knobs: Iterable[str]) -> Mapping[str, set[str]]:
    """For each attribute that a class assigns, the knobs that its value depends on.

    Under the empty name: knobs of which it is not known where their value goes.
    """
    return _class_attributes(tree, name, frozenset(knobs))


@lru_cache(maxsize=64)
def _class_attributes(tree: ast.Module, name: str, names: frozenset[str]) -> Mapping[str, set[str]]:
    found: dict[str, set[str]] = {}
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or node.name != name:
            continue
        for statement in _flat(node.body):
            through = (found.get(used, set()) for used in loaded(statement) | _of_self(statement))
            decided_by = named_in([statement], names).union(*through)
            for attribute in bound(statement) | _of_self(statement, stored=True) or {""}:
                found[attribute] = found.get(attribute, set()) | decided_by
    return found


def _flat(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """A class's statements, those of its constructor in the constructor's place."""
    for statement in body:
        constructor = isinstance(statement, FUNCTIONS) and statement.name in {
            "__init__",
            "__post_init__",
        }
        if constructor and isinstance(statement, FUNCTIONS):
            yield from statement.body
        else:
            yield statement


def _of_self(statement: ast.stmt, *, stored: bool = False) -> set[str]:
    """Attributes of ``self`` that a statement reads, or those that it sets."""
    attributes = _said(statement).attributes
    return {attr for name, attr, is_set in attributes if name == "self" and is_set == stored}


def named_in(nodes: Iterable[ast.AST], knobs: AbstractSet[str]) -> set[str]:
    """Knobs that pieces of source name."""
    return set().union(*(knobs & _said(node).strings for node in nodes))


def reached(tree: ast.Module, nodes: Iterable[ast.AST], skip: str) -> list[ast.AST]:
    """Pieces of source and all of the module that they may depend on.

    Followed by name: too much may be found, never too little. A statement that is more than a
    definition (``if``, ``assert``, a call) is always among it, since every import runs it.

    Args:
        tree: The script.
        nodes: What was evaluated.
        skip: A class that is left out.
    """
    every, always, defined = _top_level(tree, skip)
    pending = [*nodes, *always]
    found: dict[int, ast.AST] = {}
    while pending:
        node = pending.pop()
        if id(node) in found:
            continue
        found[id(node)] = node
        names = loaded(node)
        if names & _SEES_EVERYTHING:
            return [*found.values(), *every]
        for name in names:
            pending += defined.get(name, ())
    return list(found.values())


@lru_cache(maxsize=8)
def _top_level(
    tree: ast.Module, skip: str
) -> tuple[tuple[ast.stmt, ...], tuple[ast.stmt, ...], Mapping[str, list[ast.stmt]]]:
    """A module's statements without a class; those that are more than definitions; by name."""
    every: list[ast.stmt] = []
    defined: dict[str, list[ast.stmt]] = {}
    for statement in without_runs(tree)[0].body:
        if not (isinstance(statement, ast.ClassDef) and statement.name == skip):
            every.append(statement)
            for name in bound(statement):
                defined.setdefault(name, []).append(statement)
    return tuple(every), tuple(one for one in every if not _only_defines(one)), defined


def _only_defines(statement: ast.stmt) -> bool:
    """Whether a statement matters only through the names that it binds."""
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        parts = (part for target in targets for part in ast.walk(target))
        return not any(isinstance(part, ast.Attribute | ast.Subscript) for part in parts)
    return isinstance(statement, (*FUNCTIONS, ast.ClassDef, ast.Import, ast.ImportFrom))


def attributes_of(nodes: Iterable[ast.AST], class_name: str) -> set[str]:
    """Attributes that source reads from the class itself: ``Hyperparameters.vocab_size``."""
    said = (_said(node).attributes for node in nodes)
    return {attr for every in said for name, attr, _ in every if name == class_name}

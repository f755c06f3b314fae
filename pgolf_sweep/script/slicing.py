"""The statements that a value inside a script depends on, from its syntax tree.

A script makes its model and calls its quantizer in the middle of a long `main`. To repeat just
that call, the assignments before it that its arguments need are found and run; nothing else is.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SEES_EVERYTHING = frozenset({"globals", "locals", "vars", "eval", "exec"})
"""Functions that reach names which are not written where they are called."""


@dataclass(frozen=True, slots=True)
class CallSite:
    """One call in a script.

    Attributes:
        call: The call.
        function: The function around it; None at the module's level.
        owner: The class around that function, if any.
        before: Statements that run before it within the function, in order.
        target: Name to which its value is assigned, or an empty string.
    """

    call: ast.Call
    function: ast.FunctionDef | ast.AsyncFunctionDef | None
    owner: ast.ClassDef | None
    before: tuple[ast.stmt, ...]
    target: str

    @property
    def callee(self) -> str:
        """Name of what is called."""
        return self.call.func.id if isinstance(self.call.func, ast.Name) else ""


def call_sites(tree: ast.Module, names: Iterable[str]) -> Iterator[CallSite]:
    """Every call by plain name of one of `names`, in the order of the source."""
    wanted = set(names)
    yield from _sites(tree.body, (), None, None, wanted)


def _sites(
    body: list[ast.stmt],
    before: tuple[ast.stmt, ...],
    function: ast.FunctionDef | ast.AsyncFunctionDef | None,
    owner: ast.ClassDef | None,
    wanted: set[str],
) -> Iterator[CallSite]:
    for statement in body:
        if isinstance(statement, _FUNCTIONS):
            yield from _sites(statement.body, (), statement, owner, wanted)
        elif isinstance(statement, ast.ClassDef):
            yield from _sites(statement.body, (), None, statement, wanted)
        else:
            target = _target(statement)
            for expression in _own_expressions(statement):
                for node in ast.walk(expression):
                    if (
                        isinstance(node, ast.Call)
                        and isinstance(node.func, ast.Name)
                        and node.func.id in wanted
                    ):
                        yield CallSite(node, function, owner, before, target)
            for block in _blocks(statement):
                yield from _sites(block, before, function, owner, wanted)
        before = (*before, statement)


def _blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        block = getattr(statement, name, None)
        if block:
            yield block
    for handler in getattr(statement, "handlers", ()):
        yield handler.body


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


def loaded(node: ast.AST) -> set[str]:
    """Names that a piece of source reads."""
    return {
        child.id
        for child in ast.walk(node)
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Load)
    }


def needed_statements(
    before: Iterable[ast.stmt], names: set[str], known: Iterable[str]
) -> list[ast.stmt]:
    """The statements that decide `names`, in order; those of `known` are taken as given."""
    given = set(known)
    needed = names - given
    chosen: list[ast.stmt] = []
    for statement in reversed(list(before)):
        if _stored(statement) & needed or _changes(statement) & needed:
            chosen.append(statement)
            needed |= loaded(statement) - given
    return chosen[::-1]


def _stored(statement: ast.stmt) -> set[str]:
    if isinstance(statement, (*_FUNCTIONS, ast.ClassDef)):
        return {statement.name}
    names = {
        child.id
        for child in ast.walk(statement)
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store)
    }
    for child in ast.walk(statement):
        if isinstance(child, ast.Import | ast.ImportFrom):
            names |= {(item.asname or item.name).partition(".")[0] for item in child.names}
    return names


def _changes(statement: ast.stmt) -> set[str]:
    """Names whose attribute or item a statement sets: ``args.vocab_size = 1024``."""
    if not isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign):
        return set()
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return {
        target.value.id
        for target in targets
        if isinstance(target, ast.Attribute | ast.Subscript) and isinstance(target.value, ast.Name)
    }


def run_needed(
    site: CallSite,
    namespace: dict[str, Any],
    known: Iterable[str],
    names: set[str],
    ran: list[ast.AST],
) -> list[str]:
    """Run what `names` need before a call, in `namespace`; what was run is added to `ran`.

    Returns:
        What failed, one sentence each; the names that it would have given are missing then.
    """
    failures = []
    for statement in needed_statements(site.before, names, known):
        ran.append(statement)
        module = ast.Module(body=[statement], type_ignores=[])
        try:
            exec(compile(module, "<probe>", "exec"), namespace)  # noqa: S102 - the script's own code
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever others' code raises
            failures.append(f"line {statement.lineno}: {type(error).__name__}: {error}"[:200])
    return failures


def evaluate(expression: ast.expr, namespace: dict[str, Any]) -> Any:
    """The value of an expression of the script."""
    return eval(  # noqa: S307 - the script's own code
        compile(ast.Expression(body=expression), "<probe>", "eval"), namespace
    )


def without_runs(tree: ast.Module) -> tuple[ast.Module, list[str]]:
    """The module without the calls by which it would run, when imported or when started.

    Returns:
        The module, and the names of the functions whose calls were left out.
    """
    own = {node.name for node in tree.body if isinstance(node, _FUNCTIONS)}
    body: list[ast.stmt] = []
    left_out = []
    for statement in tree.body:
        match statement:
            case ast.Expr(value=ast.Call(func=ast.Name(id=name))) if name in own:
                left_out.append(name)
            case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))) if not statement.orelse:
                pass  # the name is another one in a probe
            case _:
                body.append(statement)
    return ast.Module(body=body, type_ignores=tree.type_ignores), left_out


def class_attributes(tree: ast.Module, name: str, knobs: Iterable[str]) -> dict[str, set[str]]:
    """For each attribute that a class assigns, the knobs that its value depends on.

    Under the empty name: knobs of which it is not known where their value goes.
    """
    names = set(knobs)
    found: dict[str, set[str]] = {}
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or node.name != name:
            continue
        for statement in _flat(node.body):
            through = (found.get(used, set()) for used in loaded(statement) | _of_self(statement))
            decided_by = named_in([statement], names).union(*through)
            for attribute in _stored(statement) | _of_self(statement, stored=True) or {""}:
                found[attribute] = found.get(attribute, set()) | decided_by
    return found


def _flat(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """A class's statements, those of its constructor in the constructor's place."""
    for statement in body:
        constructor = isinstance(statement, _FUNCTIONS) and statement.name in {
            "__init__",
            "__post_init__",
        }
        if constructor and isinstance(statement, _FUNCTIONS):
            yield from statement.body
        else:
            yield statement


def _of_self(statement: ast.stmt, *, stored: bool = False) -> set[str]:
    """Attributes of ``self`` that a statement reads, or those that it sets."""
    return {
        node.attr
        for node in ast.walk(statement)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
        and isinstance(node.ctx, ast.Store) == stored
    }


def named_in(nodes: Iterable[ast.AST], knobs: set[str]) -> set[str]:
    """Knobs that pieces of source name."""
    return {
        child.value
        for node in nodes
        for child in ast.walk(node)
        if isinstance(child, ast.Constant) and isinstance(child.value, str) and child.value in knobs
    }


def reached(tree: ast.Module, nodes: Iterable[ast.AST], skip: str) -> list[ast.AST]:
    """Pieces of source and all of the module that they may depend on.

    Followed by name: too much may be found, never too little. A statement that is more than a
    definition (``if``, ``assert``, a call) is always among it, since every import runs it.

    Args:
        tree: The script.
        nodes: What was evaluated.
        skip: A class that is left out.
    """
    defined: dict[str, list[ast.AST]] = {}
    every: list[ast.AST] = []
    pending = list(nodes)
    for statement in without_runs(tree)[0].body:
        if isinstance(statement, ast.ClassDef) and statement.name == skip:
            continue
        every.append(statement)
        if not _only_defines(statement):
            pending.append(statement)
        for name in _stored(statement):
            defined.setdefault(name, []).append(statement)
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


def _only_defines(statement: ast.stmt) -> bool:
    """Whether a statement matters only through the names that it binds."""
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        parts = (part for target in targets for part in ast.walk(target))
        return not any(isinstance(part, ast.Attribute | ast.Subscript) for part in parts)
    return isinstance(statement, (*_FUNCTIONS, ast.ClassDef, ast.Import, ast.ImportFrom))


def attributes_of(nodes: Iterable[ast.AST], class_name: str) -> set[str]:
    """Attributes that source reads from the class itself: ``Hyperparameters.vocab_size``."""
    return {
        child.attr
        for node in nodes
        for child in ast.walk(node)
        if isinstance(child, ast.Attribute)
        and isinstance(child.value, ast.Name)
        and child.value.id == class_name
    }


def parameters_of(site: CallSite) -> Mapping[str, ast.expr | None]:
    """Parameters of the function around a call, with their annotations."""
    if site.function is None:
        return {}
    arguments = site.function.args
    every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    return {argument.arg: argument.annotation for argument in every}

"""What a script does to its model after the constructor: tied weights, parts put in or taken out.

Runs inside the probe's helper process, on a module that was imported there.
"""

from __future__ import annotations

import ast
import copy
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pgolf_sweep.script.probe.call_sites import FUNCTIONS, blocks, root_of
from pgolf_sweep.script.probe.frames import callers, frame_of, run_in, statements_before
from pgolf_sweep.script.probe.slicing import bound, loaded, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgolf_sweep.script.probe.call_sites import CallSite
    from pgolf_sweep.script.probe.frames import Frame, Script

WITHOUT_EFFECT = frozenset({"requires_grad", "data", "grad", "training"})
"""Attributes of which the number of parameters does not depend."""
CHANGING = frozenset(
    {"add_module", "register_module", "register_parameter", "append", "extend", "insert", "pop",
     "tie_weights"}
)  # fmt: skip
"""Methods that put parameters into a module or its lists, or share them."""
MOST_FUNCTIONS = 8
"""Through which a model is handed back."""


def later_changes(site: CallSite, frame: Frame, model: Any, script: Script) -> list[str]:
    """Do to a model what the script does to it after its constructor's call, up to its training.

    Args:
        site: The call.
        frame: Its frame.
        model: What it gave; changed in place.
        script: The script.

    Returns:
        What could not be done, one sentence each.
    """
    failures: list[str] = []
    for _ in range(MOST_FUNCTIONS):
        failures += _change(site, frame, model, script)
        outer = callers(site, script.tree) if site.returned else ()
        if len(outer) != 1:
            lost = [one for other in outer for one, _ in changing(other)]
            failures += [f"line {one.lineno} changes the model; it was left out" for one in lost]
            break
        site = outer[0]
        if changing(site):
            frame = frame_of(site, (), script, {})
    return failures


def _change(site: CallSite, frame: Frame, model: Any, script: Script) -> list[str]:
    import torch  # noqa: PLC0415

    failures: list[str] = []
    for statement, between in changing(site):
        frame.scope[site.target] = model
        frame.known.add(site.target)
        run_in(frame, (*statements_before(site, script), *between), loaded(statement), script)
        with torch.no_grad():
            failed = run([statement], frame.scope, script.settings.nodes)
        failures += [f"a change of the model after its constructor fails: {one}" for one in failed]
    return failures


@lru_cache(maxsize=64)
def changing(site: CallSite) -> Sequence[tuple[ast.stmt, tuple[ast.stmt, ...]]]:
    """Statements that change what a call gave, each with those between the call and it."""
    names = {site.target}
    found: list[tuple[ast.stmt, tuple[ast.stmt, ...]]] = []
    for place, statement in enumerate(site.after):
        if _trains(statement) or _rebinds(statement, site.target):
            break
        _note_alias(statement, names)
        reduced = _reduced(statement, frozenset(names))
        if reduced is not None:
            found.append((reduced, site.after[:place]))
    return tuple(found)


def _trains(statement: ast.stmt) -> bool:
    """Whether a statement is a training's loop: its optimizers have their parameters by then."""
    return isinstance(statement, ast.For | ast.While) and any(
        isinstance(node, ast.Attribute) and node.attr == "backward" for node in ast.walk(statement)
    )


def _rebinds(statement: ast.stmt, name: str) -> bool:
    """Whether the model's name becomes something other than the model."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
            root = root_of(value)  # ``model = model.to(device)`` is the model
            return not (isinstance(root, ast.Name) and root.id == name)
        case _:
            return False


def _note_alias(statement: ast.stmt, names: set[str]) -> None:
    match statement:
        case ast.Assign(targets=[ast.Name(id=target)], value=value):
            if not isinstance(value, ast.Call) and _below(value, names):
                names.add(target)


def _below(node: ast.AST, names: frozenset[str] | set[str]) -> bool:
    root = root_of(node)
    return isinstance(root, ast.Name) and root.id in names


def _reduced(statement: ast.stmt, names: frozenset[str]) -> ast.stmt | None:
    """A statement without what does not change the model; None if nothing is left."""
    if isinstance(statement, (*FUNCTIONS, ast.ClassDef, ast.While)):
        return None
    if not any(True for _ in blocks(statement)):
        return statement if _changes(statement, names) else None
    if isinstance(statement, ast.For) and any(_below(one, names) for one in ast.walk(statement.iter)
                                              if isinstance(one, ast.expr)):  # fmt: skip
        targets = ast.walk(statement.target)
        names |= {one.id for one in targets if isinstance(one, ast.Name)}
    bodies = {
        part: _reduced_block(getattr(statement, part), names)
        for part in ("body", "orelse", "finalbody")
        if getattr(statement, part, None)
    }
    if not any(changed for _, changed in bodies.values()):
        return None
    new = copy.copy(statement)
    for part, (body, _) in bodies.items():
        setattr(new, part, body or [ast.copy_location(ast.Pass(), statement)])
    return new


def _reduced_block(body: list[ast.stmt], names: frozenset[str]) -> tuple[list[ast.stmt], bool]:
    """Of a block, what changes the model and what that needs; whether anything does."""
    kept: list[ast.stmt] = []
    needed: set[str] = set()
    for statement in reversed(body):
        reduced = _reduced(statement, names)
        if reduced is None and kept and bound(statement) & needed:
            reduced = statement
        if reduced is not None:
            kept.append(reduced)
            needed |= loaded(reduced)
    return kept[::-1], bool(kept)


def _changes(statement: ast.stmt, names: frozenset[str]) -> bool:
    """Whether a simple statement may change what parameters there are below some names."""
    match statement:
        case ast.Assign(value=ast.Constant(value=value)) if value is not None:
            return False  # a module does not let its parameters be replaced by such
        case ast.Assign(value=ast.Compare()):
            return False
        case ast.Assign(targets=targets) | ast.Delete(targets=targets):
            pass
        case ast.AugAssign(target=target) | ast.AnnAssign(target=target):
            targets = [target]
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=attr, value=value))):
            return attr in CHANGING and _below(value, names)
        case ast.Expr(value=ast.Call(func=ast.Name(id="setattr" | "delattr"), args=[first, *_])):
            return _below(first, names)
        case _:
            return False
    return any(
        isinstance(target, ast.Attribute | ast.Subscript)
        and not (isinstance(target, ast.Attribute) and target.attr in WITHOUT_EFFECT)
        and _below(target, names)
        for target in targets
    )

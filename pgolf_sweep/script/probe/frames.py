"""The names inside a script's function, as the script itself would enter it.

A function's parameters are what its one call passes, evaluated in the frame of that call in turn.
Where that is not known, they are taken from the hyperparameters by their names, and said to be
guessed.

Runs inside the probe's helper process, on a module that was imported there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pgolf_sweep.script.probe.call_sites import CallSite, call_sites, parameters_of, passed
from pgolf_sweep.script.probe.entrypoints import without_runs
from pgolf_sweep.script.probe.hyperparameters import GIVEN, SETTINGS_ARGUMENTS, Settings
from pgolf_sweep.script.probe.slicing import evaluate, loaded, needed_statements, run

if TYPE_CHECKING:
    import ast
    from collections.abc import Iterable, Mapping

EVALUATION = ("eval", "hessian", "ttt", "val_", "teacher", "dummy", "test")
"""In the name that a model is assigned to, or in its function: a second copy of the model."""
MOST_CALLS = 4
"""Calls of one function that are compared."""
DEEPEST = 8
"""Functions that call one another, from the module's level to the one in question."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script that was imported.

    Attributes:
        tree: Its source.
        namespace: Its module's names.
        settings: Its hyperparameters.
    """

    tree: ast.Module
    namespace: dict[str, Any]
    settings: Settings


@dataclass(slots=True)
class Frame:
    """The names inside a function.

    Attributes:
        scope: Values by name.
        known: Names whose values are taken as given: statements that bind them do not count.
        ran: Statements of the function that were run here.
        guessed: Parameters whose values may be others when the script runs, one sentence each.
        notes: What else failed on the way.
    """

    scope: dict[str, Any]
    known: set[str]
    ran: set[ast.stmt] = field(default_factory=set)
    guessed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def frame_of(
    site: CallSite,
    names: Iterable[str],
    script: Script,
    given: Mapping[str, Any],
    *,
    depth: int = 0,
) -> Frame:
    """The frame in which a call is made, after the statements that `names` need.

    Args:
        site: The call.
        names: What will be asked of the frame.
        script: The script.
        given: Values that win over what the script would make them.
        depth: How many calls are being followed already.
    """
    import torch  # noqa: PLC0415

    frame = Frame(
        scope={**script.namespace, "device": torch.device("meta"), **GIVEN, **given},
        known={"device", *GIVEN, *given},
    )
    before = statements_before(site, script)
    _, needed = needed_statements(before, names, frame.known)
    wanted = [name for name in parameters_of(site) if name in needed]
    if wanted:
        _bind(wanted, site, script, given, frame, depth)
    run_in(frame, before, names, script)
    return frame


def run_in(frame: Frame, before: Iterable[ast.stmt], names: Iterable[str], script: Script) -> None:
    """Run, of a function's statements, those that `names` need and that did not run yet."""
    chosen, _ = needed_statements(before, names, frame.known)
    new = [one for one in chosen if one not in frame.ran]
    frame.ran.update(new)
    frame.notes += run(new, frame.scope, script.settings.nodes)


def statements_before(site: CallSite, script: Script) -> tuple[ast.stmt, ...]:
    """Statements before a call that the script's import has not run."""
    if site.function is not None or site.owner is not None:
        return site.before
    ran = _imported(script.tree)
    return tuple(one for one in site.before if id(one) not in ran)


@lru_cache(maxsize=8)
def _imported(tree: ast.Module) -> frozenset[int]:
    return frozenset(id(one) for one in without_runs(tree)[0].body)


@lru_cache(maxsize=512)
def callers(site: CallSite, tree: ast.Module) -> tuple[CallSite, ...]:
    """Calls of the function around a call; those that evaluate only where there are no others."""
    function = site.function
    constructor = site.owner is not None and function is not None and function.name == "__init__"
    if function is None or (site.owner is not None and not constructor):
        return ()
    name = site.owner.name if site.owner is not None else function.name
    found = [one for one in call_sites(tree, [name]) if one.function is not function]
    plain = [one for one in found if not is_second_copy(one)]
    return tuple(plain or found)


def is_second_copy(site: CallSite) -> bool:
    """Whether a call serves an evaluation, a teacher or a test by its names."""
    where = f"{site.target} {site.function.name if site.function else ''}".lower()
    return any(word in where for word in EVALUATION)


def _bind(
    wanted: list[str],
    site: CallSite,
    script: Script,
    given: Mapping[str, Any],
    frame: Frame,
    depth: int,
) -> None:
    """Give parameters the values that the script's calls pass."""
    calls = callers(site, script.tree)
    values: list[dict[str, Any]] = []
    why = ""
    for call in calls[:MOST_CALLS] if depth < DEEPEST else ():
        got, outer, missing = _passed(wanted, site, call, script, given, depth)
        values.append(got)
        why = why or missing
        frame.guessed += [text for text in outer.guessed if text not in frame.guessed]
        frame.notes += [text for text in outer.notes if text not in frame.notes]
    for name in wanted:
        found = [one[name] for one in values if name in one]
        if found and len(found) == len(calls) and all(_same(found[0], one) for one in found[1:]):
            frame.scope[name] = found[0]
            continue
        if found and len(calls) > 1:
            why = f"it is called in {len(calls)} ways"
            frame.scope[name] = found[0]
        elif guess := _by_name(name, site, script.settings):
            frame.scope[name] = guess[0]
            frame.known.add(name)
        else:
            continue
        assert site.function is not None  # noqa: S101 - it has parameters
        frame.guessed.append(
            f"the value of {name} in {site.function.name} is a guess: "
            f"{why or 'no call of it is found'}"
        )


def _passed(
    wanted: list[str],
    site: CallSite,
    call: CallSite,
    script: Script,
    given: Mapping[str, Any],
    depth: int,
) -> tuple[dict[str, Any], Frame, str]:
    """What one call passes; its frame; why something is missing."""
    assert site.function is not None  # noqa: S101 - it has parameters
    sent = passed(site.function, call.call, bound=site.owner is not None)
    sent = {name: sent[name] for name in wanted if name in sent}
    names = set().union(*(loaded(one) for one in sent.values()))
    outer = frame_of(call, names, script, given, depth=depth + 1)
    missing = "" if len(sent) == len(wanted) else f"line {call.call.lineno} does not say it"
    found: dict[str, Any] = {}
    for name, expression in sent.items():
        script.settings.nodes.append(expression)
        try:
            found[name] = evaluate(expression, outer.scope)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - all that others' code raises
            missing = f"line {call.call.lineno}: {type(error).__name__}: {error}"[:160]
    return found, outer, missing


def _by_name(name: str, site: CallSite, settings: Settings) -> tuple[Any] | None:
    """What the hyperparameters hold for a parameter of this name, if they do."""
    annotation = parameters_of(site)[name]
    typed = annotation is not None and settings.name in loaded(annotation)
    if settings.value is not None and (typed or name.lower() in SETTINGS_ARGUMENTS):
        return (settings.value,)
    if settings.value is not None and hasattr(settings.value, name):
        return (getattr(settings.value, name),)
    return None


def _same(one: Any, other: Any) -> bool:
    """Whether two values are alike; of hyperparameters without their being noted as read."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    try:
        names = object.__getattribute__(one, "__dict__"), object.__getattribute__(other, "__dict__")
        return bool(names[0] == names[1])
    except AttributeError:
        pass
    except Exception:  # noqa: BLE001 - tensors and arrays refuse to be compared
        return False
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001
        return False

"""The environment variables that a script reads, with type and default, found in its source.

The source is parsed, never run. Read are ``os.environ.get``, ``os.getenv``, ``os.environ[...]`` and
``in os.environ`` under any import name or alias, helper functions that wrap them (to any depth),
and loops over literal names. A name that only the running script can know is left out.
"""

from __future__ import annotations

import ast
import difflib
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pgolf_sweep.script.environ import KINDS, EnvironmentReads, KnobKind
from pgolf_sweep.script.unpack import unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pgolf_sweep.trial import KnobValue

LAUNCHER_VARIABLES = frozenset(
    {
        *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK"),
        *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "ROLE_WORLD_SIZE"),
        *("MASTER_ADDR", "MASTER_PORT", "CUDA_VISIBLE_DEVICES"),
        *("PATH", "HOME", "USER", "HOSTNAME", "PYTHONPATH", "LD_LIBRARY_PATH"),
    }
)
"""Set by torchrun and the system for each process: no configuration of a trial."""

_FALSE_WORDS = frozenset({"", "0", "false", "no", "off", "n", "f"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """One environment variable of a script.

    Attributes:
        name: The variable's name.
        kind: What the script makes of its text; ``str`` when it takes it as it is.
        default: Value without the variable; None if there is none or it is computed at run time.
        line: One-based line of the (unpacked) source where it is read first.
    """

    name: str
    kind: KnobKind
    default: KnobValue | None
    line: int


def read_knobs(source: str, *, path: Path | None = None) -> dict[str, Knob]:
    """The knobs of a script by name, in the order in which it reads them.

    Args:
        source: Text of the script; packed scripts are unpacked for reading.
        path: Where it lies, for scripts that exec a file beside them.

    Raises:
        SyntaxError: The script is not Python that any version since 3.11 would run.
    """
    text = unpack(source, path=path)
    try:
        tree = ast.parse(text)
    except ValueError as error:  # null bytes
        raise SyntaxError(str(error)) from error
    except (RecursionError, MemoryError) as error:
        raise SyntaxError("nested too deeply to be read") from error
    except SyntaxError as error:
        # Python 3.12 nests quotes in f-strings, which 3.11 cannot parse but another node may run.
        if "f-string" not in (error.msg or ""):
            raise
        found = list(_by_pattern(text))
        if not found:
            raise
        return _merged(found)
    return _merged(
        Knob(name=f.name, kind=f.kind, default=_as_kind(f.default, f.kind), line=f.line)
        for f in EnvironmentReads(tree).found()
    )


def nearest_knob(name: str, names: Iterable[str]) -> str | None:
    """The name that a user who typed `name` most likely meant, or None if none is close."""
    known = {candidate.upper(): candidate for candidate in names}
    matches = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.6)
    return known[matches[0]] if matches else None


def _merged(knobs: Iterable[Knob]) -> dict[str, Knob]:
    """One knob a name: where it is read first, with the first kind and default that are known."""
    merged: dict[str, Knob] = {}
    for knob in sorted(knobs, key=lambda knob: knob.line):
        if knob.name in LAUNCHER_VARIABLES:
            continue
        first = merged.setdefault(knob.name, knob)
        if first.default is None and (knob.default is not None or first.kind == "str"):
            merged[knob.name] = replace(knob, line=first.line)
    return merged


def _as_kind(value: Any, kind: KnobKind) -> KnobValue | None:
    """A default as the script would have it after its conversion."""
    if not isinstance(value, str | int | float):
        return None
    try:
        if kind == "bool":
            return (
                value.strip().lower() not in _FALSE_WORDS if isinstance(value, str) else bool(value)
            )
        if kind == "int":
            return int(value)
        if kind == "float":
            number = float(value)
            return number if not math.isnan(number) else None
    except (ValueError, OverflowError):
        return None
    return str(value)


_LITERAL = r"""-?[\d.][\d._eE+-]*|True|False|None|"[^"\n]*"|'[^'\n]*'"""
_CONSTANT = re.compile(rf"^[ \t]*([A-Za-z_]\w*)[ \t]*=[ \t]*({_LITERAL})[ \t]*$", re.MULTILINE)
_PATTERN = re.compile(
    rf"""(?P<convert>(?:\b(?:bool|int|float)\()*)\s*
        (?:\w+\.)?(?:environ\.get|getenv)\(\s*(?P<name>["']\w+["']|\w+)\s*
        (?:,\s*(?P<default>{_LITERAL}|\w+)\s*\))?""",
    re.VERBOSE,
)


def _by_pattern(text: str) -> Iterator[Knob]:
    """Knobs of a source that this Python cannot parse: only those in the plain form."""
    constants = {name: _plain(literal) for name, literal in _CONSTANT.findall(text)}
    for match in _PATTERN.finditer(text):
        converters = match["convert"]
        kind: KnobKind = "str"
        for candidate in KINDS:
            if f"{candidate}(" in converters:
                kind = candidate
                break
        name = constants.get(match["name"], _plain(match["name"]))
        default = constants.get(match["default"] or "", _plain(match["default"] or ""))
        if isinstance(name, str):
            line = text.count("\n", 0, match.start()) + 1
            yield Knob(name=name, kind=kind, default=_as_kind(default, kind), line=line)


def _plain(literal: str) -> Any:
    try:
        return ast.literal_eval(literal)
    except (ValueError, SyntaxError):
        return None

"""A script whose defaults are the winning values, every other byte as it was."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import PromotionError
from pgolf_sweep.core.trial import knob_text
from pgolf_sweep.script.knobs.conversions import fallback_of
from pgolf_sweep.script.knobs.knobs import read_knobs, worded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pgolf_sweep.core.trial import KnobValue

_READERS = re.compile(r"^(os\.)?(environ\.(get|setdefault)|getenv)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """One place where a script reads a knob.

    Attributes:
        name: The environment variable.
        default: The default's node, or None where the call has none.
        last: The node after which a missing default is inserted.
    """

    name: str
    default: ast.expr | None
    last: ast.expr


def with_defaults(source: str, knobs: Mapping[str, KnobValue]) -> str:
    """The script's source with `knobs` as its defaults.

    A bare run of the result computes what a run of `source` with these environment variables
    would. Understands ``os.environ.get``, ``os.getenv``, their aliases, and helpers of the
    script that pass a name and a default on to them.

    Raises:
        PromotionError: The script does not parse, or reads a knob in no form that has a default.
    """
    try:
        reads = list(_reads(ast.parse(source)))
        texts = worded(knobs, read_knobs(source))
    except SyntaxError as error:
        raise PromotionError(
            "the script does not parse, so its defaults cannot be set",
            where=f"line {error.lineno}",
            got=error.msg,
            expected="a script that this Python compiles",
        ) from error
    missing = sorted(set(knobs) - {read.name for read in reads})
    if missing:
        raise PromotionError(
            f"the script has no default for {', '.join(missing)}",
            got="no os.environ.get(NAME, DEFAULT) or os.getenv(NAME, DEFAULT) of that name",
            expected="such a call for every knob that was searched",
            next_step="give the script these calls, or take the knobs out of the sweep file",
        )
    data = source.encode()
    starts = _line_starts(data)
    edits: list[tuple[int, int, bytes]] = []
    for read in reads:
        if read.name in knobs:
            # A number's place takes a boolean as a number, a text's the word that the script knows.
            given = knobs if _is_number(read.default) else texts
            edits += _edit(read, given[read.name], starts)
    for begin, end, text in sorted(edits, reverse=True):
        data = data[:begin] + text + data[end:]
    return data.decode()


def _edit(read: _Read, value: KnobValue, starts: list[int]) -> list[tuple[int, int, bytes]]:
    node = read.default
    if node is None:
        end = _end(read.last, starts)
        return [(end, end, f", {_quoted(value)}".encode())]
    if isinstance(node, ast.Constant) and _reads_the_same(node.value, value):
        return []
    keep_numeric = _is_number(node) and isinstance(value, int | float)
    if isinstance(node, ast.Constant) and isinstance(node.value, bool) and isinstance(value, bool):
        text = repr(value)  # a wrapper may ask whether its default is a boolean
    else:
        text = knob_text(value) if keep_numeric else _quoted(value)
    begin = starts[node.lineno - 1] + node.col_offset
    return [(begin, _end(node, starts), text.encode())]


def _is_number(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


def _quoted(value: KnobValue) -> str:
    """A Python literal of a knob's text, in double quotes where that needs no escapes."""
    text = knob_text(value)
    return f'"{text}"' if repr(text) == f"'{text}'" else repr(text)


def _reads_the_same(default: object, value: KnobValue) -> bool:
    """Whether a default is already the value, as the script's conversion will see it."""
    if isinstance(default, bool | int | float | str):
        return knob_text(default) == knob_text(value)
    return False


def _end(node: ast.expr, starts: list[int]) -> int:
    # ast sets both for every expression that was parsed from text.
    return starts[(node.end_lineno or 1) - 1] + (node.end_col_offset or 0)


def _line_starts(data: bytes) -> list[int]:
    """Byte offset of each line; ast counts columns in UTF-8 bytes."""
    starts = [0]
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return starts


def _imported_as(tree: ast.Module) -> dict[str, str]:
    """Other names that a script gives to ``os`` and its members, as minified ones do."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.asname: a.name for a in node.names if a.asname and a.name == "os"}
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            found |= {a.asname: a.name for a in node.names if a.asname}
    return found


def _reads(tree: ast.Module) -> Iterator[_Read]:
    aliases = _imported_as(tree)

    def reads(function: ast.expr) -> bool:
        head, dot, rest = ast.unparse(function).partition(".")
        return _READERS.match(aliases.get(head, head) + dot + rest) is not None

    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    readers = {ast.unparse(call.func) for call in calls if _is_name(call.func) and reads(call.func)}
    readers |= {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and _is_name(node.value) and reads(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    readers |= _helpers(tree, readers)
    for call in calls:
        if not (_is_name(call.func) and call.args and ast.unparse(call.func) in readers):
            continue
        name = call.args[0]
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            by_keyword = [k.value for k in call.keywords if k.arg == "default"]
            default = call.args[1] if len(call.args) > 1 else next(iter(by_keyword), None)
            yield _Read(name=name.value, default=default, last=name)


def _helpers(tree: ast.Module, readers: set[str]) -> set[str]:
    """Functions ``f(name, default, ...)`` that hand both to a reader, or give the default back."""
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef) or len(node.args.args) < 2:
            continue
        first, second = (argument.arg for argument in node.args.args[:2])
        for call in ast.walk(node):
            if not (isinstance(call, ast.Call) and call.args and _is_name(call.func)):
                continue
            if ast.unparse(call.func) not in readers or ast.unparse(call.args[0]) != first:
                continue
            if len(call.args) > 1:
                passed = {n.id for n in ast.walk(call.args[1]) if isinstance(n, ast.Name)}
            else:
                back = fallback_of(node, {first})
                passed = set() if back is None else {back.id}
            if second in passed:
                found.add(node.name)
    return found


def _is_name(node: ast.expr) -> bool:
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name)

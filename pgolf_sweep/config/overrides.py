"""Changes to a sweep file that a command line makes: its text with some values replaced.

The text is edited rather than the values, since it is what a study keeps, compares and sends: the
same command resumes the study, and comments stay.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from pgolf_sweep.config.yaml_lines import Document, shown
from pgolf_sweep.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgolf_sweep.core.trial import KnobValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What a command line wants otherwise than the sweep file.

    Attributes:
        run_cap: Trials that may take a slot.
        settings: Parameters that have one value, be they searched, fixed or absent in the file.
        budget: Keys of ``pgolf.budget``.
    """

    run_cap: int | None = None
    settings: Mapping[str, KnobValue] = field(default_factory=dict)
    budget: Mapping[str, KnobValue] = field(default_factory=dict)

    def words(self) -> list[str]:
        """The options that say so, for a command that repeats the launch."""
        words = [] if self.run_cap is None else ["--run-cap", str(self.run_cap)]
        words += [word for k, v in self.settings.items() for word in ("--set", f"{k}={v}")]
        return words + [word for k, v in self.budget.items() for word in ("--budget", f"{k}={v}")]

    def apply(self, text: str, source: str) -> tuple[str, list[str]]:
        """The text with its values replaced, and what that changes, a sentence each.

        Args:
            text: A sweep file.
            source: Its name, for errors.

        Raises:
            SpecError: The text is no YAML.
            InputError: The value stands where it cannot be replaced, at an alias for example.
        """
        said = []
        for path, value in self._changes(text, source):
            before = _at(Document(text, source).value, path)
            text = replaced(text, path, value, source)
            said.append(_sentence(path, before, value))
        return text, said

    def _changes(self, text: str, source: str) -> list[tuple[tuple[str, ...], Any]]:
        changes: list[tuple[tuple[str, ...], Any]] = []
        if self.run_cap is not None:
            changes.append((("run_cap",), self.run_cap))
        document = Document(text, source).value
        for name, value in self.settings.items():
            before = _at(document, ("parameters", name))
            when = before["when"] if isinstance(before, dict) and "when" in before else None
            fixed = {"value": value} | ({} if when is None else {"when": when})
            changes.append((("parameters", name), fixed))
        return changes + [(("pgolf", "budget", k), value) for k, value in self.budget.items()]


NONE = Overrides()


def replaced(text: str, path: tuple[str, ...], value: Any, source: str) -> str:
    """YAML text with the value at a path replaced or added; all else stays as it is written.

    Raises:
        InputError: It cannot be edited there.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    edited = None if root is None else _edited(text, root, path, value)
    wanted = _with(Document(text, source).value, path, value)
    try:
        right = edited is not None and Document(edited, source).value == wanted
    except InputError:
        right = False
    if edited is None or not right:
        raise InputError(
            "this cannot be overridden on the command line, as the file writes it",
            where=f"{source}: {'.'.join(path)}",
            next_step="change it in the file",
        )
    return edited


def _edited(text: str, root: yaml.Node, path: tuple[str, ...], value: Any) -> str | None:
    node, depth = root, 0
    while isinstance(node, yaml.MappingNode) and depth < len(path):
        inner = next((item for key, item in node.value if key.value == path[depth]), None)
        if inner is None:
            break
        node, depth = inner, depth + 1
    rest = value
    for key in reversed(path[depth + 1 if isinstance(node, yaml.MappingNode) else depth :]):
        rest = {key: rest}
    if depth == len(path) or not isinstance(node, yaml.MappingNode):
        start, end = node.start_mark.index, node.end_mark.index
        # A block's end is where the next key begins.
        end = start + len(text[start:end].rstrip())
        space = " " if start and not text[start - 1].isspace() else ""
        return text[:start] + space + _flow(rest) + text[end:]
    pair = f"{_key(path[depth])}: {_flow(rest)}"
    if node.flow_style:
        start = node.start_mark.index + 1
        return text[:start] + pair + (", " if node.value else "") + text[start:]
    mark = node.value[0][0].start_mark
    return f"{text[: mark.index]}{pair}\n{' ' * mark.column}{text[mark.index :]}"


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    return _quoted(value) if isinstance(value, str) else json.dumps(value)


def _key(name: str) -> str:
    return name if name.isidentifier() and name.isascii() else _quoted(name)


def _quoted(text: str) -> str:
    """A text that no reader of YAML takes for anything else; JSON's escapes are not all YAML's."""
    plain = (f"\\{c}" if c in '"\\' else c if " " <= c <= "~" else f"\\U{ord(c):08x}" for c in text)
    return f'"{"".join(plain)}"'


def _at(document: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if not isinstance(document, dict) or key not in document:
            return None
        document = document[key]
    return document


def _with(document: Any, path: tuple[str, ...], value: Any) -> Any:
    if not path:
        return value
    inner = document if isinstance(document, dict) else {}
    return inner | {path[0]: _with(inner.get(path[0]), path[1:], value)}


def _sentence(path: tuple[str, ...], before: Any, value: Any) -> str:
    """``MATRIX_LR is fixed at 0.03; the file searches it``."""
    name = path[-1] if path[0] == "parameters" else ".".join(path)
    if path[0] != "parameters":
        was = "the file has none" if before is None else f"not {shown(before)}"
        return f"{name} is {value} ({was})"
    chosen = value["value"]
    if before is None:
        return f"{name} is set to {chosen} (the file does not name it)"
    if isinstance(before, dict) and "value" in before:
        return f"{name} is {chosen} (not {shown(before['value'])})"
    return f"{name} is fixed at {chosen} (the file searches it)"

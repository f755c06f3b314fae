"""YAML as plain values that remember their lines and their spelling.

W&B reads sweep files as YAML 1.1; so does this module, with two repairs: ``1e-8`` is a number,
and a key written twice is a mistake instead of the silent loss of the first.
"""

from __future__ import annotations

import difflib
import math
import re
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

from pgolf_sweep.core.errors import Problem, SpecError

if TYPE_CHECKING:
    from collections.abc import Iterable

KeyPath: TypeAlias = tuple[str | int, ...]
_TEXT = "tag:yaml.org,2002:str"


MOST_CHARS = 300_000
MOST_NODES = 50_000
"""Of a document with its aliases written out."""
MOST_DEPTH = 50
LARGEST_NUMBER = 1e300
WORDS_FOR_BOOL = frozenset({"yes", "no", "on", "off"})
"""Words that YAML 1.1 reads as truth values, and people write as text."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, by which ``1e-8`` is a float as in YAML 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The known name that a misspelt one most likely means, or None."""
    by_upper = {known.upper(): known for known in names}
    found = difflib.get_close_matches(name.upper(), by_upper, n=1, cutoff=0.6)
    return by_upper[found[0]] if found else None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """``; did you mean 'x'?``, or nothing where no name is near."""
    near = nearest(name, names)
    return f"; did you mean {near!r}?" if near else ""


def is_text_to_wandb(spelled: str) -> bool:
    """Whether plain YAML 1.1, and so W&B, takes an unquoted scalar for text, as it does ``1e3``."""
    loader: Any = yaml.SafeLoader("")
    return bool(loader.resolve(yaml.ScalarNode, spelled, (True, False)) == _TEXT)


def read_scalar(text: str) -> Any:
    """One word as YAML would read it: ``8`` an int, ``1e-8`` a float, ``wsd`` a str."""
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader


def _check_size(text: str, source: str) -> None:
    """Refuse what would take minutes or the interpreter's whole stack to read.

    Raises:
        SpecError: The document is too long, or too deeply nested.
        yaml.YAMLError: It is not YAML.
    """
    if len(text) > MOST_CHARS:
        message = f"longer than {MOST_CHARS:,} characters, which no sweep needs"
        raise SpecError(source, [Problem(path="file", line=None, message=message)])
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH:
            line = event.start_mark.line + 1 if event.start_mark else None
            message = f"nested more than {MOST_DEPTH} deep"
            raise SpecError(source, [Problem(path="file", line=line, message=message)])


def _check_expansion(root: yaml.Node | None, source: str) -> None:
    """Refuse a document whose aliases, written out, are more than any machine could hold.

    Raises:
        SpecError: They are.
    """
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, depth: int) -> int:
        if id(node) in sizes:
            return sizes[id(node)]
        sizes[id(node)] = 1  # an alias within itself is a mistake that is found elsewhere
        inner = getattr(node, "value", ())
        total = 1
        if isinstance(inner, list) and depth <= 4 * MOST_DEPTH:
            for item in inner:
                total += sum(
                    size(one, depth + 1) for one in (item if isinstance(item, tuple) else (item,))
                )
        sizes[id(node)] = total
        if total > MOST_NODES:
            message = f"its aliases, written out, make more than {MOST_NODES:,} values"
            line = node.start_mark.line + 1
            raise SpecError(source, [Problem(path="file", line=line, message=message)])
        return total

    if root is not None:
        size(root, 0)


class Document:
    """A YAML file as plain values.

    Attributes:
        value: Mappings, lists and scalars.
        lines: One-based line of every key and item, by key path.
        spelled: Text of every scalar that is not quoted, by key path.
        problems: Mistakes found so far; readers add theirs.
    """

    def __init__(self, text: str, source: str) -> None:
        """Read a document.

        Raises:
            SpecError: It is not YAML; the problem carries line and column.
        """
        self.source = source
        self.lines: dict[KeyPath, int] = {}
        self.spelled: dict[KeyPath, str] = {}
        self.problems: list[Problem] = []
        self._loader = _Loader("")
        try:
            _check_size(text, source)
            root = yaml.compose(text, Loader=_Loader)
            _check_expansion(root, source)
            self.value = None if root is None else self._plain(root, (), ())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f" (column {mark.column + 1})" if mark else ""
            line = mark.line + 1 if mark else None
            message = f"not valid YAML: {error.problem or error.context}{where}"
            raise SpecError(source, [Problem(path="file", line=line, message=message)]) from error
        except yaml.YAMLError as error:
            message = f"not valid YAML: {str(error).splitlines()[0]}"
            raise SpecError(source, [Problem(path="file", line=None, message=message)]) from error

    def problem(self, path: KeyPath, message: str) -> None:
        """Note a mistake at a key, or at the nearest parent that the file has."""
        known = next((path[:n] for n in range(len(path), 0, -1) if path[:n] in self.lines), ())
        dotted = ".".join(str(part) for part in path) or "file"
        self.problems.append(Problem(path=dotted, line=self.lines.get(known), message=message))

    def raise_problems(self) -> None:
        """Raise every mistake noted so far, in the file's order.

        Raises:
            SpecError: There is at least one.
        """
        if self.problems:
            ordered = sorted(self.problems, key=lambda p: math.inf if p.line is None else p.line)
            raise SpecError(self.source, ordered)

    def _plain(self, node: yaml.Node, path: KeyPath, parents: tuple[yaml.Node, ...]) -> Any:
        if any(node is parent for parent in parents):
            self.problem(path, "an alias that contains itself")
            return None
        parents = (*parents, node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, parents)
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.lines[*path, index] = item.start_mark.line + 1
            return [
                self._plain(item, (*path, index), parents) for index, item in enumerate(node.value)
            ]
        return self._scalar(node, path)

    def _mapping(
        self, node: yaml.MappingNode, path: KeyPath, parents: tuple[yaml.Node, ...]
    ) -> dict[str, Any]:
        first_lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            name = key.value if isinstance(key, yaml.ScalarNode) else "?"
            self.lines[*path, name] = line
            if not isinstance(key, yaml.ScalarNode):
                self.problem((*path, name), "a key must be a name")
            elif name in first_lines and name != "<<":
                self.problem((*path, name), f"written twice, first on line {first_lines[name]}")
            first_lines.setdefault(name, line)
        self._loader.flatten_mapping(node)  # merge keys; a key of one's own comes last and wins
        result: dict[str, Any] = {}
        for key, item in node.value:
            if isinstance(key, yaml.ScalarNode):
                self.lines[*path, key.value] = key.start_mark.line + 1
                result[key.value] = self._plain(item, (*path, key.value), parents)
        return result

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        if isinstance(node, yaml.ScalarNode) and node.style is None:
            self.spelled[path] = node.value
        try:
            value = self._loader.construct_object(node)
            if isinstance(value, int | float) and abs(value) > LARGEST_NUMBER < math.inf:
                raise ValueError(f"the number is beyond {LARGEST_NUMBER:g}")
        except (yaml.YAMLError, ValueError) as error:
            reason = getattr(error, "problem", None) or error
            self.problem(path, f"cannot be read as a value: {reason}")
            return None
        except (ArithmeticError, AttributeError, LookupError, TypeError):
            # What PyYAML raises of a tag whose text is none of its kind.
            kind = str(node.tag).rpartition(":")[2]
            self.problem(path, f"cannot be read as a value: {shown(node.value)} is no {kind}")
            return None
        return value


def shown(value: object) -> str:
    """A value as the user would recognise it, shortened."""
    if value is None:
        return "nothing"
    kind = "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else None
    text = kind or repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

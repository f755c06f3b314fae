"""Reading sources of Python 3.12 and newer with an older interpreter.

Since 3.12 an f-string may hold quotes of its own kind within its braces, ``f"{", ".join(x)}"``,
lines and backslashes. Such a string is given delimiters that occur nowhere inside, and a text with
backslashes is spelt in bytes; everything else stays as it is, line numbers included.
"""

from __future__ import annotations

import ast
import re

_START = re.compile(
    r"""#[^\n]*|(?P<prefix>(?:(?<!\w)[rRbBuUfF]{1,3})?)(?P<quote>\"\"\"|'''|"|')""",
)


def readable(source: str) -> str:
    """The source with f-strings that only Python 3.12 can read written for older ones."""
    return _rewritten(source)


def _rewritten(source: str, *, within: bool = False) -> str:
    """The source rewritten; `within` the braces of an f-string no backslash is left."""
    parts: list[str] = []
    position = 0
    while match := _START.search(source, position):
        if match["quote"] is None:  # a comment
            parts.append(source[position : match.end()])
            position = match.end()
            continue
        formatted = "f" in match["prefix"].lower()
        quote = match["quote"]
        end, expressions = _end(source, match.end(), quote, formatted=formatted)
        content = source[match.end() : end]
        literal = source[match.start() : end + len(quote)]
        if within and not formatted and "\\" in literal:
            parts += [source[position : match.start()], _spelt(literal)]
            position = end + len(quote)
            continue
        if any(_is_new(source[a:b], quote) for a, b in expressions):
            content = _inner(source, match.end(), end, expressions)
            quote = _free(content, quote)
        parts += [source[position : match.start()], match["prefix"], quote, content, quote]
        position = end + len(match["quote"])
    return "".join([*parts, source[position:]])


def _end(
    source: str, start: int, quote: str, *, formatted: bool
) -> tuple[int, list[tuple[int, int]]]:
    """Where a string's closing quote stands, and where its expressions lie."""
    position, depth, opened = start, 0, 0
    expressions: list[tuple[int, int]] = []
    while position < len(source):
        character = source[position]
        if depth == 0:
            if source.startswith(quote, position):
                return position, expressions
            escaped = character == "\\"
            if escaped or (formatted and source.startswith(("{{", "}}"), position)):
                position += 1
            elif formatted and character == "{":
                depth, opened = 1, position + 1
        elif character in "{[(":
            depth += 1
        elif character in "}])":
            depth -= 1
            if depth == 0:
                expressions.append((opened, position))
        elif character in "\"'":
            inner = character * 3 if source.startswith(character * 3, position) else character
            nested = source[max(start, position - 2) : position].lower().endswith("f")
            closing, _ = _end(source, position + len(inner), inner, formatted=nested)
            position = closing + len(inner) - 1
        position += 1
    return len(source), expressions


def _inner(source: str, start: int, end: int, expressions: list[tuple[int, int]]) -> str:
    """The content with the strings inside its expressions rewritten first."""
    parts, position = [], start
    for first, last in expressions:
        parts += [source[position:first], _rewritten(source[first:last], within=True)]
        position = last
    return "".join([*parts, source[position:end]])


def _is_new(expression: str, quote: str) -> bool:
    """Whether only Python 3.12 has an expression within an f-string."""
    return quote in expression or "\\" in expression or (len(quote) == 1 and "\n" in expression)


def _spelt(literal: str) -> str:
    """A text without backslashes and quotes."""
    try:
        value = ast.literal_eval(literal)
        if isinstance(value, bytes):
            return f"bytes({tuple(value)})"
        return f"bytes({tuple(value.encode())}).decode()"
    except (SyntaxError, ValueError):
        return literal


def _free(content: str, quote: str) -> str:
    """Delimiters that the content leaves free; the old ones if there are none."""
    for candidate in ("'''", '"""', "'", '"'):
        clash = candidate in content or content[-1:] == candidate[0] or content[:1] == candidate[0]
        if not clash and not (len(candidate) == 1 and "\n" in content):
            return candidate
    return quote

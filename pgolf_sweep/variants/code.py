"""The identity of a program's code: what is left of it without comments and formatting."""

from __future__ import annotations

import ast
import hashlib
from typing import TYPE_CHECKING

from pgolf_sweep.script.source import decoded, parsed

if TYPE_CHECKING:
    from collections.abc import Mapping

ID_DIGITS = 12


def code_id(files: Mapping[str, bytes], name: str) -> str:
    """Twelve hex digits that two programs share where only comments and formatting differ.

    Python files are compared by their syntax tree, docstrings included: a script may print one.
    Other files, and Python that does not parse, are compared byte by byte.

    Args:
        files: Content by relative path.
        name: The script's key in `files`.
    """
    digest = hashlib.sha256()
    for path in sorted(files):
        content = files[path]
        if path == name or path.endswith(".py"):
            content = _canonical(content)
        digest.update(f"{path}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:ID_DIGITS]


def _canonical(content: bytes) -> bytes:
    try:
        return ast.dump(parsed(decoded(content))).encode(errors="surrogatepass")
    except SyntaxError:
        return content

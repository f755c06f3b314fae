"""Documents to train a tokenizer and a model on: text of this Python, or the user's own."""

from __future__ import annotations

import ast
import json
import sys
import sysconfig
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import DataError, InfraError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Distributions package these apart or leave them out; without them the corpus is the same
# everywhere. Tests are no prose.
_LEFT_OUT = frozenset(
    (
        *("antigravity", "distutils", "ensurepip", "idlelib", "lib2to3", "msilib", "pydoc_data"),
        *("sre_compile", "sre_constants", "sre_parse", "test", "tests", "this", "tkinter"),
        *("turtle", "turtledemo", "venv"),
    )
)
_SHORTEST_DOCSTRING = 40
_PIECE_BYTES = 4096
"""Long texts are cut at blank lines into documents of about this size, FineWeb's own mean. Drawn
whole, one module (_pydecimal, 73 kB) was nine tenths of the demo's validation set."""


def clean(text: str) -> str:
    """Text as the tokenizer can give it back byte for byte.

    NUL ends strings in the tokenizer's trainer, U+2581 stands for a space inside of it, and a
    document's leading space would be lost from the byte count after a boundary token.
    """
    lines = text.replace("\r\n", "\n").replace("\0", " ").replace("\u2581", " ").split("\n")
    return "\n".join(line.rstrip() for line in lines).strip()


def stdlib_documents() -> list[str]:
    """The language reference's topics and each module's docstrings, cut into documents.

    The same on every machine for one version of Python. Modules are parsed, never imported.

    Raises:
        InfraError: This Python comes without its sources or without ``pydoc_data``.
    """
    root = Path(sysconfig.get_path("stdlib"))
    seen: set[str] = set()
    texts = [*_topics(root), *_modules(root, seen)]
    documents = [clean(piece) for text in texts for piece in _pieces(text)]
    if len(documents) < 100:
        raise _undocumented(root, f"{len(documents)} documents")
    return documents


def _undocumented(root: Path, got: str) -> InfraError:
    return InfraError(
        "this Python has too little documentation for the demo corpus",
        where=str(root),
        got=got,
        expected="pydoc_data and the standard library's sources, several hundred documents",
        next_step="use a Python with its full standard library, or "
        "pgolf-sweep data from-text FILE... --vocab-size 512 --name NAME",
    )


def _topics(root: Path) -> Iterator[str]:
    try:
        from pydoc_data import topics  # noqa: PLC0415 - half a megabyte of text
    except ImportError as error:
        raise _undocumented(root, "no pydoc_data") from error
    for _, text in sorted(topics.topics.items()):
        yield clean(text)


def _modules(root: Path, seen: set[str]) -> Iterator[str]:
    for path in sorted(root.rglob("*.py"), key=lambda p: p.relative_to(root).as_posix()):
        parts = path.relative_to(root).with_suffix("").parts
        # A distribution adds modules of its own (sitecustomize, site-packages, build data).
        if parts[0] not in sys.stdlib_module_names or _LEFT_OUT.intersection(parts):
            continue
        module = ".".join(parts).removesuffix(".__init__")
        text = clean("\n\n".join(_docstrings(path, module, seen)))
        if text:
            yield text


def _docstrings(path: Path, module: str, seen: set[str]) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escape sequences in the library's own sources
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return
    for name, node in _documented(tree, module):
        text = ast.get_docstring(node)
        # Twins (_pydecimal and decimal, _pyio and io) would leak into validation.
        if text and len(text) >= _SHORTEST_DOCSTRING and text not in seen:
            seen.add(text)
            yield f"{name}\n\n{text}"


_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _documented(node: _Documented, name: str) -> Iterator[tuple[str, _Documented]]:
    """Modules, classes and their functions, by qualified name, in the order of the source."""
    yield name, node
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _documented(child, f"{name}.{child.name}")


def file_documents(paths: Sequence[Path]) -> list[str]:
    """Documents of text files, and of ``.jsonl`` files with a ``text`` on each line.

    Raises:
        DataError: A file is missing, is not UTF-8, or has a line without a text.
    """
    return [document for path in paths for document in _of_file(path)]


def _of_file(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name} is not UTF-8 text",
            where=f"{path}, byte {error.start}",
            got=f"byte 0x{error.object[error.start]:02x}",
            expected="UTF-8",
            next_step="convert it, for example with iconv -t utf-8",
        ) from error
    except OSError as error:
        raise DataError(
            f"cannot read {path.name}: {error.strerror or error}", where=str(path)
        ) from error
    texts = _jsonl(path, text) if path.suffix == ".jsonl" else _pieces(text)
    yield from filter(None, map(clean, texts))


def _jsonl(path: Path, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            yield str(json.loads(line)["text"])
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{path.name} has a line without a document",
                where=f"{path}:{number}",
                got=line[:80],
                expected='{"text": "..."}',
            ) from error


def _pieces(text: str) -> Iterator[str]:
    piece: list[str] = []
    piece_bytes = 0
    for paragraph in text.split("\n\n"):
        piece.append(paragraph)
        piece_bytes += len(paragraph.encode())
        if piece_bytes >= _PIECE_BYTES:
            yield "\n\n".join(piece)
            piece, piece_bytes = [], 0
    if piece:
        yield "\n\n".join(piece)

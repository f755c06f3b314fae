"""Packed scripts opened for reading: what ``exec(lzma.decompress(b85decode("...")))`` would run.

Leaders ship their code compressed, since its bytes count. What runs and what is counted stays the
file itself; this module only finds the text that tools need to read. Nothing is executed: the
argument of ``exec`` is evaluated by a small interpreter that knows constants, names, a list of
decoders, and files beside the script.
"""

from __future__ import annotations

import ast
import base64
import binascii
import bz2
import codecs
import lzma
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgolf_sweep.script.dense import read_dense
from pgolf_sweep.script.source import decoded, parsed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MOST_BYTES = 16_000_000
"""No script is longer; more is a decompression bomb."""
DEEPEST = 4
"""Packed text may be packed again, so often."""
MOST_LOADER = 12
"""Statements of a function that does nothing but unpack and run the program."""


def unpack(
    source: str,
    *,
    path: Path | None = None,
    files: Mapping[str, bytes] | None = None,
    opened: set[str] | None = None,
) -> str:
    """The readable source of a script: itself, or what it would exec.

    Args:
        source: Text of the script.
        path: Where it lies, for scripts that exec a file beside them; None reads no file.
        files: Content of the files beside it by name, to be read instead of the disk's.
        opened: Takes the names of files beside the script that were read for the answer.

    Returns:
        The innermost text. A form of packing that is not known is returned as it is.
    """
    source = read_dense(source) or source
    for _ in range(DEEPEST):
        scope = _Scope(values={"__file__": str(path or "train_gpt.py")}, path=path, files=files)
        inner = _unpack_once(source, scope)
        if inner is None:
            return source
        if opened is not None:
            opened |= scope.opened
        source = inner
    return source


def _unpack_once(source: str, scope: _Scope) -> str | None:
    # A packed script is little else than the call; parsing a long plain one twice is avoided.
    if "exec" not in source:
        return None
    try:
        tree = parsed(source)
    except SyntaxError:
        return None
    found: str | None = None
    nodes = list(_in_order(tree))
    for _ in range(2):  # a function may exec what stands below it
        for node in nodes:
            argument = _note(scope, node)
            # Scripts also exec small helpers; the longest text is the program.
            text = None if argument is None else _text(_try(scope, argument))
            if text and (found is None or len(text) > len(found)):
                found = text
        if found is not None:
            break
    if found is not None and len(found) < len(source) and any(map(_is_own_code, tree.body)):
        return None  # a script with code of its own, which also execs a helper
    return found


def _in_order(tree: ast.Module) -> Iterator[ast.AST]:
    """All nodes as the text has them, however deep."""
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        yield node
        stack += reversed(list(ast.iter_child_nodes(node)))


def _is_own_code(statement: ast.stmt) -> bool:
    """Whether a statement defines more than the way in which a script is unpacked."""
    if isinstance(statement, ast.ClassDef):
        return True
    if not isinstance(statement, ast.FunctionDef):
        return False
    inner = list(ast.walk(statement))
    executes = any(isinstance(n, ast.Name) and n.id == "exec" for n in inner)
    decodes = isinstance(statement.body[0], ast.Return)
    return not (executes or decodes) or sum(isinstance(n, ast.stmt) for n in inner) > MOST_LOADER


def _note(  # noqa: C901, PLR0912 - one case a form
    scope: _Scope, node: ast.AST
) -> ast.expr | None:
    """Take up what a node binds; the argument where it is a call of ``exec``."""
    match node:
        case ast.Import(names=names):
            for name in names:
                scope.values[name.asname or name.name.partition(".")[0]] = _Module(
                    name.name if name.asname else name.name.partition(".")[0]
                )
        case ast.ImportFrom(module=str(module), names=names):
            for name in names:
                scope.values[name.asname or name.name] = _member(module, name.name)
        case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
            for target, value in zip(targets, values, strict=False):
                if isinstance(target, ast.Name):
                    scope.values[target.id] = _try(scope, value)
        case (
            ast.Assign(targets=[ast.Name(id=target)], value=value)
            | ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value)
            | ast.NamedExpr(target=ast.Name(id=target), value=value)
        ):
            scope.values[target] = _try(scope, value)
        case ast.With(items=items):
            for item in items:
                if isinstance(item.optional_vars, ast.Name):
                    scope.values[item.optional_vars.id] = _try(scope, item.context_expr)
        case ast.FunctionDef(name=name_, body=[ast.Return(value=ast.expr())]):
            scope.values[name_] = node
        case ast.Call(func=ast.Name(id="exec") | ast.Attribute(attr="exec"), args=[argument, *_]):
            function = _try(scope, node.func)
            known = isinstance(function, _Module) and function.name in {"exec", "builtins.exec"}
            return argument if known else None
        case _:
            pass
    return None


class _UnknownError(Exception):
    """The expression is beyond the interpreter."""


@dataclass(frozen=True, slots=True)
class _Module:
    """A module by name; its members are looked up in `_FUNCTIONS` and `_CONSTANTS`."""

    name: str


@dataclass(slots=True)
class _Scope:
    values: dict[str, Any]
    path: Path | None
    files: Mapping[str, bytes] | None
    opened: set[str] = field(default_factory=set)
    depth: int = 0


class _Decompressor:
    """``zlib.decompressobj()`` and its kin: asked once for all of the text."""

    def __init__(self, decompress: Callable[..., Any], *arguments: Any) -> None:
        self.decompress = lambda data, *_: decompress(data, *arguments)


def _member(module: str, name: str) -> Any:
    qualified = f"{module}.{name}"
    if qualified in _CONSTANTS:
        return _CONSTANTS[qualified]
    return _Module(qualified)


def _try(scope: _Scope, node: ast.expr) -> Any:
    try:
        return _value(scope, node)
    except (_UnknownError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError):
        return None
    except (lzma.LZMAError, zlib.error, binascii.Error, OSError, EOFError, ImportError):
        return None
    except (RecursionError, MemoryError):
        return None


def _value(  # noqa: C901, PLR0912 - one case a form of expression
    scope: _Scope, node: ast.expr
) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return scope.values[name] if name in scope.values else _Module(name)
        case ast.Attribute(value=owner, attr=attr):
            holder = _value(scope, owner)
            if isinstance(holder, _Module):
                return _member(holder.name, attr)
            raise _UnknownError
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _bounded(_value(scope, left) + _value(scope, right))
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(scope, item) for item in items]
        case ast.Dict(keys=keys, values=values) if all(key is not None for key in keys):
            pairs = zip(keys, values, strict=True)
            return {_value(scope, k): _value(scope, v) for k, v in pairs if k is not None}
        case ast.Subscript(value=owner, slice=ast.Slice(lower=lower, upper=upper, step=None)):
            start = None if lower is None else _value(scope, lower)
            stop = None if upper is None else _value(scope, upper)
            return _value(scope, owner)[start:stop]
        case ast.Subscript(value=owner, slice=index):
            return _value(scope, owner)[_value(scope, index)]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(scope, operand)
        case ast.NamedExpr(value=value):
            return _value(scope, value)
        case ast.Lambda():
            return node
        case ast.Call():
            return _call(scope, node)
        case _:
            raise _UnknownError


def _call(scope: _Scope, node: ast.Call) -> Any:
    arguments = [_value(scope, argument) for argument in node.args]
    keywords = {k.arg: _value(scope, k.value) for k in node.keywords if k.arg is not None}
    if isinstance(node.func, ast.Attribute):
        owner = _value(scope, node.func.value)
        if not isinstance(owner, _Module):
            return _method(scope, owner, node.func.attr, arguments)
    function = _value(scope, node.func)
    if isinstance(function, ast.Lambda | ast.FunctionDef):
        return _own(scope, function, arguments)
    if not isinstance(function, _Module):
        raise _UnknownError
    name = function.name.removeprefix("builtins.")
    if name == "__import__":
        return _Module(arguments[0])
    if name in {"open", "pathlib.Path", "Path", "io.open"}:
        return _beside(scope, arguments[0])
    if name not in _FUNCTIONS:
        raise _UnknownError
    return _bounded(_FUNCTIONS[name](*arguments, **keywords))


def _own(scope: _Scope, function: ast.Lambda | ast.FunctionDef, arguments: list[Any]) -> Any:
    """A call of a decoder of the script's own: one expression of its parameters."""
    if scope.depth >= DEEPEST:
        raise _UnknownError
    names = [argument.arg for argument in function.args.args]
    values = scope.values | dict(zip(names, arguments, strict=True))
    inner = replace(scope, values=values, depth=scope.depth + 1)
    match function.body:
        case [ast.Return(value=ast.expr() as body)] | (ast.expr() as body):
            return _value(inner, body)
        case _:
            raise _UnknownError


def _method(scope: _Scope, owner: Any, name: str, arguments: list[Any]) -> Any:
    if isinstance(owner, Path):
        if name in {"read", "read_text", "read_bytes"}:
            data = _content(scope, owner)
            return data if name == "read_bytes" else decoded(data)
        if name in {"with_name", "joinpath"}:
            return _beside(scope, arguments[0])
    elif (
        (isinstance(owner, str) and name in {"encode", "replace", "strip", "join"})
        or (isinstance(owner, bytes) and name in {"decode", "replace", "strip", "join", "hex"})
        or (isinstance(owner, _Decompressor) and name == "decompress")
    ):
        return _bounded(getattr(owner, name)(*arguments))
    raise _UnknownError


def _beside(scope: _Scope, name: Any) -> Path:
    """A file in the script's own folder; nothing else is opened."""
    if scope.path is None:
        raise _UnknownError
    return scope.path.parent / Path(str(name)).name


def _content(scope: _Scope, path: Path) -> bytes:
    if scope.files is not None:
        data = scope.files[path.name]
    elif path.stat().st_size > MOST_BYTES:
        raise _UnknownError
    else:
        data = path.read_bytes()
    scope.opened.add(path.name)
    return data


def _bounded(value: Any) -> Any:
    if isinstance(value, str | bytes | bytearray) and len(value) > MOST_BYTES:
        raise _UnknownError
    return value


def _text(value: Any) -> str | None:
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode(errors="replace")
    return value if isinstance(value, str) else None


def _lzma(
    data: bytes,
    format: int = lzma.FORMAT_AUTO,  # noqa: A002 - the name of lzma.decompress's parameter
    memlimit: int | None = None,
    filters: list[Mapping[str, Any]] | None = None,
) -> bytes:
    return lzma.LZMADecompressor(format, memlimit, filters).decompress(data, MOST_BYTES)


def _zlib(data: bytes, wbits: int = zlib.MAX_WBITS, bufsize: int = 0) -> bytes:  # noqa: ARG001 - zlib's
    return zlib.decompressobj(wbits).decompress(data, MOST_BYTES)


def _gzip(data: bytes) -> bytes:
    return _zlib(data, zlib.MAX_WBITS | 16)


def _bz2(data: bytes) -> bytes:
    return bz2.BZ2Decompressor().decompress(data, MOST_BYTES)


def _brotli(data: bytes) -> bytes:
    import brotli  # noqa: PLC0415 - only few scripts need it

    try:
        text = brotli.Decompressor().process(data, output_buffer_limit=MOST_BYTES + 1)
    except brotli.error as error:
        raise _UnknownError from error
    if len(text) > MOST_BYTES:
        raise _UnknownError
    return bytes(text)


def _zstd(data: bytes) -> bytes:
    import zstandard  # noqa: PLC0415 - only few scripts need it

    try:
        return bytes(zstandard.ZstdDecompressor().stream_reader(data).read(MOST_BYTES))
    except zstandard.ZstdError as error:
        raise _UnknownError from error


def _same(text: Any, *_: Any, **__: Any) -> Any:
    """`compile` and the constructors of text return what they were given."""
    return text


def _str(value: Any, *_: Any, **__: Any) -> str:
    text = _text(value)
    if text is None:
        raise _UnknownError
    return text


def _codecs_decode(data: Any, encoding: str = "utf-8", errors: str = "strict") -> Any:
    return codecs.decode(data, encoding, errors)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "lzma.decompress": _lzma,
    "zlib.decompress": _zlib,
    "gzip.decompress": _gzip,
    "bz2.decompress": _bz2,
    "brotli.decompress": _brotli,
    "zstandard.decompress": _zstd,
    "zstd.decompress": _zstd,
    "zlib.decompressobj": lambda *arguments: _Decompressor(_zlib, *arguments),
    "lzma.LZMADecompressor": lambda *arguments: _Decompressor(_lzma, *arguments),
    "bz2.BZ2Decompressor": lambda: _Decompressor(_bz2),
    "base64.b85decode": base64.b85decode,
    "base64.a85decode": base64.a85decode,
    "base64.b64decode": base64.b64decode,
    "base64.urlsafe_b64decode": base64.urlsafe_b64decode,
    "base64.standard_b64decode": base64.standard_b64decode,
    "base64.b32decode": base64.b32decode,
    "base64.b16decode": base64.b16decode,
    "base64.decodebytes": base64.decodebytes,
    "binascii.a2b_base64": binascii.a2b_base64,
    "binascii.unhexlify": binascii.unhexlify,
    "bytes.fromhex": bytes.fromhex,
    "codecs.decode": _codecs_decode,
    "compile": _same,
    "bytes": _same,
    "bytearray": _same,
    "str": _str,
}
_CONSTANTS: dict[str, Any] = {
    f"lzma.{name}": getattr(lzma, name)
    for name in dir(lzma)
    if name.startswith(("FORMAT_", "FILTER_", "PRESET_", "CHECK_"))
} | {"zlib.MAX_WBITS": zlib.MAX_WBITS}

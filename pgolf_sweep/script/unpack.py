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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MOST_BYTES = 16_000_000
"""No script is longer; more is a decompression bomb."""
DEEPEST = 4
"""Packed text may be packed again, so often."""


def unpack(source: str, *, path: Path | None = None) -> str:
    """The readable source of a script: itself, or what it would exec.

    Args:
        source: Text of the script.
        path: Where it lies, for scripts that exec a file beside them; None reads no file.

    Returns:
        The innermost text. A form of packing that is not known is returned as it is.
    """
    for _ in range(DEEPEST):
        inner = _unpack_once(source, path)
        if inner is None:
            return source
        source = inner
    return source


def _unpack_once(source: str, path: Path | None) -> str | None:  # noqa: C901 - one case a statement
    # A packed script is little else than the call; parsing a long plain one twice is avoided.
    if "exec" not in source:
        return None
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    scope = _Scope(values={"__file__": str(path) if path else "train_gpt.py"}, path=path)
    found: str | None = None
    for statement in tree.body:
        match statement:
            case ast.Import(names=names):
                for name in names:
                    scope.values[name.asname or name.name.partition(".")[0]] = _module(
                        name.name if name.asname else name.name.partition(".")[0]
                    )
            case ast.ImportFrom(module=str(module), names=names):
                for name in names:
                    scope.values[name.asname or name.name] = _member(module, name.name)
            case ast.Assign(targets=[ast.Name(id=target)], value=value):
                scope.values[target] = _try(scope, value)
            case ast.Expr(value=ast.Call(func=ast.Name(id="exec"), args=[argument, *_])):
                text = _text(_try(scope, argument)) or None
                # Scripts also exec small helpers; the longest text is the program.
                if text is not None and (found is None or len(text) > len(found)):
                    found = text
            case _:
                pass
    defines = any(isinstance(s, ast.ClassDef | ast.FunctionDef) for s in tree.body)
    if found is not None and defines and len(found) < len(source):
        return None  # a script with code of its own, which also execs a helper
    return found


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


def _module(name: str) -> _Module:
    return _Module(name)


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


def _value(scope: _Scope, node: ast.expr) -> Any:  # noqa: C901 - one case a form of expression
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


def _method(scope: _Scope, owner: Any, name: str, arguments: list[Any]) -> Any:
    if isinstance(owner, Path):
        if name in {"read", "read_text", "read_bytes"}:
            if owner.stat().st_size > MOST_BYTES:
                raise _UnknownError
            data = owner.read_bytes()
            return data if name == "read_bytes" else data.decode(errors="replace")
        if name in {"with_name", "joinpath"}:
            return _beside(scope, arguments[0])
    elif (isinstance(owner, str) and name in {"encode", "replace", "strip", "join"}) or (
        isinstance(owner, bytes) and name in {"decode", "replace", "strip", "join", "hex"}
    ):
        return _bounded(getattr(owner, name)(*arguments))
    raise _UnknownError


def _beside(scope: _Scope, name: Any) -> Path:
    """A file in the script's own folder; nothing else is opened."""
    if scope.path is None:
        raise _UnknownError
    return scope.path.parent / Path(str(name)).name


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

    decompressor, parts, size = brotli.Decompressor(), [], 0
    for start in range(0, len(data), 4096):
        try:
            parts.append(decompressor.process(data[start : start + 4096]))
        except brotli.error as error:
            raise _UnknownError from error
        size += len(parts[-1])
        if size > MOST_BYTES:
            raise _UnknownError
    return b"".join(parts)


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

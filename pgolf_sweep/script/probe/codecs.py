"""The codec that a script hands its quantized model to, from its source.

Runs inside the probe's helper process, on a module that was imported there.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

from pgolf_sweep.script.probe.call_sites import FUNCTIONS, call_sites, parameters_of
from pgolf_sweep.script.probe.frames import callers
from pgolf_sweep.script.probe.slicing import bound, changed, loaded

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from pgolf_sweep.script.probe.call_sites import CallSite
    from pgolf_sweep.script.probe.frames import Script

CALLS = {
    "zlib.compress": "zlib",
    "lzma.compress": "lzma",
    "brotli.compress": "brotli",
    "zstandard.ZstdCompressor": "zstd",
    "zstd.ZstdCompressor": "zstd",
    "zstd_lib.ZstdCompressor": "zstd",
    "zstd.compress": "zstd",
}
NAME = re.compile(r"compress|codec", re.IGNORECASE)
CODECS = ("brotli", "zstd", "lzma", "zlib")
FILLING = frozenset({"save", "dump", "write", "writestr", "savez"})
"""Methods that put one of their arguments into another, as ``torch.save(weights, buffer)``."""
MOST_FUNCTIONS = 4
"""Through which the quantizer's result is followed to a codec."""


def codec_of(script: Script, quantizers: AbstractSet[str]) -> tuple[str, list[str]]:
    """The codec of the model, or an empty string, and what people should know of the choice.

    What a setting names, else what the script calls; of several, what it hands a result of its
    quantizers.

    Args:
        script: The script.
        quantizers: Names of its functions that may be the quantizer.
    """
    named = _named(script)
    if named:
        return named, []
    sites = list(call_sites(script.tree, CALLS))
    called = {CALLS[site.callee] for site in sites}
    if len(called) > 1:
        makers = _makers(script.tree, quantizers)
        fed = {
            CALLS[one.callee]
            for one in sites
            if any(_is_fed(use, makers, script.tree) for use in _uses(one, script.tree))
        }
        called = fed or called
    found = [codec for codec in CODECS if codec in called]
    if len(found) > 1:
        return found[0], [f"several codecs ({', '.join(found)}): {found[0]} is taken"]
    return (found[0], []) if found else ("", ["its codec was not recognised"])


def _named(script: Script) -> str:
    """What a setting or a name of the module says."""
    settings = script.settings
    settable = [] if settings.value is None else _attributes(settings.kind)
    for name in (one for one in (*settable, *script.namespace) if NAME.search(one)):
        settings.nodes.append(ast.Name(id=name, ctx=ast.Load()))
        value = getattr(settings.value, name, None) or script.namespace.get(name)
        if isinstance(value, str):
            named = value.lower().replace("zstandard", "zstd")
            if named in CODECS:
                return named
    return ""


def _attributes(kind: Any) -> list[str]:
    """What `dir` says of the class that the script wrote, without its being noted as read."""
    return sorted({name for above in kind.__mro__[1:] for name in vars(above)})


def _makers(tree: ast.Module, quantizers: AbstractSet[str]) -> set[str]:
    """The quantizers, and the functions that call them."""
    makers = set(quantizers)
    functions = [one for one in tree.body if isinstance(one, FUNCTIONS)]
    while new := {one.name for one in functions if loaded(one) & makers} - makers:
        makers |= new
    return makers


def _uses(site: CallSite, tree: ast.Module) -> list[CallSite]:
    """A codec's call; where it makes an object, the calls that hand this one something."""
    if not site.callee.endswith("Compressor"):
        return [site]
    methods = (f"{site.callee}().compress", f"{site.target}.compress")
    return [one for one in call_sites(tree, methods) if one.function is site.function]


def _is_fed(
    site: CallSite, makers: set[str], tree: ast.Module, depth: int = MOST_FUNCTIONS
) -> bool:
    """Whether a call gets something that one of some functions has made."""
    needed = set(loaded(site.call)) - {site.callee}
    if needed & makers:
        return True
    for statement in reversed(site.before):
        if (bound(statement) | changed(statement) | _filled(statement)) & needed:
            needed |= loaded(statement)
            if needed & makers:
                return True
    if depth and needed & parameters_of(site).keys():
        return any(_is_fed(outer, makers, tree, depth - 1) for outer in callers(site, tree))
    return False


def _filled(statement: ast.stmt) -> frozenset[str]:
    """Names that a statement may put others' contents into."""
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=attr))) if attr in FILLING:
            return loaded(statement)
        case ast.With(body=body):
            return frozenset().union(*(_filled(one) for one in body))
        case _:
            return frozenset()

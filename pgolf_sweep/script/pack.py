"""A script as a short self-extracting one: minified, compressed, the same program.

The contest counts the code's bytes, so what packing frees goes to weights. The packed script is
ASCII (many scripts read their own source as UTF-8 to count it), uses nothing but the standard
library, and runs in the very module that Python started, so ``__name__``, ``__file__`` and the
environment are as before. That it computes the same is not claimed here: a run shows it
(`pgolf_sweep.promote.pack_check`).
"""

from __future__ import annotations

import ast
import base64
import bz2
import lzma
import re
import warnings
import zlib
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import AnswerNoError, InputError
from pgolf_sweep.script import packs
from pgolf_sweep.script.dense import dense_script
from pgolf_sweep.script.shorten import shortened
from pgolf_sweep.script.unpack import unpack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgolf_sweep.script.program import Program

_READS_ITS_TEXT = re.compile(r"\binspect\.get(source|block|sourcelines|comments)\b|\btriton\b")
"""Scripts with functions whose source is read at run time: Triton compiles from it."""

_READS_ANNOTATIONS = re.compile(
    r"\btriton\b|\bcustom_op\b|\bjit\.script\b|\binfer_schema\b|\bget_type_hints\b|__annotations__"
)
"""Scripts that ask for annotations at run time; in all others they are words for people."""

_LZMA_SHAPES = ((3, 0, 32), (3, 0, 273), (4, 0, 273), (2, 0, 273), (1, 0, 273), (0, 0, 273))
"""Literal context and position bits, and the length of a match that is taken at once: those that
come out shortest on Python source, one or the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """What packing made of a script.

    Attributes:
        script: The packed script; the original where packing would not shorten it.
        before_bytes: Of the script that was given.
        minified_bytes: Of the text inside; None where the minifier could not read it.
        codec: Standard module that unpacks it; ``none`` where nothing was gained.
    """

    script: bytes
    before_bytes: int
    minified_bytes: int | None
    codec: str

    @property
    def freed_bytes(self) -> int:
        """How many fewer bytes the contest counts."""
        return self.before_bytes - len(self.script)

    def __str__(self) -> str:
        shrunk = f"{self.before_bytes:,} -> {len(self.script):,} bytes of code"
        inner = "not minified" if self.minified_bytes is None else f"{self.minified_bytes:,}"
        return f"{shrunk} ({self.codec}, text inside {inner}): {self.freed_bytes:,} bytes freed"


@lru_cache(maxsize=8)
def pack(script: bytes, *, name: str = "train_gpt.py", ours: bool = False) -> Packed:
    """Minify and compress a single-file script, or take what an earlier command made of it.

    Args:
        script: Its bytes; a script that is packed already is opened first.
        name: For messages.
        ours: Whether it is our trainer, of which more is known: no pickle and no log line holds a
            name of its top level, and it does not read its own source.

    Raises:
        InputError: It is not UTF-8, or not Python.
        AnswerNoError: What the packed script carries could not be read back.
    """
    key = packs.key_of(script, ours=ours)
    if known := packs.kept(key):
        return Packed(before_bytes=len(script), **known)
    made = _packed(script, name, ours=ours)
    packs.keep(key, made.script, {"minified_bytes": made.minified_bytes, "codec": made.codec})
    return made


def packed_program(program: Program) -> Program:
    """A program with its script packed; what it reads from the environment stays the same."""
    script = program.files[program.name]
    packed = pack(script, name=program.name, ours=program.builtin)
    plain = script if packed.freed_bytes > 0 else None
    return replace(program, files={**program.files, program.name: packed.script}, plain=plain)


def as_counted(program: Program, wanted: bool | None = None) -> Program:
    """A program in the form that is run, counted and submitted.

    Args:
        program: As it was read.
        wanted: Whether to pack it; None packs our own trainer alone.
    """
    packs = program.builtin if wanted is None else wanted
    return packed_program(program) if packs else program


def _packed(script: bytes, name: str, *, ours: bool) -> Packed:
    try:
        text = script.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("a script to pack must be UTF-8", where=name, got=str(error)) from error
    plain = unpack(text)
    given = shortened(plain) if ours else plain
    minified = _minified(given, name, rename_globals=ours)
    inner = minified if minified is not None else plain
    if not inner.strip():
        return Packed(
            script=script, before_bytes=len(script), minified_bytes=len(inner), codec="none"
        )
    stub = _traceable if _READS_ITS_TEXT.search(plain) else dense_script if ours else _short
    codec, packed = min(
        ((codec, stub(codec, data)) for codec, data in _compressed(inner.encode())),
        key=lambda pair: len(pair[1]),
    )
    if unpack(packed.decode()) != inner:
        raise AnswerNoError("the packed script does not hold the script", where=name)
    best = Packed(
        script=packed,
        before_bytes=len(script),
        minified_bytes=None if minified is None else len(minified.encode()),
        codec=codec,
    )
    return best if best.freed_bytes > 0 else replace(best, script=script, codec="none")


def _minified(text: str, name: str, *, rename_globals: bool) -> str | None:
    """The shortest text that the minifier can be trusted with; None where it cannot read it."""
    import python_minifier  # noqa: PLC0415 - only packing needs it

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the script's own escapes
            ast.parse(text)
    except SyntaxError as error:
        if "f-string" in (error.msg or ""):
            return None  # Python 3.12 reads more than this one does
        raise InputError(
            f"{name} is not valid Python: {error.msg}", where=f"{name}:{error.lineno}"
        ) from error
    unread = not _READS_ANNOTATIONS.search(text)
    annotations = python_minifier.RemoveAnnotationsOptions(
        remove_variable_annotations=unread,
        remove_return_annotations=unread,
        remove_argument_annotations=unread,
        remove_class_attribute_annotations=False,  # dataclasses are made of them
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return str(
                python_minifier.minify(
                    text,
                    remove_annotations=annotations,
                    remove_literal_statements="__doc__" not in text,
                    hoist_literals=False,  # shorter text, but a longer archive
                    rename_globals=rename_globals,  # pickles and log lines may hold a class's name
                    preserve_shebang=False,
                )
            )
    except (python_minifier.UnstableMinification, RecursionError):
        return None


def _compressed(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The text by every codec of the standard library, with the shortest containers."""
    for literal_bits, position_bits, nice_length in _LZMA_SHAPES:
        shape = {
            "id": lzma.FILTER_LZMA1,
            "preset": 9 | lzma.PRESET_EXTREME,
            "lc": literal_bits,
            "pb": position_bits,
            "nice_len": nice_length,
            "dict_size": 1 << 20,
        }
        # The "alone" container has 13 bytes of header where xz has 60.
        yield "lzma", lzma.compress(data, format=lzma.FORMAT_ALONE, filters=[shape])
    yield "zlib", zlib.compress(data, 9)
    yield "bz2", bz2.compress(data, 9)


def _short(codec: str, data: bytes) -> bytes:
    text = base64.b85encode(data).decode()
    return f'import {codec},base64\nexec({codec}.decompress(base64.b85decode("{text}")))\n'.encode()


def _traceable(codec: str, data: bytes) -> bytes:
    """Lets `inspect` find the source, as Triton's compiler asks for it."""
    text = base64.b85encode(data).decode()
    return (
        f"import {codec},base64,linecache\n"
        f's={codec}.decompress(base64.b85decode("{text}")).decode()\n'
        'n=__file__+":packed"\n'
        "linecache.cache[n]=len(s),None,s.splitlines(True),n\n"
        'exec(compile(s,n,"exec"))\n'
    ).encode()

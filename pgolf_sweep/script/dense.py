"""Bytes as text of 118 ASCII characters: 16 % longer than the bytes, where base 85 is 25 %.

Left out are what Python, or a reader that splits lines, takes for something else: NUL, the line
breaks (10 to 13, 28 to 30), the quote and the backslash. The script stays ASCII, and so UTF-8.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

BASE = 118
_DIGITS_AT_ONCE = 100
ALPHABET = bytes(sorted({*range(1, 128)} - {*range(10, 14), *range(28, 31), 34, 92}))
STUB = (
    'import {codec} as z\nn=0\nfor c in b"{text}":n=n*118+c-1-4*(c>13)-3*(c>30)-(c>34)-(c>92)\n'
    'exec(z.decompress(n.to_bytes({length},"big")))\n'
)
_STUB = re.compile(
    "".join(
        re.escape(part)
        if index % 2 == 0
        else {"codec": r"(?P<codec>lzma|zlib|bz2)", "text": '(?P<text>[^"]*)'}.get(
            part, r"(?P<length>\d+)"
        )
        for index, part in enumerate(re.split(r"\{(\w+)\}", STUB))
    )
)
_DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "lzma": lzma.decompress,
    "zlib": zlib.decompress,
    "bz2": bz2.decompress,
}


def dense_script(codec: str, data: bytes) -> bytes:
    """A script that runs the text that `codec` made `data` of."""
    number, digits = int.from_bytes(data, "big"), bytearray()
    while number:
        # Many digits at once: to divide the long number for each costs the square of its length.
        number, part = divmod(number, BASE**_DIGITS_AT_ONCE)
        for _ in range(_DIGITS_AT_ONCE):
            if number or part:
                part, digit = divmod(part, BASE)
                digits.append(ALPHABET[digit])
    text = digits[::-1].decode()
    return STUB.format(codec=codec, text=text, length=len(data)).encode()


def is_dense(script: bytes) -> bool:
    """Whether a script is one of `dense_script`."""
    return script.isascii() and _STUB.fullmatch(script.decode()) is not None


def read_dense(source: str) -> str | None:
    """The text that a script of `dense_script` runs; None for any other."""
    found = _STUB.fullmatch(source)
    if found is None:
        return None
    number = 0
    for character in found["text"].encode():
        number = number * BASE + ALPHABET.index(character)
    data = number.to_bytes(int(found["length"]), "big")
    return _DECODERS[found["codec"]](data).decode()

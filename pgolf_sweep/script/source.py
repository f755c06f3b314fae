"""A script's bytes as text, and its text as a syntax tree."""

from __future__ import annotations

import ast
import warnings

from pgolf_sweep.script.fstrings import readable


def decoded(data: bytes) -> str:
    """A script's text without its byte order mark; what is not UTF-8 becomes U+FFFD."""
    return data.decode("utf-8-sig", errors="replace")


def parsed(text: str) -> ast.Module:
    """The syntax tree of a script, also where only a newer Python than this one would run it.

    Raises:
        SyntaxError: The script is not Python, or of a Python too new to be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes are the script's own affair
        try:
            return _tree(text)
        except SyntaxError:
            older = readable(text)
            if older == text:
                raise
            try:
                return _tree(older)
            except SyntaxError:
                pass  # what is wrong in the script's own words
            raise


def _tree(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except ValueError as error:  # null bytes
        raise SyntaxError(str(error)) from error
    except (RecursionError, MemoryError) as error:
        raise SyntaxError("nested too deeply to be read") from error

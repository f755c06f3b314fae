"""Keeping secrets out of files and messages, and control characters off the terminal.

Whatever is masked here is masked too much rather than too little: a password that stands raw in a
URL may hold any character.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MASK = "***"
LEAST_SECRET_CHARS = 8
"""Shorter values are words and numbers, which a log may hold for its own reasons."""

_NAME = (
    r"(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|credentials?|auth|api[_-]?key|access[_-]?key(?:_id)?"
    r"|private[_-]?key|secret[_-]?key|account[_-]?key|netrc|cookie|dsn)"
)
_SECRET_NAME = re.compile(rf"(?:^|[_.-]){_NAME}$|passw(?:or)?d$", re.IGNORECASE)
_NO_SECRETS = frozenset({"BOS_TOKEN", "EOS_TOKEN", "PAD_TOKEN", "UNK_TOKEN", "SSH_AUTH_SOCK"})
_STORAGE = re.compile(r"STORAGE|DATABASE_URL|_URI$", re.IGNORECASE)

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s'\"<>]+")
_ASSIGNED = re.compile(
    rf"(?P<name>(?<![A-Za-z0-9])[\w.-]{{0,60}}?{_NAME})(?P<between>[\"']?\s*(?:=|:)\s*(?:Bearer\s+)?[\"']?)"
    r"(?P<value>[^\s\"',;&]{8,})",
    re.IGNORECASE,
)
_BEARER = re.compile(r"(?P<before>\bBearer\s+)[A-Za-z0-9._~+/-]{8,}=*", re.IGNORECASE)
_KNOWN = re.compile(
    r"\b(?:sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|hf_[A-Za-z0-9]{16,}|wandb_v\d_\w{16,}|xox[abprs]-[\w-]{10,}|(?:AKIA|ASIA)[A-Z0-9]{16}"
    r"|AIza[\w-]{30,}|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{40,}"
    r"|eyJ[\w-]{8,999}\.eyJ[\w-]{8,999}\.[\w-]{8,})"
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|$)"
)


_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str) -> str:
    """A text with its control characters written out: they would steer the terminal it is shown on.

    Line ends and tabs stay; what turns the direction of writing goes, too.
    """
    return _CONTROL.sub(lambda match: repr(match.group())[1:-1], text)


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name holds a secret: a key, a password, a token."""
    if name.upper() in _NO_SECRETS:
        return False
    return _SECRET_NAME.search(name) is not None or (
        _STORAGE.search(name) is not None and not name.upper().endswith(("_DIR", "_PATH", "_TYPE"))
    )


def masked_url(url: str) -> str:
    """A URL that may be shown and stored: without its password and without secret parameters.

    Args:
        url: Any text with ``://``, well-formed or not; others are returned as they are.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.partition("+")[0] == "sqlite":  # which has files and no users
        return url
    # The last at sign of all: a raw password may hold others, slashes, hashes, question marks.
    userinfo, at, place = rest.rpartition("@")
    user = userinfo.partition(":")[0] + at if at else ""
    body, mark, query = place.partition("?")
    kept = [
        part
        for part in query.split("&")
        if not is_secret_name(unquote(part.partition("=")[0]))
        and unquote(part.partition("=")[0]).lower() != "odbc_connect"
    ]
    return f"{scheme}://{user}{body}" + (f"{mark}{'&'.join(kept)}" if kept and mark else "")


def secret_values(environ: Mapping[str, str]) -> frozenset[str]:
    """Values of an environment that must not be shown, of any form."""
    found = {value for name, value in environ.items() if is_secret_name(name)}
    for url in [value for value in found if "://" in value]:
        userinfo = url.partition("://")[2].rpartition("@")[0]
        password = userinfo.partition(":")[2]
        found |= {password, unquote(password)}
    return frozenset(value for value in found if len(value) >= LEAST_SECRET_CHARS)


def redacted(text: str, values: Iterable[str] = ()) -> str:
    """A text without what looks like a secret in it, and without the values that are known.

    Args:
        text: A line of a log, a reason, a word of a command line.
        values: Secrets of the environment that the text comes from; see `secret_values`.
    """
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, MASK)
    if "://" in text:
        text = _URL.sub(lambda match: masked_url(match.group()), text)
    text = _KNOWN.sub(MASK, text)
    text = _BEARER.sub(lambda match: match.group("before") + MASK, text)
    return _ASSIGNED.sub(_without_value, text)


def _without_value(match: re.Match[str]) -> str:
    name, value = match.group("name"), match.group("value")
    bare = value.strip("()[]{}")
    # Numbers, shapes, paths and names of Python are what logs say of tokens and keys.
    plain = re.fullmatch(r"[\d.,:eE+x-]*|\.{0,2}/[^\s]*|[A-Za-z_]+(?:\.\w+)*(?:\(\S*)?", bare)
    if name.upper() in _NO_SECRETS or (plain and not name.lower().endswith(("password", "passwd"))):
        return match.group()
    return f"{name}{match.group('between')}{MASK}"

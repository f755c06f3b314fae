"""Folders that a probed script must not see, and those among them that Python needs."""

from __future__ import annotations

import os
import pwd
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_NEVER = ("/", "/usr", "/etc", "/proc", "/sys", "/dev", "/lib", "/bin", "/opt", "/var")
_PACKAGE = "pgolf_sweep"
_OF_INSTALLERS = ("site-packages", "dist-packages")


def hidden_folders() -> list[str]:
    """The homes of users and folders for temporary files; none lies in another."""
    found = _private_folders()
    return sorted(one for one in found if not any(is_below(one, other) for other in found))


def _private_folders() -> set[str]:
    named = ["/home", "/root", "/tmp", "/var/tmp", "/run/user", tempfile.gettempdir()]  # noqa: S108 - hidden, not written
    named += [os.environ[name] for name in ("HOME", "XDG_RUNTIME_DIR") if name in os.environ]
    with suppress(KeyError):
        named.append(pwd.getpwuid(os.getuid()).pw_dir)
    real = {os.path.realpath(one) for one in named if os.path.isabs(one) and os.path.isdir(one)}
    return real - set(_NEVER)


def python_folders() -> list[str]:
    """Where Python and what it imports lie; of this program's checkout only the package."""
    found = {sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.dirname(os.__file__)}
    for entry in sys.path:
        if not os.path.isabs(entry) or not os.path.exists(entry):
            continue
        own = os.path.join(entry, _PACKAGE)
        installed = Path(entry).name in _OF_INSTALLERS
        found.add(own if os.path.isdir(own) and not installed else entry)
    return sorted(found)


def to_keep(hidden: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Those of some folders that lie within hidden ones, by the path that they are asked for."""
    kept = {
        path
        for path in wanted
        for folder in hidden
        if is_below(path, folder) or is_below(os.path.realpath(path), folder)
    }
    return sorted(kept - set(hidden), key=len)


def allowed(words: Iterable[str]) -> list[str]:
    """Those words that are paths of files or folders, and show no hidden folder as a whole."""
    hidden = _private_folders()
    found = []
    for path in words:
        if os.path.isabs(path) and os.path.exists(path):
            real = os.path.realpath(path)
            if not any(one == real or is_below(one, real) for one in hidden):
                found.append(path)
    return found


def is_below(path: str, folder: str) -> bool:
    """Whether a path lies in a folder, by its text."""
    return path.startswith(folder.rstrip("/") + "/")

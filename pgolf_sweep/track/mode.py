"""The mode of W&B (online, offline or disabled), and what a node needs to know of it."""

from __future__ import annotations

import hashlib
import netrc
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pgolf_sweep.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

MODES = ("online", "offline", "disabled")

_DEFAULT_URL = "https://api.wandb.ai"
_SYNONYMS = {"run": "online", "dryrun": "offline"}  # what W&B's own WANDB_MODE also takes
_FOR_NODES = ("WANDB_BASE_URL", "WANDB_INSECURE_DISABLE_SSL", "WANDB_HTTP_TIMEOUT")
_HUB = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT")
_OF_ONE_HOST = ("_DIR", "_FILE", "_SERVICE")  # how names of paths and of W&B's own process end
_ID_LENGTH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedMode:
    """How runs are tracked, and a sentence to say once where the user did not choose it."""

    mode: str
    note: str | None


def resolve_mode(requested: str | None, environ: Mapping[str, str]) -> ResolvedMode:
    """The mode that the user asked for, else WANDB_MODE, else online where a key is set.

    Args:
        requested: The value of ``--wandb``, or None.
        environ: The environment to read, normally ``os.environ``.

    Raises:
        InputError: The mode is unknown, or ``online`` was asked for and there is no key.
    """
    source = "--wandb" if requested is not None else "WANDB_MODE"
    asked = requested if requested is not None else environ.get("WANDB_MODE") or None
    if asked is None:
        if has_key(environ):
            return ResolvedMode(mode="online", note=None)
        note = (
            "W&B: no API key is set, so runs are kept offline; `wandb login` changes that, "
            "`wandb sync` uploads them later"
        )
        return ResolvedMode(mode="offline", note=note)
    mode = _SYNONYMS.get(asked, asked)
    if mode not in MODES:
        raise InputError("unknown W&B mode", where=source, got=asked, expected=", ".join(MODES))
    if mode == "online" and not has_key(environ):
        raise InputError(
            "W&B online needs an API key and none is set",
            where=source,
            expected="WANDB_API_KEY, or an entry in ~/.netrc",
            next_step="`wandb login`, or launch with --wandb offline",
        )
    return ResolvedMode(mode=mode, note=None)


def sync_command(folder: str | Path) -> str:
    """The line for a shell that uploads the runs which a study kept offline.

    Args:
        folder: ``runs/<study>/wandb``.
    """
    return f"wandb sync {shlex.quote(str(folder))}/offline-run-*"


def has_key(environ: Mapping[str, str]) -> bool:
    """Whether W&B would find a key without asking for one."""
    if environ.get("WANDB_API_KEY") or environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    return _netrc_key(environ) is not None


def node_environment(environ: Mapping[str, str], mode: str) -> dict[str, str]:
    """The WANDB_* variables that a trial's node needs: address and key, the key only online."""
    result = {name: environ[name] for name in _FOR_NODES if environ.get(name)}
    key = environ.get("WANDB_API_KEY") or _netrc_key(environ)
    if mode == "online" and key:
        result["WANDB_API_KEY"] = key
    return result


def travelling_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables, keys among them, that a driver on another host needs of this one's."""

    def travels(name: str) -> bool:
        return name in _HUB or (name.startswith("WANDB_") and not name.endswith(_OF_ONE_HOST))

    result = {name: value for name, value in environ.items() if value and travels(name)}
    key = environ.get("WANDB_API_KEY") or _netrc_key(environ)
    return result | {"WANDB_API_KEY": key} if key else result


def run_id(study: str, part: int | str, *, salt: str = "") -> str:
    """The id of a study's run: the same for the same trial, so that a retry continues its run.

    Args:
        study: Name of the study; characters that W&B does not take become ``-``.
        part: The trial's number, or a word such as ``summary``.
        salt: What tells this study from another of its name, for example its creation time.
            W&B never takes the id of a deleted run again, so a study that is started afresh
            under its old name needs ids of its own.
    """
    clean = re.sub(r"[^A-Za-z0-9_.-]+", "-", study).strip("-") or "study"
    name = clean if not salt else f"{clean}-{_digest(salt)}"
    if clean != study or len(name) > _ID_LENGTH:
        name = f"{name[:_ID_LENGTH]}-{_digest(study + salt)}"
    return f"{name}-{part}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _netrc_key(environ: Mapping[str, str]) -> str | None:
    """The password of W&B's host in the netrc file, which `wandb login` writes."""
    home = Path(environ["HOME"]) if environ.get("HOME") else Path("~").expanduser()
    given = environ.get("NETRC")
    candidates = [Path(given).expanduser()] if given else [home / ".netrc", home / "_netrc"]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        return None
    host = urlsplit(environ.get("WANDB_BASE_URL") or _DEFAULT_URL).netloc
    try:
        entry = netrc.netrc(str(path)).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return None
    return (entry[2] or None) if entry else None

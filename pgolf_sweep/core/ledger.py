"""The ledger of a study: proposals, results and decisions, each chained to the entry before it.

``ledger.jsonl`` is only appended to. An entry's hash covers the hash before it, so that none can be
changed, removed or inserted without a break that `check_chain` finds. With a private Ed25519 key
(``PGOLF_LEDGER_KEY``, a PEM file) each entry is signed, too: then nobody without the key can write
the whole chain anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.locks import held
from pgolf_sweep.core.paths import on_disk

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from pgolf_sweep.core.paths import StudyPaths

KEY_VARIABLE = "PGOLF_LEDGER_KEY"
FIRST = "0" * 64
"""Hash before the first entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a ledger.

    Attributes:
        index: Its place, from 0.
        kind: ``proposal``, ``result`` or ``decision``.
        key: Names it among those of its kind; no key stands twice.
        at: When it was written, in seconds of the epoch.
        body: What happened.
        before: Hash of the entry before.
        hash: Of all above.
        signer: Public key, hexadecimal; empty where it is not signed.
        signature: Of the hash, hexadecimal.
    """

    index: int
    kind: str
    key: str
    at: float
    body: Mapping[str, Any]
    before: str
    hash: str
    signer: str = ""
    signature: str = ""


def read_ledger(paths: StudyPaths) -> list[Entry]:
    """The entries, oldest first; a line that a crash tore off at the end is left out.

    Raises:
        InputError: A line in the middle is none.
    """
    return _parsed(paths)[0]


@dataclass(slots=True)
class Ledger:
    """Appends to a study's ledger, which others may append to in between.

    Attributes:
        paths: The study's folder.
    """

    paths: StudyPaths
    _seen: set[tuple[str, str]] = field(default_factory=set)
    _before: str = FIRST
    _bytes: int = 0

    def append(self, entries: Iterable[tuple[str, str, Mapping[str, Any]]], at: float) -> int:
        """Append what the ledger does not hold yet; the number of entries written.

        Args:
            entries: Kind, key and body of each.
            at: Now, in seconds of the epoch.

        Raises:
            InputError: The ledger is damaged, or the key cannot be used.
            InfraError: The disk refuses.
        """
        wanted = [entry for entry in entries if entry[:2] not in self._seen]
        if not wanted:
            return 0
        signing = _signing_key()
        with on_disk(self.paths.root), held(self.paths.ledger.with_suffix(".lock")):
            self._catch_up()
            lines = []
            for kind, key, body in wanted:
                if (kind, key) in self._seen:
                    continue
                document: dict[str, Any] = {
                    "index": len(self._seen),
                    "kind": kind,
                    "key": key,
                    "at": at,
                    "body": dict(body),
                    "before": self._before,
                }
                self._seen.add((kind, key))
                self._before = document["hash"] = _hash(document)
                if signing is not None:
                    document |= _signature(signing, self._before)
                lines.append(json.dumps(document, separators=(",", ":")).encode() + b"\n")
            if lines:
                with self.paths.ledger.open("ab") as file:
                    file.truncate(self._bytes)  # what a crash left of a line
                    self._bytes += file.write(b"".join(lines))
        return len(lines)

    def _catch_up(self) -> None:
        """Read the file again where another process has written."""
        size = self.paths.ledger.stat().st_size if self.paths.ledger.is_file() else 0
        if size == self._bytes:
            return
        known, self._bytes = _parsed(self.paths)
        self._seen = {(entry.kind, entry.key) for entry in known}
        self._before = known[-1].hash if known else FIRST


def check_chain(entries: Iterable[Entry]) -> list[str]:
    """What is wrong with a ledger, a sentence each; empty where the chain holds."""
    wrong = []
    before = FIRST
    for place, entry in enumerate(entries):
        content = {
            "index": entry.index,
            "kind": entry.kind,
            "key": entry.key,
            "at": entry.at,
            "body": dict(entry.body),
            "before": entry.before,
        }
        if entry.index != place or entry.before != before:
            wrong.append(f"entry {place} does not follow the one before it")
        if entry.hash != _hash(content):
            wrong.append(f"entry {place} ({entry.kind} {entry.key}) was changed")
        if entry.signer and not _is_signed(entry):
            wrong.append(f"entry {place} ({entry.kind} {entry.key}) has a false signature")
        before = entry.hash
    return wrong


def _parsed(paths: StudyPaths) -> tuple[list[Entry], int]:
    """The entries and the bytes of the whole lines."""
    if not paths.ledger.is_file():
        return [], 0
    data = paths.ledger.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    entries = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            entries.append(Entry(**json.loads(line)))
        except (TypeError, ValueError) as error:
            raise InputError(
                "a line of the ledger is damaged",
                where=f"{paths.ledger}:{number}",
                got=str(error),
                next_step="restore the file from a copy; its entries cannot be written anew",
            ) from error
    return entries, len(whole)


def _hash(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _signing_key() -> Ed25519PrivateKey | None:
    """The key that the environment names; None without one."""
    name = os.environ.get(KEY_VARIABLE)
    if not name:
        return None
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - rarely
            Ed25519PrivateKey,
        )
        from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - as above
            load_pem_private_key,
        )

        key = load_pem_private_key(Path(name).read_bytes(), password=None)
    except (ImportError, OSError, TypeError, ValueError) as error:
        raise _unusable(name, str(error)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _unusable(name, type(key).__name__)
    return key


def _unusable(name: str, got: str) -> InputError:
    return InputError(
        "the ledger's key cannot be used",
        where=f"{KEY_VARIABLE}={name}",
        got=got,
        expected="a private Ed25519 key without a password, in PEM",
        next_step=f"openssl genpkey -algorithm ed25519 -out {name}",
    )


def _signature(key: Ed25519PrivateKey, digest: str) -> dict[str, str]:
    public = key.public_key().public_bytes_raw()
    return {"signer": public.hex(), "signature": key.sign(bytes.fromhex(digest)).hex()}


def _is_signed(entry: Entry) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - only for signed ones
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - as above
        Ed25519PublicKey,
    )

    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(entry.signer))
        public.verify(bytes.fromhex(entry.signature), bytes.fromhex(entry.hash))
    except (InvalidSignature, ValueError):
        return False
    return True

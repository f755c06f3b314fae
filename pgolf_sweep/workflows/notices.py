"""Notices of a launch's turns, by a webhook and a command: who sleeps learns of them, too.

They go out from a thread of their own: a slow or dead receiver costs no slot and ends nothing.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pgolf_sweep.core.event_text import event_document, event_text
from pgolf_sweep.core.events import (
    BestFound,
    BudgetSpent,
    NodeQuarantined,
    NodeRefused,
    NoHealthyNode,
    SweepEnded,
)
from pgolf_sweep.core.secrets import MASK, visible

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pgolf_sweep.config.types import NotifyBlock
    from pgolf_sweep.core.events import SweepEvent
    from pgolf_sweep.driver.session import Session

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 10.0
"""For a webhook's answer."""

COMMAND_SECONDS = 60.0
"""For a command."""

CLOSE_SECONDS = 20.0
"""That a launch's end waits for its last notices."""

MOST_WAITING = 100
MOST_CHARS = 2000

OCCASIONS: Mapping[type, str] = {
    SweepEnded: "finish",
    BestFound: "best",
    NodeQuarantined: "quarantine",
    NodeRefused: "quarantine",
    NoHealthyNode: "quarantine",
    BudgetSpent: "budget",
}
"""Of what a notice is, by the event; of other events there is none."""


def notices_of(session: Session, environ: Mapping[str, str]) -> Notices:
    """Those that a sweep file asks for; where it asks for none, nothing starts.

    Args:
        session: The sweep.
        environ: Holds a webhook's URL where the file names a variable.
    """
    block, spec = session.spec.pgolf.notify, session.spec
    return Notices(
        block,
        study=spec.name,
        webhook=_address(block.webhook, environ),
        folder=spec.source.resolve().parent,
    )


def webhook_variable(webhook: str | None) -> str | None:
    """The name in ``${NAME}``; None for a URL."""
    match = re.fullmatch(r"\$\{(\w+)\}", webhook or "")
    return None if match is None else match[1]


def _address(webhook: str | None, environ: Mapping[str, str]) -> str | None:
    """The URL itself, or the one in the variable that it names."""
    name = webhook_variable(webhook)
    if name is None:
        return webhook
    found = environ.get(name)
    if not found or urlsplit(found).scheme not in {"http", "https"}:
        what = "is not set" if not found else "holds no URL"
        logger.warning("pgolf.notify: the variable %s %s: no webhook is told", name, what)
        return None
    return found


def masked_webhook(url: str) -> str:
    """A webhook's URL as it may be shown: its path is the secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}/{MASK}"


class Notices:
    """Sends what happens to those whom a sweep file names; never raises, waits only in `close`.

    Args:
        block: The sweep file's ``pgolf.notify``.
        study: The study's name, which each notice begins with.
        webhook: Where `block` names a variable, what that holds.
        folder: Where the command runs.
    """

    def __init__(
        self, block: NotifyBlock, *, study: str, webhook: str | None, folder: Path
    ) -> None:
        self._block = block
        self._study = study
        self._webhook = webhook
        self._folder = folder
        self._waiting: deque[SweepEvent] = deque(maxlen=MOST_WAITING)
        self._changed = threading.Condition()
        self._closed = False
        self._warned: set[str] = set()
        self._thread: threading.Thread | None = None

    def event(self, event: SweepEvent) -> None:
        """Send a notice of it, if one is wanted."""
        wanted = OCCASIONS.get(type(event)) in self._block.on
        if not wanted or (self._webhook is None and self._block.command is None):
            return
        with self._changed:
            if isinstance(event, BestFound):
                # Of several that wait, only the last is news.
                older = [one for one in self._waiting if isinstance(one, BestFound)]
                for one in older:
                    self._waiting.remove(one)
            self._waiting.append(event)
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="notices", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Wait for the last notices, but not for long."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)
            if self._thread.is_alive():
                self._warn("notices", f"not all are sent after {CLOSE_SECONDS:.0f} s")

    def _work(self) -> None:
        while (event := self._next()) is not None:
            kind, text = OCCASIONS[type(event)], self._text(event)
            if self._webhook is not None:
                self._post(self._webhook, text)
            if self._block.command is not None:
                self._run(self._block.command, kind, text, event)

    def _next(self) -> SweepEvent | None:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            return self._waiting.popleft() if self._waiting else None

    def _text(self, event: SweepEvent) -> str:
        return visible(f"{self._study}: {event_text(event)}")[:MOST_CHARS]

    def _post(self, url: str, text: str) -> None:
        # What Slack reads as markup in a text that quotes programs: a mention, a link.
        plain = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        request = urllib.request.Request(  # noqa: S310 - the sweep file's reader checks the scheme
            url,
            data=json.dumps({"text": plain}).encode(),
            headers={"Content-Type": "application/json", "User-Agent": "pgolf-sweep"},
        )
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS):  # noqa: S310
                pass
        except urllib.error.HTTPError as error:
            error.close()
            self._warn(masked_webhook(url), f"HTTP {error.code}")
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            self._warn(masked_webhook(url), type(reason).__name__)

    def _run(self, command: str, kind: str, text: str, event: SweepEvent) -> None:
        try:
            done = subprocess.run(  # noqa: S602 - the user's own line, as a shell reads it
                command,
                shell=True,
                start_new_session=True,  # the terminal's Ctrl-C is the sweep's
                cwd=self._folder,
                env=os.environ
                | {
                    "PGOLF_NOTICE": text,
                    "PGOLF_EVENT": kind,
                    "PGOLF_STUDY": self._study,
                },
                input=json.dumps(event_document(event, at=time.time())),
                text=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=COMMAND_SECONDS,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            self._warn("command", type(error).__name__)
        else:
            if done.returncode:
                self._warn("command", f"exit code {done.returncode}")

    def _warn(self, receiver: str, what: str) -> None:
        """Say once that a receiver gets no notices; the others are in the debug log."""
        level = logging.DEBUG if receiver in self._warned else logging.WARNING
        self._warned.add(receiver)
        logger.log(level, "pgolf.notify: %s: %s; the sweep goes on", receiver, what)

"""Checks of a proposed program before anything of it runs.

It must keep the study's protocol (the score that is read, the seed, the clock, the data) and break
none of the referee's rules on code that the study's own program keeps.
"""

from __future__ import annotations

import ast
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pgolf_sweep.config.types import NO_RULES
from pgolf_sweep.core.paths import write_bytes
from pgolf_sweep.core.record import SEED_KNOB
from pgolf_sweep.script.source import decoded, parsed
from pgolf_sweep.script.unpack import unpack
from pgolf_sweep.submission.evidence import SCRIPT_NAME
from pgolf_sweep.submission.folder import read_folder
from pgolf_sweep.variants.store import plain_files
from pgolf_sweep.verify.check import CheckVerdict
from pgolf_sweep.verify.checks_code import code_checks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pgolf_sweep.config.rules import Rules
    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.script.program import Program
    from pgolf_sweep.verify.check import Check

SCORE = "val_bpb"
"""The word by which the contest's logs name their score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeFindings:
    """What is to be said of a program before it runs.

    Attributes:
        refusals: Why it gets no slot, a line each; empty where it may run.
        notes: What people should know, a line each.
    """

    refusals: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def code_findings(
    program: Program, session: Session, given: Mapping[str, KnobValue]
) -> CodeFindings:
    """Check a program against the study's own.

    Args:
        program: It.
        session: Of the study's own program.
        given: Knobs that the proposal sets by name.
    """
    refusals = [*_unread(program, session, given), *_unprinted(program, session)]
    notes = []
    dropped = [
        name
        for name in session.spec.space.parameters
        if name in session.program.knobs and not _reads(program, name) and name not in given
    ]
    if dropped:
        notes.append(f"it does not read {', '.join(dropped)}: their values change nothing in it")
    if session.spec.pgolf.rules != NO_RULES:
        own = {_key(check) for check in _broken(session.program, session.rules)}
        refusals += [str(c) for c in _broken(program, session.rules) if _key(c) not in own]
    return CodeFindings(refusals=tuple(refusals), notes=tuple(notes))


def _reads(program: Program, name: str) -> bool:
    return name in program.knobs or name in program.flags.known or bool(program.unnamed)


def _unread(program: Program, session: Session, given: Mapping[str, KnobValue]) -> Iterator[str]:
    """Knobs that it must read: those of the protocol, and those that the proposal sets."""
    protocol = {SEED_KNOB: "the seed is hard-coded", **dict.fromkeys(session.implied, "")}
    if session.dataset is not None:
        protocol |= dict.fromkeys(session.dataset.env(), "")
    for name, why in protocol.items():
        if name in session.program.knobs and not _reads(program, name):
            yield f"{name} is not read any more{f': {why}' if why else ''}"
    for name in given:
        if name not in protocol and not _reads(program, name):
            yield f"{name} is set and not read"


def _unprinted(program: Program, session: Session) -> Iterator[str]:
    """The score that the study reads of a log."""
    metric = session.spec.metric
    if metric.pattern:
        return
    name = SCORE if metric.contest else metric.name
    if _prints(session.program, name) and not _prints(program, name):
        yield f"{name} stands in none of its texts: it would print no score"


def _prints(program: Program, name: str) -> bool:
    """Whether a text of a program holds a word."""
    files = plain_files(program)
    for path, content in files.items():
        if path != program.name and not path.endswith(".py"):
            continue
        text = unpack(decoded(content), path=Path(path), files=files)
        with suppress(SyntaxError):
            for node in ast.walk(parsed(text)):
                if isinstance(node, ast.Constant) and name in str(node.value):
                    return True
                if isinstance(node, ast.keyword) and node.arg == name:
                    return True
    return False


def _broken(program: Program, rules: Rules) -> list[Check]:
    """The referee's checks of the code that fail, a hard-coded seed among them."""
    with TemporaryDirectory(prefix="pgolf-sweep-variant-") as temporary:
        folder = Path(temporary)
        for path, content in plain_files(program).items():
            write_bytes(folder / (SCRIPT_NAME if path == program.name else path), content)
        checks = list(code_checks(read_folder(folder), rules))
    fixed = [c for c in checks if c.rule == "seed_used" and c.verdict is CheckVerdict.WARN]
    return [c for c in checks if c.verdict is CheckVerdict.FAIL] + fixed


def _key(check: Check) -> tuple[str, str]:
    """A broken rule without the lines on which it is broken, which move with every change."""
    words = [word for word in check.observed.split() if not word.rstrip(":;").isdigit()]
    return check.rule, " ".join(words)

"""`verify --ledger`: does a study's ledger hold, and does the study say the same?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.ledger import check_chain, read_ledger
from pgolf_sweep.driver.ledger import contradictions
from pgolf_sweep.report.read import study_records

if TYPE_CHECKING:
    from pgolf_sweep.core.paths import StudyPaths


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerCheck:
    """What became of the check.

    Attributes:
        entries: How many the ledger has.
        signed: How many of them are signed.
        signers: Public keys, hexadecimal; whoever publishes one can be shown to have written them.
        head: Hash of the last entry: who keeps it elsewhere can tell a ledger that was cut short.
        problems: A sentence each.
    """

    study: str
    entries: int
    signed: int
    signers: tuple[str, ...]
    head: str
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def check_ledger(paths: StudyPaths) -> LedgerCheck:
    """Check chain, signatures, and what the study's rows say of the same trials.

    Raises:
        InputError: There is no ledger, or a line of it is none.
    """
    if not paths.ledger.is_file():
        raise InputError(
            f"study {paths.name!r} has no ledger",
            where=str(paths.ledger),
            next_step="a launch writes it, for earlier trials too",
        )
    entries = read_ledger(paths)
    alone = not paths.storage_url.is_file()
    signers = tuple(dict.fromkeys(entry.signer for entry in entries if entry.signer))
    return LedgerCheck(
        study=paths.name,
        entries=len(entries),
        signed=sum(bool(entry.signer) for entry in entries),
        signers=signers,
        head=entries[-1].hash if entries else "",
        problems=(
            *check_chain(entries),
            *contradictions(entries, study_records(paths.root), alone=alone),
        ),
    )

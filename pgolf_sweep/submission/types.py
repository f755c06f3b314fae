"""A submission, and its parts beside the runs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgolf_sweep.config.rules import Rules
    from pgolf_sweep.script.pack import Packed
    from pgolf_sweep.submission.evidence import Candidate, Provenance, SeedRun
    from pgolf_sweep.submission.margins import Margin
    from pgolf_sweep.submission.stats import Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class RaceResult:
    """How a race ended.

    Attributes:
        winner: The trial with the best mean.
        seeds: Its seeds so far.
        confident: Whether all others were told apart from it.
        runs: Runs of all contenders.
        summary: One line a contender, for people.
        tied: Numbers of the contenders that were not told apart from the winner.
    """

    winner: Candidate
    seeds: int
    confident: bool
    runs: int
    summary: tuple[str, ...]
    tied: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """Everything that a folder is written from.

    Attributes:
        name: Title of the submission.
        date: ISO 8601 date.
        author: Empty if unknown; the note on the command line says so.
        github_id: As `author`.
        blurb: One paragraph on what is submitted.
        candidate: The trial that was promoted.
        runs: Its runs on fresh seeds, all with a score.
        rules: What the folder was made to meet.
        comparison: Against the rules' record, or None where there is none.
        provenance: Where the candidate came from.
        script: The very bytes that the seeds ran.
        files: Further files that ran beside the script, by relative path.
        include_model: Whether the compressed model is in the folder.
        margins: The answer by each margin that reviewers used.
        pack: What packing made of the script, or None.
        race: How the race went that chose the trial, or None.
        documents: Further files that nothing runs, by relative path.
    """

    name: str
    date: str
    author: str
    github_id: str
    blurb: str
    candidate: Candidate
    runs: tuple[SeedRun, ...]
    rules: Rules
    comparison: Comparison | None
    provenance: Provenance
    script: bytes
    files: Mapping[str, bytes] = field(default_factory=dict)
    include_model: bool = True
    margins: tuple[Margin, ...] = ()
    pack: Packed | None = None
    race: RaceResult | None = None
    documents: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def folder_name(self) -> str:
        """``<date>_<name>`` with nothing in it that a shell or a file system minds."""
        return f"{self.date}_{re.sub(r'[^A-Za-z0-9.]+', '_', self.name).strip('_.')}"

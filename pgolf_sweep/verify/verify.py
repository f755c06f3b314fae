"""Does a folder pass the rules? Every rule with what was seen, the limit, and a verdict.

Works on anyone's folder. What a folder does not let one decide is `unknown`, never `fail`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf_sweep.config.rules import load_rules, preset_names
from pgolf_sweep.submission.folder import read_folder
from pgolf_sweep.verify.check import Check, CheckVerdict
from pgolf_sweep.verify.checks_artifact import artifact_content
from pgolf_sweep.verify.checks_code import code_checks
from pgolf_sweep.verify.checks_evidence import evidence
from pgolf_sweep.verify.checks_numbers import number_checks
from pgolf_sweep.verify.checks_physics import physics_checks
from pgolf_sweep.verify.checks_runs import run_checks

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pgolf_sweep.config.rules import Rules
    from pgolf_sweep.submission.folder import Folder

RECORD_RULES = "parameter-golf-2026"
NON_RECORD_RULES = "parameter-golf-2026-non-record"

MOST_NAMED = 6
"""Files named in one line; a folder of something else may hold hundreds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The answer for one folder; `ok` unless a check fails."""

    folder: Path
    rules: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether no rule is broken."""
        return all(check.verdict is not CheckVerdict.FAIL for check in self.checks)

    def unmet(self, *, strict: bool = False) -> tuple[Check, ...]:
        """The rules that are broken; `strict` takes what is not a pass for broken."""
        if strict:
            return tuple(c for c in self.checks if c.verdict is not CheckVerdict.PASS)
        return self.failures

    def passes(self, *, strict: bool = False) -> bool:
        """Whether the folder is accepted."""
        return not self.unmet(strict=strict)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The rules that are broken."""
        return tuple(c for c in self.checks if c.verdict is CheckVerdict.FAIL)


def verify(
    folder: Path, rules: Rules | None = None, *, run_seconds: Mapping[int, float] | None = None
) -> Verification:
    """Check a submission folder.

    Args:
        folder: The folder.
        rules: What it must meet; None for the preset that the folder names or its track implies.
        run_seconds: Seconds that each seed's run took from end to end, by seed, where whoever asks
            saw them run: they bound what a log does not time.

    Raises:
        InputError: There is no such folder.
    """
    found = read_folder(folder)
    return check_folder(found, rules or rules_for(found), run_seconds)


def check_folder(
    found: Folder, rules: Rules, run_seconds: Mapping[int, float] | None = None
) -> Verification:
    """`verify` for a folder that was read."""
    content = artifact_content(found)  # what it cannot read is named by `readable`
    checks = (
        _files(found),
        _readable(found),
        *code_checks(found, rules),
        *run_checks(found, rules, run_seconds or {}),
        *physics_checks(found, rules),
        content,
        evidence(found),
        *number_checks(found),
    )
    return Verification(folder=found.root, rules=rules.name, checks=checks)


def rules_for(folder: Folder) -> Rules:
    """The preset that submission.json names, else the contest's for the folder's track."""
    named = folder.manifest.get("rules")
    track = str(folder.manifest.get("track", ""))
    apart = ("non_record", "non-record", "unlimited")
    if named in preset_names():
        name = str(named)
    elif any(word in f"{folder.root.resolve().parent.name} {track}" for word in apart):
        name = NON_RECORD_RULES
    else:
        name = RECORD_RULES
    return load_rules(name, base=folder.root)


def _readable(folder: Folder) -> Check:
    """Files that were not opened: pipes, links, devices, and those larger than any honest one."""
    refused = folder.reader.unreadable
    needed = {
        "README.md",
        "submission.json",
        folder.script_name,
        folder.manifest_name,
        folder.model,
        ".",
    }
    grave = [name for name in refused if name in needed or name.endswith((".log", ".txt", ".py"))]
    verdict = CheckVerdict.WARN if refused else CheckVerdict.PASS
    return Check(
        rule="readable",
        verdict=CheckVerdict.FAIL if grave else verdict,
        observed=f"{len(refused)} files cannot be read" if refused else "every file",
        limit="regular files within the folder, of the size of a submission's",
        detail="; ".join(f"{name}: {why}" for name, why in list(refused.items())[:MOST_NAMED]),
    )


def _files(folder: Folder) -> Check:
    missing = [
        name
        for name, present in (
            ("README.md", bool(folder.readme)),
            ("submission.json", folder.manifest_name is not None),
            ("train_gpt.py", folder.script_name is not None and len(folder.script) > 0),
            ("a train log with a final score", bool(folder.logs)),
        )
        if not present
    ]
    renamed = [
        f"{name} stands for {usual}"
        for name, usual in (
            (folder.manifest_name, "submission.json"),
            (folder.script_name, "train_gpt.py"),
        )
        if name not in {None, usual}
    ]
    verdict = CheckVerdict.PASS
    if missing or renamed:
        verdict = CheckVerdict.FAIL if missing else CheckVerdict.WARN
    names = [log.name for log in folder.unscored]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    unread = f"no final score in {', '.join(names[:MOST_NAMED])}{more}" if names else ""
    return Check(
        rule="files",
        verdict=verdict,
        observed=f"missing: {', '.join(missing)}" if missing else f"{len(folder.logs)} logs",
        limit="README.md, submission.json, train_gpt.py, a log a seed",
        detail="; ".join(filter(None, [*renamed, unread])),
    )

"""`leaderboard`: studies and submission folders in one ranking."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.config.rules import load_rules
from pgolf_sweep.core.errors import PgolfError
from pgolf_sweep.core.paths import StudyPaths
from pgolf_sweep.driver.ledger import decisions
from pgolf_sweep.driver.opening import reopen_session
from pgolf_sweep.report.proposers import proposer_rows
from pgolf_sweep.report.read import study_records
from pgolf_sweep.verify.leaderboard import in_order, study_row, submission_row

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgolf_sweep.report.proposers import ProposerRow
    from pgolf_sweep.verify.leaderboard import Row


def proposers(runs: Path = Path("runs")) -> tuple[list[ProposerRow], dict[str, str]]:
    """Who proposed what in every study of a folder, the best score of a study first.

    Returns:
        The rows; and why a study that does not read is left out, by its name.
    """
    rows: list[ProposerRow] = []
    left_out = {}
    for paths in StudyPaths.every(runs):
        try:
            found = proposer_rows(paths.name, study_records(paths.root), decisions(paths))
        except PgolfError as error:
            left_out[paths.name] = error.what
            continue
        rows += found
    return rows, left_out


def leaderboard(
    folders: Iterable[Path] = (), *, rules: str | None = None, runs: Path = Path("runs")
) -> tuple[list[Row], dict[str, str]]:
    """Rank every study of a folder, its submissions and further submission folders.

    Args:
        folders: Further submission folders, anyone's.
        rules: A preset or file that judges all; None for each one's own.
        runs: Folder of the studies.

    Returns:
        The rows, best first; and why a study that does not read is left out, by its name, since
        one broken study must not hide the others.

    Raises:
        InputError: There is no such folder, or the rules do not read.
    """
    held = load_rules(rules, base=Path.cwd()) if rules is not None else None
    rows = [submission_row(folder, held) for folder in folders]
    left_out = {}
    for sweep in sorted(runs.glob("*/sweep.yaml")):
        paths = StudyPaths(sweep.parent)
        rows += [
            submission_row(one, held)
            for one in sorted(paths.submissions.glob("*"))
            if one.is_dir() and not one.name.startswith(".")
        ]
        try:
            own = reopen_session(paths, need_data=False).rules
            rows.append(study_row(paths.name, paths.root, study_records(paths.root), held or own))
        except PgolfError as error:
            left_out[paths.name] = error.what
    return in_order(rows), left_out

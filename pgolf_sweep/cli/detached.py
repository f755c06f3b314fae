"""A study that is driven elsewhere: what the commands on it print."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from pgolf_sweep.cli.common import out, say

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pgolf_sweep.core.paths import StudyPaths


def look(runs: Path, study: str | None, *, quiet: bool = False) -> StudyPaths:
    """The folder of a study that must be there, with its newest copies where it is driven.

    Args:
        runs: Folder of the studies.
        study: Name or path; None for the study that changed last, which is printed.
        quiet: Whether the caller says by itself that a cluster does not answer.
    """
    from pgolf_sweep.core.paths import StudyPaths
    from pgolf_sweep.workflows.remote import refresh_copies

    paths = StudyPaths.existing(runs, study)
    if study is None and not quiet:
        say(f"study {paths.name}")
    unreached = refresh_copies(paths)
    if unreached and not quiet:
        say(unreached)
    return paths


def passed_on(
    paths: StudyPaths,
    *words: str,
    to_driver: bool = False,
    opens_study: bool = False,
    files: Mapping[str, bytes] | None = None,
) -> bool:
    """Run a command where the study is driven, and print and end as it does there.

    Args:
        paths: The study's folder.
        words: The command.
        to_driver: Whether it means nothing without a driver.
        opens_study: Whether it reads or writes the study.
        files: Content by relative path of what the words name.

    Returns:
        Whether that was done: not for a study of this machine, or one that nobody drives.
    """
    from pgolf_sweep.workflows.remote import run_where_driven

    answer = run_where_driven(
        paths, *words, to_driver=to_driver, opens_study=opens_study, files=files
    )
    if answer is None:
        return False
    if answer.stderr:
        say(answer.stderr)
    sys.stdout.write(answer.stdout)
    sys.stdout.flush()
    if answer.code:
        raise typer.Exit(answer.code)
    return True


def print_driver_log(paths: StudyPaths, *, follow: bool) -> None:
    """What a study's driver said."""
    from pgolf_sweep.workflows.remote import driver_log

    for text in driver_log(paths, follow=follow):
        out.out(text, end="", highlight=False)

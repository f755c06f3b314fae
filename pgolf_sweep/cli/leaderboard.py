"""``pgolf-sweep leaderboard``: studies and submission folders, ranked, with their evidence."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgolf_sweep.cli.common import DEFAULT_RUNS, JsonOption, RunsOption, app, emit, out, say

if TYPE_CHECKING:
    from pgolf_sweep.verify.leaderboard import Row


class ByName(StrEnum):
    """Choices of ``--by``."""

    PROPOSER = "proposer"


@app.command()
def leaderboard(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER]...", help="Further submission folders, anyone's."),
    ] = None,
    rules: Annotated[
        str | None,
        typer.Option("--rules", help="Judge all by this preset or file; else each by its own."),
    ] = None,
    by: Annotated[
        ByName | None, typer.Option(help="`proposer`: rank who proposed, over all studies here.")
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Only that many.")] = None,
    runs: RunsOption = DEFAULT_RUNS,
    json_output: JsonOption = False,
) -> None:
    """Rank every study here and every submission, with the evidence behind each score.

    A study's row is its best trial on the search's one seed, which flatters; a submission's is the
    mean over its seeds, and the folder is verified. Those that break a rule come last.

    With --by proposer: trials, cost, what was kept after a comparison, and the best score of each
    sampler, person and agent, study by study.

    Example: pgolf-sweep leaderboard --rules parameter-golf-2026

    Example: pgolf-sweep leaderboard --by proposer
    """
    if by is not None:
        _by_proposer(runs, top, json_output=json_output)
        return
    from pgolf_sweep.core.errors import AnswerNoError
    from pgolf_sweep.workflows.leaderboard import leaderboard as ranked_rows

    rows, left_out = ranked_rows(folders or [], rules=rules, runs=runs)
    rows = rows[:top]
    for study, why in left_out.items():
        say(f"study {study!r} is left out: {why}")
    if json_output:
        emit({"rules": rules, "rows": rows})
    elif rows:
        _show(rows)
    if not rows:
        raise AnswerNoError(
            "there is nothing to rank",
            where=str(runs),
            next_step="pgolf-sweep launch SWEEP.yaml, or name submission folders",
        )


def _by_proposer(runs: Path, top: int | None, *, json_output: bool) -> None:
    from pgolf_sweep.core.errors import AnswerNoError
    from pgolf_sweep.workflows.leaderboard import proposers

    rows, left_out = proposers(runs)
    rows = rows[:top]
    for study, why in left_out.items():
        say(f"study {study!r} is left out: {why}")
    if json_output:
        emit({"by": "proposer", "rows": rows})
    elif rows:
        from rich.table import Table
        from rich.text import Text

        from pgolf_sweep.cli.render import score

        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("study", "proposer", "tried", "completed", "kept", "gain", "hours", "best"):
            table.add_column(name, justify="left" if name in {"study", "proposer"} else "right")
        for row in rows:
            gain = "" if row.gain_bpb is None else f"{row.gain_bpb:+.4f}"
            cells = (row.study, row.proposer, str(row.tried), str(row.completed), str(row.kept))
            more = (gain, f"{row.slot_hours:.2f}", score(row.best_bpb))
            table.add_row(*(Text(cell) for cell in (*cells, *more)))
        out.print(table)
    if not rows:
        raise AnswerNoError(
            "nobody has proposed anything",
            where=str(runs),
            next_step="pgolf-sweep launch SWEEP.yaml",
        )


def _show(rows: list[Row]) -> None:
    from rich.table import Table
    from rich.text import Text

    from pgolf_sweep.cli.render import bytes_text, score

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("rank", "val_bpb", "std", "seeds", "p", "artifact", "headroom"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("verified", "name", "from", "rules"):
        table.add_column(name, overflow="fold")
    for rank, row in enumerate(rows, 1):
        if row.verified is None:
            verified = "search only"
        else:
            verified = "yes" if row.verified else f"no: {', '.join(row.broken)}"
        cells = (
            str(rank),
            score(row.val_bpb),
            "" if row.std is None else f"{row.std:.4f}",
            str(row.seeds),
            "" if row.p_value is None else f"{row.p_value:.2g}",
            bytes_text(row.artifact_bytes),
            bytes_text(row.headroom_bytes),
            verified,
            row.name,
            row.detail,
            row.rules,
        )
        table.add_row(*(Text(cell) for cell in cells))
    out.print(table)

"""A study's trials: what `launch` gives, `read_study` reads and `trials` prints."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.paths import StudyPaths
from pgolf_sweep.core.record import SCORE, TrialRecord, counts, named, ranked, score_name
from pgolf_sweep.report.posterior import posterior_row
from pgolf_sweep.report.read import study_status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

    from pgolf_sweep.core.record import Posterior


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StudyRead:
    """A study's trials as they stood when it was read; of a simulated sweep, at its end.

    Attributes:
        name: The study's name.
        records: A row for every trial, by number.
        curves: Interim validations of a trial by its number: ordinal, from 1, and `val_bpb`.
        posteriors: What all scores say of a completed trial's, by its number.
        state: ``running``, ``finished``, ...; see `Status`.
        reason: Why the sweep ended, where it has.
    """

    name: str
    records: tuple[TrialRecord, ...]
    curves: Mapping[int, Sequence[tuple[int, float]]] = field(default_factory=dict)
    posteriors: Mapping[int, Posterior] = field(default_factory=dict)
    state: str = ""
    reason: str = ""

    def __repr__(self) -> str:
        """The name, the counts and the best, for an interactive session."""
        tally = ", ".join(f"{n} {key}" for key, n in counts(self.records).items() if n)
        found = self.winner
        score = (
            ""
            if found is None
            else f", best {self.score_name} {found.val_bpb:.4f} (trial {found.number})"
        )
        return f"<study {self.name}: {tally or 'no trial'}{score}>"

    @property
    def score_name(self) -> str:
        """What the score is called: ``val_bpb``, or the sweep's own metric."""
        return score_name(self.records)

    @property
    def winner(self) -> TrialRecord | None:
        """The best trial whose artifact is not over the cap, by all scores; None without one."""
        return next(iter(ranked(self.records, self.posteriors)), None)

    def rows(self, records: Iterable[TrialRecord] | None = None) -> list[dict[str, Any]]:
        """The rows of ``trials --json``, of all trials or of some."""
        chosen = self.records if records is None else records
        return [named(self._row(record), record.metric) for record in chosen]

    def _row(self, record: TrialRecord) -> dict[str, Any]:
        return (
            record.to_json()
            | posterior_row(self.posteriors.get(record.number))
            | {
                "intermediate": [
                    {"validation": ordinal, "val_bpb": value}
                    for ordinal, value in self.curves.get(record.number, ())
                ]
            }
        )

    def trials(self) -> pd.DataFrame:
        """One row a trial, the columns of ``trials --json``; `knobs` holds mappings."""
        from pgolf_sweep.report.frames import nested  # noqa: PLC0415 - pandas loads late

        return nested(self.rows(), self.score_name)

    def best(self, top: int = 5) -> pd.DataFrame:
        """The best trials within the cap, best first, in the columns of `trials`."""
        from pgolf_sweep.report.frames import nested  # noqa: PLC0415 - pandas loads late

        best = ranked(self.records, self.posteriors)[:top]
        return nested(self.rows(best), self.score_name)

    def in_order(self, key: str, records: Iterable[TrialRecord]) -> list[TrialRecord]:
        """Some trials by a key of their row or by a knob; those without a value come last.

        Args:
            key: A key or a knob's name; with ``-`` before it the largest come first.
            records: The trials.

        Raises:
            InputError: No trial has such a key or knob.
        """
        name, largest = key.removeprefix("-"), key.startswith("-")
        name = {self.score_name: SCORE}.get(name, name)
        keys = {item.name for item in dataclasses.fields(TrialRecord)}
        knobs = {knob for record in self.records for knob in record.knobs}
        if name not in keys | knobs:
            known = sorted((keys | knobs) - {"knobs", "finals", "predicted_bytes"})
            raise InputError(f"no trial has a key {name!r}", expected=", ".join(known))
        values = [
            (record.knobs.get(name) if name in knobs else getattr(record, name), record)
            for record in records
        ]
        present = [(v, r) for v, r in values if isinstance(v, int | float | str)]
        text = any(isinstance(v, str) for v, _ in present)
        present.sort(key=lambda pair: str(pair[0]) if text else pair[0], reverse=largest)
        chosen = [record for _, record in present]
        return chosen + [record for v, record in values if not isinstance(v, int | float | str)]

    def table(self, records: Iterable[TrialRecord] | None = None) -> pd.DataFrame:
        """One row a trial with plain cells: each knob a column, `predicted_bytes` three."""
        from pgolf_sweep.report.frames import flat  # noqa: PLC0415 - pandas loads late

        return flat(self.rows(records), self.score_name)


def read_study(study: str | Path, *, runs: str | Path = "runs") -> StudyRead:
    """Read a study, whoever drives it and whether or not it has ended.

    Args:
        study: Its name, or the path of its folder.
        runs: Folder that holds the studies.

    Raises:
        InputError: There is no such study.
        InfraError: Its storage does not answer.
    """
    return read_trials(StudyPaths.existing(Path(runs), str(study)))


def read_trials(paths: StudyPaths) -> StudyRead:
    """`read_study` for a folder that is known to be one."""
    found = study_status(paths)
    return StudyRead(
        name=found.name,
        records=tuple(found.records),
        curves=found.curves,
        posteriors=found.posteriors,
        state=found.state,
        reason=found.reason,
    )

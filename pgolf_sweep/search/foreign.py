"""Studies that Optuna ran for somebody else, as a search space and trials to try first."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from pgolf_sweep.config.importers import MOST_TRIALS, Imported, numbers
from pgolf_sweep.core.errors import InputError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def read_optuna(place: str) -> Imported:
    """The space and the best trials of a study.

    Args:
        place: ``STORAGE#STUDY``: a database's URL or the path of a journal or SQLite file. The
            study's name may be left out where there is only one.

    Raises:
        InputError: There is no such storage or study, or nothing was tried in it.
    """
    where, _, name = place.partition("#")
    storage = _storage(where)
    names = optuna.get_all_study_names(storage)
    if not name and len(names) == 1:
        name = names[0]
    if name not in names:
        raise InputError(
            f"no study {name!r} in this storage" if name else "which study?",
            where=where,
            expected=f"{where}#NAME, one of: {', '.join(names) or 'none is there'}",
        )
    study = optuna.load_study(study_name=name, storage=storage)
    if len(study.directions) > 1:
        raise InputError("this study optimises several values", where=place, expected="one value")
    trials = study.get_trials(deepcopy=False)
    spaces: dict[str, BaseDistribution] = {}
    for trial in trials:
        spaces |= trial.distributions  # the newest word on each
    if not spaces:
        raise InputError("nothing was tried in this study", where=place)
    maximize = study.direction is optuna.study.StudyDirection.MAXIMIZE
    done = [t for t in trials if t.state is TrialState.COMPLETE and t.value is not None]
    done.sort(key=lambda t: (-1 if maximize else 1) * float(t.value or 0.0))
    return Imported(
        parameters={name: _parameter(space) for name, space in spaces.items()},
        trials=[dict(trial.params) for trial in done[:MOST_TRIALS]],
        goal="maximize" if maximize else "minimize",
    )


def _storage(where: str) -> optuna.storages.BaseStorage:
    path = Path(where.removeprefix("sqlite:///"))
    is_url = "://" in where and not where.startswith("sqlite:///")
    if not is_url and not path.is_file():
        raise InputError(
            "there is no such storage",
            where=where,
            expected="a database's URL, or the path of a journal or of an SQLite file",
        )
    if not is_url and not path.read_bytes().startswith(b"SQLite format 3"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    try:
        return optuna.storages.RDBStorage(where if is_url else f"sqlite:///{path}")
    except Exception as error:
        # Any of a database's own errors: its driver is missing, it does not answer, ...
        raise InputError(
            "cannot open this storage", where=where, got=str(error).partition("\n")[0]
        ) from error


def _parameter(space: BaseDistribution) -> dict[str, Any]:
    match space:
        case FloatDistribution():
            return numbers(space.low, space.high, step=space.step, log=space.log)
        case IntDistribution():
            step = space.step if space.step > 1 else None
            return numbers(space.low, space.high, step=step, log=space.log, whole=True)
        case CategoricalDistribution():
            return {"values": list(space.choices)}
    raise InputError(f"a distribution that no sweep file has: {space}")

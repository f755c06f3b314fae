"""A study's folder and storage: made by its first launch, checked by every further one."""

from __future__ import annotations

import dataclasses
import logging
import platform
import socket
import sys
import time
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import yaml

from pgolf_sweep import __version__
from pgolf_sweep.config.types import WarmStart
from pgolf_sweep.core.errors import InfraError, InputError
from pgolf_sweep.core.kept import read_spec
from pgolf_sweep.core.paths import (
    StudyPaths,
    put_aside,
    read_json,
    write_bytes,
    write_json,
    write_text,
)
from pgolf_sweep.core.record import SEED_KNOB, State, ranked
from pgolf_sweep.core.secrets import redacted
from pgolf_sweep.core.trial import Change
from pgolf_sweep.driver.opening import DamagedError, store_program, stored_program
from pgolf_sweep.driver.table import counted
from pgolf_sweep.launch.remote.dashboard import refuse_copies
from pgolf_sweep.report.trials import read_trials
from pgolf_sweep.search.origin import PRIOR, Origin
from pgolf_sweep.workflows.baseline import enqueue_baseline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.driver.session import Session
    from pgolf_sweep.search.study import Study


logger = logging.getLogger(__name__)

EXTENDABLE = {
    "run_cap",
    "description",
    "early_terminate",
    "pgolf.budget",
    "pgolf.env",
    "pgolf.max_retries",
    "pgolf.nodes",
    "pgolf.notify",
    "pgolf.second_seeds",
}
"""What may change between two launches of one study: none of it decides a trial's result."""


RECORDED_PACKAGES = ("torch", "optuna", "ray", "wandb", "numpy")


def prepare_folder(session: Session, paths: StudyPaths, *, sweep: Path, data_root: Path) -> bool:
    """Make a study's folder, or check that a launch continues the study that is there.

    Returns:
        Whether the study existed.

    Raises:
        InputError: The sweep file or the program differ from those that the study began with, or
            the study is driven on a cluster.
    """
    refuse_copies(paths, "launch")
    resumed = paths.sweep.is_file()
    if resumed:
        check_same_sweep(session, paths, sweep)
        stored = _stored_sha256(paths, session)
        if stored != session.program.sha256:
            raise InputError(
                f"study {paths.name!r} was launched with another version of its program",
                where=session.spec.program,
                got=session.program.sha256[:16],
                expected=stored[:16],
                next_step=f"scores of two programs cannot share a study: {going_on(paths.name)}",
            )
        created_at = _created_at(paths)
    else:
        store_program(paths, session.program)
        created_at = time.time()
    study = {"study": _name_within(paths), "identity": identity_of_session(session)}
    origin = {"created_at": created_at, **study, **_origin(sweep, data_root)}
    write_json(paths.origin, origin, private=True)
    write_text(paths.sweep, session.spec.text)
    if session.program.plain is not None:
        write_bytes(paths.readable, session.program.plain)
    return resumed


def check_same_sweep(session: Session, paths: StudyPaths, sweep: Path) -> None:
    """Refuse a sweep file that differs from the one that a study was launched with.

    Raises:
        InputError: It differs in what may not change.
    """
    changed = changes(paths.sweep.read_text(), session.spec.text) - EXTENDABLE
    if changed:
        raise InputError(
            f"study {paths.name!r} was launched with another sweep file",
            where=str(sweep),
            got=f"changed: {', '.join(sorted(changed))}",
            expected=f"only {', '.join(sorted(EXTENDABLE))} may change",
            next_step=f"undo the change, or {going_on(paths.name)}",
        )


def _stored_sha256(paths: StudyPaths, session: Session) -> str:
    """Hash of the program that a study runs; what is damaged of it is restored from this launch.

    Raises:
        InputError: It is damaged, and this launch's is another, or it was edited.
    """
    try:
        return stored_program(paths).sha256
    except DamagedError as error:
        ran = {
            spec["program_sha256"]
            for number in paths.trial_numbers()
            if (spec := read_spec(paths.trial(number))) is not None and not spec.get("variant")
        }
        if ran - {session.program.sha256}:
            raise InputError(
                f"{error.what}, and the program of this launch is not the one that its trials ran",
                where=error.where,
                got=session.program.sha256[:16],
                expected=", ".join(sorted(one[:16] for one in ran)),
                next_step="launch the program that the study began with",
            ) from error
        if paths.program.is_dir():
            put_aside(paths.program)
        store_program(paths, session.program)
        logger.warning("%s: restored from this launch's program", error.what)
        return session.program.sha256


def _created_at(paths: StudyPaths) -> float:
    """When a study began: as ``origin.json`` says, else as its oldest file does."""
    try:
        return float(read_json(paths.origin)["created_at"])
    except (InfraError, KeyError, TypeError, ValueError) as error:
        if paths.origin.is_file():
            put_aside(paths.origin)
        logger.warning("%s is damaged or gone and is written anew: %s", paths.origin.name, error)
        specs = [paths.trial(number).spec for number in paths.trial_numbers()]
        return min(p.stat().st_mtime for p in [*specs, paths.sweep] if p.is_file())


def _name_within(paths: StudyPaths) -> str:
    """The study's name in its storage: that of its folder when it began."""
    with suppress(InfraError, OSError):
        return str(read_json(paths.origin).get("study", paths.name))
    return paths.name


def begin_study(session: Session, study: Study, runs: Path) -> None:
    """Begin a study with what its sweep file names, or check that it may be gone on with.

    Raises:
        InputError: See `enqueue_warm_start` and `check_identity`.
    """
    with study.exclusive():
        # Not by the folder's age: a launch that fails early leaves a folder, too.
        if study.attribute("identity") is None:
            begin_trials(session, study, runs)
        check_identity(session, study)


def begin_trials(session: Session, study: Study, runs: Path) -> None:
    """Have a new study begin with its baseline, then with what its sweep file names.

    Raises:
        InputError: See `enqueue_baseline` and `enqueue_warm_start`.
    """
    for start in session.spec.pgolf.warm_start:
        if start.matching and start.study is not None:
            take_over(StudyPaths.existing(runs, start.study), session, study, runs)
    enqueue_baseline(session, study)
    enqueue_warm_start(session, study, runs)


def enqueue_warm_start(session: Session, study: Study, runs: Path) -> None:
    """Have a new study begin with what its sweep file names.

    Args:
        session: The sweep.
        study: It is enqueued here; the proposer says where a configuration comes from.
        runs: Folder of the studies that the sweep file may name.

    Raises:
        InputError: A study that it names does not exist, or has no trial within this space.
    """
    for knobs, by in warm_starts(session, runs):
        study.enqueue(knobs, by=by)


def warm_starts(session: Session, runs: Path) -> Iterator[tuple[Mapping[str, KnobValue], str]]:
    """Configurations that a sweep file wants first, and who proposes them; see above."""
    for start in session.spec.pgolf.warm_start:
        if start.study is None:
            yield start.knobs, "warm_start"
            continue
        if start.matching:
            continue
        for knobs in best_of(StudyPaths.existing(runs, start.study), session, start.top):
            yield knobs, f"warm_start:{start.study}"


def best_of(other: StudyPaths, session: Session, top: int) -> list[dict[str, KnobValue]]:
    """The best trials of another study, as far as this space holds them.

    Raises:
        InputError: It has none.
    """
    space = session.spec.space
    found: list[dict[str, KnobValue]] = []
    found_there = read_trials(other)
    for record in ranked(found_there.records, found_there.posteriors):
        own = {name: value for name, value in record.knobs.items() if name in space.parameters}
        with suppress(InputError):
            space.encode(own)
            found.append(own)
    if not found:
        raise _nothing_inside(other, session)
    return found[:top]


def take_over(other: StudyPaths, session: Session, study: Study, runs: Path) -> None:
    """Have a new study begin with another's trials that lie in its space.

    Where program, data and rules are the same they become trials, else what the sampler expects;
    the best of them are then tried first.

    Args:
        other: The other study.
        session: The sweep.
        study: It is told of them.
        runs: Folder of both studies.

    Raises:
        InputError: The other study has no completed trial that lies in the space.
    """
    found = read_trials(other)
    inside = []
    for record in found.records:
        knobs = _inside(record, session)
        if knobs is not None and record.outcome is State.COMPLETED and record.val_bpb is not None:
            inside.append((record, knobs))
    if not inside:
        raise _nothing_inside(other, session)
    if _identity_of(other) != identity_of_session(session):
        sign = session.spec.metric.sign
        prior = [
            (session.spec.space.encode(knobs), sign * (r.val_bpb or 0.0)) for r, knobs in inside
        ]
        study.set_attribute(PRIOR, [*(study.attribute(PRIOR) or []), *prior])
        by_number = {record.number: knobs for record, knobs in inside}
        order = ranked([record for record, _ in inside], found.posteriors)
        for record in order[: WarmStart.top]:
            study.enqueue(by_number[record.number], by=f"warm_start:{other.name}")
        return
    paths = StudyPaths(runs / session.spec.name)
    for record, knobs in inside:
        _take(record, knobs, f"{other.name}:{record.number}", session, study, paths)


def _inside(record: TrialRecord, session: Session) -> dict[str, KnobValue] | None:
    """A trial's knobs as a new space has them; None where it lies outside.

    A parameter that the trial did not set had the program's own value, and so must one that the
    new space does not name.
    """
    space, defaults = session.spec.space, session.defaults
    if record.variant or record.duplicate_of is not None:
        return None
    own: dict[str, KnobValue] = {}
    for parameter in space.ordered():
        value = record.knobs.get(parameter.name, defaults.get(parameter.name))
        if parameter.name == SEED_KNOB and record.seed is not None:
            value = next(iter(parameter.domain.examples()), value)
        if parameter.active(own) and value is not None:
            own[parameter.name] = value
    unset = {n: v for n, v in record.knobs.items() if n not in space.parameters and n != SEED_KNOB}
    implied = {**defaults, **session.implied}
    if any(implied.get(name) != value for name, value in unset.items()):
        return None
    with suppress(InputError):
        space.encode(own)
        active = [p.name for p in space.parameters.values() if p.active(own)]
        if set(active) <= own.keys() and not space.violations(session.resolve(own), defaults):
            return own
    return None


def _take(
    record: TrialRecord,
    knobs: Mapping[str, KnobValue],
    source: str,
    session: Session,
    study: Study,
    paths: StudyPaths,
) -> None:
    """Make a finished trial of another study one of this study; doing it again changes nothing."""
    change = Change(seed=record.seed)
    origin = Origin(proposer=f"warm_start:{source}", request=source, change=change)
    number = study.begin_once(knobs, origin)
    resolved = session.resolve(knobs)
    if record.seed is not None:
        resolved[SEED_KNOB] = record.seed
    run_id = f"{study.name}-{number}"
    spec = session.trial_spec(number, resolved, origin.proposer, run_id=run_id)
    row = dataclasses.replace(
        record,
        number=number,
        knobs=resolved,
        identity=spec.identity,
        proposer=origin.proposer,
        taken_from=source,
        reason=f"taken over from {source}",
        slot_seconds=0.0,
        attempts=0,
        uncounted_attempts=0,
        redrawn=0,
        export_of=None,
        repair_of=None,
        parent=None,
        behind_at=None,
        driver="",
    )
    folder = paths.trial(number)
    write_json(folder.spec, dataclasses.asdict(spec) | {"taken_from": source})
    write_json(folder.result, {"record": row.to_json()})
    study.tell(row)


def _identity_of(paths: StudyPaths) -> dict[str, Any] | None:
    """What a study was begun with, as its folder says; None where it does not."""
    with suppress(InfraError, OSError):
        kept = read_json(paths.origin).get("identity")
        return kept if isinstance(kept, dict) else None
    return None


def _nothing_inside(other: StudyPaths, session: Session) -> InputError:
    return InputError(
        f"study {other.name!r} has no completed trial that lies within this space",
        where=f"{session.spec.source}: pgolf.warm_start",
        next_step=f"pgolf-sweep best {other.name}",
    )


def has_run_its_course(session: Session, study: Study) -> bool:
    """Whether a study has reached its `run_cap` and nothing of it waits."""
    records = study.records()
    return cap_reached(session, records) and all(record.outcome.final for record in records)


def cap_reached(session: Session, records: Iterable[TrialRecord]) -> bool:
    """Whether the trials that ended are as many as may take a slot."""
    cap = session.spec.run_cap
    return cap is not None and counted(r for r in records if r.outcome.final) >= cap


def check_identity(session: Session, study: Study) -> None:
    """Refuse to add trials that could not be compared with those that the study holds.

    Raises:
        InputError: The validation data, the tokenizer, the program or the rules changed.
    """
    now = identity_of_session(session)
    before = study.attribute("identity")
    if before is None:
        study.set_attribute("identity", now)
        return
    changed = [key for key in now if now[key] != before.get(key)]
    if changed:
        key = changed[0]
        raise InputError(
            f"study {study.name!r} was begun with other {key}: its scores would not compare",
            got=str(now[key]),
            expected=str(before.get(key)),
            next_step=f"restore it, or {going_on(study.name)}",
        )


def identity_of_session(session: Session) -> dict[str, Any]:
    """What two trials must share for their scores to compare."""
    return {
        "program": session.program.sha256,
        "data": session.data_identity,
        "rules": f"{session.rules.name}, cap {session.rules.artifact_cap_bytes} bytes",
    }


def claim_storage(session: Session, study: Study, paths: StudyPaths) -> None:
    """Join the drivers of a study in a database, or be the first of them.

    Raises:
        InputError: The study was begun with another sweep file, or its database is of a kind in
            which drivers cannot take turns and it belongs to another folder.
    """
    if not study.shared:
        _claim_alone(study, paths)
        return
    with study.exclusive():
        before = study.attribute("sweep")
        if before is None:
            study.set_attribute("sweep", session.spec.text)
            study.set_attribute("created_at", read_json(paths.origin)["created_at"])
            return
        changed = changes(before, session.spec.text) - EXTENDABLE
        if changed:
            raise InputError(
                f"study {study.name!r} in this storage was begun with another sweep file",
                where=str(session.spec.source),
                got=f"changed: {', '.join(sorted(changed))}",
                expected=f"only {', '.join(sorted(EXTENDABLE))} may change",
                next_step="launch the same file as the other drivers, or " + going_on(study.name),
            )
        # A trial's W&B run is the same whichever driver runs it.
        origin = read_json(paths.origin)
        origin |= {"created_at": study.attribute("created_at")}
        write_json(paths.origin, origin, private=True)


def _claim_alone(study: Study, paths: StudyPaths) -> None:
    """Refuse a study that another folder or host drives, where drivers cannot take turns.

    Its driver's lock is a file that this one would not see, and a driver takes over every trial
    that it finds running.

    Raises:
        InputError: The study belongs to another folder.
    """
    home = f"{socket.gethostname()}:{paths.root}"
    claimed = study.attribute("home")
    if claimed is None:
        study.set_attribute("home", home)
    elif claimed != home:
        raise InputError(
            f"study {study.name!r} in this storage is driven from another folder",
            got=home,
            expected=str(claimed),
            next_step="launch it there, or with --name NEW here; several drivers share a study "
            "in PostgreSQL, or on one machine in SQLite",
        )


def changes(old: str, new: str) -> set[str]:
    """Key paths at which two sweep files differ: blocks of ``pgolf``, parameters by name."""
    try:
        before = _flat(old)
    except (yaml.YAMLError, AttributeError, RecursionError):
        return {"everything: the study's own sweep.yaml is damaged"}
    after = _flat(new)
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


def _flat(text: str) -> dict[str, Any]:
    document = yaml.safe_load(text) or {}
    found: dict[str, Any] = {}
    for name in ("pgolf", "parameters"):
        block = document.pop(name, None) or {}
        found |= {f"{name}.{key}": value for key, value in block.items()}
    return {**document, **found}


def going_on(study: str) -> str:
    """How a study goes on under what it was not begun with."""
    return (
        "launch with --name NEW and, to go on from its trials, under pgolf "
        f"`warm_start: [{{study: {study}, trials: matching}}]`"
    )


def _origin(sweep: Path, data_root: Path) -> dict[str, Any]:
    return {
        "base": str(sweep.resolve().parent),
        "sweep": str(sweep),
        "data_root": str(data_root.resolve()),
        "argv": [redacted(word) for word in sys.argv[1:]],
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions that a result may depend on."""
    own = {"python": platform.python_version(), "pgolf-sweep": __version__}
    return own | {name: version(name) for name in RECORDED_PACKAGES}

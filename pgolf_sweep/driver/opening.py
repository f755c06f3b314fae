"""From a sweep file, or a study's folder, to a session, checked before anything is spent.

`open_session` is the one way to a driver, a plan or a promotion: the file, the program that it
names, the rules, the data, the gate.
"""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.config.blocks import STUDY_NAME_RULE, is_study_name
from pgolf_sweep.config.overrides import NONE, Overrides
from pgolf_sweep.config.rules import load_rules
from pgolf_sweep.config.sweep_file import (
    check_against_program,
    load_draft,
    load_spec,
    note_against_program,
    place_of,
)
from pgolf_sweep.config.types import NO_RULES
from pgolf_sweep.core.errors import InfraError, InputError
from pgolf_sweep.core.paths import StudyPaths, read_json, write_bytes, write_json
from pgolf_sweep.driver.session import Session
from pgolf_sweep.gate.gate import Gate
from pgolf_sweep.gate.probed import foreign_of
from pgolf_sweep.gate.resources import Machine
from pgolf_sweep.gate.store import USER, store_path, teach_measured, teach_store
from pgolf_sweep.script.pack import as_counted
from pgolf_sweep.script.program import from_files, load_program
from pgolf_sweep.space.domains import Constant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgolf_sweep.config.rules import Rules
    from pgolf_sweep.config.sweep_file import SweepSpec
    from pgolf_sweep.config.yaml_lines import Document
    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.data import DataSet
    from pgolf_sweep.script.program import Program


class DamagedError(InputError):
    """A file that a launch keeps in the study's folder is damaged or gone; a launch restores it."""


def open_session(
    sweep: Path,
    *,
    data_root: Path,
    name: str | None = None,
    need_data: bool = True,
    overrides: Overrides = NONE,
    probe: bool = True,
) -> Session:
    """Load a sweep file and all that it names.

    Args:
        sweep: The sweep file.
        data_root: Folder of datasets and tokenizers.
        name: Name of the study instead of the sweep file's.
        need_data: Whether shards must be here now; planning does without.
        overrides: What the command line wants otherwise than the file.
        probe: Whether the gate may execute parts of a script that is not ours.

    Raises:
        SpecError: The sweep file has problems, all of them listed.
        InputError: The program, the rules or the data are missing or broken.
    """
    spec, program = read_sweep(sweep, name=name, overrides=overrides)
    base = sweep.resolve().parent
    program = as_counted(program, spec.pgolf.pack)
    calibration_store(spec, base=base)
    return _session(spec, program, base=base, data_root=data_root, need_data=need_data, probe=probe)


def read_sweep(
    sweep: Path, *, name: str | None = None, overrides: Overrides = NONE
) -> tuple[SweepSpec, Program]:
    """A sweep file and the program that it names, as they lie there.

    Raises:
        SpecError: The sweep file has problems, all of them listed.
        InputError: The program is missing or broken, or the name cannot be a study's.
    """
    document, spec = load_draft(sweep, overrides)
    if name is not None:
        if not is_study_name(name):
            raise InputError(
                "this name cannot be a study's: it names its folder",
                where="--name",
                got=name,
                expected=STUDY_NAME_RULE,
            )
        spec = dataclasses.replace(spec, name=name)
    program = _program_of(document, spec, base=sweep.resolve().parent)
    notes = note_against_program(document, spec, program)
    document.raise_problems()
    return dataclasses.replace(spec, notes=(*spec.notes, *notes)), program


def _program_of(document: Document, spec: SweepSpec, *, base: Path) -> Program:
    """The program that a sweep file names; where it is missing, that is one more mistake."""
    place: tuple[str, ...] = ("program",)
    plain = spec.pgolf.rules == NO_RULES
    try:
        with located_at(spec, *place):
            program = load_program(spec.program, base=base, imports=plain)
        place = ("pgolf", "files")
        with located_at(spec, *place):
            more = spec.pgolf.files
            return load_program(spec.program, base=base, extra_files=more, imports=plain)
    except InputError as error:
        if not document.problems:
            raise
        document.problem(place, f"{error.what}; {error.expected or error.where}")
        document.raise_problems()
        return program


@contextmanager
def located_at(spec: SweepSpec, *path: str) -> Iterator[None]:
    """Adds to an error about what a sweep file names the line that names it."""
    try:
        yield
    except InputError as error:
        place = place_of(spec, *path)
        where = f"{place} ({error.where})" if error.where else place
        error.finding = dataclasses.replace(error.finding, where=where)
        raise


def calibration_store(spec: SweepSpec, *, base: Path) -> Path | None:
    """The store that a sweep file names, if it does; the user's own need not exist yet.

    Raises:
        InputError: There is no such file.
    """
    name = spec.pgolf.gate_calibration
    store = None if name is None else store_path(name, base=base)
    if store is not None and name != USER and not store.is_file():
        with located_at(spec, "pgolf", "gate", "calibration"):
            raise InputError(
                "there is no such calibration store",
                where=str(store),
                expected=f"a file that `pgolf-sweep calibrate --store` wrote, or {USER}",
                next_step=f"pgolf-sweep calibrate STUDY --store {store}, or correct the path",
            )
    return store


def reopen_session(paths: StudyPaths, *, need_data: bool = True) -> Session:
    """The session of a study that was launched: its own sweep file and program, as they were.

    Raises:
        InputError: The study's files were changed or lost.
    """
    spec = dataclasses.replace(load_spec(paths.sweep), name=paths.name)
    try:
        origin = read_json(paths.origin)
        base, data_root = Path(origin["base"]), Path(origin["data_root"])
    except (InfraError, KeyError, TypeError) as error:
        raise DamagedError(
            f"study {paths.name!r} does not say any more where it was launched from",
            where=str(paths.origin),
            got=str(error).partition("\n")[0],
            next_step="pgolf-sweep launch SWEEP.yaml writes the file anew",
        ) from error
    return _session(
        spec,
        _checked(spec, stored_program(paths)),
        base=base,
        data_root=data_root,
        need_data=need_data,
    )


def _checked(spec: SweepSpec, program: Program) -> Program:
    check_against_program(spec, program)
    return program


def store_program(paths: StudyPaths, program: Program) -> None:
    """Keep the program's files with the study: a trial runs these, not those outside."""
    for name, content in program.files.items():
        write_bytes(paths.program / name, content)
    document = {"name": program.name, "builtin": program.builtin, "sha256": program.sha256}
    write_json(paths.program / "program.json", document | {"files": sorted(program.files)})


def stored_program(paths: StudyPaths) -> Program:
    """The program that `store_program` kept.

    Raises:
        DamagedError: A stored file is lost, or says nothing that can be read.
        InputError: A stored file was changed.
    """
    listed = paths.program / "program.json"
    try:
        document = read_json(listed)
        files = {name: (paths.program / name).read_bytes() for name in document["files"]}
        program = from_files(document["name"], files, builtin=document["builtin"])
    except (InfraError, OSError, AttributeError, KeyError, TypeError) as error:
        where = getattr(error, "filename", None) or getattr(error, "where", None) or listed
        raise DamagedError(
            "a file of the study's program is damaged or gone",
            where=str(where),
            got=str(error).partition("\n")[0],
            next_step=f"pgolf-sweep launch SWEEP.yaml with the program that {paths.name!r} began "
            "with: it restores the file",
        ) from error
    if program.sha256 != document["sha256"]:
        raise InputError(
            "the study's program was changed after its launch",
            where=str(paths.program),
            got=program.sha256[:16],
            expected=document["sha256"][:16],
            next_step="restore the file, or launch the changed program as a new study",
        )
    if paths.readable.is_file():
        return dataclasses.replace(program, plain=paths.readable.read_bytes())
    return program


def _session(
    spec: SweepSpec,
    program: Program,
    *,
    base: Path,
    data_root: Path,
    need_data: bool,
    probe: bool = True,
) -> Session:
    with located_at(spec, "pgolf", "rules"):
        rules = load_rules(spec.pgolf.rules, base=base)
    with located_at(spec, "pgolf", "data"):
        dataset = _dataset(spec, data_root, base)
    if dataset is not None and need_data:
        from pgolf_sweep.data import check  # noqa: PLC0415 - numpy and sentencepiece

        parameter = spec.space.parameters.get("VOCAB_SIZE")
        # A data set has one vocabulary: a script refuses any other, after it took a slot.
        for size in (dataset.vocab_size,) if parameter is None else parameter.domain.examples():
            check(dataset, int(str(size)))
    gate = _gate(spec, program, rules, dataset, probe=probe)
    learnt = ""
    if spec.pgolf.gate_calibration is not None:
        # Of a study that was launched the store may be gone; it can be looked at all the same.
        learnt = teach_store(gate, spec.pgolf.gate_calibration, base=base)
    fixed = {n: p.domain.value for n, p in spec.space.parameters.items()
             if isinstance(p.domain, Constant)}  # fmt: skip
    learnt = "; ".join(filter(None, (learnt, teach_measured(gate, fixed))))
    return Session(
        spec=spec,
        program=program,
        rules=rules,
        dataset=dataset,
        gate=gate,
        implied=_implied(program, rules, dataset),
        learnt=learnt,
        probe=probe,
    )


def with_program(session: Session, program: Program, *, variant: str) -> Session:
    """A session of the same sweep for another program: its knobs, and a gate of its own.

    Args:
        session: Of the study.
        program: A kept variant, as it runs.
        variant: Its id.
    """
    return dataclasses.replace(
        session,
        program=program,
        gate=_gate(session.spec, program, session.rules, session.dataset, probe=session.probe),
        implied=_implied(program, session.rules, session.dataset),
        learnt="",
        variant=variant,
    )


def _gate(
    spec: SweepSpec, program: Program, rules: Rules, dataset: DataSet | None, *, probe: bool
) -> Gate:
    env = None if dataset is None else dataset.env()
    foreign = foreign_of(program, spec.pgolf.gate_scheme, env, spec.pgolf.gpus) if probe else None
    return Gate(
        program,
        cap_bytes=rules.artifact_cap_bytes,
        confidence=spec.pgolf.gate_confidence,
        foreign=foreign,
        machine=_machine(spec, rules),
    )


def _implied(program: Program, rules: Rules, dataset: DataSet | None) -> dict[str, KnobValue]:
    implied: dict[str, KnobValue] = {}
    if "MAX_WALLCLOCK_SECONDS" in program.knobs and rules.name != NO_RULES:
        implied["MAX_WALLCLOCK_SECONDS"] = rules.train_seconds
    if dataset is not None and "VOCAB_SIZE" in program.knobs:
        implied["VOCAB_SIZE"] = dataset.vocab_size
    return implied


def _machine(spec: SweepSpec, rules: Rules) -> Machine:
    """What a trial runs on, as far as the sweep file and the rules say."""
    gib = spec.pgolf.gate_memory_gib
    return Machine(
        gpus=spec.pgolf.gpus,
        memory_bytes=None if gib is None else gib * 2**30,
        eval_seconds=rules.eval_seconds,
        min_steps=spec.pgolf.gate_min_steps,
    )


def _dataset(spec: SweepSpec, data_root: Path, base: Path) -> DataSet | None:
    from pgolf_sweep.data import from_paths, locate  # noqa: PLC0415 - next to its use

    block = spec.pgolf.data
    if block is None:
        return None
    if block.name is not None:
        return locate(block.name, data_root)
    return from_paths(base / (block.path or ""), base / (block.tokenizer or ""))

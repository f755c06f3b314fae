"""Everything that a sweep stands on, loaded and checked before anything is spent.

`open_session` is the one way from a sweep file to a driver, a plan or a promotion: the file, the
program that it names, the rules, the data, the gate.
"""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.config.binding import Binding
from pgolf_sweep.config.blocks import EXPORT_ONLY_KNOBS, STUDY_NAME_RULE, is_study_name
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
from pgolf_sweep.core.trial import Limits, Resources, TrialSpec, Verdict, VerdictKind, knob_text
from pgolf_sweep.core.yardstick import known_for
from pgolf_sweep.gate.exports import SPARE, smaller_exports
from pgolf_sweep.gate.gate import Gate
from pgolf_sweep.gate.probed import foreign_of
from pgolf_sweep.gate.repair import nearest_values, repair
from pgolf_sweep.gate.resources import Machine
from pgolf_sweep.gate.store import USER, store_path, teach_measured, teach_store
from pgolf_sweep.script.pack import as_counted
from pgolf_sweep.script.program import from_files, load_program
from pgolf_sweep.space.domains import Constant

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pgolf_sweep.config.rules import Rules
    from pgolf_sweep.config.sweep_file import SweepSpec
    from pgolf_sweep.config.yaml_lines import Document
    from pgolf_sweep.core.record import TrialRecord
    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.data import DataSet
    from pgolf_sweep.script.program import Program


def _part(whole: Resources, share: float) -> Resources:
    """A share of what a trial occupies."""
    if share == 1:
        return whole
    return Resources(gpus=round(whole.gpus * share), cpus=whole.cpus * share)


class DamagedError(InputError):
    """A file that a launch keeps in the study's folder is damaged or gone; a launch restores it."""


START_SECONDS = 300.0
"""Allowed beyond training and evaluation: imports, compilation, the artifact's compression."""

CAP_KNOB = "ARTIFACT_CAP_BYTES"
"""Our trainer's knob beyond which it exports again."""

SILENT_SECONDS = 600.0
"""Longest silence of a run by default: a full validation or lzma prints nothing for minutes."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """A sweep, loaded and checked.

    Attributes:
        implied: Knobs that follow from the rules and the data set, not from the sweep file.
        learnt: What the gate learnt from the sweep file's store, for people; empty without one.
        prepares: Whether slow answers of the gate are prepared in a thread (`ready`); else the
            caller waits for them.
        variant: Id of its program; empty for the study's own.
        probe: Whether the gate may execute parts of a script that is not ours.
    """

    spec: SweepSpec
    program: Program
    rules: Rules
    dataset: DataSet | None
    gate: Gate
    implied: Mapping[str, KnobValue]
    learnt: str = ""
    prepares: bool = True
    variant: str = ""
    probe: bool = True

    def resolve(self, knobs: Mapping[str, KnobValue]) -> dict[str, KnobValue]:
        """The sweep's knobs with the implied ones, which the sweep file may override."""
        return {**self.implied, **knobs}

    @cached_property
    def defaults(self) -> dict[str, KnobValue]:
        """The program's own values of its knobs."""
        return {k.name: k.default for k in self.program.knobs.values() if k.default is not None}

    def verdict(self, knobs: Mapping[str, KnobValue]) -> Verdict:
        """The gate's word on resolved knobs, after the sweep file's own `require` expressions."""
        if refused := self._refused(knobs):
            return refused
        if not self.spec.pgolf.gate_enabled:
            return self._verdict(VerdictKind.UNKNOWN, "the sweep file switched the gate off")
        return self.gate.verdict(knobs)

    def _refused(self, knobs: Mapping[str, KnobValue]) -> Verdict | None:
        """The verdict on knobs that break a `require` expression of the sweep file."""
        broken = self.spec.space.violations(knobs, self.defaults)
        if not broken:
            return None
        return self._verdict(VerdictKind.INVALID, f"require: {broken[0]} is false")

    def verdict_of(self, knobs: Mapping[str, KnobValue]) -> Verdict:
        """`verdict` of a sweep's knobs, as its space gives them.

        Where a thread prepares the gate's answers, it never waits for a probe.
        """
        resolved = self.resolve(knobs)
        waits = not self.prepares or not self.spec.pgolf.gate_enabled
        if waits or self.gate.answers(resolved):
            return self.verdict(resolved)
        # What needs no probe is answered at once.
        return self._refused(resolved) or self._verdict(
            VerdictKind.UNKNOWN, "its script's probe is under way"
        )

    def recorded(self, record: TrialRecord) -> Verdict:
        """The verdict with which a trial was discarded, by its row."""
        verdict = self._verdict(VerdictKind.TOO_BIG, record.reason)
        return dataclasses.replace(
            verdict, artifact_bytes=record.predicted_bytes, model_params=record.model_params
        )

    def repaired(self, knobs: Mapping[str, KnobValue]) -> dict[str, KnobValue] | None:
        """The nearest configuration that surely fits, by the parameters that the file lets give.

        Args:
            knobs: The sweep's knobs of a configuration that is near the cap or over it.

        Returns:
            The sweep's knobs, changed; None where nothing helps or nothing may give.
        """
        may_give = {}
        for name in self.spec.pgolf.gate_repair:
            if name in knobs:
                may_give[name] = nearest_values(
                    self.spec.space.parameters[name].domain, knobs[name]
                )
        return repair(lambda changed: self.verdict(self.resolve(changed)), knobs, may_give)

    def export_env(self, knobs: Mapping[str, KnobValue], verdict: Verdict) -> dict[str, str]:
        """What has our trainer export smaller what turns out over the cap; empty where it cannot.

        Args:
            knobs: Resolved values.
            verdict: The gate's word on them; one that is far from the cap needs no export.
        """
        interval, cap_bytes = verdict.artifact_bytes, self.rules.artifact_cap_bytes
        far = interval is None or interval.high < (1 - SPARE) * cap_bytes
        if far or not self.program.builtin or CAP_KNOB in knobs:
            return {}
        settings = smaller_exports(self.verdict, knobs, self._may_export(knobs))
        if not settings:
            return {}
        texts = [
            ",".join(f"{name}={knob_text(value)}" for name, value in setting.items())
            for setting in settings
        ]
        return {CAP_KNOB: str(cap_bytes), "SMALLER_EXPORTS": ";".join(texts)}

    def _may_export(self, knobs: Mapping[str, KnobValue]) -> dict[str, list[KnobValue]]:
        """Other values of the knobs that may change after the training.

        The space's own where it has a choice, else those that make the artifact smaller. A knob
        on which the space's other parameters depend stays.
        """
        allowed = self.spec.pgolf.gate_export
        parents = {name for other in self.spec.space.parameters.values() for name in other.when}
        found = {}
        smaller = self.gate.smaller_values(knobs)
        for name in EXPORT_ONLY_KNOBS if allowed is None else allowed:
            if name in parents:
                continue
            parameter = self.spec.space.parameters.get(name)
            if parameter is None or isinstance(parameter.domain, Constant):
                found[name] = smaller.get(name, [])
            elif name in knobs:
                found[name] = nearest_values(parameter.domain, knobs[name])
        return found

    def ready(self, knobs: Mapping[str, KnobValue]) -> bool:
        """Whether `verdict` answers on these knobs, unresolved, at once; if not, it is prepared."""
        if not self.prepares:
            return True
        resolved = self.resolve(knobs)
        if not self.spec.pgolf.gate_enabled or self.spec.space.violations(resolved, self.defaults):
            return True
        return self.gate.ready(resolved)

    def _verdict(self, kind: VerdictKind, reason: str) -> Verdict:
        return Verdict(
            kind=kind,
            reason=reason,
            code_bytes=self.program.code_bytes,
            cap_bytes=self.rules.artifact_cap_bytes,
            confidence=self.spec.pgolf.gate_confidence,
            regime="none",
        )

    def trial_spec(
        self,
        number: int,
        knobs: Mapping[str, KnobValue],
        proposer: str,
        *,
        run_id: str,
        rung: int | None = None,
    ) -> TrialSpec:
        """What a trial runs, from its resolved knobs, on a cheaper rung or on the sweep's own."""
        binding = Binding(self.spec, self.program)
        run = {**knobs, **self.instead(knobs, rung)}
        env = binding.env(run)
        env |= self.dataset.env() if self.dataset is not None else {}
        return TrialSpec(
            study=self.spec.name,
            number=number,
            knobs=knobs,
            env=env | {"RUN_ID": run_id},
            program_name=self.program.name,
            program_sha256=self.program.sha256,
            resources=self.resources_on(rung),
            limits=self.limits_on(rung),
            proposer=proposer,
            argv=binding.argv(run, self.resources_on(rung).gpus),
            config=binding.config(run),
            metric=self.spec.metric,
            passes=self.spec.pgolf.env_pass,
            variant=self.variant,
            rung=rung,
        )

    def instead(self, knobs: Mapping[str, KnobValue], rung: int | None) -> dict[str, KnobValue]:
        """The resolved knobs that are others on a cheaper rung."""
        fidelity = self.spec.pgolf.fidelity
        if rung is None or fidelity is None:
            return {}
        return fidelity.instead(rung, knobs, self.defaults)

    @cached_property
    def bytes_per_token(self) -> float | None:
        """Of the validation set: the known constant, else counted; None without a data set."""
        if self.dataset is None:
            return None
        known = known_for(self.dataset.name)
        if known is not None or not self.dataset.shards("val"):
            return known
        from pgolf_sweep.data.text_bytes import bytes_per_token  # noqa: PLC0415 - numpy

        return bytes_per_token(self.dataset)

    @property
    def data_identity(self) -> str | None:
        """Hash of validation set and tokenizer, without which no two scores compare."""
        if self.dataset is None:
            return None
        from pgolf_sweep.data import identity  # noqa: PLC0415 - numpy

        return identity(self.dataset)

    @property
    def resources(self) -> Resources:
        """What one trial occupies."""
        block = self.spec.pgolf
        cpus = block.cpus if block.cpus is not None else float(max(1, block.gpus))
        return Resources(gpus=block.gpus, cpus=cpus)

    def resources_on(self, rung: int | None) -> Resources:
        """What one trial occupies on a cheaper rung, or on the sweep's own."""
        whole, fidelity = self.resources, self.spec.pgolf.fidelity
        return whole if fidelity is None else _part(whole, fidelity.gpu_share(rung))

    @property
    def slot_resources(self) -> Resources:
        """What a slot has: the part of a trial that its smallest rung occupies."""
        whole, fidelity = self.resources, self.spec.pgolf.fidelity
        return whole if fidelity is None else _part(whole, fidelity.slot_share)

    @property
    def slots_each(self) -> int:
        """Slots that a trial on the sweep's own rung takes."""
        fidelity = self.spec.pgolf.fidelity
        return 1 if fidelity is None else fidelity.slots(None)

    def limits_on(self, rung: int | None) -> Limits:
        """The limits of a trial on a rung: fewer GPUs take as much longer for all that they do."""
        limits, fidelity = self.limits, self.spec.pgolf.fidelity
        share = 1.0 if fidelity is None else fidelity.gpu_share(rung)
        if share == 1:
            return limits
        return dataclasses.replace(
            limits,
            total_seconds=limits.total_seconds / share,
            silent_seconds=limits.silent_seconds / share,
        )

    @property
    def train_seconds(self) -> float | None:
        """The limit on a trial's training: the rules', or without rules the sweep file's if any."""
        if self.rules.name == NO_RULES:
            return self.spec.pgolf.limits.total_seconds
        return self.rules.train_seconds

    @property
    def limits(self) -> Limits:
        """The sweep file's limits, else the rules' times with an allowance for the start."""
        given = self.spec.pgolf.limits
        total = given.total_seconds
        if total is None:
            total = self.rules.train_seconds + self.rules.eval_seconds + START_SECONDS
        silent = given.silent_seconds
        plain = self.rules.name == NO_RULES  # of any program it is not known how quiet it is
        quiet = min(SILENT_SECONDS, total)
        return Limits(
            total_seconds=total,
            silent_seconds=silent if silent is not None else total if plain else quiet,
        )


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

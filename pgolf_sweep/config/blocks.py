"""The blocks of a sweep file, from their models; a mistake never stops the reading."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from pgolf_sweep.config.fidelity import Fidelity, Rung
from pgolf_sweep.config.models import METRIC_SPELLINGS
from pgolf_sweep.config.types import (
    LOSSLESS_KNOBS,
    METHODS,
    METRIC,
    NO_RULES,
    STARTUP_CURVES,
    EarlyTerminate,
    Method,
    PgolfBlock,
    Reuse,
    SchemeBlock,
    WarmStart,
)
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.trial import Metric
from pgolf_sweep.space.domains import Choices, Constant
from pgolf_sweep.space.space import check_expression
from trainer.export import EXPORT_KNOBS
from trainer.roles import ROLES, ROUNDED_KNOBS, ROUNDING_SWITCH

if TYPE_CHECKING:
    from pathlib import Path

    from pgolf_sweep.config.command import Command
    from pgolf_sweep.config.models import EarlyTerminateBlock, MetricBlock
    from pgolf_sweep.config.pgolf_model import (
        GateBlock,
        PgolfModel,
        ResourcesBlock,
        ReuseBlock,
        SchemeModel,
    )
    from pgolf_sweep.config.yaml_lines import Document, KeyPath
    from pgolf_sweep.space.space import Space

EXPORT_ONLY_KNOBS = tuple(EXPORT_KNOBS)
"""Knobs of our trainer that change the artifact of a finished training, not the training."""
_EXPORT_NAME = re.compile(r"(^|_)(BITS|QUANT|CLIP_SIGMAS|CLIP_PERCENTILE|GPTQ)(_|$)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STUDY_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9 ._-]{0,98}[A-Za-z0-9_-])?")
LATER = frozenset({"export", "eval"})
"""Roles of knobs that a finished training leaves open."""
STUDY_NAME_RULE = "use letters, digits, and between them space and . _ -"


def study_name(document: Document, name: str | None, source: Path) -> str:
    """The study's name, which names a folder: the file's ``name``, or its stem.

    Characters that a folder's name cannot have become ``-``.
    """
    cleaned = re.sub(r"[^A-Za-z0-9 ._-]+", "-", name or "").strip(" ._-")[:100].rstrip(" .")
    if is_study_name(cleaned):
        return cleaned
    if not is_study_name(source.stem):
        what = "missing" if name is None else f"{name!r} names no folder"
        document.problem(
            ("name",), f"{what}, nor does the file's {source.stem!r}: {STUDY_NAME_RULE}"
        )
    return source.stem


def is_study_name(name: str) -> bool:
    """Whether a name can be a study's folder."""
    return _STUDY_NAME.fullmatch(name) is not None


def read_method(document: Document, given: str | None, space: Space, *, rules: str) -> Method:
    """Who proposes, and whether the parameters suit it."""
    if given is None and "method" not in (document.value or {}):
        document.problem(("method",), f"missing; one of: {', '.join(METHODS)}")
    for parameter in space.parameters.values():
        if given == "grid" and parameter.domain.count() is None:
            document.problem(
                parameter.keys,
                f"a grid needs values that end: {parameter.distribution} is continuous "
                f"({parameter.domain.describe()}); use values, int_uniform or q_uniform",
            )
    if space.one_at_a_time and given not in {None, "grid"}:
        document.problem(
            ("pgolf", "one_at_a_time"), f"is the order of a grid: write method: grid, not {given}"
        )
    seeds = space.parameters.get("SEED")
    repeats = given == "grid" and seeds is not None and isinstance(seeds.domain, Choices)
    free = rules == NO_RULES or seeds is None or isinstance(seeds.domain, Constant) or repeats
    if seeds is not None and not free:
        document.problem(
            seeds.keys,
            "searching over seeds is cheating by the rules: give one value, or a list of values "
            "with method grid to measure the noise between seeds",
        )
    return cast("Method", given or "random")


def read_metric(document: Document, block: MetricBlock, pattern: str | None, rules: str) -> Metric:
    """What is optimised: the contest's score, or any number that the program logs."""
    named = re.sub(r"[^a-z0-9]+", "_", block.name.lower()).strip("_")
    contest = named in METRIC_SPELLINGS and pattern is None and rules != NO_RULES
    if contest and block.goal == "maximize":
        document.problem(
            ("metric", "goal"), f"{METRIC} is bits per byte, lower is better: write minimize"
        )
    if block.impute_while_running not in {None, "false"}:
        document.problem(
            ("metric", "impute_while_running"),
            "not offered: scores of running trials are never made up; write false, or leave it out",
        )
    return Metric(
        name=METRIC if contest else block.name,
        goal=block.goal,
        contest=contest,
        pattern=pattern or "",
        target=block.target,
        impute=block.impute,
    )


_OWN_KEYS = {
    "forecast": ("startup_trials",),
    "halving": ("eta", "startup_trials"),
    "hyperband": ("min_iter", "max_iter", "s", "eta", "strict"),
    "median": ("min_iter", "startup_trials"),
    "none": (),
}


def read_early_terminate(
    document: Document, block: EarlyTerminateBlock, raw: object, notes: list[str]
) -> EarlyTerminate | None:
    """The pruner, by W&B's keys (hyperband) or ours (halving, median, none)."""
    where: KeyPath = ("early_terminate",)
    given = raw if isinstance(raw, dict) else {}
    kind = block.type
    if kind is None:
        if given and "type" not in given:
            document.problem((*where, "type"), f"missing; one of: {', '.join(_OWN_KEYS)}")
        return None
    for key in block.model_fields_set - {"type", *_OWN_KEYS[kind]}:
        known = ", ".join(("type", *_OWN_KEYS[kind]))
        document.problem((*where, key), f"unknown key of {kind}; known keys: {known}")
    if kind == "none":
        return None
    startup = STARTUP_CURVES if block.startup_trials is None else block.startup_trials
    if kind == "halving":
        eta = 3.0 if block.eta is None else block.eta
        return EarlyTerminate(kind="halving", eta=eta, startup_trials=startup)
    if kind == "forecast":
        return EarlyTerminate(kind="forecast", startup_trials=startup)
    if kind == "median":
        return EarlyTerminate(kind="median", min_iter=block.min_iter or 1, startup_trials=startup)
    return _hyperband(document, block, notes)


def _export_knobs(space: Space, reuse: Reuse) -> tuple[str, ...]:
    """Searched parameters that change the score after the training alone.

    Of a script that is not ours those that the file says so of, and those whose name speaks of
    quantization.
    """
    return tuple(
        parameter.name
        for parameter in space.parameters.values()
        if parameter.searched
        and parameter.name not in LOSSLESS_KNOBS
        and (
            parameter.name in reuse.later
            or parameter.name in EXPORT_KNOBS
            or (parameter.name not in reuse.roles and _EXPORT_NAME.search(parameter.name))
        )
    )


def _reuse(document: Document, block: ReuseBlock, space: Space, program: str) -> Reuse:
    """``reuse``: the roles of the knobs, and whether any that comes late is searched."""
    for name in block.roles:
        if program == "trainer" and name in ROLES:
            document.problem(
                ("pgolf", "reuse", "roles", name),
                f"our trainer's {name} has the role {ROLES[name]}; leave it out",
            )
        elif name not in space.parameters:
            document.problem(
                ("pgolf", "reuse", "roles", name),
                f"{name} is no parameter of this sweep; name some of: "
                f"{', '.join(space.parameters)}",
            )
    roles = {**(ROLES if program == "trainer" else {}), **block.roles}
    ours = Reuse(
        roles=roles,
        switch=ROUNDING_SWITCH,
        switched=ROUNDED_KNOBS if program == "trainer" else frozenset(),
    )
    parameters = space.parameters.values()
    fixed = {p.name: p.domain.value for p in parameters if isinstance(p.domain, Constant)}
    later = tuple(
        each.name for each in parameters if each.searched and ours.role(each.name, fixed) in LATER
    )
    return replace(
        ours,
        enabled=bool(later) if block.enabled is None else block.enabled,
        later=later,
        store=block.store,
        max_bytes=block.max_gib * 2**30,
    )


def _hyperband(document: Document, block: EarlyTerminateBlock, notes: list[str]) -> EarlyTerminate:
    """W&B's pruner; which of its keys wins goes to the notes."""
    where: KeyPath = ("early_terminate",)
    goes_back = block.max_iter is not None and block.s is not None
    if block.min_iter is None and not goes_back:
        document.problem(
            (*where, "min_iter"), "missing; hyperband needs min_iter, or max_iter and s"
        )
    if goes_back and block.min_iter is not None:
        notes.append(
            f"early_terminate: max_iter {block.max_iter} and s decide, as in W&B; "
            f"min_iter {block.min_iter} is not used"
        )
    elif block.s is not None and block.min_iter is not None:
        notes.append("early_terminate: min_iter decides; s is used with max_iter only, as in W&B")
    elif block.max_iter is not None and block.min_iter is not None:
        notes.append("early_terminate: min_iter decides; max_iter is used with s only")
    found = EarlyTerminate(
        kind="hyperband",
        min_iter=block.min_iter or 1,
        max_iter=block.max_iter if goes_back else None,
        s=int(block.s) if goes_back and block.s is not None else None,
        eta=3.0 if block.eta is None else block.eta,
        strict=block.strict,
    )
    if goes_back and not found.iterations():
        document.problem(
            (*where, "max_iter"),
            f"max_iter {block.max_iter} by eta {found.eta:g} is below 1: no trial would stop",
        )
    return found


def read_require(document: Document, expressions: tuple[str, ...]) -> tuple[str, ...]:
    """The requirements that can be evaluated."""
    good = []
    for index, expression in enumerate(expressions):
        try:
            check_expression(expression)
        except ValueError as error:
            document.problem(("pgolf", "require", index), f"{expression!r}: {error}")
        else:
            good.append(expression)
    return tuple(good)


def read_pgolf(
    document: Document,
    block: PgolfModel,
    space: Space,
    require: tuple[str, ...],
    command: Command,
    program: str,
) -> PgolfBlock:
    """The ``pgolf:`` block with defaults filled in."""
    gate, plain = block.gate, block.rules == NO_RULES
    gpus = _gpus(document, block.resources, command, plain=plain)
    reuse = _reuse(document, block.reuse, space, program)
    _check_data(document, block)
    _check_nodes(document, block)
    if block.budget.usd is not None and not block.budget.usd_per_gpu_hour:
        document.problem(("pgolf", "budget", "usd"), "needs a price: add usd_per_gpu_hour")
    return PgolfBlock(
        rules=block.rules,
        require=require,
        gpus=gpus,
        cpus=block.resources.cpus,
        gate_enabled=not plain if gate.enabled is None else gate.enabled,
        gate_confidence=gate.confidence,
        gate_scheme=None if gate.scheme is None else _scheme(document, gate.scheme),
        gate_repair=_repair(document, gate, space),
        gate_export=_export(document, gate),
        export_knobs=_export_knobs(space, reuse),
        reuse=reuse,
        gate_calibration=gate.calibration,
        gate_memory_gib=gate.memory_gib,
        gate_min_steps=gate.min_steps,
        data=block.data,
        files=block.files,
        env_pass=_passes(document, block),
        limits=block.limits,
        budget=block.budget,
        warm_start=_read_warm_start(document, block.warm_start, space),
        pack=block.pack,
        fidelity=_fidelity(document, block, gpus, command),
        max_retries=block.max_retries,
        nodes=block.nodes,
        seed=block.seed,
        second_seeds=block.second_seeds,
        noise_floor=block.noise_floor,
        proposers=block.proposers,
        accept=block.accept,
        based_on=block.based_on.model_dump(exclude_none=True),
        promote_seeds=block.promote.seeds,
        notify=block.notify,
    )


def _fidelity(
    document: Document, block: PgolfModel, gpus: int, command: Command
) -> Fidelity | None:
    """``fidelity``: the cheaper rungs; None where there are none."""
    given = block.fidelity
    if not given.rungs:
        if given.model_fields_set:
            document.problem(
                ("pgolf", "fidelity"), "names no rung: write [{share: 0.125}], or leave it out"
            )
        return None
    for index, rung in enumerate(given.rungs):
        if rung.gpus not in {None, gpus} and (command.launches or command.processes):
            document.problem(
                ("pgolf", "fidelity", "rungs", index, "gpus"),
                "contradiction: command starts the same processes on every rung; leave gpus out, "
                "or let a trial be started without a launcher of its own",
            )
        if rung.gpus is not None and (not gpus or gpus % rung.gpus):
            document.problem(
                ("pgolf", "fidelity", "rungs", index, "gpus"),
                f"must divide the {gpus} GPUs of a trial, to fill a node; not {rung.gpus}",
            )
    rungs = tuple(
        Rung(
            share=rung.share,
            gpu_share=rung.gpus / gpus if rung.gpus and gpus else 1.0,
            sets=rung.sets,
        )
        for rung in given.rungs
    )
    return Fidelity(rungs=rungs, keep=given.keep, scale=given.scale)


def _gpus(document: Document, block: ResourcesBlock, command: Command, *, plain: bool) -> int:
    """GPUs of a trial; on the CPU a command may start any number of ranks."""
    processes, at = command.processes, command.processes_at
    if block.gpus is None:
        return processes or (1 if plain else 8)
    gpus = block.gpus
    if gpus and processes is not None and gpus != processes:
        place = ("command", at) if at is not None else ("command",)
        document.problem(
            ("pgolf", "resources", "gpus"),
            f"contradiction: {gpus} here, {processes} processes in command "
            f"(line {document.lines.get(place, document.lines.get(('command',), 0))})",
        )
    if not plain and gpus > 1 and 8 % gpus:
        document.problem(
            ("pgolf", "resources", "gpus"),
            f"must divide 8, as the contest's scripts ask; not {gpus}",
        )
    return gpus


def _passes(document: Document, block: PgolfModel) -> tuple[str, ...]:
    """``env.pass``: names of variables."""
    for index, name in enumerate(block.env.pass_):
        if not _VARIABLE.fullmatch(name):
            document.problem(
                ("pgolf", "env", "pass", index), f"{name!r} is no name of an environment variable"
            )
    return block.env.pass_


def _check_nodes(document: Document, block: PgolfModel) -> None:
    if not block.nodes.check and block.nodes.speed in {"refuse", "mark"}:
        document.problem(
            ("pgolf", "nodes", "speed"), "contradiction: check is false, so that no speed is known"
        )


def _check_data(document: Document, block: PgolfModel) -> None:
    if block.data is None or block.data.name is not None:
        return
    for key in ("path", "tokenizer"):
        if getattr(block.data, key) is None:
            document.problem(
                ("pgolf", "data", key),
                "missing; data is a name, or a mapping of path and tokenizer",
            )


def _repair(document: Document, gate: GateBlock, space: Space) -> tuple[str, ...]:
    """``gate.repair``: parameters of the sweep that have another value to give.

    One that others depend on stays: with another value of it they would go or come, and nobody
    has said what those that come would be.
    """
    for index, name in enumerate(gate.repair):
        place = ("pgolf", "gate", "repair", index)
        parameter = space.parameters.get(name)
        children = [other.name for other in space.parameters.values() if name in other.when]
        if parameter is None or isinstance(parameter.domain, Constant):
            what = "is no parameter of this sweep" if parameter is None else "has one value"
            document.problem(
                place,
                f"{name} {what}; name parameters that may give, with other values under parameters",
            )
        elif children:
            document.problem(
                place,
                f"{name} cannot give: {', '.join(children)} exists only under a value of it; "
                "name parameters on which no other depends",
            )
    return gate.repair


def _export(document: Document, gate: GateBlock) -> tuple[str, ...] | None:
    """``gate.export``: knobs that may give once the weights are trained."""
    for index, name in enumerate(gate.export or ()):
        if name not in EXPORT_KNOBS:
            document.problem(
                ("pgolf", "gate", "export", index),
                f"{name} needs another training; name some of: {', '.join(EXPORT_KNOBS)}",
            )
    return gate.export


def _scheme(document: Document, block: SchemeModel) -> SchemeBlock:
    """``gate.scheme`` with its defaults."""
    needed = {"sdclip": "clip_sigmas", "percentile": "clip_percentile"}.get(block.scale)
    parameter = getattr(block, needed) if needed else None
    where = ("pgolf", "gate", "scheme")
    if needed and parameter is None:
        document.problem((*where, "scale"), f"{block.scale} needs {needed}")
    for key in {"clip_sigmas", "clip_percentile"} & block.model_fields_set - {needed}:
        document.problem((*where, key), f"unknown key of scale {block.scale}")
    return SchemeBlock(
        bits=block.bits or 8,
        embed_bits=block.embed_bits or block.bits or 8,
        scale=block.scale,
        parameter=parameter or 0.0,
        codec=block.codec or "",
        keep_below=block.keep_below,
    )


def _read_warm_start(document: Document, raw: Any, space: Space) -> tuple[WarmStart, ...]:
    items: Any = raw or []
    if isinstance(items, str):
        items = [{"study": items}]
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        document.problem(
            ("pgolf", "warm_start"),
            "must be a list of configurations, [{MATRIX_LR: 0.04}], or of studies, [{study: NAME}]",
        )
        return ()
    return tuple(_warm_start_item(document, index, item, space) for index, item in enumerate(items))


def _warm_start_item(
    document: Document, index: int, item: dict[str, Any], space: Space
) -> WarmStart:
    place = ("pgolf", "warm_start", index)
    if "study" not in item or "study" in space.parameters:
        try:
            space.encode(item)
        except InputError as error:
            if not document.problems:  # else the space may lack what had mistakes
                document.problem(place, error.what)
        return WarmStart(knobs=item)
    top = item.get("top", WarmStart.top)
    named = isinstance(item["study"], str) and is_study_name(item["study"])
    matching = item.get("trials") == "matching"
    known = {"study", "trials"} if matching else {"study", "top"}
    if not named or item.keys() - known or type(top) is not int or top < 1:
        document.problem(
            place,
            "must be {study: NAME, top: HOW_MANY} or {study: NAME, trials: matching}, a study "
            "below --runs",
        )
    return WarmStart(study=str(item["study"]), top=top, matching=matching)

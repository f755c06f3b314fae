"""The blocks of a sweep file, each read from its section; a mistake never stops the reading."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from pgolf_sweep.config.types import (
    DEFAULT_RULES,
    METHODS,
    METRIC,
    Budget,
    DataBlock,
    EarlyTerminate,
    LimitsBlock,
    Method,
    NodesBlock,
    PgolfBlock,
    SchemeBlock,
    WarmStart,
)
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.space.domains import Choices, Constant
from pgolf_sweep.space.space import check_expression
from trainer.export import EXPORT_KNOBS

if TYPE_CHECKING:
    from pathlib import Path

    from pgolf_sweep.config.yaml_lines import Section
    from pgolf_sweep.space.space import Space
EXPORT_ONLY_KNOBS = tuple(EXPORT_KNOBS)
"""Knobs of our trainer that change the artifact of a finished training, not the training."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STUDY_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9 ._-]{0,98}[A-Za-z0-9_-])?")
STUDY_NAME_RULE = "use letters, digits, and between them space and . _ -"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a W&B ``command`` says that matters here."""

    script: str | None = None
    processes: int | None = None


def read_command(top: Section) -> Command:
    """W&B's ``command``, where it asks for nothing but what every trial does anyway."""
    words = top.texts("command")
    script = processes = None
    program = top.raw("program")
    for index, word in enumerate(words):
        count = re.fullmatch(r"--nproc[_-]per[_-]node=(\d+)", word)
        if count:
            processes = int(count[1])
        elif word.endswith(".py") and program in {None, word}:
            script = word
        elif not re.fullmatch(
            r"\$\{(env|interpreter|program|args\w*)\}|(/usr/bin/)?env|python3?|torchrun|--standalone",
            word,
        ):
            is_setting = re.fullmatch(r"[A-Z_][A-Z0-9_]*=.*", word)
            fix = (
                f"write it under parameters: {word.split('=')[0]}: {{value: ...}}"
                if is_setting
                else "the program is started directly, its knobs in the environment"
            )
            top.document.problem((*top.path, "command", index), f"{word!r} would be lost; {fix}")
    return Command(script=script, processes=processes)


def read_name(top: Section, source: Path) -> str:
    """The study's name: the file's ``name``, or its stem."""
    name = top.text("name")
    if name is not None and not is_study_name(name):
        top.problem("name", f"{name!r} names a folder: {STUDY_NAME_RULE}")
    if name is None and not is_study_name(source.stem):
        top.problem(
            "name", f"missing, and the file's {source.stem!r} names no folder: {STUDY_NAME_RULE}"
        )
    return name or source.stem


def is_study_name(name: str) -> bool:
    """Whether a name can be a study's folder."""
    return _STUDY_NAME.fullmatch(name) is not None


def read_method(top: Section, parameters: Section, space: Space) -> Method:
    """Who proposes, and whether the parameters suit it."""
    method = top.choice("method", METHODS)
    if "method" not in top:
        top.problem("method", f"missing; one of: {', '.join(METHODS)}")
    for name, parameter in space.parameters.items():
        if method == "grid" and parameter.domain.count() is None:
            parameters.problem(
                name,
                f"a grid needs values that end: {parameter.distribution} is continuous "
                f"({parameter.domain.describe()}); use values, int_uniform or q_uniform",
            )
    seeds = space.parameters.get("SEED")
    repeats = method == "grid" and seeds is not None and isinstance(seeds.domain, Choices)
    if seeds is not None and not isinstance(seeds.domain, Constant) and not repeats:
        parameters.problem(
            "SEED",
            "searching over seeds is cheating by the rules: give one value, or a list of values "
            "with method grid to measure the noise between seeds",
        )
    return cast("Method", method or "random")


def read_metric(metric: Section) -> str:
    """What is minimised; there is one score in this contest."""
    metric.refuse(
        {
            "target": "stopping at a target is not offered; set run_cap",
            "impute": "failed trials are told to the sampler as failed, never with a made-up score",
            "impute_while_running": "scores of running trials are never made up",
        }
    )
    name = metric.text("name", METRIC)
    if name != METRIC:
        metric.problem("name", f"{name!r} is not what the contest scores; sweeps minimise {METRIC}")
    if metric.choice("goal", ("minimize", "maximize"), "minimize") == "maximize":
        metric.problem("goal", f"{METRIC} is bits per byte, lower is better: write minimize")
    metric.close()
    return METRIC


def read_early_terminate(block: Section) -> EarlyTerminate | None:
    """The pruner, by W&B's keys (hyperband) or ours (median, none)."""
    kind = block.choice("type", ("hyperband", "median", "none"))
    if not list(block) or kind is None:
        if list(block) and "type" not in block:
            block.problem("type", "missing; one of: hyperband, median, none")
        return None
    min_iter = block.integer("min_iter", least=1) if kind != "none" else None
    if kind == "median":
        startup = block.integer("startup_trials", least=0)
        block.close()
        return EarlyTerminate(
            kind="median", min_iter=min_iter or 1, startup_trials=5 if startup is None else startup
        )
    if kind == "none":
        block.close()
        return None
    max_iter = block.integer("max_iter", least=1)
    brackets = block.integer("s", least=1)
    eta = block.number("eta", above=1)
    if eta is not None and eta != int(eta):
        block.problem("eta", f"must be a whole number from 2, not {eta:g}")
    eta = int(eta or 3)
    if min_iter is None and (max_iter is None or brackets is None):
        block.problem("min_iter", "missing; hyperband needs min_iter, or max_iter and s")
    elif min_iter is not None and brackets is not None:
        block.problem("s", "contradiction: give min_iter, or max_iter and s")
    elif min_iter is not None and max_iter is not None and min_iter > max_iter:
        block.problem("min_iter", f"min_iter {min_iter} is greater than max_iter {max_iter}")
    block.flag("strict", default=False)
    block.close()
    if min_iter is None:  # W&B: the brackets go down from max_iter, each by eta
        min_iter = max(1, (max_iter or 1) // eta ** (brackets or 1))
    return EarlyTerminate(kind="hyperband", min_iter=min_iter, max_iter=max_iter, eta=eta)


def read_require(block: Section) -> tuple[str, ...]:
    """The requirements that can be evaluated."""
    expressions = block.texts("require")
    good = []
    for index, expression in enumerate(expressions):
        try:
            check_expression(expression)
        except ValueError as error:
            block.document.problem((*block.path, "require", index), f"{expression!r}: {error}")
        else:
            good.append(expression)
    return tuple(good)


def read_pgolf(
    block: Section, space: Space, require: tuple[str, ...], processes: int | None
) -> PgolfBlock:
    """The ``pgolf:`` block; `processes` is what W&B's command asks of torchrun, if it does."""
    block.refuse({"fidelity": "rungs are not supported yet; early_terminate stops weak trials"})
    resources, gate, limits, budget, promote, env = (
        block.section(key) for key in ("resources", "gate", "limits", "budget", "promote", "env")
    )
    gpus = resources.integer("gpus", least=0)
    if gpus is not None and processes is not None and gpus != processes:
        resources.problem("gpus", f"contradiction: {gpus} here, {processes} processes in command")
    if gpus is not None and gpus > 1 and 8 % gpus:
        resources.problem("gpus", f"must divide 8, as the contest's scripts ask; not {gpus}")
    max_retries = block.integer("max_retries", least=0)
    confidence = gate.number("confidence", above=0.5, below=1)
    result = PgolfBlock(
        rules=block.text("rules") or DEFAULT_RULES,
        require=require,
        gpus=gpus if gpus is not None else processes or 8,
        cpus=resources.number("cpus", above=0),
        gate_enabled=gate.flag("enabled", default=True),
        gate_confidence=confidence or 0.99,
        gate_scheme=_read_scheme(gate),
        gate_repair=_read_repair(gate, space),
        gate_export=_read_export(gate),
        gate_calibration=gate.text("calibration"),
        gate_memory_gib=gate.number("memory_gib", above=0),
        gate_min_steps=gate.integer("min_steps", least=1),
        data=_read_data(block),
        files=block.texts("files"),
        env_pass=_read_passes(env),
        limits=LimitsBlock(
            total_seconds=limits.number("total_seconds", above=0),
            silent_seconds=limits.number("silent_seconds", above=0),
        ),
        budget=Budget(
            gpu_hours=budget.number("gpu_hours", above=0),
            usd_per_gpu_hour=budget.number("usd_per_gpu_hour", least=0),
        ),
        warm_start=_read_warm_start(block, space),
        pack=None if block.raw("pack") is None else block.flag("pack", default=False),
        max_retries=2 if max_retries is None else max_retries,
        nodes=_read_nodes(block.section("nodes")),
        seed=block.integer("seed", least=0) or 0,
        promote_seeds=promote.integer("seeds", least=1),
    )
    for section in (resources, gate, limits, budget, promote, env, block):
        section.close()
    return result


def _read_passes(env: Section) -> tuple[str, ...]:
    """``env.pass``: names of variables."""
    names = env.texts("pass")
    for index, name in enumerate(names):
        if not _VARIABLE.fullmatch(name):
            place = (*env.path, "pass", index)
            env.document.problem(place, f"{name!r} is no name of an environment variable")
    return names


def _read_nodes(nodes: Section) -> NodesBlock:
    """``nodes``: when a node is quarantined, and what it is checked for."""
    default = NodesBlock()
    failures = nodes.integer("failures", least=0)
    result = NodesBlock(
        failures=default.failures if failures is None else failures,
        retry_seconds=nodes.number("retry_seconds", above=0) or default.retry_seconds,
        give_up_seconds=nodes.number("give_up_seconds", above=0) or default.give_up_seconds,
        check=nodes.flag("check", default=True),
        speed=nodes.choice("speed", ("refuse", "mark", "none")),
        min_speed=nodes.number("min_speed", above=0, below=1) or default.min_speed,
    )
    if not result.check and result.speed in {"refuse", "mark"}:
        nodes.problem("speed", "contradiction: check is false, so that no speed is known")
    nodes.close()
    return result


def _read_repair(gate: Section, space: Space) -> tuple[str, ...]:
    """``gate.repair``: parameters of the sweep that have another value to give.

    One that others depend on stays: with another value of it they would go or come, and nobody
    has said what those that come would be.
    """
    names = gate.texts("repair")
    for index, name in enumerate(names):
        place = (*gate.path, "repair", index)
        parameter = space.parameters.get(name)
        children = [other.name for other in space.parameters.values() if name in other.when]
        if parameter is None or isinstance(parameter.domain, Constant):
            what = "is no parameter of this sweep" if parameter is None else "has one value"
            gate.document.problem(
                place,
                f"{name} {what}; name parameters that may give, with other values under parameters",
            )
        elif children:
            gate.document.problem(
                place,
                f"{name} cannot give: {', '.join(children)} exists only under a value of it; "
                "name parameters on which no other depends",
            )
    return names


def _read_export(gate: Section) -> tuple[str, ...] | None:
    """``gate.export``: knobs that may give once the weights are trained."""
    if "export" not in gate:
        return None
    names = gate.texts("export")
    for index, name in enumerate(names):
        if name not in EXPORT_KNOBS:
            gate.document.problem(
                (*gate.path, "export", index),
                f"{name} needs another training; name some of: {', '.join(EXPORT_KNOBS)}",
            )
    return names


def _read_scheme(gate: Section) -> SchemeBlock | None:
    """``gate.scheme``: bits, embed_bits, scale with its parameter, codec, keep_below."""
    if "scheme" not in gate:
        return None
    section = gate.section("scheme")
    bits = section.integer("bits", least=2)
    embed_bits = section.integer("embed_bits", least=2)
    scale = section.choice("scale", ("rowmax", "percentile", "sdclip", "mse"), "rowmax")
    needed = {"sdclip": "clip_sigmas", "percentile": "clip_percentile"}.get(scale or "")
    parameter = section.number(needed, above=0) if needed else None
    if needed and parameter is None:
        section.problem("scale", f"{scale} needs {needed}")
    codec = section.choice("codec", ("zlib", "zstd", "lzma", "brotli"), "")
    keep_below = section.integer("keep_below", least=0)
    section.close()
    return SchemeBlock(
        bits=bits or 8,
        embed_bits=embed_bits or bits or 8,
        scale=scale or "rowmax",
        parameter=parameter or 0.0,
        codec=codec or "",
        keep_below=65_536 if keep_below is None else keep_below,
    )


def _read_data(block: Section) -> DataBlock | None:
    value = block.raw("data")
    if value is None or isinstance(value, str):
        return None if value is None else DataBlock(name=value)
    section = block.section("data")
    path, tokenizer = section.text("path"), section.text("tokenizer")
    for key in ("path", "tokenizer"):
        if key not in section:
            section.problem(key, "missing; data is a name, or a mapping of path and tokenizer")
    section.close()
    return DataBlock(path=path, tokenizer=tokenizer)


def _read_warm_start(block: Section, space: Space) -> tuple[WarmStart, ...]:
    items: Any = block.raw("warm_start") or []
    if isinstance(items, str):
        items = [{"study": items}]
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        block.problem(
            "warm_start",
            "must be a list of configurations, [{MATRIX_LR: 0.04}], or of studies, [{study: NAME}]",
        )
        return ()
    return tuple(_warm_start_item(block, index, item, space) for index, item in enumerate(items))


def _warm_start_item(block: Section, index: int, item: dict[str, Any], space: Space) -> WarmStart:
    place = (*block.path, "warm_start", index)
    if "study" not in item:
        try:
            space.encode(item)
        except InputError as error:
            if not block.document.problems:  # else the space may lack what had mistakes
                block.document.problem(place, error.what)
        return WarmStart(knobs=item)
    top = item.get("top", WarmStart.top)
    named = isinstance(item["study"], str) and is_study_name(item["study"])
    if not named or item.keys() - {"study", "top"} or type(top) is not int or top < 1:
        block.document.problem(place, "must be {study: NAME, top: HOW_MANY}, a study below --runs")
    return WarmStart(study=str(item["study"]), top=top)

"""`define`: flags to a sweep file."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgolf_sweep.cli.common import (
    DEFAULT_DATA,
    DataRootOption,
    JsonOption,
    app,
    emit,
    say,
)

if TYPE_CHECKING:
    from pgolf_sweep.config.importers import Imported

_AXES = "What to search"


def _axis(flag: str, meaning: str) -> Any:
    return typer.Option(flag, metavar="RANGE", help=meaning, rich_help_panel=_AXES)


def _imported(optuna: str | None, hydra: Path | None, ray: Path | None) -> Imported | None:
    """The search space that one of the options names."""
    from pgolf_sweep.config.importers import read_hydra, read_ray
    from pgolf_sweep.core.errors import InputError

    if sum(one is not None for one in (optuna, hydra, ray)) > 1:
        raise InputError("give one of --from-optuna, --from-hydra and --from-ray")
    if optuna is not None:
        from pgolf_sweep.search.foreign import read_optuna

        return read_optuna(optuna)
    if hydra is not None:
        return read_hydra(hydra)
    return None if ray is None else read_ray(ray)


def _metric(name: str | None, goal: str | None) -> dict[str, str] | None:
    if name is None and goal in {None, "minimize"}:
        return None
    return {"name": name or "score", "goal": goal or "minimize"}


@app.command()
def schema() -> None:
    """The JSON schema of sweep files, for editors that complete and check YAML.

    `define` puts it beside the files that it writes, and a line into them by which editors find it.

    Example: pgolf-sweep schema > sweeps/pgolf-sweep.schema.json
    """
    from pgolf_sweep.config.schema import schema_text

    sys.stdout.write(schema_text())


@app.command()
def define(  # noqa: PLR0915 - a flag each
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The sweep file to write.")],
    width: Annotated[str | None, _axis("--width", "MODEL_DIM: width of the model")] = None,
    depth: Annotated[str | None, _axis("--depth", "NUM_LAYERS: transformer blocks")] = None,
    heads: Annotated[str | None, _axis("--heads", "NUM_HEADS: query heads")] = None,
    kv_heads: Annotated[
        str | None, _axis("--kv-heads", "NUM_KV_HEADS: key and value heads")
    ] = None,
    mlp: Annotated[str | None, _axis("--mlp", "MLP_MULT: MLP width in model widths")] = None,
    lr: Annotated[str | None, _axis("--lr", "MATRIX_LR: Muon's rate")] = None,
    embed_lr: Annotated[str | None, _axis("--embed-lr", "TIED_EMBED_LR")] = None,
    scalar_lr: Annotated[str | None, _axis("--scalar-lr", "SCALAR_LR")] = None,
    schedule: Annotated[str | None, _axis("--schedule", "LR_SCHEDULE: linear, cosine, wsd")] = None,
    min_lr_frac: Annotated[
        str | None, _axis("--min-lr-frac", "MIN_LR_FRAC: rate at the end / peak")
    ] = None,
    warmdown: Annotated[str | None, _axis("--warmdown", "WARMDOWN_ITERS: in steps")] = None,
    warmdown_frac: Annotated[
        str | None, _axis("--warmdown-frac", "WARMDOWN_FRAC: share of the run")
    ] = None,
    bits: Annotated[str | None, _axis("--bits", "MATRIX_BITS: bits of a block's weight")] = None,
    attn_bits: Annotated[str | None, _axis("--attn-bits", "ATTN_BITS")] = None,
    mlp_bits: Annotated[str | None, _axis("--mlp-bits", "MLP_BITS")] = None,
    embed_bits: Annotated[str | None, _axis("--embed-bits", "EMBED_BITS")] = None,
    codec: Annotated[str | None, _axis("--codec", "CODEC: zlib, zstd, lzma, brotli")] = None,
    vocab: Annotated[str | None, _axis("--vocab", "VOCAB_SIZE")] = None,
    weight_decay: Annotated[str | None, _axis("--weight-decay", "WEIGHT_DECAY")] = None,
    momentum: Annotated[str | None, _axis("--momentum", "MUON_MOMENTUM")] = None,
    seeds: Annotated[
        str | None, _axis("--seeds", "SEED; several only with --method grid, to measure noise")
    ] = None,
    knob: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=RANGE", help="Any other knob; repeatable.", rich_help_panel=_AXES
        ),
    ] = None,
    base: Annotated[
        Path | None, typer.Option("--from", help="Start from this sweep file and change it.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Start from a recipe: `frontier`, what the last records share."),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="grid, random, bayes, gp, cmaes or qmc [default: bayes]")
    ] = None,
    run_cap: Annotated[
        int | None, typer.Option(min=1, help="Trials that may reach a slot [default: 64]")
    ] = None,
    rules: Annotated[
        str | None, typer.Option(help="Rules preset or file [default: parameter-golf-2026]")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=0, help="GPUs of one node for each trial [default: 8]")
    ] = None,
    program: Annotated[
        str | None, typer.Option(help="`trainer`, or the path of a script [default: trainer]")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The study's name; else the file's.")] = None,
    question: Annotated[
        str | None, typer.Option(help="What the sweep answers: the file's first line.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Name of what to optimise [default: val_bpb]")
    ] = None,
    goal: Annotated[
        str | None, typer.Option(help="minimize or maximize [default: minimize]")
    ] = None,
    from_optuna: Annotated[
        str | None,
        typer.Option(
            "--from-optuna", metavar="STORAGE#STUDY", help="Space and best trials of a study."
        ),
    ] = None,
    from_hydra: Annotated[
        Path | None,
        typer.Option("--from-hydra", metavar="CONFIG", help="The sweep of a hydra configuration."),
    ] = None,
    from_ray: Annotated[
        Path | None,
        typer.Option(
            "--from-ray", metavar="SPACE.json", help="Ray Tune's space; docs/coming_from.md."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
    data_root: DataRootOption = DEFAULT_DATA,
    json_output: JsonOption = False,
) -> None:
    """Write a sweep file from flags: no YAML to know, every name and type checked.

    A RANGE is `LOW:HIGH` (ints between ints, else floats), `LOW:HIGH:STEP`, `LOW:HIGH:log`,
    `A,B,C` or one value.

    Example: pgolf-sweep define sweeps/mine.yaml --width 384:640:64 --depth 7:13
    --lr 0.015:0.08:log --schedule linear,cosine,wsd --bits 4,5,6,8
    """
    from pgolf_sweep.config.generate import (
        AXES,
        Draft,
        as_read,
        draft_text,
        parse_knobs,
        preset_file,
    )
    from pgolf_sweep.config.importers import within
    from pgolf_sweep.config.schema import SCHEMA_FILE, schema_text
    from pgolf_sweep.config.sweep_file import check_against_program, load_spec, parse_spec
    from pgolf_sweep.core.errors import DraftError, InputError, SpecError
    from pgolf_sweep.core.paths import write_text
    from pgolf_sweep.driver.opening import open_session
    from pgolf_sweep.gate.plan import fit_share, sample_space
    from pgolf_sweep.script.program import BUILTIN, load_program

    if path.exists() and not force:
        raise InputError(
            f"{path} exists already",
            next_step="choose another file, or overwrite it with --force "
            f"(--from {path} keeps what it says)",
        )
    flags = locals()
    typed = {axis.knob: flags[axis.flag[2:].replace("-", "_")] for axis in AXES}
    ranges = {name: text for name, text in typed.items() if text is not None}
    others = parse_knobs(knob or [])
    if twice := sorted(set(ranges) & set(others)):
        raise InputError(f"{twice[0]} is given by its flag and by --knob", expected="one of them")
    if program is not None and program != BUILTIN:
        program = os.path.relpath(program, path.parent)  # as `launch` reads it: from the file
    existing = None
    if preset is not None:
        base = preset_file(preset, base)
    if base is not None:
        existing = load_spec(base)
        if program is None and existing.program != BUILTIN:
            program = os.path.relpath(base.parent / existing.program, path.parent)
    imported = _imported(from_optuna, from_hydra, from_ray)
    draft = Draft(
        ranges=ranges | others,
        program=program,
        method=method,
        run_cap=run_cap,
        rules=rules,
        gpus=gpus,
        name=name,
        question=question,
        parameters={} if imported is None else imported.parameters,
        metric=_metric(metric, goal or (imported.goal if imported is not None else None)),
        command=() if imported is None else imported.command,
    )
    try:
        if imported is not None:
            text = draft_text(dataclasses.replace(draft, warm_start=()), existing=existing)
            space = parse_spec(text, path).space
            draft = dataclasses.replace(draft, warm_start=within(space, imported.trials))
        spec = parse_spec(draft_text(draft, existing=existing), path)
        path.parent.mkdir(parents=True, exist_ok=True)  # `..` leads nowhere from a folder not there
        base_folder = path.resolve().parent
        loaded = load_program(spec.program, base=base_folder, extra_files=spec.pgolf.files)
        draft = dataclasses.replace(draft, ranges=as_read(draft.ranges, loaded))
        text = draft_text(draft, existing=existing)
        spec = parse_spec(text, path)
        check_against_program(spec, loaded)
    except SpecError as error:
        raise DraftError(str(path), error.problems) from error
    write_text(path, text)
    write_text(path.with_name(SCHEMA_FILE), schema_text())

    session = open_session(path, data_root=data_root, need_data=False)
    shares = fit_share(sample_space(session, spec.space, draws=500, seed=0))
    share = None if shares.unknown == 1 else shares.launched
    size = spec.space.size()
    if json_output:
        emit(
            {
                "file": path,
                "parameters": {n: p.domain.describe() for n, p in spec.space.parameters.items()},
                "configurations": size,
                "fit_share": share,
                "require": spec.pgolf.require,
                "method": spec.method,
                "run_cap": spec.run_cap,
            }
        )
        return
    fits = "unknown until a first trial" if share is None else f"{share:.0%} would fit"
    many = "no end of configurations" if size is None else f"{size:,} configurations"
    say(f"wrote {path}: {many}, {fits}")
    say(f"next: pgolf-sweep plan {path}")

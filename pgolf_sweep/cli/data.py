"""`pgolf-sweep data`: make, download and check data sets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from pgolf_sweep.cli.common import DEFAULT_DATA, DataRootOption, JsonOption, app, emit, out, say
from pgolf_sweep.cli.literal import LiteralTyper

if TYPE_CHECKING:
    from pgolf_sweep.data import DataSet, Survey
    from pgolf_sweep.data.build import Built
    from pgolf_sweep.data.hub import Progress

data_app = LiteralTyper(no_args_is_help=True, help="Make, download and check data sets.")
app.add_typer(data_app, name="data")

ForceOption = Annotated[bool, typer.Option("--force", help="Make it anew even if it is there.")]


@data_app.command()
def demo(
    *,
    force: ForceOption = False,
    data_root: DataRootOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Make the demo data set from this Python's own documentation; no network, a few seconds.

    Example: pgolf-sweep data demo
    """
    from pgolf_sweep.data import build

    _show_built(build.demo(data_root, force=force), json=json)


@data_app.command("from-text")
def from_text(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="UTF-8 text, or .jsonl with a `text` on each line."),
    ],
    *,
    vocab_size: Annotated[int, typer.Option("--vocab-size", help="Pieces of the tokenizer.")],
    name: Annotated[str, typer.Option("--name", help="The data set becomes NAME_spVOCAB.")],
    force: ForceOption = False,
    data_root: DataRootOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Make a data set from text files of your own.

    Example: pgolf-sweep data from-text book.txt notes/*.txt --vocab-size 1024 --name mine
    """
    from pgolf_sweep.data import build

    built = build.from_text(files, vocab_size=vocab_size, name=name, root=data_root, force=force)
    _show_built(built, json=json)


@data_app.command()
def prepare(
    *,
    variant: Annotated[
        str, typer.Option("--variant", help="Which export: sp and the tokenizer's vocabulary.")
    ] = "sp1024",
    train_shards: Annotated[
        int, typer.Option("--train-shards", help="Training shards, 200 MB each.", min=1)
    ] = 80,
    repository: Annotated[
        str | None,
        typer.Option(
            "--repository", envvar="MATCHED_FINEWEB_REPO_ID", help="Hub dataset OWNER/NAME."
        ),
    ] = None,
    data_root: DataRootOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Download the contest's published shards; run it again to go on where it stopped.

    Example: pgolf-sweep data prepare --variant sp1024 --train-shards 10
    """
    from pgolf_sweep.data import hub, identity

    if not sys.stderr.isatty():
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
    prepared = hub.prepare(
        variant,
        data_root,
        train_shards=train_shards,
        repository=repository or hub.REPOSITORY,
        progress=_say_progress,
    )
    if json:
        emit(
            {
                **_described(prepared.dataset, prepared.survey),
                "identity": identity(prepared.dataset),
                "fetched_files": prepared.fetched_files,
                "fetched_bytes": prepared.fetched_bytes,
                "reused_files": prepared.reused_files,
                "seconds": prepared.seconds,
            }
        )
        return
    _table(prepared.dataset, prepared.survey)
    say(
        f"{prepared.fetched_files} files fetched ({prepared.fetched_bytes / 1e6:.0f} MB in "
        f"{prepared.seconds:.0f} s), {prepared.reused_files} were there"
    )


@data_app.command()
def check(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="demo, sp1024, fineweb10B_sp1024, or your own.")
    ],
    *,
    vocab_size: Annotated[
        int | None, typer.Option("--vocab-size", help="VOCAB_SIZE that the run will use.")
    ] = None,
    data_root: DataRootOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Say whether a data set is there and sound, and what identifies it.

    Example: pgolf-sweep data check sp1024
    """
    from pgolf_sweep.data import identity, locate, survey

    dataset = locate(name, data_root)
    surveyed = survey(dataset, vocab_size)
    digest = identity(dataset)
    if json:
        emit({"ok": True, **_described(dataset, surveyed), "identity": digest})
        return
    _table(dataset, surveyed)
    say(f"{dataset.name} is sound; identity {digest}")


def _say_progress(step: Progress) -> None:
    if step.reused:
        say(f"[{step.done}/{step.total}] {step.file} is there")
        return
    rate = step.file_bytes / 1e6 / max(step.seconds, 1e-9)
    say(
        f"[{step.done}/{step.total}] {step.file} {step.file_bytes / 1e6:.0f} MB in "
        f"{step.seconds:.0f} s, {rate:.0f} MB/s"
    )


def _show_built(built: Built, *, json: bool) -> None:
    from pgolf_sweep.data import identity

    if json:
        emit(
            {
                **_described(built.dataset, built.survey),
                "identity": identity(built.dataset),
                "reused": built.reused,
                "documents": built.documents,
                "text_bytes": built.text_bytes,
                "val_text_bytes": built.val_text_bytes,
                "seconds": built.seconds,
            }
        )
        return
    _table(built.dataset, built.survey)
    if built.reused:
        say(f"{built.dataset.name} was there, as its manifest says")
    else:
        say(
            f"made of {built.documents} documents, {built.text_bytes / 1e6:.1f} MB of text, "
            f"in {built.seconds:.1f} s"
        )


def _described(dataset: DataSet, surveyed: Survey) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "path": dataset.path,
        "tokenizer": dataset.tokenizer,
        "vocab_size": dataset.vocab_size,
        "train": surveyed.train,
        "val": surveyed.val,
    }


def _table(dataset: DataSet, surveyed: Survey) -> None:
    table = Table("split", "shards", "tokens", "MB", title=str(dataset.path), title_justify="left")
    for label, part in (("train", surveyed.train), ("val", surveyed.val)):
        table.add_row(label, str(part.shards), f"{part.tokens:,}", f"{part.shard_bytes / 1e6:.1f}")
    out.print(table)

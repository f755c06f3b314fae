"""A data set by its name: where it lies, whether it is sound, what identifies it.

<root>/datasets/demo_sp512/fineweb_{train,val}_NNNNNN.bin   <root>/tokenizers/demo_512_bpe.model
<root>/datasets/fineweb10B_sp1024/...                       <root>/tokenizers/fineweb_1024_bpe.model
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from pgolf_sweep.core.errors import DataError
from pgolf_sweep.data.shards import inspect_shard

DEFAULT_ROOT = Path("data")
"""Where commands look unless told otherwise: in the working folder."""

DEMO = "demo"
DEMO_VOCAB_SIZE = 512
CONTEST = "fineweb10B"
MANIFEST = "manifest.json"

_NAME = re.compile(r"(?P<base>[A-Za-z0-9][A-Za-z0-9._-]*)_sp(?P<vocab>[1-9][0-9]*)")
_VARIANT = re.compile(r"sp([1-9][0-9]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """Shards and the tokenizer that made them.

    Attributes:
        name: Folder name, for example ``fineweb10B_sp1024``.
        path: Folder of the shards.
        tokenizer: SentencePiece model.
        vocab_size: Pieces of the tokenizer, as the name says.
    """

    name: str
    path: Path
    tokenizer: Path
    vocab_size: int

    @property
    def root(self) -> Path:
        """Folder that holds ``datasets`` and ``tokenizers``."""
        return self.path.parent.parent

    def env(self) -> dict[str, str]:
        """What scripts read. Most take DATA_PATH; a quarter joins paths below DATA_DIR."""
        return {
            "DATA_PATH": str(self.path.resolve()),
            "DATA_DIR": str(self.path.resolve().parent.parent),
            "TOKENIZER_PATH": str(self.tokenizer.resolve()),
        }

    def shards(self, split: str) -> list[Path]:
        """Token shards of ``train`` or ``val``, in the order that scripts read them."""
        paths = sorted(self.path.glob(f"fineweb_{split}_*.bin"))
        return [path for path in paths if "_bytes_" not in path.name]

    def byte_counts(self) -> list[Path]:
        """Files in the shards' format with the bytes of each validation token (CaseOps)."""
        return sorted(self.path.glob("fineweb_val_bytes_*.bin"))

    @property
    def remedy(self) -> str:
        """The command that makes this data set, or makes it whole again."""
        base, _, vocab = self.name.rpartition("_sp")
        place = "" if self.root == DEFAULT_ROOT else f" --data-root {self.root}"
        if base == DEMO:
            return f"pgolf-sweep data demo{place}"
        if base == CONTEST:
            return f"pgolf-sweep data prepare --variant sp{vocab}{place}"
        name = f" --vocab-size {vocab} --name {base}" if base else " --vocab-size N --name NAME"
        return f"pgolf-sweep data from-text FILE...{name}{place}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Size of the training or the validation part."""

    shards: int
    tokens: int
    shard_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a sound data set holds."""

    train: Split
    val: Split


def named(base: str, vocab_size: int, root: Path) -> DataSet:
    """The data set of a corpus and a vocabulary, whether it exists or not."""
    # The published export calls its folder fineweb10B_sp1024, its tokenizer fineweb_1024_bpe.
    family = "fineweb" if base == CONTEST else base
    name = f"{base}_sp{vocab_size}"
    return DataSet(
        name=name,
        path=root / "datasets" / name,
        tokenizer=root / "tokenizers" / f"{family}_{vocab_size}_bpe.model",
        vocab_size=vocab_size,
    )


def locate(name: str, root: Path) -> DataSet:
    """The data set of a name; `check` says whether it is there and sound.

    Args:
        name: A folder name such as ``fineweb10B_sp1024``, ``demo``, a published variant such as
            ``sp1024``, or the name given to ``data from-text``.
        root: Folder that holds ``datasets`` and ``tokenizers``.

    Raises:
        DataError: The name says neither which folder nor which vocabulary.
    """
    if name == DEMO:
        return named(DEMO, DEMO_VOCAB_SIZE, root)
    if variant := _VARIANT.fullmatch(name):
        return named(CONTEST, int(variant[1]), root)
    if match := _NAME.fullmatch(name):
        return named(match["base"], int(match["vocab"]), root)
    names = _present(root)
    matches = [m for m in map(_NAME.fullmatch, names) if m and m["base"] == name]
    if len(matches) == 1:
        return named(name, int(matches[0]["vocab"]), root)
    raise DataError(
        f"no data set named {name!r}" if not matches else f"{name!r} names several data sets",
        where=str(root / "datasets"),
        got=name,
        expected=f"one of: {', '.join(names)}" if names else "demo, sp1024, or NAME_spVOCAB",
        next_step="pgolf-sweep data demo" if not names else None,
    )


def present(root: Path) -> list[DataSet]:
    """Every data set below a folder whose name says its vocabulary."""
    matches = map(_NAME.fullmatch, _present(root))
    return [named(match["base"], int(match["vocab"]), root) for match in matches if match]


def _present(root: Path) -> list[str]:
    return [path.name for path in sorted((root / "datasets").glob("[!.]*_sp*"))]


def from_paths(path: Path, tokenizer: Path) -> DataSet:
    """A data set of the user's own layout; the vocabulary is the tokenizer's.

    Raises:
        DataError: The tokenizer is missing or unreadable.
    """
    return DataSet(
        name=path.name,
        path=path,
        tokenizer=tokenizer,
        vocab_size=tokenizer_vocab_size(tokenizer, remedy=None),
    )


def tokenizer_vocab_size(tokenizer: Path, *, remedy: str | None) -> int:
    """Number of pieces of a SentencePiece model.

    Raises:
        DataError: The file is missing or no SentencePiece model.
    """
    import sentencepiece  # noqa: PLC0415 - late: `pgolf-sweep --help` must not pay for it

    if not tokenizer.is_file():
        raise DataError(
            f"tokenizer {tokenizer.name} is missing",
            where=str(tokenizer),
            expected="a SentencePiece model",
            next_step=remedy,
        )
    try:
        # An empty model loads without complaint and then has no pieces.
        model = tokenizer.read_bytes() or b"empty"
        return int(sentencepiece.SentencePieceProcessor(model_proto=model).vocab_size())
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"tokenizer {tokenizer.name} is not a SentencePiece model",
            where=str(tokenizer),
            got=f"{tokenizer.stat().st_size} bytes that do not parse",
            expected="a SentencePiece model",
            next_step=remedy,
        ) from error


def check(dataset: DataSet, vocab_size: int | None = None) -> None:
    """Raise unless the data set can be trained on.

    Reads the header of every shard and a sample of tokens: milliseconds for the demo, well under
    a second for the 81 shards of the published export.

    Args:
        dataset: What to look at.
        vocab_size: VOCAB_SIZE of the run, or None if any will do.

    Raises:
        DataError: The first problem: what, which file, got, expected, the command that repairs it.
    """
    survey(dataset, vocab_size)


def survey(dataset: DataSet, vocab_size: int | None = None) -> Survey:
    """`check`, and how much there is.

    Raises:
        DataError: As in `check`.
    """
    remedy = dataset.remedy
    if not dataset.path.is_dir():
        raise DataError(
            f"data set {dataset.name} is missing",
            where=str(dataset.path),
            expected="a folder of fineweb_train_*.bin and fineweb_val_*.bin",
            next_step=remedy,
        )
    _check_tokenizer(dataset, vocab_size)
    found = Survey(train=_survey_split(dataset, "train"), val=_survey_split(dataset, "val"))
    sizes = [inspect_shard(path, remedy=remedy) for path in dataset.byte_counts()]
    if sizes and sum(sizes) != found.val.tokens:
        raise DataError(
            f"{dataset.name} has bytes of other validation tokens than it holds",
            where=str(dataset.byte_counts()[0]),
            got=f"bytes of {sum(sizes)} tokens",
            expected=f"{found.val.tokens}, as many as the validation shards hold",
            next_step=remedy,
        )
    return found


def _check_tokenizer(dataset: DataSet, vocab_size: int | None) -> None:
    pieces = tokenizer_vocab_size(dataset.tokenizer, remedy=dataset.remedy)
    if pieces != dataset.vocab_size:
        raise DataError(
            f"tokenizer {dataset.tokenizer.name} does not belong to {dataset.name}",
            where=str(dataset.tokenizer),
            got=f"a vocabulary of {pieces}",
            expected=f"a vocabulary of {dataset.vocab_size}",
            next_step=dataset.remedy,
        )
    if vocab_size is not None and vocab_size != pieces:
        raise DataError(
            f"VOCAB_SIZE does not match the tokenizer of {dataset.name}",
            where=str(dataset.tokenizer),
            got=f"VOCAB_SIZE={vocab_size}",
            expected=f"VOCAB_SIZE={pieces}",
            next_step=f"set VOCAB_SIZE to {pieces}, or name a data set of {vocab_size} pieces "
            "under pgolf.data",
        )


def _survey_split(dataset: DataSet, split: str) -> Split:
    paths = dataset.shards(split)
    if not paths:
        raise DataError(
            f"{dataset.name} has no {split} shards",
            where=str(dataset.path),
            got=f"no file fineweb_{split}_*.bin",
            expected=f"at least fineweb_{split}_000000.bin",
            next_step=dataset.remedy,
        )
    tokens = [inspect_shard(p, vocab_size=dataset.vocab_size, remedy=dataset.remedy) for p in paths]
    return Split(
        shards=len(paths),
        tokens=sum(tokens),
        shard_bytes=sum(path.stat().st_size for path in paths),
    )


def identity(dataset: DataSet) -> str:
    """Sixteen hex digits for what a score depends on: validation tokens and tokenizer.

    Two studies may compare their `val_bpb` only if this agrees. Training shards are left out:
    more of them is another run, not another measure.
    """
    digest = hashlib.sha256(file_sha256(dataset.tokenizer).encode())
    for path in (*dataset.shards("val"), *dataset.byte_counts()):
        digest.update(file_sha256(path).encode())
    return digest.hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """Hash of a file's content, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

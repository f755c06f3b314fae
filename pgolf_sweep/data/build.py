"""From documents to a tokenizer and shards: the demo corpus, and a user's own text.

Everything is made in a temporary folder and renamed; a lock makes a second builder wait and then
find the work done. The same documents give the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import platform
import re
import shutil
import tempfile
import time
from array import array
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import InfraError, InputError
from pgolf_sweep.core.locks import held
from pgolf_sweep.core.paths import read_json, write_json
from pgolf_sweep.data.corpus import file_documents, stdlib_documents
from pgolf_sweep.data.dataset import (
    CONTEST,
    DEMO,
    DEMO_VOCAB_SIZE,
    MANIFEST,
    DataSet,
    Survey,
    file_sha256,
    named,
    survey,
)
from pgolf_sweep.data.shards import write_shards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

RECIPE = 1
"""Raised when this module would make other bytes of the same documents."""

VAL_SHARE = 0.05
VAL_TOKENS = 48 * 1024 + 1
"""Most validation tokens: 48 sequences of 1024 and their last target.

A 2x64 model on one core reads 30 to 40 thousand tokens a second, so that one evaluation costs
about a second; a demo trial lasts ten to fifteen and evaluates several times.
"""

BOS = 1
"""Begins every document. Ids of the contest's tokenizers: pad 0, bos 1, eos 2, unk 3."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A data set that was made, or found as it would have been made.

    Attributes:
        dataset: Where it lies.
        reused: Nothing was done: the files are those of the manifest.
        seconds: How long this call took.
        documents: Documents of both splits.
        text_bytes: UTF-8 bytes of the documents of both splits.
        val_text_bytes: UTF-8 bytes that the validation tokens stand for.
    """

    dataset: DataSet
    survey: Survey
    reused: bool
    seconds: float
    documents: int
    text_bytes: int
    val_text_bytes: int


def demo(root: Path, *, force: bool = False) -> Built:
    """The demo data set: text of this Python's own documentation, a vocabulary of 512.

    Args:
        root: Folder that holds ``datasets`` and ``tokenizers``.
        force: Make it anew even if it is there.

    Raises:
        InfraError: The disk refused, or this Python has no documentation.
    """
    return build(
        named(DEMO, DEMO_VOCAB_SIZE, root),
        source="python standard library",
        documents=stdlib_documents,
        replace=True,
        force=force,
    )


def from_text(
    files: Sequence[Path], *, vocab_size: int, name: str, root: Path, force: bool = False
) -> Built:
    """A data set of the user's text files, made like the demo's.

    Args:
        files: UTF-8 text, or ``.jsonl`` with a ``text`` on each line.
        vocab_size: Pieces of the tokenizer to train.
        name: The data set becomes ``<name>_sp<vocab_size>``.
        root: Folder that holds ``datasets`` and ``tokenizers``.
        force: Replace a data set of that name that was made from other text.

    Raises:
        InputError: The name, the vocabulary or the text will not do.
        InfraError: The disk refused.
    """
    if not _NAME.fullmatch(name) or name in {DEMO, CONTEST}:
        raise InputError(
            f"{name!r} cannot name a data set",
            where="--name",
            expected=f"letters, digits, dot, dash, underscore; not {DEMO} or {CONTEST}",
        )
    documents = file_documents(files)
    digest = hashlib.sha256()
    for document in documents:
        digest.update(f"{len(document)}\0{document}".encode())
    return build(
        named(name, vocab_size, root),
        source=f"text {digest.hexdigest()}",
        documents=lambda: documents,
        replace=force,
        force=force,
    )


def build(
    dataset: DataSet,
    *,
    source: str,
    documents: Callable[[], list[str]],
    replace: bool,
    force: bool,
) -> Built:
    """Make a data set unless it is there as its manifest says.

    Args:
        dataset: What to make.
        source: Says which text it is; another source is another data set.
        documents: Gives the documents; called only if there is something to make.
        replace: Whether a data set that does not match may be replaced.
        force: Make it anew in any case.

    Raises:
        InputError: A data set of that name was made from something else, or the text will not do.
        InfraError: The disk refused.
    """
    start = time.monotonic()
    try:
        with locked(dataset):
            manifest = None if force else matching_manifest(dataset, source)
            reused = manifest is not None
            if manifest is None:
                _refuse_other(dataset, source, replace=replace)
                manifest = _make(dataset, source, documents())
    except OSError as error:
        raise InfraError(
            f"could not write data set {dataset.name}: {error.strerror or error}",
            where=str(error.filename or dataset.root),
            next_step="free space or fix permissions there, or choose another --data-root",
        ) from error
    return Built(
        dataset=dataset,
        survey=survey(dataset),
        reused=reused,
        seconds=time.monotonic() - start,
        documents=manifest["train"]["documents"] + manifest["val"]["documents"],
        text_bytes=manifest["train"]["text_bytes"] + manifest["val"]["text_bytes"],
        val_text_bytes=manifest["val"]["scored_text_bytes"],
    )


@contextlib.contextmanager
def locked(dataset: DataSet) -> Iterator[None]:
    """Hold the right to write a data set; a second builder waits here.

    The kernel drops the lock of a builder that dies. What it left half-made is removed.
    """
    parent = dataset.path.parent
    parent.mkdir(parents=True, exist_ok=True)
    dataset.tokenizer.parent.mkdir(parents=True, exist_ok=True)
    with held(parent / f".{dataset.name}.lock"):
        for leftover in parent.glob(f".{dataset.name}.*.making"):
            shutil.rmtree(leftover)
        yield


def matching_manifest(dataset: DataSet, source: str) -> dict[str, Any] | None:
    """The manifest, if every file is as it says and a build today would make the same.

    Neither Python's nor sentencepiece's version counts: an upgrade must not change the ruler
    under a study that runs.
    """
    path = dataset.path / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = read_json(path)
        wanted = (RECIPE, dataset.vocab_size, source)
        if (manifest["recipe"], manifest["vocab_size"], manifest["source"]) != wanted:
            return None
        hashes: dict[str, str] = manifest["sha256"]
        present = {p.name for p in (*dataset.shards("train"), *dataset.shards("val"))}
        if present | {dataset.tokenizer.name} != set(hashes):
            return None
        files = (dataset.tokenizer, *(dataset.path / shard for shard in present))
        if any(file_sha256(file) != hashes[file.name] for file in files):
            return None
    except (KeyError, TypeError, AttributeError, OSError, InfraError):
        return None  # a manifest that cannot be read matches nothing
    return manifest


def _refuse_other(dataset: DataSet, source: str, *, replace: bool) -> None:
    path = dataset.path / MANIFEST
    if replace or not dataset.path.exists():
        return
    made_from = read_json(path).get("source") if path.is_file() else "something without a manifest"
    if made_from == source:
        return
    raise InputError(
        f"data set {dataset.name} exists and was made from other text",
        where=str(dataset.path),
        next_step="choose another --name, or replace it with --force",
    )


def _make(dataset: DataSet, source: str, documents: list[str]) -> dict[str, Any]:
    train, val = split(documents)
    if not train:
        raise InputError(
            "too little text: validation needs a document that training does not see",
            where=dataset.name,
            got=f"{len(train) + len(val)} distinct documents",
            expected="at least 2",
        )
    model = train_tokenizer(train, dataset.vocab_size)
    making = Path(
        tempfile.mkdtemp(dir=dataset.path.parent, prefix=f".{dataset.name}.", suffix=".making")
    )
    try:
        encoder = _Encoder(model)
        folder = making / "dataset"
        folder.mkdir()
        val_tokens, scored = encoder.validation(val)
        shards = write_shards(folder, "train", encoder.encode(train))
        shards += write_shards(folder, "val", [val_tokens])
        tokenizer = making / dataset.tokenizer.name
        tokenizer.write_bytes(model)
        manifest: dict[str, Any] = {
            "name": dataset.name,
            "recipe": RECIPE,
            "source": source,
            "vocab_size": dataset.vocab_size,
            "python": platform.python_version(),
            "sentencepiece": metadata.version("sentencepiece"),
            "train": {"documents": len(train), "text_bytes": _utf8_bytes(train)},
            "val": {
                "documents": len(val),
                "text_bytes": _utf8_bytes(val),
                "tokens": len(val_tokens),
                "scored_text_bytes": scored,
            },
            "sha256": {path.name: file_sha256(path) for path in (tokenizer, *shards)},
        }
        write_json(folder / MANIFEST, manifest)
        # Between the two renames a reader sees new tokens and the old tokenizer or none: `check`
        # refuses it, and the next builder finds that the manifest does not match.
        if dataset.path.exists():
            dataset.path.rename(making / "replaced")
        folder.rename(dataset.path)
        tokenizer.replace(dataset.tokenizer)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return manifest


def split(documents: Iterable[str]) -> tuple[list[str], list[str]]:
    """Training and validation documents, shuffled by their hash.

    Which side a document is on depends on its text alone, so that adding text does not move
    others across. Equal documents count once.
    """
    by_hash = {hashlib.sha256(text.encode()).digest(): text for text in documents}
    ordered = [by_hash[key] for key in sorted(by_hash)]
    limit = int(VAL_SHARE * 2**32)
    val_count = sum(int.from_bytes(key[:4], "big") < limit for key in by_hash)
    # A handful of documents may have none below the limit; the first by hash stands in.
    val_count = max(1, val_count)
    return ordered[val_count:], ordered[:val_count]


def train_tokenizer(documents: Sequence[str], vocab_size: int) -> bytes:
    """A SentencePiece BPE model from which every text comes back byte for byte.

    Args:
        documents: Training text.
        vocab_size: Number of pieces; 256 bytes, four special ones and every frequent character
            come first, so the least is about 350.

    Raises:
        InputError: The text cannot fill that vocabulary, or it is too small for the text.
    """
    import sentencepiece  # noqa: PLC0415 - late: `pgolf-sweep --help` must not pay for it

    if vocab_size > 2**16:
        raise InputError(
            "shards hold 16-bit tokens",
            where="--vocab-size",
            got=str(vocab_size),
            expected="at most 65536",
        )
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(documents),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            byte_fallback=True,
            split_digits=True,
            character_coverage=0.9995,
            pad_id=0,
            bos_id=BOS,
            eos_id=2,
            unk_id=3,
            # The usual normalizer drops 3.4 % of the bytes from the denominator of val_bpb.
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            # Longer documents are skipped without a word; the default, 4192, skips 76 % of ours.
            max_sentence_length=2**30,
            num_threads=1,  # the merge order must not depend on the machine
            minloglevel=2,
        )
    except RuntimeError as error:
        # The trainer's message ends with the bound that was broken.
        raise InputError(
            "the text does not give a tokenizer of that vocabulary",
            where="--vocab-size",
            got=str(vocab_size),
            expected=str(error).rpartition("] ")[2].strip(),
        ) from error
    return model.getvalue()


class _Encoder:
    """Documents to tokens, each opened by `BOS`."""

    def __init__(self, model: bytes) -> None:
        import sentencepiece  # noqa: PLC0415 - as above

        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)

    def encode(self, documents: Iterable[str]) -> Iterator[array[int]]:
        for document in documents:
            yield array("H", [BOS, *self._processor.encode(document)])

    def validation(self, documents: Iterable[str]) -> tuple[array[int], int]:
        """The first `VAL_TOKENS` tokens of the documents, and the UTF-8 bytes they stand for."""
        tokens = array("H")
        text_bytes = 0
        for document in self.encode(documents):
            kept = document[: VAL_TOKENS - len(tokens)]
            tokens.extend(kept)
            text_bytes += len(self._processor.decode(kept[1:].tolist()).encode())
            if len(tokens) == VAL_TOKENS:
                break
        return tokens, text_bytes


def _utf8_bytes(documents: Iterable[str]) -> int:
    return sum(len(document.encode()) for document in documents)

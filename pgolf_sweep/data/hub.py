"""The contest's published export: from the Hugging Face Hub to checked shards on disk.

Layout of the dataset repository, as its own downloader reads it: ``datasets/manifest.json`` names
the exports (``datasets``, each with its number of shards) and their ``tokenizers``; shards lie in
``datasets/datasets/<name>/``, tokenizers where the manifest says, below ``datasets/``.
Source: ``data/cached_challenge_fineweb.py`` of openai/parameter-golf.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pgolf_sweep.core.errors import DataError, InfraError, InputError
from pgolf_sweep.core.paths import read_json, write_json
from pgolf_sweep.data.build import locked
from pgolf_sweep.data.dataset import (
    CONTEST,
    MANIFEST,
    DataSet,
    Survey,
    file_sha256,
    named,
    survey,
)
from pgolf_sweep.data.shards import HEADER_BYTES, TOKEN_BYTES, inspect_shard

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REPOSITORY = "willdepueoai/parameter-golf"
REMOTE_ROOT = "datasets"
TRAIN_SHARDS = 80
"""Training shards of the contest's own default: 8 billion tokens."""

CONTACT_SECONDS = 8.0
"""Longest wait for the first answer. The library's own patience without a network is minutes."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One file of the export is in place.

    Attributes:
        file: Its name.
        file_bytes: Its size.
        seconds: How long it took; 0 if it was there already.
        reused: It was there, whole, and was not fetched again.
        done: Files in place so far.
        total: Files asked for.
    """

    file: str
    file_bytes: int
    seconds: float
    reused: bool
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """An export that is complete on disk."""

    dataset: DataSet
    survey: Survey
    fetched_files: int
    fetched_bytes: int
    reused_files: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remote:
    """A file of the export: where it is there, and where it goes here."""

    path: str
    local: Path
    shard: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What the Hub says of a file before sending it."""

    commit: str
    file_bytes: int | None
    sha256: str | None


class Hub:
    """One dataset repository, pinned to the commit that answered first.

    Args:
        repository: ``owner/name`` of a dataset repository.
        staging: Folder on the target's file system for files on their way.
        endpoint: Address of the Hub; None for the public one, or HF_ENDPOINT.
    """

    def __init__(self, repository: str, staging: Path, *, endpoint: str | None = None) -> None:
        self._repository = repository
        self._staging = staging
        self._endpoint = endpoint
        self._commit: str | None = None

    def ask(self, remote: str) -> _Answer:
        """Commit, size and hash of a file, from one request that is not repeated.

        Raises:
            InfraError: The Hub cannot be reached, or does not have the file.
        """
        import huggingface_hub as hub  # noqa: PLC0415 - late: 0.2 s
        from huggingface_hub.errors import HTTPError  # noqa: PLC0415 - httpx's, whichever it is

        url = hub.hf_hub_url(
            self._repository,
            remote,
            repo_type="dataset",
            revision=self._commit,
            endpoint=self._endpoint,
        )
        try:
            found = hub.get_hf_file_metadata(url, timeout=CONTACT_SECONDS, endpoint=self._endpoint)
        except (HTTPError, OSError) as error:
            raise self._failure(remote, error) from error
        if found.commit_hash is None or found.etag is None:
            raise InfraError(
                "the answer does not come from a Hugging Face Hub",
                where=url,
                expected="headers with a commit and an ETag",
                next_step="check HF_ENDPOINT and the proxy, then run the same command again",
            )
        self._commit = found.commit_hash
        return _Answer(
            commit=found.commit_hash,
            file_bytes=found.size,
            sha256=found.etag if _SHA256.fullmatch(found.etag) else None,
        )

    def fetch(self, remote: str) -> Path:
        """Download a file into staging and check it against the hash that the Hub gives.

        Raises:
            InfraError: The network failed, or what came is not what was announced.
        """
        import huggingface_hub as hub  # noqa: PLC0415 - as above
        from huggingface_hub.errors import HTTPError  # noqa: PLC0415 - as above

        answer = self.ask(remote)
        try:
            path = Path(
                hub.hf_hub_download(
                    self._repository,
                    remote,
                    repo_type="dataset",
                    revision=answer.commit,
                    local_dir=self._staging,
                    etag_timeout=CONTACT_SECONDS,
                    endpoint=self._endpoint,
                )
            )
        # The accelerated transfer (hf_xet) reports a lost connection as RuntimeError.
        except (HTTPError, OSError, RuntimeError) as error:
            raise self._failure(remote, error) from error
        if answer.sha256 is not None and file_sha256(path) != answer.sha256:
            path.unlink()
            raise InfraError(
                f"{path.name} arrived damaged: its hash is not the one announced",
                where=remote,
                expected=f"sha256 {answer.sha256}",
                next_step="run the same command again: what is complete is kept",
            )
        return path

    def _failure(self, remote: str, error: Exception) -> InfraError:
        status = getattr(getattr(error, "response", None), "status_code", None)
        reason = str(error).strip().splitlines()
        return InfraError(
            f"cannot download {remote} of {self._repository}"
            if status
            else "cannot reach the Hugging Face Hub",
            where=f"{self._endpoint or 'huggingface.co'}, dataset {self._repository}",
            got=f"HTTP {status}" if status else (reason[0] if reason else type(error).__name__),
            next_step=(
                "check --variant and --repository; a private repository needs `hf auth login`"
                if status in {401, 403, 404}
                else "with a network (HTTPS_PROXY, HF_ENDPOINT) run the same command again: what "
                "is complete is kept; or copy datasets/ and tokenizers/ from another machine; "
                "without the contest's data, pgolf-sweep data demo"
            ),
        )


def prepare(
    variant: str,
    root: Path,
    *,
    train_shards: int = TRAIN_SHARDS,
    repository: str = REPOSITORY,
    endpoint: str | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Prepared:
    """Bring a variant of the export to disk; files that are there and whole stay.

    A complete download needs no network. An interrupted one goes on at the first shard that is
    missing or broken.

    Args:
        variant: ``sp1024`` and the like.
        root: Folder that gets ``datasets`` and ``tokenizers``.
        train_shards: How many training shards, the first ones; validation is always whole.
        repository: Dataset repository on the Hub.
        endpoint: Address of the Hub, for mirrors and tests.
        progress: Called for each file that is in place.

    Raises:
        InputError: There is no such variant, or it has fewer shards.
        InfraError: Network or disk failed.
    """
    match = re.fullmatch(r"sp([1-9][0-9]*)", variant)
    if not match or train_shards < 1:
        raise InputError(
            "no such variant" if not match else "training needs at least one shard",
            where="--train-shards" if match else "--variant",
            got=str(train_shards) if match else variant,
            expected="1 or more" if match else "sp<VOCAB_SIZE>, for example sp1024",
        )
    start = time.monotonic()
    dataset = named(CONTEST, int(match[1]), root)
    try:
        with locked(dataset):
            record = _record(dataset, repository)
            plan = _plan_offline(dataset, record, train_shards)
            staging = dataset.path.parent / f".{dataset.name}.download"
            hub = Hub(repository, staging, endpoint=endpoint)
            if plan is None:
                entry, tokenizers = _export(hub, dataset, variant)
                plan = _plan(dataset, entry, tokenizers, train_shards)
                _check_space(dataset, entry, plan)
            done = _bring(hub, dataset, plan, record, progress)
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise InfraError(
            f"could not write data set {dataset.name}: {error.strerror or error}",
            where=str(error.filename or root),
            next_step="free space or fix permissions there, or choose another --data-root",
        ) from error
    return Prepared(
        dataset=dataset,
        survey=survey(dataset),
        fetched_files=sum(not p.reused for p in done),
        fetched_bytes=sum(p.file_bytes for p in done if not p.reused),
        reused_files=sum(p.reused for p in done),
        seconds=time.monotonic() - start,
    )


def _record(dataset: DataSet, repository: str) -> dict[str, Any]:
    """What earlier calls brought: remote path to size and hash, by file, in fetching order."""
    path = dataset.path / MANIFEST
    fresh: dict[str, Any] = {"name": dataset.name, "repository": repository, "files": {}}
    if not path.is_file():
        return fresh
    try:
        record = read_json(path)
    except InfraError:
        return fresh  # half a file from a full disk: the shards are checked one by one anyway
    return record if record.get("repository") == repository else fresh


def _plan_offline(
    dataset: DataSet, record: dict[str, Any], train_shards: int
) -> list[_Remote] | None:
    """The files of a download that is complete already, or None."""
    if "val_shards" not in record:
        return None
    plan = [
        *_shard_files(dataset, "val", record["val_shards"]),
        _Remote(path=record["tokenizer"], local=dataset.tokenizer, shard=False),
        *_shard_files(dataset, "train", train_shards),
    ]
    return plan if all(_is_whole(file, dataset, record) for file in plan) else None


def _export(hub: Hub, dataset: DataSet, variant: str) -> tuple[dict[str, Any], list[Any]]:
    """The manifest's entry of a variant, and its list of tokenizers."""
    remote = f"{REMOTE_ROOT}/{MANIFEST}"
    path = hub.fetch(remote)
    try:
        manifest = json.loads(path.read_text())
        exports = {entry["name"]: entry for entry in manifest["datasets"]}
        tokenizers = list(manifest["tokenizers"])
    except (ValueError, KeyError, TypeError) as error:
        raise InfraError("the repository's manifest cannot be read", where=remote) from error
    if dataset.name not in exports:
        known = sorted(name.rpartition("_")[2] for name in exports)
        raise InputError(
            f"the repository has no variant {variant}",
            where="--variant",
            got=variant,
            expected=f"one of: {', '.join(known)}",
            next_step="other exports: --repository OWNER/NAME",
        )
    return exports[dataset.name], tokenizers


def _plan(
    dataset: DataSet, entry: dict[str, Any], tokenizers: Sequence[Any], train_shards: int
) -> list[_Remote]:
    """Every file wanted, what is needed first in front: validation, tokenizer, training."""
    try:
        available, val_shards = int(entry["stats"]["files_train"]), int(entry["stats"]["files_val"])
        by_name = {tokenizer["name"]: tokenizer for tokenizer in tokenizers}
        model = str(by_name[entry["tokenizer_name"]]["model_path"])
    except (KeyError, TypeError, ValueError) as error:
        raise InfraError(
            f"the repository's manifest does not say what {dataset.name} consists of",
            where=f"{REMOTE_ROOT}/{MANIFEST}",
            got=f"no usable {error}",
        ) from error
    if train_shards > available:
        raise InputError(
            f"{dataset.name} has fewer training shards",
            where="--train-shards",
            got=str(train_shards),
            expected=f"at most {available}",
        )
    return [
        *_shard_files(dataset, "val", val_shards),
        _Remote(path=str(PurePosixPath(REMOTE_ROOT, model)), local=dataset.tokenizer, shard=False),
        *_shard_files(dataset, "train", train_shards),
    ]


def _shard_files(dataset: DataSet, split: str, count: int) -> list[_Remote]:
    names = [f"fineweb_{split}_{index:06d}.bin" for index in range(count)]
    return [
        _Remote(
            path=f"{REMOTE_ROOT}/datasets/{dataset.name}/{name}",
            local=dataset.path / name,
            shard=True,
        )
        for name in names
    ]


def _is_whole(file: _Remote, dataset: DataSet, record: dict[str, Any]) -> bool:
    """Whether a file is there as it was fetched; a shard that came by other means may do too."""
    if not file.local.is_file():
        return False
    known = record["files"].get(file.path)
    if known is not None and known["file_bytes"] != file.local.stat().st_size:
        return False
    if not file.shard:
        # Small, and everything hangs on it.
        return known is not None and file_sha256(file.local) == known["sha256"]
    try:
        inspect_shard(file.local, vocab_size=dataset.vocab_size)
    except DataError:
        return False
    return True


def _check_space(dataset: DataSet, entry: dict[str, Any], plan: Sequence[_Remote]) -> None:
    """Refuse at once what would fill the disk hours later."""
    stats = entry["stats"]
    try:
        tokens = int(stats["tokens_train"]) / int(stats["files_train"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return  # an older manifest: the library checks each file by itself
    missing = sum(file.shard and not file.local.exists() for file in plan)
    needed_bytes = int(missing * (tokens * TOKEN_BYTES + HEADER_BYTES))
    free_bytes = shutil.disk_usage(dataset.path.parent).free
    if needed_bytes > free_bytes:
        raise InfraError(
            f"{dataset.name} does not fit on this disk",
            where=str(dataset.path.parent),
            got=f"{free_bytes / 1e9:.1f} GB free",
            expected=f"about {needed_bytes / 1e9:.1f} GB for {missing} shards",
            next_step="ask for fewer --train-shards, or choose another --data-root",
        )


def _bring(
    hub: Hub,
    dataset: DataSet,
    plan: Sequence[_Remote],
    record: dict[str, Any],
    progress: Callable[[Progress], None],
) -> list[Progress]:
    done: list[Progress] = []
    for file in plan:
        start = time.monotonic()
        reused = _is_whole(file, dataset, record)
        if not reused:
            arrived = hub.fetch(file.path)
            if file.shard:
                _check_arrived(arrived, file, dataset)
            record["files"][file.path] = {
                "file_bytes": arrived.stat().st_size,
                "sha256": file_sha256(arrived),
            }
            file.local.parent.mkdir(parents=True, exist_ok=True)
            arrived.replace(file.local)
            write_json(dataset.path / MANIFEST, _without_schema(record))
        done.append(
            Progress(
                file=file.local.name,
                file_bytes=file.local.stat().st_size,
                seconds=0.0 if reused else time.monotonic() - start,
                reused=reused,
                done=len(done) + 1,
                total=len(plan),
            )
        )
        progress(done[-1])
    record["val_shards"] = sum(file.local.name.startswith("fineweb_val_") for file in plan)
    record["tokenizer"] = next(file.path for file in plan if not file.shard)
    write_json(dataset.path / MANIFEST, _without_schema(record))
    return done


def _check_arrived(arrived: Path, file: _Remote, dataset: DataSet) -> None:
    try:
        inspect_shard(arrived, vocab_size=dataset.vocab_size)
    except DataError as error:
        arrived.unlink()
        raise InfraError(
            f"the repository's {file.local.name} is no sound shard: {error.what}",
            where=file.path,
            got=error.got,
            expected=error.expected,
            next_step="run the same command again; if it stays, tell the repository's owner",
        ) from error


def _without_schema(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "schema_version"}

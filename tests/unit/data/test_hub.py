"""The download against a Hub of our own on loopback, through the real huggingface_hub."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import threading
from array import array
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from pgolf_sweep.core.errors import InfraError, InputError
from pgolf_sweep.data import check, hub, locate, shards

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgolf_sweep.data.build import Built

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PREFIX = "datasets/datasets/fineweb10B_sp512"
TRAIN = [f"{PREFIX}/fineweb_train_{index:06d}.bin" for index in range(3)]
VAL = f"{PREFIX}/fineweb_val_000000.bin"
TOKENIZER = "datasets/tokenizers/fineweb_512_bpe.model"
MANIFEST = "datasets/manifest.json"


@dataclass
class FakeHub:
    """Serves files as the Hub does: headers with commit and hash, then the bytes."""

    files: dict[str, bytes]
    endpoint: str = ""
    sent: list[str] = field(default_factory=list)
    announced: dict[str, str] = field(default_factory=dict)
    """Hashes that differ from those of the files."""
    down_after: int | None = None
    """Answers 503 to downloads after that many."""


@pytest.fixture
def fake(demo_built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    shard = tmp_path / "shard.bin"
    files = {
        MANIFEST: json.dumps(
            {
                "datasets": [
                    {
                        "name": "fineweb10B_sp512",
                        "tokenizer_name": "sp_bpe_512",
                        "stats": {"files_train": 3, "files_val": 1, "tokens_train": 15},
                    }
                ],
                "tokenizers": [
                    {"name": "sp_bpe_512", "model_path": "tokenizers/fineweb_512_bpe.model"}
                ],
            }
        ).encode(),
        TOKENIZER: demo_built.dataset.tokenizer.read_bytes(),
    }
    for number, remote in enumerate([VAL, *TRAIN]):
        shards.write_shard(shard, array("H", [1, number, 300, 301, 302]))
        files[remote] = shard.read_bytes()
    fake = FakeHub(files=files)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def answer(self, *, body: bool) -> None:
            remote = self.path.split("/resolve/", 1)[1].split("/", 1)[1]
            if body and fake.down_after is not None and len(fake.sent) >= fake.down_after:
                self.send_response(503)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = fake.files.get(remote)
            self.send_response(200 if content is not None else 404)
            if content is None:
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            digest = fake.announced.get(remote, hashlib.sha256(content).hexdigest())
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{digest}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                fake.sent.append(remote)
                self.wfile.write(content)

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    fake.endpoint = f"http://127.0.0.1:{server.server_port}"
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()
    from huggingface_hub.utils import close_session

    close_session()


def _prepare(fake: FakeHub, root: Path, train_shards: int = 2) -> hub.Prepared:
    return hub.prepare("sp512", root, train_shards=train_shards, endpoint=fake.endpoint)


def test_download_brings_a_sound_data_set(fake: FakeHub, tmp_path: Path) -> None:
    root = tmp_path / "data"
    steps: list[hub.Progress] = []
    prepared = hub.prepare(
        "sp512", root, train_shards=2, endpoint=fake.endpoint, progress=steps.append
    )
    check(locate("sp512", root), 512)
    assert (prepared.survey.train.shards, prepared.survey.val.shards) == (2, 1)
    assert (prepared.fetched_files, prepared.reused_files) == (4, 0)
    assert fake.sent == [MANIFEST, VAL, TOKENIZER, *TRAIN[:2]]
    assert [(step.done, step.total) for step in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert not list((root / "datasets").glob(".*download"))


def test_complete_download_needs_no_network(fake: FakeHub, tmp_path: Path) -> None:
    _prepare(fake, tmp_path)
    fake.sent.clear()
    for count in (1, 2):
        again = hub.prepare("sp512", tmp_path, train_shards=count, endpoint="http://hub.invalid")
        assert (again.fetched_files, again.reused_files) == (0, 2 + count)
    assert not fake.sent


def test_more_shards_fetch_only_what_is_missing(fake: FakeHub, tmp_path: Path) -> None:
    _prepare(fake, tmp_path)
    fake.sent.clear()
    assert _prepare(fake, tmp_path, train_shards=3).survey.train.shards == 3
    assert fake.sent == [MANIFEST, TRAIN[2]]


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"x" + b[1:], lambda b: b + b"y"])
def test_broken_shard_is_fetched_again(fake: FakeHub, tmp_path: Path, damage) -> None:
    prepared = _prepare(fake, tmp_path)
    path = prepared.dataset.shards("train")[1]
    path.write_bytes(damage(path.read_bytes()))
    fake.sent.clear()
    _prepare(fake, tmp_path)
    assert fake.sent == [MANIFEST, TRAIN[1]]
    assert path.read_bytes() == fake.files[TRAIN[1]]


def test_shards_that_came_by_other_means_are_kept(fake: FakeHub, tmp_path: Path) -> None:
    folder = tmp_path / "datasets" / "fineweb10B_sp512"
    folder.mkdir(parents=True)
    (folder / "fineweb_train_000000.bin").write_bytes(fake.files[TRAIN[0]])
    _prepare(fake, tmp_path)
    assert TRAIN[0] not in fake.sent


def test_interrupted_download_goes_on_where_it_stopped(fake: FakeHub, tmp_path: Path) -> None:
    fake.down_after = 4
    with pytest.raises(InfraError, match="cannot download") as caught:
        _prepare(fake, tmp_path)
    assert caught.value.got == "HTTP 503"
    fake.down_after = None
    fake.sent.clear()
    assert _prepare(fake, tmp_path).reused_files == 3
    assert fake.sent == [TRAIN[1]]  # the manifest is in staging still, of the same commit


def test_damage_on_the_way_is_noticed_by_hash(fake: FakeHub, tmp_path: Path) -> None:
    fake.announced[TRAIN[0]] = "0" * 64
    with pytest.raises(InfraError, match="arrived damaged"):
        _prepare(fake, tmp_path)
    assert not (tmp_path / "datasets" / "fineweb10B_sp512" / "fineweb_train_000000.bin").exists()
    assert (tmp_path / "datasets" / "fineweb10B_sp512" / "fineweb_val_000000.bin").exists()


def test_repository_with_a_bad_shard_is_named(fake: FakeHub, tmp_path: Path) -> None:
    fake.files[TRAIN[1]] = b"<html>not a shard</html>"
    with pytest.raises(InfraError, match="is no sound shard") as caught:
        _prepare(fake, tmp_path)
    assert caught.value.where == TRAIN[1]


def test_unknown_variant_lists_those_that_exist(fake: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        hub.prepare("sp7", tmp_path, endpoint=fake.endpoint)
    assert caught.value.expected == "one of: sp512"
    with pytest.raises(InputError, match="fewer training shards") as caught:
        _prepare(fake, tmp_path, train_shards=4)
    assert caught.value.expected == "at most 3"


@pytest.mark.parametrize("variant", ["byte260", "1024", "sp", ""])
def test_variant_that_cannot_be_is_refused_before_the_network(tmp_path: Path, variant: str) -> None:
    with pytest.raises(InputError, match="no such variant"):
        hub.prepare(variant, tmp_path, endpoint="http://hub.invalid")


def test_missing_repository_is_not_called_a_network_failure(fake: FakeHub, tmp_path: Path) -> None:
    del fake.files[MANIFEST]
    with pytest.raises(InfraError, match="cannot download") as caught:
        _prepare(fake, tmp_path)
    assert caught.value.got == "HTTP 404"
    assert "--repository" in caught.value.next_step


def test_manifest_that_is_not_json_is_named(fake: FakeHub, tmp_path: Path) -> None:
    fake.files[MANIFEST] = b"<html>log in to this network</html>"
    with pytest.raises(InfraError, match="manifest cannot be read"):
        _prepare(fake, tmp_path)


def test_full_disk_is_noticed_before_the_download(
    fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InfraError, match="does not fit on this disk"):
        _prepare(fake, tmp_path)
    assert fake.sent == [MANIFEST]


@pytest.mark.parametrize("endpoint", ["http://hub.invalid", "http://127.0.0.1:9"])
def test_without_a_network_it_fails_with_the_way_out(tmp_path: Path, endpoint: str) -> None:
    with pytest.raises(InfraError, match="cannot reach the Hugging Face Hub") as caught:
        hub.prepare("sp1024", tmp_path, endpoint=endpoint)
    assert caught.value.exit_code == 3
    assert caught.value.got
    assert "pgolf-sweep data demo" in caught.value.next_step


def test_hub_that_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "CONTACT_SECONDS", 0.5)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(InfraError, match="cannot reach"),
    ):
        hub.prepare("sp1024", tmp_path, endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}")

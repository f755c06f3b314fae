from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import sentencepiece

from pgolf_sweep.core.errors import InfraError, InputError
from pgolf_sweep.data import build, check, identity, shards

if TYPE_CHECKING:
    from pathlib import Path

    from pgolf_sweep.data import DataSet


def _hashes(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def _processor(dataset: DataSet) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(dataset.tokenizer))


def test_demo_is_a_few_megabytes_of_sound_data(demo_built: build.Built) -> None:
    check(demo_built.dataset, 512)
    assert not demo_built.reused
    assert demo_built.text_bytes > 1_500_000
    assert demo_built.documents > 400
    assert demo_built.survey.train.tokens > 800_000
    assert 32_000 <= demo_built.survey.val.tokens <= build.VAL_TOKENS


def test_demo_is_the_same_in_another_process(demo_built: build.Built, tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from pgolf_sweep.data import build; "
    code += "build.demo(Path(sys.argv[1]))"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)
    assert _hashes(tmp_path) == _hashes(demo_built.dataset.root)


def test_demo_is_made_once_then_reused(demo_built: build.Built) -> None:
    again = build.demo(demo_built.dataset.root)
    assert again.reused
    assert (again.documents, again.val_text_bytes) == (
        demo_built.documents,
        demo_built.val_text_bytes,
    )


def test_every_document_begins_with_bos_and_no_text_is_lost(
    demo_built: build.Built, documents: list[str]
) -> None:
    processor = _processor(demo_built.dataset)
    train, val = build.split(documents)
    tokens = shards.read_shard(demo_built.dataset.shards("train")[0]).tolist()
    assert tokens[0] == build.BOS
    assert tokens.count(build.BOS) == len(train)
    first = tokens[1 : tokens.index(build.BOS, 1)]
    assert processor.decode(first) == train[0]
    assert demo_built.documents == len(train) + len(val)


def test_bytes_by_the_contests_rule_are_the_texts_bytes(demo_built: build.Built) -> None:
    """bpb's denominator: a piece's bytes, plus a leading space unless a boundary precedes."""
    processor = _processor(demo_built.dataset)
    tokens = shards.read_shard(demo_built.dataset.shards("val")[0]).tolist()
    assert len(tokens) == demo_built.survey.val.tokens
    counted = 0
    for previous, token in pairwise(tokens):
        if processor.is_control(token):
            continue
        if processor.is_byte(token):
            counted += 1
            continue
        piece = processor.id_to_piece(token)
        boundary = processor.is_control(previous)
        counted += len(piece.removeprefix("\u2581").encode())
        counted += piece.startswith("\u2581") and not boundary
    assert counted == demo_built.val_text_bytes


def test_training_never_sees_a_validation_document(documents: list[str]) -> None:
    train, val = build.split(documents)
    assert not set(train) & set(val)
    assert 0.03 < len(val) / (len(train) + len(val)) < 0.08
    more_train, more_val = build.split([*documents, "one document more"])
    assert set(train) <= set(more_train)
    assert set(val) <= set(more_val)


def test_damaged_demo_is_made_again(texts: list[Path], tmp_path: Path) -> None:
    root = tmp_path / "data"
    make = {"vocab_size": 400, "name": "mine", "root": root}
    built = build.from_text(texts, **make)
    sound = _hashes(root)
    assert build.from_text(texts, **make).reused
    path = built.dataset.shards("train")[0]
    path.write_bytes(path.read_bytes()[:-2] + b"\1\0")
    assert not build.from_text(texts, **make).reused
    built.dataset.tokenizer.unlink()
    assert not build.from_text(texts, **make).reused
    (built.dataset.path / "manifest.json").write_text("{")
    assert not build.from_text(texts, **make, force=True).reused
    assert _hashes(root) == sound


def test_two_builders_at_once_leave_one_sound_data_set(texts: list[Path], tmp_path: Path) -> None:
    root = tmp_path / "data"

    def make(_: int) -> build.Built:
        return build.from_text(texts, vocab_size=400, name="mine", root=root)

    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(make, range(3)))
    assert sorted(result.reused for result in results) == [False, True, True]
    check(results[0].dataset, 400)
    assert {p.name for p in (root / "datasets").iterdir()} == {"mine_sp400", ".mine_sp400.lock"}


def test_leftovers_of_a_killed_builder_are_removed(texts: list[Path], tmp_path: Path) -> None:
    leftover = tmp_path / "data" / "datasets" / ".mine_sp400.abc.making"
    leftover.mkdir(parents=True)
    (leftover / "half").write_bytes(b"x")
    build.from_text(texts, vocab_size=400, name="mine", root=tmp_path / "data")
    assert not leftover.exists()


def test_other_text_under_a_name_in_use_needs_force(texts: list[Path], tmp_path: Path) -> None:
    make = {"vocab_size": 400, "name": "mine", "root": tmp_path / "data"}
    before = identity(build.from_text(texts, **make).dataset)
    with pytest.raises(InputError, match="made from other text"):
        build.from_text(texts[:1], **make)
    after = identity(build.from_text(texts[:1], **make, force=True).dataset)
    assert after != before


@pytest.mark.parametrize("vocab_size", [100, 60_000, 70_000])
def test_impossible_vocabulary_names_the_bound(
    texts: list[Path], tmp_path: Path, vocab_size: int
) -> None:
    with pytest.raises(InputError) as caught:
        build.from_text(texts, vocab_size=vocab_size, name="mine", root=tmp_path / "data")
    assert caught.value.where == "--vocab-size"
    assert caught.value.got == str(vocab_size)
    assert caught.value.expected
    assert not list((tmp_path / "data").glob("datasets/mine*"))


@pytest.mark.parametrize("name", ["demo", "fineweb10B", "../x", "", "a b"])
def test_reserved_and_unsafe_names_are_refused(
    texts: list[Path], tmp_path: Path, name: str
) -> None:
    with pytest.raises(InputError, match="cannot name a data set"):
        build.from_text(texts, vocab_size=400, name=name, root=tmp_path)


def test_one_document_is_too_little(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("only this")
    with pytest.raises(InputError, match="too little text"):
        build.from_text([path], vocab_size=400, name="mine", root=tmp_path / "data")


def test_unwritable_root_is_infrastructure(texts: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InfraError, match="could not write data set"):
        build.from_text(texts, vocab_size=400, name="mine", root=tmp_path / "file")

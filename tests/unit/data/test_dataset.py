from __future__ import annotations

import shutil
from array import array
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pgolf_sweep.core.errors import DataError
from pgolf_sweep.data import DataSet, check, from_paths, identity, locate, shards
from pgolf_sweep.data.dataset import survey

if TYPE_CHECKING:
    from pgolf_sweep.data.build import Built


@pytest.fixture
def copied(demo_built: Built, tmp_path: Path) -> DataSet:
    root = tmp_path / "data"
    shutil.copytree(demo_built.dataset.root, root)
    return locate("demo", root)


@pytest.mark.parametrize(
    ("name", "folder", "tokenizer", "vocab_size"),
    [
        ("demo", "demo_sp512", "demo_512_bpe.model", 512),
        ("demo_sp512", "demo_sp512", "demo_512_bpe.model", 512),
        ("sp1024", "fineweb10B_sp1024", "fineweb_1024_bpe.model", 1024),
        ("fineweb10B_sp8192", "fineweb10B_sp8192", "fineweb_8192_bpe.model", 8192),
        ("mine_sp700", "mine_sp700", "mine_700_bpe.model", 700),
    ],
)
def test_name_says_where_it_lies(
    tmp_path: Path, name: str, folder: str, tokenizer: str, vocab_size: int
) -> None:
    found = locate(name, tmp_path)
    assert found == DataSet(
        name=folder,
        path=tmp_path / "datasets" / folder,
        tokenizer=tmp_path / "tokenizers" / tokenizer,
        vocab_size=vocab_size,
    )


def test_short_name_finds_the_one_folder_and_refuses_two(tmp_path: Path) -> None:
    (tmp_path / "datasets" / "mine_sp700").mkdir(parents=True)
    assert locate("mine", tmp_path).vocab_size == 700
    with pytest.raises(DataError, match="no data set named 'min'") as caught:
        locate("min", tmp_path)
    assert caught.value.expected == "one of: mine_sp700"
    (tmp_path / "datasets" / "mine_sp900").mkdir()
    with pytest.raises(DataError, match="names several"):
        locate("mine", tmp_path)


def test_env_is_absolute_and_serves_both_habits_of_scripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("sp1024", Path("data")).env() == {
        "DATA_PATH": f"{tmp_path}/data/datasets/fineweb10B_sp1024",
        "DATA_DIR": f"{tmp_path}/data",
        "TOKENIZER_PATH": f"{tmp_path}/data/tokenizers/fineweb_1024_bpe.model",
    }


def test_sound_data_passes(copied: DataSet) -> None:
    check(copied)
    check(copied, 512)


def test_vocab_size_of_the_run_must_be_the_tokenizers(copied: DataSet) -> None:
    with pytest.raises(DataError, match="VOCAB_SIZE does not match") as caught:
        check(copied, 1024)
    assert caught.value.got == "VOCAB_SIZE=1024"
    assert caught.value.expected == "VOCAB_SIZE=512"


def test_missing_folder_names_the_command_that_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = Path("data")
    with pytest.raises(DataError, match="demo_sp512 is missing") as caught:
        check(locate("demo", root))
    assert caught.value.next_step == "pgolf-sweep data demo"
    assert caught.value.where == "data/datasets/demo_sp512"
    with pytest.raises(DataError) as caught:
        check(locate("sp1024", tmp_path / "elsewhere"))
    assert caught.value.next_step == (
        f"pgolf-sweep data prepare --variant sp1024 --data-root {tmp_path}/elsewhere"
    )


@pytest.mark.parametrize("split", ["train", "val"])
def test_missing_shards_are_named_by_split(copied: DataSet, split: str) -> None:
    for path in copied.shards(split):
        path.unlink()
    with pytest.raises(DataError, match=f"no {split} shards"):
        check(copied)


def test_truncated_shard_is_refused(copied: DataSet) -> None:
    path = copied.shards("val")[0]
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="truncated"):
        check(copied)


def test_tokens_of_another_tokenizer_are_refused(copied: DataSet) -> None:
    shards.write_shard(copied.shards("train")[0], array("H", [1, 900]))
    with pytest.raises(DataError, match="outside the vocabulary") as caught:
        check(copied)
    assert caught.value.next_step.startswith("pgolf-sweep data demo")


def test_missing_tokenizer_is_refused(copied: DataSet) -> None:
    copied.tokenizer.unlink()
    with pytest.raises(DataError, match=r"tokenizer demo_512_bpe\.model is missing"):
        check(copied)


@pytest.mark.parametrize("content", [b"", b"not a model" * 50])
def test_broken_tokenizer_is_refused(copied: DataSet, content: bytes) -> None:
    copied.tokenizer.write_bytes(content)
    with pytest.raises(DataError, match="not a SentencePiece model"):
        check(copied)


def test_tokenizer_of_another_vocabulary_is_refused(copied: DataSet) -> None:
    with pytest.raises(DataError, match="does not belong") as caught:
        check(replace(copied, vocab_size=1024))
    assert caught.value.got == "a vocabulary of 512"


def test_own_layout_takes_the_vocabulary_from_the_tokenizer(copied: DataSet) -> None:
    found = from_paths(copied.path, copied.tokenizer)
    assert found == copied
    with pytest.raises(DataError, match="is missing"):
        from_paths(copied.path, copied.path / "none.model")


def test_identity_follows_validation_and_tokenizer_only(copied: DataSet) -> None:
    before = identity(copied)
    assert len(before) == 16
    shards.write_shard(copied.path / "fineweb_train_000001.bin", array("H", [1, 2]))
    assert identity(copied) == before
    shards.write_shard(copied.path / "fineweb_val_000001.bin", array("H", [1, 2]))
    with_more_validation = identity(copied)
    assert with_more_validation != before
    copied.tokenizer.write_bytes(b"other")
    assert identity(copied) not in {before, with_more_validation}


def test_byte_counts_of_validation_tokens_are_no_shard_and_part_of_the_measure(
    copied: DataSet,
) -> None:
    before, tokens = identity(copied), survey(copied).val.tokens
    path = copied.path / "fineweb_val_bytes_000000.bin"
    shards.write_shard(path, array("H", [60_000] * tokens))  # beyond any vocabulary
    assert path not in copied.shards("val")
    assert survey(copied).val.tokens == tokens
    assert identity(copied) != before
    shards.write_shard(path, array("H", [4] * (tokens - 1)))
    with pytest.raises(DataError, match="bytes of other validation tokens") as caught:
        survey(copied)
    assert f"bytes of {tokens - 1} tokens" in str(caught.value)

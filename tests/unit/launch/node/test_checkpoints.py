"""Checkpoints at an address: a folder, an fsspec URL, and none."""

from __future__ import annotations

import uuid

import pytest

from pgolf_sweep.core.trial import TrainingReuse
from pgolf_sweep.launch.node.checkpoints import fetch, keep, leave, remove, take_over


@pytest.fixture(params=["folder", "memory"])
def address(request, tmp_path):
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/kept/one.ckpt"
    return str(tmp_path / "kept" / "one.ckpt")


def test_what_is_kept_is_fetched_and_removed(address, tmp_path):
    file, again = tmp_path / "checkpoint.0", tmp_path / "again.0"
    file.write_bytes(b"weights")
    assert keep(file, address) == 7
    fetch(address, again)
    assert again.read_bytes() == b"weights"
    remove(address)
    remove(address)
    with pytest.raises(FileNotFoundError):
        fetch(address, again)


def test_a_folder_of_another_machine_is_not_made(tmp_path):
    said: list[str] = []
    (tmp_path / "checkpoint.0").write_bytes(b"weights")
    away = tmp_path / "not" / "here" / "one.ckpt"
    assert leave(TrainingReuse(keep_at=str(away)), tmp_path, said.append) is None
    assert "not kept" in said[0]
    assert not (tmp_path / "not").exists()


def test_a_run_whose_checkpoint_is_gone_trains(tmp_path):
    said: list[str] = []
    order = TrainingReuse(start_at="export", checkpoint=str(tmp_path / "no.ckpt"), keep_at="k")
    assert take_over(order, tmp_path, said.append) == ("train", {"CHECKPOINT": "checkpoint"})
    assert "it trains" in said[0]
    assert take_over(TrainingReuse(), tmp_path, said.append) == ("train", {})

"""File names of a study, and writing without half-written files."""

from __future__ import annotations

import pytest

from pgolf_sweep.core.errors import InfraError, InputError
from pgolf_sweep.core.paths import StudyPaths, TrialPaths, read_json, write_bytes, write_json


def test_json_comes_back_as_written(tmp_path):
    write_json(tmp_path / "a" / "b.json", {"x": [1, 2.5, None]})
    assert read_json(tmp_path / "a" / "b.json") == {"schema_version": 1, "x": [1, 2.5, None]}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 99}', '{"x": 1}'])
def test_broken_or_newer_json_is_named(tmp_path, text):
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(InfraError, match=r"result\.json"):
        read_json(path)


def test_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "spec.json"
    write_bytes(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InfraError, match="No space left") as caught:
        write_bytes(path, b"new")
    assert caught.value.where == str(path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["spec.json"]


def test_artifact_is_the_compressed_model_not_the_checkpoint(tmp_path):
    paths = TrialPaths(tmp_path)
    assert paths.artifact() is None
    (tmp_path / "final_model.pt").write_bytes(b"raw")
    assert paths.artifact() is None
    (tmp_path / "final_model.int8.ptz").write_bytes(b"packed")
    assert paths.artifact() == tmp_path / "final_model.int8.ptz"


def test_missing_study_lists_those_that_exist(tmp_path):
    write_bytes(tmp_path / "lr" / "sweep.yaml", b"x")
    with pytest.raises(InputError) as caught:
        StudyPaths.existing(tmp_path, "lrr")
    assert "lr" in (caught.value.expected or "")
    assert StudyPaths.existing(tmp_path, "lr").name == "lr"
    assert StudyPaths.existing(tmp_path, str(tmp_path / "lr")).name == "lr"

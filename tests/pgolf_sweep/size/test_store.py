from __future__ import annotations

import json

import pytest

from pgolf_sweep.errors import InputError
from pgolf_sweep.size.gate import Gate
from pgolf_sweep.size.store import Measured, append, read_store, store_path, teach, user_store

SMALL = {"VOCAB_SIZE": 256, "MODEL_DIM": 64, "NUM_HEADS": 4, "NUM_KV_HEADS": 2, "NUM_LAYERS": 2}


def measured(layers: int, *, program: str = "trainer") -> Measured:
    knobs = SMALL | {"NUM_LAYERS": layers}
    return Measured(program=program, knobs=knobs, model_bytes=30_000 * layers, source=f"s/{layers}")


def test_what_is_appended_is_read_and_importing_twice_changes_nothing(tmp_path):
    path = tmp_path / "deep" / "store.jsonl"
    assert read_store(path) == []
    runs = [measured(layers) for layers in range(1, 5)]
    assert append(path, runs) == 4
    assert append(path, [*runs, measured(9)]) == 1
    assert read_store(path) == [*runs, measured(9)]


def test_a_half_written_line_and_foreign_lines_are_left_aside(tmp_path):
    path = tmp_path / "store.jsonl"
    append(path, [measured(1)])
    path.write_text(path.read_text() + '{"program": "trainer", "kno\n3\n{"model_bytes": 5}\n')
    assert read_store(path) == [measured(1)]


def test_a_newer_store_is_refused(tmp_path):
    path = tmp_path / "store.jsonl"
    path.write_text(json.dumps({"schema_version": 99}) + "\n")
    with pytest.raises(InputError, match="newer"):
        read_store(path)


def test_a_taught_gate_knows_what_a_study_taught_another(program):
    first, second = Gate(program, 300_000), Gate(program, 300_000)
    runs = [measured(layers) for layers in range(1, 6)]
    for run in runs:
        first.learn(run.knobs, run.model_bytes)
    assert teach(second, [*runs, measured(3, program="other")], program="trainer") == 5
    assert second.verdict(SMALL) == first.verdict(SMALL)


def test_the_users_store_is_below_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert user_store() == tmp_path / "pgolf-sweep" / "calibration.jsonl"
    assert store_path("user", base=tmp_path / "x") == user_store()
    assert store_path("team.jsonl", base=tmp_path) == tmp_path / "team.jsonl"

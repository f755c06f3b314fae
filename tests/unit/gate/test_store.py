from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from pgolf_sweep.core.errors import InputError
from pgolf_sweep.gate.gate import Gate
from pgolf_sweep.gate.store import (
    Measured,
    Store,
    append,
    measured,
    measured_store,
    read_store,
    store_path,
    teach,
    teach_measured,
    user_store,
)

SMALL = {"VOCAB_SIZE": 256, "MODEL_DIM": 64, "NUM_HEADS": 4, "NUM_KV_HEADS": 2, "NUM_LAYERS": 2}


def a_run(layers: int, *, program: str = "trainer") -> Measured:
    knobs = SMALL | {"NUM_LAYERS": layers}
    return Measured(program=program, knobs=knobs, model_bytes=30_000 * layers, source=f"s/{layers}")


def test_what_is_appended_is_read_and_importing_twice_changes_nothing(tmp_path):
    path = tmp_path / "deep" / "store.jsonl"
    assert read_store(path) == Store(runs=[])
    runs = [a_run(layers) for layers in range(1, 5)]
    assert append(path, runs) == 4
    assert append(path, [*runs, a_run(9)]) == 1
    assert read_store(path).runs == [*runs, a_run(9)]


DAMAGED = [
    '{"program": "trainer", "kno',
    "3",
    '{"model_bytes": 5}',
    '{"schema_version": "1", "program": "trainer", "knobs": {}, "model_bytes": 5}',
    '{"schema_version": 1, "program": "trainer", "knobs": {"A": [1]}, "model_bytes": 5}',
    '{"schema_version": 1, "program": "trainer", "knobs": [["A", 1]], "model_bytes": 5}',
    '{"schema_version": 1, "program": "trainer", "knobs": {}, "model_bytes": 1e999}',
    '{"schema_version": 1, "program": "trainer", "knobs": {}, "model_bytes": 5, "steps": "9"}',
]


def test_damaged_and_foreign_lines_are_left_aside_and_counted(tmp_path):
    path = tmp_path / "store.jsonl"
    append(path, [a_run(1)])
    path.write_bytes(path.read_bytes() + "\n".join(DAMAGED).encode() + b"\n\xff\n")
    assert read_store(path) == Store(runs=[a_run(1)], unread=len(DAMAGED) + 1)


def test_a_run_after_a_torn_line_is_a_line_of_its_own(tmp_path):
    path = tmp_path / "store.jsonl"
    append(path, [a_run(1)])
    path.write_bytes(path.read_bytes()[:-9])
    assert append(path, [a_run(2)]) == 1
    assert read_store(path) == Store(runs=[a_run(2)], unread=1)


def test_a_store_that_cannot_be_written_is_the_users_mistake(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        append(tmp_path / "file" / "store.jsonl", [a_run(1)])


def test_steps_are_kept_without_a_time(tmp_path, program):
    path = tmp_path / "store.jsonl"
    run = measured(program, SMALL, 60_000, "s/1", steps=500)
    append(path, [run])
    assert read_store(path).runs == [run]


def test_a_later_versions_defaults_change_nothing_of_what_was_measured(program):
    run = measured(program, SMALL, 60_000, "s/1")
    assert run.knobs.items() >= SMALL.items()
    knobs = {**program.knobs, "MATRIX_BITS": SimpleNamespace(default=4)}
    later = Gate(SimpleNamespace(**vars(program) | {"knobs": knobs}), 300_000)
    then = Gate(program, 300_000)
    for gate in (later, then):
        assert teach(gate, [run], program="trainer") == 1
    assert later.verdict(SMALL | {"MATRIX_BITS": 8}) == then.verdict(SMALL)


def test_of_a_script_only_its_own_knobs_are_kept(stranger):
    script = SimpleNamespace(**vars(stranger), sha256="5" * 64)
    run = measured(script, {"TAG": "a"}, 60_000, "s/1")
    assert (run.program, run.knobs) == ("5" * 64, {"TAG": "a"})


def test_runs_that_teach_nothing_are_not_counted(program):
    runs = [a_run(1), measured(program, {"MODEL_DIM": 511}, 60_000, "s/2")]
    assert teach(Gate(program, 300_000), runs, program="trainer") == 1


def test_a_newer_store_is_refused(tmp_path):
    path = tmp_path / "store.jsonl"
    path.write_text(json.dumps({"schema_version": 99}) + "\n")
    with pytest.raises(InputError, match="newer"):
        read_store(path)


def test_a_taught_gate_knows_what_a_study_taught_another(program):
    first, second = Gate(program, 300_000), Gate(program, 300_000)
    runs = [a_run(layers) for layers in range(1, 6)]
    for run in runs:
        first.learn(run.knobs, run.model_bytes)
    assert teach(second, [*runs, a_run(3, program="other")], program="trainer") == 5
    assert second.verdict(SMALL) == first.verdict(SMALL)


def test_the_users_store_is_below_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert user_store() == tmp_path / "pgolf-sweep" / "calibration.jsonl"
    assert store_path("user", base=tmp_path / "x") == user_store()
    assert store_path("team.jsonl", base=tmp_path) == tmp_path / "team.jsonl"


def test_a_device_in_the_place_of_a_store_is_not_read(tmp_path):
    path = tmp_path / "store.jsonl"
    path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match="cannot be read"):
        read_store(path)


def test_measured_runs_that_cannot_be_read_stop_no_gate(tmp_path, monkeypatch, program):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    measured_store().parent.mkdir()
    measured_store().write_text(json.dumps({"schema_version": 99}) + "\n")
    said = teach_measured(Gate(program, 300_000), SMALL)
    assert str(measured_store()) in said
    assert "schema_version 99" in said

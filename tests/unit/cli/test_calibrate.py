from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from pgolf_sweep.cli import app
from pgolf_sweep.core.errors import InputError

TABLE = """\
model_dim,num_layers,matrix_bits,model_bytes,note
512,9,8,15700000,ours
512,9,6,11900000,
,,,,empty
"""
CONTEST = """\
record,quant_scheme,codec,vocab_size,num_layers,model_dim,num_heads,num_kv_heads,mlp_mult,\
iterations_done,warmdown_iters,matrix_lr,muon_momentum,weight_decay,ema_or_swa,model_params,\
model_bytes,matrix_clip_sigmas,embed_clip_sigmas
a,int6-gptq+int8-embed,brotli,8192,11,512,8,4,4,5000,3000,0.02,0.99,0.085,ema,35943512,15972031,12.85,20
b,int6-gptq+int8-embed,brotli,8192,11,512,8,4,4,5100,3000,0.02,0.99,0.085,ema,35943512,15976275,12.85,20
"""
LOG = "Code size: 40000 bytes\nSerialized model int8+zlib: 15815847 bytes (payload:17178912)\n"


def run(*words):
    result = CliRunner().invoke(app, ["calibrate", *map(str, words), "--json"])
    if isinstance(result.exception, InputError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_table_of_knobs_is_imported_once_and_gate_learns_from_it(tmp_path):
    (tmp_path / "t.csv").write_text(TABLE)
    store = tmp_path / "store.jsonl"
    found = run("--table", tmp_path / "t.csv", "--store", store)
    assert (found["added"], found["skipped"], found["runs"]) == (2, 1, 2)
    assert found["trainer"]["median_error_percent"] < 3
    assert run("--table", tmp_path / "t.csv", "--store", store)["added"] == 0
    words = ["gate", "--set", "MATRIX_BITS=6", "--calibration", str(store), "--json"]
    learnt = json.loads(CliRunner().invoke(app, words).stdout)
    assert learnt["regime"] in {"measured", "calibrated"}


def test_a_log_is_imported_with_the_knobs_that_it_does_not_tell(tmp_path):
    (tmp_path / "train.log").write_text(LOG)
    store = tmp_path / "store.jsonl"
    found = run("--log", tmp_path / "train.log", "--set", "NUM_LAYERS=9", "--store", store)
    assert found["runs"] == 1
    stored = json.loads(store.read_text())
    assert stored["model_bytes"] == 15815847
    assert stored["knobs"]["NUM_LAYERS"] == 9


def test_a_table_of_contest_logs_is_refused(tmp_path):
    (tmp_path / "runs.csv").write_text(CONTEST)
    words = ["calibrate", "--table", str(tmp_path / "runs.csv"), "--store", str(tmp_path / "s")]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, InputError)
    assert not (tmp_path / "s").exists()


EXPORTED_LOG = """\
model_params:17059912
Serialized model int8+zlib: 15900000 bytes (payload:17178912)
artifact:smaller_export setting:MLP_BITS=7,CODEC=lzma
Serialized model int7+lzma: 13700000 bytes (payload:17178912)
"""


def test_a_log_with_a_smaller_export_tells_two_sizes_each_of_its_own_knobs(tmp_path):
    (tmp_path / "train.log").write_text(EXPORTED_LOG)
    store = tmp_path / "store.jsonl"
    assert run("--log", tmp_path / "train.log", "--store", store)["added"] == 2
    stored = [json.loads(line) for line in store.read_text().splitlines()]
    shown = [(r["model_bytes"], r["knobs"]["MLP_BITS"], r["knobs"]["CODEC"]) for r in stored]
    assert shown == [(15_900_000, 0, "zlib"), (13_700_000, 7, "lzma")]


def test_a_log_of_other_knobs_than_those_that_are_set_is_refused(tmp_path):
    log, store = tmp_path / "train.log", tmp_path / "store.jsonl"
    log.write_text("model_params:150000\n" + LOG)
    with pytest.raises(InputError, match="another configuration") as caught:
        run("--log", log, "--store", store)
    assert (caught.value.got, caught.value.expected[:10]) == ("model_params 150,000", "17,059,912")
    with pytest.raises(InputError, match="no run can have had") as caught:
        run("--log", log, "--set", "MODEL_DIM=511", "--store", store)
    assert "NUM_HEADS" in caught.value.got
    assert not store.exists()


def test_damaged_rows_and_those_that_do_not_read_are_counted_and_keep_their_line(tmp_path):
    rows = ["512,9,6,11900000", "512,9", "512,9,8,15700000,1,2", "512,nine,8,15700000",
            "512.5,9,8,15700000", "512,9,8,big", "512,9,8,15700000"]  # fmt: skip
    table = "model_dim,num_layers,matrix_bits,model_bytes\n" + "\n".join(rows)
    (tmp_path / "t.csv").write_text(table)
    store = tmp_path / "store.jsonl"
    found = run("--table", tmp_path / "t.csv", "--store", store)
    assert (found["added"], found["skipped"]) == (2, 5)
    sources = [json.loads(line)["source"] for line in store.read_text().splitlines()]
    assert sources == ["t.csv:2", "t.csv:8"]


def test_a_store_with_a_torn_line_says_so_and_takes_the_next_run(tmp_path):
    store = tmp_path / "store.jsonl"
    store.write_text('{"schema_version": 1, "prog')
    (tmp_path / "train.log").write_text(LOG)
    found = run("--log", tmp_path / "train.log", "--store", store)
    assert (found["added"], found["runs"], found["unread_lines"]) == (1, 1, 1)


def test_what_tells_no_size_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    (tmp_path / "l.log").write_text("nothing\n")
    with pytest.raises(InputError, match="how large"):
        run("--table", tmp_path / "t.csv", "--store", tmp_path / "s.jsonl")
    with pytest.raises(InputError, match="how large"):
        run("--log", tmp_path / "l.log", "--store", tmp_path / "s.jsonl")

"""`gate --measure`: the real script on this machine, what it teaches, and what it says it lacks."""

from __future__ import annotations

import json
from array import array
from typing import TYPE_CHECKING

import pytest
from support.contest_scripts import BLOCKS, HEAD, MAIN
from typer.testing import CliRunner

import pgolf_sweep.cli.gate  # noqa: F401 - registers the command
from pgolf_sweep.cli.common import app
from pgolf_sweep.core.errors import DataError, InfraError, InputError
from pgolf_sweep.core.trial import VerdictKind
from pgolf_sweep.data.build import train_tokenizer
from pgolf_sweep.data.dataset import named
from pgolf_sweep.data.shards import write_shard
from pgolf_sweep.gate.store import measured_store, read_store
from pgolf_sweep.script.probe.client import stop_helper
from pgolf_sweep.workflows.gate import gate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgolf_sweep.workflows.gate import GateAnswer

PLAIN = """
import os
layers = int(os.environ.get("NUM_LAYERS", "2"))
iterations = int(os.environ.get("ITERATIONS", "20000"))
seconds = float(os.environ.get("MAX_WALLCLOCK_SECONDS", "600"))
every = int(os.environ.get("VAL_LOSS_EVERY", "1000"))
print(f"model_params:{1000 * layers}", flush=True)
for step in range(1, iterations + 1):
    print(f"step:{step}/{iterations} train_loss:4.0 train_time:{step}ms step_avg:1.00ms")
with open("final_model.ptz", "wb") as file:
    file.write(bytes(700 * layers))
print("Code size: 500 bytes")
print(f"Serialized model int8+zlib: {700 * layers} bytes", flush=True)
print(f"Total submission size int8+zlib: {700 * layers + 500} bytes", flush=True)
if seconds < 60 and not every:
    import time
    time.sleep(1000)  # an evaluation that nobody waits for
"""


@pytest.fixture(scope="module", autouse=True)
def _helper_ends() -> Iterator[None]:
    yield
    stop_helper()


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    for name in ("DATA_PATH", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def script(tmp_path: Path, source: str) -> Path:
    path = tmp_path / "train_gpt.py"
    path.write_text(source)
    return path


def measured(path: Path, probe: bool = False, **knobs: int) -> GateAnswer:
    return gate(knobs, measure=path, probe=probe, gpus=0)


def test_a_script_is_run_until_its_artifact_is_known_and_its_bytes_are_kept(tmp_path: Path) -> None:
    path = script(tmp_path, PLAIN)
    found = measured(path, NUM_LAYERS=3).measured
    assert found is not None
    run = found.run
    assert (run.model_bytes, run.artifact_bytes, run.code_bytes) == (2100, 2600, 500)
    assert (run.model_params, run.steps, run.gpus) == (3000, 4, 0)
    assert run.knobs["ITERATIONS"] == 4
    assert run.knobs["NUM_LAYERS"] == 3
    assert found.predicted is None  # nobody probed it
    (kept,) = read_store(measured_store()).runs
    assert (kept.model_bytes, kept.steps, kept.model_params) == (2100, 4, 3000)


def test_what_was_measured_is_told_where_it_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "share").write_text("no folder")
    answer = measured(script(tmp_path, PLAIN))
    assert answer.measured is not None
    assert answer.measured.run.model_bytes == 1400
    assert any("not kept" in line for line in answer.learnt)


def test_a_short_run_is_what_a_gate_of_short_runs_knows_and_says_nothing_of_long_ones(
    tmp_path: Path,
) -> None:
    path = script(tmp_path, PLAIN)
    answer = measured(path)
    assert answer.verdict.kind is VerdictKind.UNKNOWN  # of 20,000 steps
    assert any("0 of 1 measured runs" in line for line in answer.learnt)
    run = answer.measured
    assert run is not None
    later = gate(run.run.knobs, program=path, probe=False)
    assert later.verdict.regime == "measured"
    assert later.verdict.model_bytes is not None
    assert later.verdict.model_bytes.mid == 1400
    assert gate(program=path, probe=False).verdict.kind is VerdictKind.UNKNOWN


def test_what_the_user_sets_is_not_shortened_and_a_sweep_learns_from_it(tmp_path: Path) -> None:
    path = script(tmp_path, PLAIN)
    found = measured(path, ITERATIONS=1500).measured
    assert found is not None
    assert found.run.steps == 1500
    sweep = tmp_path / "sweep.yaml"
    fixed = "".join(f"  {name}: {{value: {value}}}\n" for name, value in found.run.knobs.items())
    sweep.write_text(
        f"program: {path}\nmethod: random\nparameters:\n{fixed}"
        "  NUM_LAYERS: {values: [2, 3]}\npgolf:\n  resources: {gpus: 0}\n"
        "  limits: {total_seconds: 60}\n"
    )
    answer = gate({"NUM_LAYERS": 2}, sweep=sweep, probe=False)
    assert answer.learnt == ["learnt from 1 of 1 measured runs"]


def test_a_real_export_is_measured_beside_its_probe(tmp_path: Path) -> None:
    answer = measured(script(tmp_path, HEAD + MAIN), probe=True)
    found = answer.measured
    assert found is not None
    assert found.predicted is not None
    assert 0.7 * BLOCKS < found.run.model_bytes < 1.2 * BLOCKS
    assert answer.verdict.model_params == BLOCKS


def test_a_count_that_the_real_log_contradicts_is_said(tmp_path: Path) -> None:
    said = MAIN.replace("    export(", '    print("model_params:77")\n    export(')
    answer = measured(script(tmp_path, HEAD + said), probe=True)
    assert any("77" in line for line in answer.learnt)


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        ("raise RuntimeError('CUDA is required')", InfraError, "needs a GPU"),
        ("raise ValueError('heads do not divide')", InputError, "heads do not divide"),
        ("print('val_bpb:1.2')", InputError, "no size"),
    ],
)
def test_a_run_without_an_artifact_says_why(
    tmp_path: Path, source: str, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind) as caught:
        measured(script(tmp_path, source))
    assert words in str(caught.value)
    assert not measured_store().exists()


def test_our_trainer_without_its_data_names_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "datasets" / "toy_sp300").mkdir(parents=True)
    with pytest.raises(DataError, match="vocabulary of 1024") as caught:
        gate(measure="trainer", data_root=tmp_path)
    assert "toy_sp300" in str(caught.value)


def test_our_trainer_is_measured_on_a_tiny_model(tmp_path: Path) -> None:
    data = named("toy", 300, tmp_path)
    data.path.mkdir(parents=True)
    data.tokenizer.parent.mkdir()
    words = [f"the number {i} of {i * i} words and bytes" for i in range(300)]
    data.tokenizer.write_bytes(train_tokenizer(words, 300))
    for split in ("train", "val"):
        tokens = array("H", (3 + i * i % 290 for i in range(2000)))
        write_shard(data.path / f"fineweb_{split}_000000.bin", tokens)
    knobs = {"VOCAB_SIZE": 300, "NUM_LAYERS": 1, "MODEL_DIM": 64, "NUM_HEADS": 2,
             "NUM_KV_HEADS": 1, "TRAIN_SEQ_LEN": 16}  # fmt: skip
    settings = [word for name, value in knobs.items() for word in ("--set", f"{name}={value}")]
    result = CliRunner().invoke(
        app, ["gate", "--measure", "trainer", "--data-root", str(tmp_path), "--json", *settings]
    )
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    found = answer["measured"]
    assert found["steps"] == 4
    assert found["model_params"] == answer["model_params"]
    assert (
        found["predicted_bytes"]["low"] <= found["model_bytes"] <= found["predicted_bytes"]["high"]
    )
    assert abs(found["error_percent"]) < 5

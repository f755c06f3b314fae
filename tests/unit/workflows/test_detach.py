"""The bundle of a sweep that is driven on a cluster."""

from __future__ import annotations

import pytest

from pgolf_sweep.config.overrides import Overrides
from pgolf_sweep.core.errors import InputError, SpecError
from pgolf_sweep.workflows.detach import Sending, build_bundle

SCRIPT = "import os\nLR = float(os.environ.get('MATRIX_LR', 0.1))\n"
SWEEP = "method: random\nparameters: {MATRIX_LR: {min: 0.1, max: 0.2}}\n"


def sweep(folder, text):
    file = folder / "sweeps" / "lr.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(SWEEP + text)
    return file


def test_files_lie_to_each_other_as_they_do_here(tmp_path):
    code = tmp_path / "code"
    (code / "lib").mkdir(parents=True)
    (code / "train.py").write_text(SCRIPT)
    (code / "lib" / "a.py").write_text("A = 1")
    (code / "requirements.txt").write_text("numpy")
    (code / "secret.env").write_text("stays here")
    file = sweep(tmp_path, "program: ../code/train.py\npgolf: {files: ['lib/*.py']}\n")
    found = build_bundle(file, name="other")
    assert found.study == "other"
    assert found.sweep == "sweeps/lr.yaml"
    assert found.files.keys() == {
        "sweeps/lr.yaml", "code/train.py", "code/lib/a.py", "code/requirements.txt"
    }  # fmt: skip
    assert found.files["sweeps/lr.yaml"].decode() == found.text == file.read_text()


def test_our_own_trainer_needs_nothing_but_the_sweep_file(tmp_path):
    found = build_bundle(sweep(tmp_path, "program: trainer\npgolf: {data: sp1024}\n"))
    assert found.files.keys() == {"lr.yaml"}
    assert found.study == "lr"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("program: {absolute}\n", "absolute path is of this machine"),
        ("program: trainer\npgolf: {data: {path: d, tokenizer: /t.model}}\n", "does not travel"),
        ("program: trainer\npgolf: {rules: nowhere.yaml}\n", "no rules named"),
        ("program: lost.py\n", "does not exist"),
        ("program: trainer\nrun_cap: no\n", "run_cap"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path, text, message):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    file = sweep(tmp_path, text.replace("{absolute}", str(script)))
    with pytest.raises((InputError, SpecError)) as caught:
        build_bundle(file)
    assert message in str(caught.value)
    assert "lr.yaml:" in str(caught.value)


def test_the_store_that_the_gate_learns_from_travels_and_has_to_be_there(tmp_path):
    file = sweep(tmp_path, "pgolf: {gate: {calibration: ../st.jsonl}}\nprogram: trainer\n")
    with pytest.raises(InputError, match="no such calibration store") as caught:
        build_bundle(file)
    assert "lr.yaml:3: pgolf.gate.calibration" in caught.value.where
    (tmp_path / "st.jsonl").write_text("")
    assert build_bundle(file).files.keys() == {"sweeps/lr.yaml", "st.jsonl"}
    assert build_bundle(sweep(tmp_path, "pgolf: {gate: {calibration: user}}\n"))


def test_overrides_travel_in_the_file_and_the_webhooks_variable_by_name(tmp_path):
    notify = "pgolf: {notify: {webhook: '${HOOK}'}}\n"
    file = sweep(tmp_path, f"program: trainer\nrun_cap: 9\n{notify}")
    found = build_bundle(file, overrides=Overrides(run_cap=3, settings={"MATRIX_LR": 0.15}))
    assert "run_cap: 3" in found.text
    assert found.files[found.sweep].decode() == found.text
    assert found.variables == ("HOOK",)
    assert file.read_text() != found.text


def test_refusal_of_probes_travels_to_the_cluster() -> None:
    sending = Sending(
        address=None, home=None, data_root=None, storage=None, wandb=None, slots=2, probe=False
    )
    assert sending.options() == ["--slots", "2", "--no-probe"]

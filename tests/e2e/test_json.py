"""One JSON document on stdout, with the keys of the design."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from support.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.ray, pytest.mark.slow]

INTERVAL = {"low", "mid", "high"}


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory, address: str) -> Iterator[Terminal]:
    with Terminal(tmp_path_factory.mktemp("json"), address=address) as made:
        yield made


@pytest.fixture(scope="module")
def study(terminal: Terminal) -> str:
    """A finished study that discarded some and completed some."""
    file = terminal.sweep(
        "told",
        method="grid",
        run_cap=None,
        parameters={"MATRIX_LR": {"values": [0.01, 0.02]}, "MODEL_DIM": {"values": [32, 63, 64]}},
        pgolf={"require": ["MODEL_DIM % 2 == 0"]},
    )
    said = terminal.launch(file, "--json")
    assert said.code == 0, said.err
    assert said.json()["state"] == "finished"
    return "told"


def test_status(terminal: Terminal, study: str) -> None:
    said = terminal.run("status", study, "--json")
    document = said.json()
    assert document.keys() >= {"study", "state", "trials", "best", "slot_seconds"}
    assert document["study"] == study
    assert document["trials"].keys() >= {
        "completed", "pruned", "discarded", "failed", "running", "queued"
    }  # fmt: skip
    assert (document["trials"]["completed"], document["trials"]["discarded"]) == (4, 2)
    assert document["best"].keys() == {
        "number", "val_bpb", "artifact_bytes", "headroom_bytes", "knobs", "variant", "idea"
    }  # fmt: skip
    assert document["best"]["knobs"]["MATRIX_LR"] == 0.02
    assert document["best"]["artifact_bytes"] + document["best"]["headroom_bytes"] == 300_000
    assert document["slot_seconds"].keys() == {"trained", "idle", "saved_by_gate"}
    assert document["slot_seconds"]["trained"] > 0
    assert document["slot_seconds"]["saved_by_gate"] > 0
    assert said.err == ""


def test_trials(terminal: Terminal, study: str) -> None:
    said = terminal.run("trials", study, "--json")
    rows = said.json()["trials"]
    assert len(rows) == 6
    for row in rows:
        assert row.keys() >= {
            "number", "outcome", "reason", "knobs", "val_bpb", "predicted_bytes",
            "artifact_bytes", "train_seconds", "node", "proposer",
        }  # fmt: skip
        assert row["proposer"] == "grid"
        if row["outcome"] == "discarded":
            assert row["reason"] == "require: MODEL_DIM % 2 == 0 is false"
            assert row["node"] is None
            assert not (terminal.study(study) / "trials" / str(row["number"])).exists()
    only = terminal.run("trials", study, "--outcome", "discarded", "--json").json()["trials"]
    assert [row["outcome"] for row in only] == ["discarded"] * 2
    assert said.err == ""


def test_best(terminal: Terminal, study: str) -> None:
    rows = terminal.run("best", study, "--top", "3", "--json").json()["trials"]
    scores = [row["val_bpb"] for row in rows]
    assert len(scores) == 3
    assert scores == sorted(scores)


def test_logs(terminal: Terminal, study: str) -> None:
    number = terminal.run("best", study, "--json").json()["trials"][0]["number"]
    log = terminal.study(study) / "trials" / str(number) / "train.log"
    document = terminal.run("logs", "--parse", str(log), "--json").json()
    assert document.keys() >= {
        "val_bpb", "val_loss_nats", "finals", "model_bytes", "code_bytes", "total_bytes",
        "steps", "step_avg_ms", "train_seconds", "seed",
    }  # fmt: skip
    assert document["model_bytes"] + document["code_bytes"] == document["total_bytes"]
    assert document["val_bpb"] in document["finals"].values()
    assert terminal.run("logs", study, "--trial", str(number), "--json").json() == document


def test_plan_and_gate_need_no_ray_and_no_data(terminal: Terminal) -> None:
    said = terminal.run("plan", "told.yaml", "--draws", "50", "--json")
    assert said.code == 0, said.err
    said.json()
    said = terminal.run("gate", "--set", "MODEL_DIM=576", "--json")
    assert said.code in {0, 1}, said.err
    document = said.json()
    assert document.keys() >= {
        "verdict", "reason", "model_params", "code_bytes", "model_bytes", "artifact_bytes",
        "cap_bytes", "headroom_bytes", "confidence", "regime",
    }  # fmt: skip
    assert document["model_bytes"].keys() == document["artifact_bytes"].keys() == INTERVAL
    assert document["cap_bytes"] == 16_000_000


def test_promote_and_verify(terminal: Terminal, study: str) -> None:
    words = ("--address", str(terminal.address), "--wandb", "disabled", "--author", "A. Nobody")
    said = terminal.run("promote", study, *words, "--json")
    assert said.code == 0, said.err
    document = said.json()
    assert document.keys() >= {
        "folder", "val_bpb", "val_loss_nats", "std", "p_value", "seeds", "artifact_bytes", "checks"
    }  # fmt: skip
    assert len(set(document["seeds"])) == 2
    again = terminal.run("promote", study, *words, "--json")
    assert again.code == 0, again.err
    assert {**again.json(), "checks": 0} == {**document, "checks": 0}

    said = terminal.run("verify", document["folder"], "--json")
    assert said.code == 0, said.out
    verified = said.json()
    assert verified["ok"] is True
    for check in verified["checks"]:
        assert check.keys() >= {"rule", "verdict", "observed", "limit", "detail"}

    submission = terminal.folder / document["folder"] / "submission.json"
    claimed = json.loads(submission.read_text())
    submission.write_text(json.dumps(claimed | {"val_bpb": claimed["val_bpb"] - 0.1}))
    said = terminal.run("verify", document["folder"], "--json")
    assert said.code == 1
    assert said.json()["ok"] is False


def test_an_error_leaves_stdout_empty(terminal: Terminal) -> None:
    for words in ("status lost", "plan lost.yaml", "verify lost", "gate --set X"):
        said = terminal.run(*words.split(), "--json")
        assert said.code == 2
        assert said.out == ""

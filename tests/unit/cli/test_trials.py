"""Studies and trials as tables, and a trial's way out."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from support.sweeps import SCRIPT, build_bench
from typer.testing import CliRunner

from pgolf_sweep.cli import app
from pgolf_sweep.cli.common import complete_study
from pgolf_sweep.core.errors import AnswerNoError, InputError
from pgolf_sweep.core.paths import write_text
from pgolf_sweep.driver.opening import open_session
from pgolf_sweep.workflows.study_folder import prepare_folder

STORED = Path(__file__).parents[2] / "data/studies"


@pytest.fixture
def runs(tmp_path):
    """A folder of two studies, of which `demo` changed last."""
    shutil.copytree(STORED / "version_0_1/runs/older", tmp_path / "older")
    shutil.copytree(STORED / "demo", tmp_path / "demo")
    for number, name in enumerate(("older", "demo")):
        for path in (tmp_path / name).rglob("*"):
            os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))
    return tmp_path


def run(runs, *words):
    done = CliRunner().invoke(app, [*words, "--runs", str(runs)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_list_has_every_study_and_names_a_broken_one(runs):
    write_text(runs / "broken" / "sweep.yaml", "program: [\n")
    done = run(runs, "list", "--json")
    studies = json.loads(done.stdout)["studies"]
    assert [row["study"] for row in studies] == ["demo", "older"]
    assert studies[0]["best"]["number"] == 0
    assert studies[0]["trials"]["pruned"] == 11
    assert "'broken' is left out" in done.stderr


def test_without_a_name_the_study_that_changed_last_is_taken(runs):
    assert json.loads(run(runs, "status", "--json").stdout)["study"] == "demo"
    os.utime(runs / "older" / "status.json")
    done = run(runs, "trials", "--json")
    assert json.loads(done.stdout)["study"] == "older"
    assert "study older" in done.stderr
    with pytest.raises(InputError, match="no study yet"):
        run(runs / "demo", "status")


def test_names_are_completed(runs):
    context = type("Context", (), {"params": {"runs": str(runs)}})
    assert complete_study(context, "") == ["demo", "older"]
    assert complete_study(context, "de") == ["demo"]


def test_trials_are_sorted_by_a_key_or_a_knob_and_cut(runs):
    def numbers(*words):
        document = json.loads(run(runs, "trials", "demo", *words, "--json").stdout)
        return [row["number"] for row in document["trials"]]

    best = json.loads(run(runs, "best", "demo", "--top", "3", "--json").stdout)["trials"]
    completed = numbers("--outcome", "completed", "--sort", "val_bpb", "--top", "3")
    assert completed == [row["number"] for row in best]
    assert numbers("--outcome", "completed", "--sort=-val_bpb")[-1] == completed[0]
    widths = json.loads(run(runs, "trials", "demo", "--sort", "MODEL_DIM", "--json").stdout)
    found = [row["knobs"]["MODEL_DIM"] for row in widths["trials"]]
    assert found == sorted(found)
    with pytest.raises(InputError, match="no trial has a key 'MODEL_DIMM'"):
        numbers("--sort", "MODEL_DIMM")


def test_trials_as_comma_separated_values(runs):
    text = run(runs, "trials", "demo", "--csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 21
    assert rows[0]["artifact_bytes"] == "252771"
    assert rows[1]["artifact_bytes"] == ""
    assert rows[0]["MODEL_DIM"] == "96"
    with pytest.raises(InputError, match="exclude one another"):
        run(runs, "trials", "demo", "--csv", "--json")


@pytest.fixture
def launched(tmp_path):
    """A finished study of four trials with all its files."""
    bench = build_bench(tmp_path, run_cap=4)
    (tmp_path / "train_gpt.py").write_bytes(SCRIPT)
    prepare_folder(bench.session, bench.paths, sweep=tmp_path / "study.yaml", data_root=tmp_path)
    bench.driver().run()
    return bench


def test_a_trial_leaves_as_a_sweep_file_of_one_configuration(launched, tmp_path):
    text = run(launched.paths.root.parent, "best", "study", "--trial", "1", "--yaml").stdout
    elsewhere = tmp_path / "elsewhere" / "again.yaml"
    write_text(elsewhere, text)
    session = open_session(elsewhere, data_root=tmp_path, need_data=False)
    assert session.spec.name == "study-trial-1"
    assert session.spec.space.size() == 1
    record = launched.study().records()[1]
    assert session.resolve(next(session.spec.space.grid())) == dict(record.knobs)
    assert session.program.sha256 == launched.session.program.sha256


def test_a_trial_leaves_as_an_environment_and_as_a_command(launched):
    folder = launched.paths.root.parent
    record = launched.study().records()[1]
    env = json.loads(run(folder, "best", "study", "-t", "1", "--env", "--json").stdout)["env"]
    assert env["MODEL_DIM"] == str(record.knobs["MODEL_DIM"])
    sourced = run(folder, "best", "study", "-t", "1", "--env").stdout
    exported = [shlex.split(line)[1].split("=", 1) for line in sourced.splitlines()]
    assert dict(exported) == env
    words = shlex.split(run(folder, "best", "study", "-t", "1", "--command").stdout)
    assert f"MODEL_DIM={record.knobs['MODEL_DIM']}" in words
    assert words[-3:-1] == ["--standalone", "--nproc_per_node=1"]
    assert Path(words[-1]).read_bytes() == SCRIPT
    with pytest.raises(InputError, match="exclude one another"):
        run(folder, "best", "study", "--env", "--yaml")


def test_the_best_is_taken_where_no_trial_is_named(runs, launched):
    folder = launched.paths.root.parent
    document = yaml.safe_load(run(folder, "best", "study", "--yaml").stdout)
    best = json.loads(run(folder, "best", "study", "--json").stdout)["trials"][0]
    assert document["name"] == f"study-trial-{best['number']}"
    with pytest.raises(InputError, match="has no trial 99"):
        run(folder, "best", "study", "--trial", "99")
    shutil.copytree(STORED / "demo", runs / "empty")
    (runs / "empty" / "study.journal").write_text("")
    (runs / "empty" / "rows.jsonl").unlink()
    with pytest.raises((AnswerNoError, InputError)):
        run(runs, "best", "empty", "--yaml")

"""`promote` says what it would run before it runs anything."""

from __future__ import annotations

import json

import pytest
from support.sweeps import SCRIPT, build_bench
from typer.testing import CliRunner

from pgolf_sweep.cli import app
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.driver.opening import open_session
from pgolf_sweep.workflows.promotion_plan import promotion_rules
from pgolf_sweep.workflows.study_folder import prepare_folder


@pytest.fixture
def bench(tmp_path):
    """A finished study of four trials, as `launch` leaves it."""
    found = build_bench(tmp_path, run_cap=4)
    (tmp_path / "train_gpt.py").write_bytes(SCRIPT)
    prepare_folder(found.session, found.paths, sweep=tmp_path / "study.yaml", data_root=tmp_path)
    found.driver().run()
    return found


def dry_run(bench, *arguments):
    runs = ["--runs", str(bench.folder / "runs")]
    done = CliRunner().invoke(app, ["promote", "study", "--dry-run", "--json", *runs, *arguments])
    if isinstance(done.exception, InputError):
        raise done.exception
    assert done.exit_code == 0, done.output
    assert not bench.paths.promotion.exists()
    return json.loads(done.stdout)


def test_promotion_names_its_seeds_before(bench):
    said = dry_run(bench, "--seeds", "4")
    scores = {r.number: r.val_bpb for r in bench.study().records() if r.val_bpb is not None}
    assert said["trial"] == min(scores, key=scores.get)
    assert len(set(said["seeds"])) == 4
    assert not {7, 1337} & set(said["seeds"])  # the search's and the script's own


def test_comparison_is_costed_and_needs_another_trial(bench):
    said = dry_run(bench)
    others = {r.number for r in bench.study().records()} - {said["trial"]}
    runs = ["--runs", str(bench.folder / "runs")]
    words = ["promote", "study", "--dry-run", "--seeds", "3", *runs, "--against"]
    done = CliRunner().invoke(app, [*words, str(min(others))])
    assert f"on 3 fresh seeds and trial {min(others)} on as many" in done.stderr
    assert "about 1 min 00 s of a slot" in done.stderr
    with pytest.raises(InputError, match="cannot be compared with itself"):
        dry_run(bench, "--against", str(said["trial"]))
    with pytest.raises(InputError, match="no completed trial to compare with"):
        dry_run(bench, "--against", "baseline")


def test_race_says_what_it_may_spend(bench):
    said = dry_run(bench, "--top", "3", "--max-seeds", "5", "--confidence", "0.99")
    assert len(said["contenders"]) == 3
    assert (said["least_runs"], said["most_runs"], said["confidence"]) == (6, 15, 0.99)
    assert said["seconds_each"] == pytest.approx(10)


def test_race_and_single_trial_contradict_each_other(bench):
    with pytest.raises(InputError, match="give only one"):
        dry_run(bench, "--top", "3", "--trial", "1")


def test_limit_on_p_is_divided_among_contenders(bench, tmp_path):
    record = tmp_path / "record.yaml"
    record.write_text("{val_bpb: 1.2, val_loss_nats: 2.0, source: us, date: 2026-05-02}")
    name = "parameter-golf-2026"
    rules = promotion_rules(bench.session, name, record, contenders=4)
    assert rules.p_value == pytest.approx(0.01 / 4)
    assert rules.record is not None
    assert rules.record.source == "us"
    assert promotion_rules(bench.session, None, None) == bench.session.rules


def test_packed_sweep_counts_the_packed_script(bench):
    text = (bench.folder / "study.yaml").read_text()
    packed = bench.folder / "packed.yaml"
    packed.write_text(text.replace("train_gpt.py", "long.py") + "  pack: true\n")
    plain = bench.folder / "plain.yaml"
    plain.write_text(text.replace("train_gpt.py", "long.py"))
    names = "".join(f"word_{i} = 'a sentence that says little'\n" for i in range(60))
    (bench.folder / "long.py").write_bytes(SCRIPT + names.encode())
    opened = [open_session(path, data_root=bench.folder).program for path in (packed, plain)]
    assert opened[0].code_bytes < opened[1].code_bytes
    assert opened[0].knobs == opened[1].knobs

"""Programs of a study shown, written out, merged, ablated, chosen from and shipped, all run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from support.real_runs import run_script
from support.sweeps import build_bench
from typer.testing import CliRunner

from pgolf_sweep.cli import app
from pgolf_sweep.core.errors import AnswerNoError, InputError
from pgolf_sweep.core.paths import read_json
from pgolf_sweep.core.record import State, ranked
from pgolf_sweep.launch.inline import InlineLauncher
from pgolf_sweep.promote.candidate import About
from pgolf_sweep.promote.promote import promote
from pgolf_sweep.report.page import page
from pgolf_sweep.report.story import read_story
from pgolf_sweep.track.mode import resolve_mode
from pgolf_sweep.variants.store import kept_all, variant_program
from pgolf_sweep.verify.verify import verify
from pgolf_sweep.workflows.lineage import read_lineage
from pgolf_sweep.workflows.promote import provenance, seed_jobs
from pgolf_sweep.workflows.promotion_plan import prepare_promotion
from pgolf_sweep.workflows.rerun import rerun_env, rerun_yaml
from pgolf_sweep.workflows.study_folder import prepare_folder

GOOD = (Path(__file__).parents[2] / "data" / "scripts" / "good.py").read_text()
RATE = "rate = 0.05 * math.log(MATRIX_LR / 0.02) ** 2"
CURVE = "curve = 1.5 / math.sqrt(step + 1)"
FLATTER = GOOD.replace(RATE, RATE.replace("0.05", "0.01"))
FASTER = GOOD.replace(CURVE, CURVE.replace("1.5", "1.2"))
CRASHES = GOOD.replace('    log(f"seed:{SEED}")\n', "    raise RuntimeError('no such idea')\n")
KNOBS = ["--set", "MODEL_DIM=64", "--set", "MATRIX_LR=0.05"]
FAST = "  STEP_SECONDS: {value: 0}\n  ITERATIONS: {value: 10}\n"


@pytest.fixture
def bench(tmp_path):
    """A study of good.py with its own trial 0 and three programs on it: 1 and 2 help, 3 crashes."""
    script = GOOD.encode()
    found = build_bench(
        tmp_path, run_cap=20, block="  gate: {enabled: false}\n", extra=FAST, program=script
    )
    found.session = dataclasses.replace(found.session, implied={"MAX_WALLCLOCK_SECONDS": 120.0})
    (tmp_path / "train_gpt.py").write_bytes(script)
    prepare_folder(found.session, found.paths, sweep=tmp_path / "study.yaml", data_root=tmp_path)
    said(found, "propose", "study", "--by", "ada", *KNOBS)
    drive(found, 1)
    for text, idea in ((FLATTER, "flatter"), (FASTER, "faster"), (CRASHES, "crash")):
        try_script(found, text, idea)
    drive(found, 4)
    return found


def try_script(bench, text, idea, *, parent="0"):
    path = bench.folder / "idea.py"
    path.write_text(text)
    words = ["--program", str(path), "--parent", parent, "--idea", idea, "--by", "bob"]
    return said(bench, "propose", "study", *words)


def drive(bench, run_cap):
    bench.driver(slots=1, simulate=run_script, run_cap=run_cap).run()
    return bench.study().records()


def run(bench, *words):
    return CliRunner().invoke(app, [*words, "--runs", str(bench.folder / "runs")])


def said(bench, *words):
    done = run(bench, *words, "--json")
    assert done.exit_code == 0, done.output + repr(done.exception)
    return json.loads(done.stdout)


def test_the_tree_holds_ideas_effects_and_what_failed(bench):
    nodes = {node["number"]: node for node in said(bench, "lineage", "study")["nodes"]}
    assert [nodes[n]["parent"] for n in range(4)] == [None, 0, 0, 0]
    assert nodes[0]["children"] == [1, 2, 3]
    assert (nodes[1]["idea"], nodes[1]["proposer"]) == ("flatter", "propose:bob")
    assert nodes[3]["outcome"] == "failed"
    assert nodes[1]["effect"] is None  # one seed each, and nobody knows the noise
    said(bench, "propose", "study", "--parent", "0", "--seeds", "3")
    said(bench, "propose", "study", "--parent", "1", "--seeds", "3")
    drive(bench, 8)
    nodes = {node["number"]: node for node in said(bench, "lineage", "study")["nodes"]}
    assert len(nodes) == 4
    assert nodes[1]["seeds"] == 3
    effect = nodes[1]["effect"]
    assert effect["low"] < effect["difference_bpb"] < effect["high"] < 0
    text = run(bench, "lineage", "study").stdout
    assert "   trial 1  program " in text
    assert "over 3 seeds" in text
    assert '"crash"' in text
    dot = run(bench, "lineage", "study", "--dot").stdout
    assert dot.startswith("digraph lineage {")
    assert "t0 -> t1;" in dot
    html = page(read_story(bench.paths))
    assert "<h2>Lineage</h2>" in html
    assert "flatter" in html


def test_a_trial_is_shown_with_its_diff_its_log_and_its_crash(bench):
    shown = said(bench, "show", "study", "1")
    assert "+    rate = 0.01" in shown["diff"]
    assert shown["log"]["val_bpb"] == shown["trial"]["val_bpb"]
    assert len(shown["curve"]) == 2
    assert shown["variant"]["idea"] == "flatter"
    crash = run(bench, "show", "study", "3").stdout
    assert "RuntimeError: no such idea" in crash
    assert 'File "' in crash
    own = said(bench, "show", "study", "0")
    assert (own["diff"], own["variant"]) == ("", None)
    assert isinstance(run(bench, "show", "study", "77").exception, InputError)


def test_a_program_is_written_out_and_overwrites_nothing(bench):
    folder = bench.folder / "out"
    assert said(bench, "checkout", "study", "2", str(folder))["files"] == [
        str(folder / "train_gpt.py")
    ]
    assert (folder / "train_gpt.py").read_text() == FASTER
    assert isinstance(run(bench, "checkout", "study", "0", str(folder)).exception, InputError)
    own = bench.folder / "own"
    said(bench, "checkout", "study", "program", str(own))
    assert (own / "train_gpt.py").read_text() == GOOD


def test_two_changes_merge_on_their_common_ancestor_and_each_is_ablated(bench):
    both = said(bench, "merge", "study", "1", "2", "--by", "ada")
    assert both["idea"] == "merge of trials 1 and 2: flatter + faster"
    made = kept_all(bench.paths)[both["variant"]]
    text = variant_program(bench.paths, made.id).source
    assert text == FLATTER.replace(CURVE, CURVE.replace("1.5", "1.2"))
    records = drive(bench, 5)
    best = ranked(records)[0]
    assert (best.number, best.parent, made.merged) == (4, 1, records[2].variant)
    rows = said(bench, "ablate", "study", "best", "--by", "ada")["ablations"]
    assert [row["idea"] for row in rows] == ["flatter", made.idea]
    assert [row["problem"] for row in rows] == ["", ""]
    assert [row["proposal"]["ran_before"] for row in rows] == [[2], [1]]
    with pytest.raises(InputError, match="descends from the other"):
        raise run(bench, "merge", "study", "4", "1").exception
    clash = GOOD.replace(RATE, RATE.replace("0.05", "0.07"))
    other = try_script(bench, clash, "steeper")
    drive(bench, 6)
    with pytest.raises(AnswerNoError, match="same lines"):
        raise run(bench, "merge", "study", "1", "5").exception
    assert other["variant"] in kept_all(bench.paths)
    with pytest.raises(InputError, match="nothing was changed"):
        raise run(bench, "ablate", "study", "0").exception


def test_knobs_merge_as_the_programs_do(bench):
    said(bench, "propose", "study", "--parent", "2", "--set", "MATRIX_LR=0.03", "--idea", "slow")
    drive(bench, 5)
    both = said(bench, "merge", "study", "1", "4")
    assert both["knobs"]["MATRIX_LR"] == 0.03
    assert both["parent"] == 1


def test_next_names_parents_and_pairs_that_merge(bench):
    steps = said(bench, "next", "study")
    assert (steps["run_std_bpb"], steps["run_std_measured"]) == (0.0005, False)
    numbers = [one["number"] for one in steps["parents"]]
    assert numbers[0] == ranked(bench.study().records())[0].number
    assert set(numbers) == {0, 1, 2}
    assert next(one for one in steps["parents"] if one["number"] == 0)["tried"] == 3
    assert [{one["first"], one["second"]} for one in steps["combine"]] == [{1, 2}]
    assert "pgolf-sweep merge study" in run(bench, "next", "study").stdout


def test_the_tables_name_the_program_and_the_idea(bench):
    variant = bench.study().records()[2].variant
    best = ranked(bench.study().records())[0]
    assert best.number in {1, 2}
    for command in ("best", "trials", "status"):
        shown = run(bench, command, "study").stdout
        assert best.variant[:8] in shown, command
        assert f'"{best.idea}"' in shown, command
    row = next(r for r in said(bench, "trials", "study")["trials"] if r["number"] == 2)
    assert (row["variant"], row["parent"], row["idea"]) == (variant, 0, "faster")
    assert said(bench, "status", "study")["best"]["variant"] == best.variant


def test_a_promoted_variant_ships_its_own_script(bench):
    ready = prepare_promotion("study", runs=bench.folder / "runs", trial=2)
    planned = ready.make_plan(ready.chosen, ready.seeds)
    clock = bench.clock
    done = promote(
        planned,
        launcher=InlineLauncher(1, run_script, clock),
        make_job=seed_jobs(ready.session, bench.paths, ready.chosen, resolve_mode("disabled", {})),
        clock=clock,
        provenance=provenance(ready.session, ready.records, ready.chosen, hardware="CPU"),
        about=About(name="faster"),
        submissions=bench.paths.submissions,
    )
    shipped = (done.folder / "train_gpt.py").read_text()
    assert CURVE.replace("1.5", "1.2") in shipped
    assert 'get("MATRIX_LR", 0.05)' in shipped
    assert verify(done.folder).ok
    record = bench.study().records()[2]
    assert done.val_bpb == pytest.approx(record.val_bpb, abs=0.005)


def test_a_variant_is_trained_again_as_it_ran(bench):
    record = bench.study().records()[2]
    text = rerun_yaml(bench.paths, record)
    (line,) = [line for line in text.splitlines() if line.startswith("program:")]
    assert Path(line.split(": ", 1)[1]).read_text() == FASTER
    assert rerun_env(bench.paths, record)["MATRIX_LR"] == "0.05"


def test_a_lost_study_is_rebuilt_with_its_variants(bench):
    before = bench.study().records()
    queued = try_script(bench, FASTER + "EXTRA = 1\n", "more", parent="2")
    bench.paths.journal.unlink()
    done = run(bench, "recover", "study")
    assert done.exit_code == 0, done.output + repr(done.exception)
    after = bench.study().records()
    assert [r.change for r in after[:4]] == [r.change for r in before]
    assert [r.val_bpb for r in after[:4]] == [r.val_bpb for r in before]
    again = drive(bench, 5)
    assert [r.variant for r in again if r.outcome is State.COMPLETED][-1] == queued["variant"]
    assert read_lineage(bench.paths).nodes[4].idea == "more"
    assert read_json(bench.paths.trial(4).spec)["idea"] == "more"

"""The runs with which a study begins: its baseline, on the seeds that measure its noise."""

from __future__ import annotations

import json

import pytest
from support.sweeps import SCRIPT, build_bench, score_of
from typer.testing import CliRunner

from pgolf_sweep.cli import app
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.trial import LogSummary
from pgolf_sweep.driver.seeds import further_seeds
from pgolf_sweep.launch.inline import Finish
from pgolf_sweep.report.compare import noise_floor, noise_of
from pgolf_sweep.workflows.baseline import enqueue_baseline, noise_runs
from pgolf_sweep.workflows.plan import cost_line, load_sweep, plan
from pgolf_sweep.workflows.study_folder import begin_study, prepare_folder

NOISE = {7: 0.0, 1: 0.001}
UNSEEDED = SCRIPT.replace(b'SEED = int(os.environ.get("SEED", 1337))\n', b"")


def simulate(job):
    """A score of the knobs, plus a noise of the seed."""
    score = score_of(job.spec.knobs) + NOISE.get(job.spec.knobs["SEED"] % 2 or 7, 0.0)
    summary = LogSummary(val_bpb=score, val_loss_nats=2 * score, total_bytes=100)
    yield 10.0, Finish(summary=summary)


def begun(bench):
    (bench.folder / "train_gpt.py").write_bytes(SCRIPT)
    sweep = bench.folder / "study.yaml"
    prepare_folder(bench.session, bench.paths, sweep=sweep, data_root=bench.folder)
    begin_study(bench.session, bench.study(), bench.paths.root.parent)
    return bench


def floor(bench):
    return [r for r in bench.study().records() if r.proposer == "baseline"]


@pytest.mark.parametrize("method", ["tpe", "random"])
def test_a_study_with_proposers_begins_with_four_seeds_of_its_baseline(tmp_path, method):
    block = "  proposers: {ada: {concurrent: 1}}\n"
    bench = begun(build_bench(tmp_path, method=method, run_cap=6, block=block))
    assert noise_runs(bench.session) == 4
    bench.driver(slots=2, simulate=simulate).run()
    rows = bench.study().records()
    assert [r.number for r in floor(bench)] == [0, 1, 2, 3]
    assert [r.seed for r in rows[:4]] == [None, *further_seeds("study", 3, {7})]
    assert len({(r.knobs["MODEL_DIM"], r.knobs["MATRIX_LR"]) for r in rows[:4]}) == 1
    assert rows[0].knobs["MODEL_DIM"] == 64  # the program's own
    assert len(rows) == 6  # all of them count against run_cap
    found = noise_floor(rows)
    assert (found.runs, found.ended, found.noise) == (4, 4, noise_of(rows))
    assert found.noise.runs == 4


def test_it_is_off_without_proposers_and_as_long_as_the_file_says(tmp_path):
    plain = begun(build_bench(tmp_path))
    assert (noise_runs(plain.session), len(floor(plain))) == (0, 1)
    assert noise_floor(plain.study().records()).text == ""
    three = begun(build_bench(tmp_path, name="three", method="random", block="  noise_floor: 3\n"))
    assert len(floor(three)) == 3


def test_beginning_again_after_a_launch_that_died_adds_nothing(tmp_path):
    bench = build_bench(tmp_path, block="  noise_floor: 3\n")
    study = bench.study()
    for _ in range(2):
        enqueue_baseline(bench.session, study)
    assert len(floor(bench)) == 3


@pytest.mark.parametrize(
    ("program", "extra"), [(UNSEEDED, ""), (SCRIPT.replace(b"64", b"None"), "")]
)
def test_what_cannot_be_measured_is_refused_where_it_was_asked_for(tmp_path, program, extra):
    asked = build_bench(tmp_path, block="  noise_floor: 3\n", program=program, extra=extra)
    with pytest.raises(InputError, match=r"differ by SEED alone|no configuration of the program"):
        enqueue_baseline(asked.session, asked.study())


def test_plan_launch_and_status_say_what_it_costs_and_found(tmp_path):
    bench = build_bench(tmp_path, run_cap=6, block="  noise_floor: 4\n")
    begun(bench)
    session = load_sweep(tmp_path / "study.yaml", probe=False)
    assert plan(session, draws=20).noise_floor == 4
    assert "4 of them run the baseline" in cost_line(session, slots=2)

    def run(*words):
        return CliRunner().invoke(app, [*words, "--runs", str(bench.paths.root.parent)]).stdout

    shown = CliRunner().invoke(app, ["plan", str(tmp_path / "study.yaml"), "--no-probe"]).stdout
    assert "4 of them run the baseline, each on a seed of its own" in shown
    bench.driver(slots=1, run_cap=2, simulate=simulate).run()
    assert "2 of 4 runs of the baseline have ended" in run("status", "study")
    bench.driver(slots=1, simulate=simulate).run()
    said = json.loads(run("status", "study", "--json"))["noise_floor"]
    assert (said["runs"], said["ended"]) == (4, 4)
    assert 0 < said["run_std_bpb"] < 0.002
    assert "a run, from 4 runs of 1 configuration" in run("status", "study")

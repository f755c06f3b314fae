"""Forward selection over changes of known effect, on a study whose slots are simulated."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest
from support.sweeps import build_bench
from typer.testing import CliRunner

from pgolf_sweep.cli import app
from pgolf_sweep.core.errors import AnswerNoError, InputError
from pgolf_sweep.core.paths import write_text
from pgolf_sweep.core.trial import LogSummary
from pgolf_sweep.driver.proposals import pending
from pgolf_sweep.launch.inline import Finish
from pgolf_sweep.variants.diff import unified
from pgolf_sweep.workflows.forward import forward, select
from pgolf_sweep.workflows.open_runs import open_runs
from pgolf_sweep.workflows.propose import propose
from pgolf_sweep.workflows.study_folder import begin_study, prepare_folder

NOISE = 0.001
EFFECTS = {"A": -0.02, "B": -0.012, "C": 0.0, "D": 0.01}
SCRIPT = """import os

WIDTH = int(os.environ.get("MODEL_DIM", 64))
RATE = float(os.environ.get("MATRIX_LR", 0.02))
SEED = int(os.environ.get("SEED", 1337))

A = 0


B = 0


C = 0


D = 0


E = 0

print("val_bpb:1.0")
"""


def changed(*names):
    text = SCRIPT
    for name in names:
        text = text.replace(f"{name} = 0", f"{name} = 1")
    return text


def simulate(job):
    """A score of what is changed, and a noise of the program and the seed; E breaks."""
    text = job.files["train_gpt.py"].decode()
    if "E = 1" in text:
        yield 1.0, Finish(summary=LogSummary(), exit_code=1)
        return
    rng = np.random.default_rng([job.spec.knobs["SEED"], zlib.crc32(text.encode())])
    gain = sum(effect for name, effect in EFFECTS.items() if f"{name} = 1" in text)
    score = 1.2 + gain + rng.normal(0, NOISE)
    yield 10.0, Finish(summary=LogSummary(val_bpb=score, val_loss_nats=2.0, total_bytes=100))


@pytest.fixture
def bench(tmp_path):
    """A study that has run its baseline on four seeds, as trials 0 to 3."""
    block = "  gate: {enabled: false}\n  noise_floor: 4\n  accept: {false_keep: 0.01}\n"
    found = build_bench(tmp_path, run_cap=99, block=block, program=SCRIPT.encode())
    (tmp_path / "train_gpt.py").write_text(SCRIPT)
    prepare_folder(found.session, found.paths, sweep=tmp_path / "study.yaml", data_root=tmp_path)
    begin_study(found.session, found.study(), found.paths.root.parent)
    found.driver(simulate=simulate, run_cap=4).run()
    return found


@pytest.fixture
def patches(bench):
    own = {"train_gpt.py": SCRIPT.encode()}
    made = {name.lower(): changed(name) for name in "ABCDE"} | {"again": changed("A")}
    for name, text in made.items():
        patch = unified(own, {"train_gpt.py": text.encode()})
        write_text(bench.folder / "patches" / f"{name}.diff", patch)
    write_text(bench.folder / "patches" / "stale.diff", patch.replace("A = 0", "A = 7"))
    return [bench.folder / "patches" / f"{name}.diff" for name in (*made, "stale")]


def drive_waiting(bench):
    """Run what is asked for and nothing else."""
    records = bench.study().records()
    count = sum(r.attempts > 0 for r in records)
    count += len(open_runs(bench.paths, bench.session, records))
    bench.driver(simulate=simulate, run_cap=count).run()


def chosen(bench, named, patches=()):
    """A selection by one call after another, each of which knows nothing of those before."""
    for call in range(40):
        found = forward(bench.paths, named, patches, by="ada")
        if call < 2:  # proposals that were left, and further seeds
            left = len(pending(bench.paths))
            assert forward(bench.paths, named, patches, by="ada") == found
            assert len(pending(bench.paths)) == left
        if not found.waits_for:
            return found
        drive_waiting(bench)
    raise AssertionError(found)


def test_only_what_helps_on_top_of_what_is_accepted_is_kept(bench, patches):
    found = chosen(bench, "0", [path for path in patches if path.stem != "d"])
    assert found.accepted == ["a", "b"]
    records = bench.study().records()
    assert (bench.paths.trial(found.trial).root / "train_gpt.py").read_text() == changed("A", "B")
    first, second, last = found.rounds
    assert (first.base, second.base, last.base) == (0, first_trial(first, "a"), found.trial)
    assert first_trial(first, "again") == second.base
    problems = {one.change: one.problem for one in (*first.tried, *second.tried) if one.problem}
    assert problems.keys() == {"e", "stale", "again"}
    assert "the patch does not apply" in problems["stale"]
    assert problems["e"].startswith("failed")
    assert problems["again"] == f"it changes nothing of trial {second.base}"
    assert {one.change: one.decision for one in last.tried} == {"c": "drop"}
    proposed = [r for r in records if r.proposer == "propose:ada"]
    assert len(proposed) < 3 * (4 + 2 + 1)  # three seeds for each of a round's programs
    assert len({(r.variant, r.knobs["SEED"]) for r in records}) == len(records)


def first_trial(one, change):
    return next(tried.trial for tried in one.tried if tried.change == change)


def test_a_lineage_is_built_again_from_what_was_worth_it(bench):
    parent = "0"
    for names in ("A", "AC"):
        write_text(bench.folder / "idea.py", changed(*names))
        propose(
            bench.paths, [], by="ada", base=parent, program=bench.folder / "idea.py",
            idea=names[-1],
        )  # fmt: skip
        drive_waiting(bench)
        parent = str(len(bench.study().records()) - 1)
    found = chosen(bench, parent)
    assert found.accepted == ["A"]
    assert found.trial == found.rounds[1].base < int(parent)
    assert found.rounds[0].base == 0
    with pytest.raises(InputError, match="nothing was changed"):
        forward(bench.paths, "0", [], by="ada")


def test_the_command_goes_on_where_it_was_and_says_no_when_nothing_helps(
    bench, patches, monkeypatch
):
    from pgolf_sweep.workflows import forward as workflow

    worse = [str(path) for path in patches if path.stem in {"c", "d"}]
    words = ["ablate", "study", "0", *worse, "--by", "ada", "--json"]
    words += ["--runs", str(bench.paths.root.parent)]
    done = CliRunner().invoke(app, words)
    document = json.loads(done.stdout)
    assert (done.exit_code, document["finished"], len(document["waits_for"])) == (0, False, 2)
    ended = []

    def wait(paths, run, report):
        drive_waiting(bench)
        ended.append(run.name)

    monkeypatch.setattr(workflow, "wait_for_run", wait)
    assert select(bench.paths, "0", patches[2:4], by="ada", report=print).accepted == []
    assert set(document["waits_for"]) <= set(ended)
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, AnswerNoError)
    document = json.loads(done.stdout)
    assert (document["finished"], document["accepted"], document["trial"]) == (True, [], 0)
    text = CliRunner().invoke(app, [word for word in words if word != "--json"]).stdout
    assert "on trial 0" in text
    assert "drop" in text


def test_a_rule_that_keeps_nothing_and_two_patches_of_one_name_are_refused(bench, patches):
    with pytest.raises(InputError, match="one name"):
        forward(bench.paths, "0", [patches[0], patches[0]], by="ada")
    with pytest.raises(InputError, match="does not exist"):
        forward(bench.paths, "0", [bench.folder / "absent.diff"], by="ada")
    sweep = bench.paths.sweep.read_text()
    write_text(bench.paths.sweep, sweep.replace("{false_keep: 0.01}", "none"))
    with pytest.raises(InputError, match="keeps nothing"):
        forward(bench.paths, "0", patches, by="ada")

"""`propose` with a program: what is checked, kept and run, with scripts that really run."""

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
from pgolf_sweep.core.record import State
from pgolf_sweep.driver.proposals import pending
from pgolf_sweep.variants.store import kept, kept_all, patch_of, variant_program
from pgolf_sweep.workflows.study_folder import prepare_folder

GOOD = (Path(__file__).parents[2] / "data" / "scripts" / "good.py").read_text()
HELPS = GOOD.replace("0.1 * math.log2(", "0.15 * math.log2(")
UNGATED = "  gate: {enabled: false}\n"
KNOBS = ["--set", "MODEL_DIM=64", "--set", "MATRIX_LR=0.02"]
FAST = "  STEP_SECONDS: {value: 0}\n  ITERATIONS: {value: 10}\n"


@pytest.fixture
def bench(tmp_path):
    """A study of good.py with one trial, at the knobs of the proposals."""
    script = GOOD.encode()
    found = build_bench(tmp_path, run_cap=9, block=UNGATED, extra=FAST, program=script)
    found.session = dataclasses.replace(found.session, implied={"MAX_WALLCLOCK_SECONDS": 120.0})
    (tmp_path / "train_gpt.py").write_bytes(script)
    prepare_folder(found.session, found.paths, sweep=tmp_path / "study.yaml", data_root=tmp_path)
    assert propose(found, *KNOBS).exit_code == 0
    drive(found, 1)
    return found


def drive(bench, run_cap):
    bench.driver(slots=1, simulate=run_script, run_cap=run_cap).run()
    return bench.study().records()


def run(bench, *arguments):
    return CliRunner().invoke(app, [*arguments, "--runs", str(bench.folder / "runs")])


def propose(bench, *arguments):
    return run(bench, "propose", "study", "--by", "ada", *arguments)


def asked(bench, *arguments):
    done = propose(bench, *arguments, "--json")
    assert done.exit_code == 0, done.output + repr(done.exception)
    return json.loads(done.stdout)


def script(bench, text, name="idea.py"):
    path = bench.folder / name
    path.write_text(text)
    return str(path)


def test_a_changed_script_runs_beside_the_studys_own(bench):
    said = asked(
        bench, "--program", script(bench, HELPS), "--parent", "0", "--idea", "weigh size more"
    )
    assert said["knobs"]["MATRIX_LR"] == 0.02
    assert said["sampler_chooses"] == []
    assert (said["parent"], said["idea"], said["notes"]) == (0, "weigh size more", [])
    made = kept(bench.paths, said["variant"])
    assert (made.idea, made.by, made.parent, made.parent_trial) == ("weigh size more", "ada", "", 0)
    assert patch_of(bench.paths, made.id).count("\n+") == 2  # the header and one line
    own, changed = drive(bench, 2)
    assert changed.variant == made.id
    assert changed.outcome is State.COMPLETED
    assert changed.knobs == own.knobs
    assert changed.val_bpb != own.val_bpb


def test_a_patch_against_a_variant_and_its_knobs_alone(bench):
    first = asked(bench, "--program", script(bench, HELPS), "--parent", "0")
    drive(bench, 2)
    more = HELPS.replace("+ 0.002  #", "+ 0.001  #")
    asked(bench, "--program", script(bench, more), "--parent", "1")
    second = asked(bench, "--set", "MATRIX_LR=0.03", "--parent", "1")
    assert second["variant"] == first["variant"]
    patch = patch_of(bench.paths, next(v.id for v in kept_all(bench.paths).values() if v.parent))
    third = asked(bench, "--patch", script(bench, patch, "idea.patch"), "--parent", "0")
    text = variant_program(bench.paths, third["variant"]).source
    assert text == GOOD.replace("+ 0.002  #", "+ 0.001  #")
    records = drive(bench, 5)
    assert [r.parent for r in records] == [None, 0, 1, 1, 0]
    assert all(r.outcome is State.COMPLETED for r in records)


def test_the_same_code_with_the_same_knobs_is_answered_by_the_earlier_trial(bench):
    first = asked(bench, "--program", script(bench, HELPS), "--parent", "0")
    same = script(bench, "# the same\n" + HELPS.replace("0.15 * math", "0.15  *  math"))
    waiting = asked(bench, "--program", same, "--parent", "0")
    assert waiting["variant"] == first["variant"]
    drive(bench, 2)
    again = propose(bench, "--program", same, "--parent", "0", "--json")
    said = json.loads(again.stdout)
    assert again.exit_code == 0
    assert (said["ran_before"], said["number"], said["proposals"]) == ([1], 1, [])
    assert said["trial"]["val_bpb"] == bench.study().records()[1].val_bpb
    assert "is not run again" in again.stderr
    own = asked(bench, "--program", script(bench, GOOD + "# own\n"), "--parent", "0")
    assert (own["variant"], own["ran_before"]) == ("", [0])
    assert len(kept_all(bench.paths)) == 1


def test_further_seeds_run_on_their_own_and_those_that_ran_are_not_run_again(bench):
    said = asked(bench, "--parent", "0", "--seeds", "3")
    assert said["ran_before"] == [0]
    assert [request.change.seed for request in pending(bench.paths)] == [8, 9]
    records = drive(bench, 3)
    assert [r.knobs["SEED"] for r in records] == [7, 8, 9]
    assert len({r.val_bpb for r in records}) == 3
    said = asked(bench, "--program", script(bench, HELPS), "--parent", "2", "--seeds", "2")
    assert [request.change.seed for request in pending(bench.paths)] == [9, 10]  # paired
    assert len(said["proposals"]) == 2


NO_SEED = GOOD.replace('int(os.environ.get("SEED", 1337))', "1337")
SILENT = GOOD.replace("val_bpb", "score")
REACHES = GOOD.replace(
    "def main() -> None:\n", 'def main() -> None:\n    urllib.request.urlopen("https://x.org")\n'
).replace("import zlib\n", "import zlib\nimport urllib.request\n")
NO_CLOCK = GOOD.replace('float(os.environ.get("MAX_WALLCLOCK_SECONDS", 600.0))', "1e9")
PEEKS = GOOD + 'train_files = "fineweb_val_*.bin"\n'


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (NO_SEED, AnswerNoError, "SEED is not read any more: the seed is hard-coded"),
        (SILENT, AnswerNoError, "it would print no score"),
        (REACHES, AnswerNoError, "network: train_gpt.py line .*urlopen"),
        (NO_CLOCK, AnswerNoError, "MAX_WALLCLOCK_SECONDS is not read any more"),
        (PEEKS, AnswerNoError, "train_files is validation data"),
        (GOOD + "def f(:\n", InputError, "not valid Python"),
    ],
)
def test_a_program_that_breaks_a_rule_gets_no_slot(bench, text, kind, message):
    done = propose(bench, "--program", script(bench, text), "--parent", "0")
    assert type(done.exception) is kind, done.output
    with pytest.raises(kind, match=message):
        raise done.exception
    assert pending(bench.paths) == []
    assert kept_all(bench.paths) == {}


def test_a_knob_that_is_dropped_is_noted_and_cannot_be_set(bench):
    dropped = script(bench, GOOD.replace('float(os.environ.get("MATRIX_LR", 0.04))', "0.03"))
    done = propose(bench, "--program", dropped, "--parent", "0")
    assert "does not read MATRIX_LR" in done.stderr
    done = propose(bench, "--program", dropped, "--parent", "0", "--set", "MATRIX_LR=0.05")
    assert "MATRIX_LR is set and not read" in str(done.exception)
    assert len(pending(bench.paths)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--program", "absent.py"], "does not exist"),
        (["--program", "a.py", "--patch", "b.diff"], "give one of them"),
        (["--parent", "99"], "no trial 99"),
    ],
)
def test_what_is_not_there_is_the_users_mistake(bench, arguments, message):
    done = propose(bench, *arguments)
    assert isinstance(done.exception, InputError)
    assert message in str(done.exception)


def test_the_gate_judges_the_variant_and_not_the_studys_program(bench):
    bench.paths.sweep.write_text(bench.paths.sweep.read_text().replace(UNGATED, ""))
    refuses = GOOD.replace("0.1 * math.log2(", "0.2 * math.log2(")
    done = asked(bench, "--program", script(bench, refuses), "--parent", "0")
    assert done["verdict"] in {"fits", "near", "unknown"}
    assert done["variant"]

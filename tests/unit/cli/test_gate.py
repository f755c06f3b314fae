from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.contest_scripts import HEAD, TRAINING
from typer.testing import CliRunner

import pgolf_sweep.cli.gate  # noqa: F401 - registers the commands
from pgolf_sweep.cli.common import app
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.script.probe.client import contained_by, stop_helper
from pgolf_sweep.script.probe.contain.containment import containment

ROOT = Path(__file__).parents[3]
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))


def invoke(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def test_baseline_is_near_the_contests_cap():
    result = invoke("gate", "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["verdict"] == "near"
    assert document["cap_bytes"] == 16_000_000
    assert document["model_params"] > 17_000_000
    low, mid, high = (document["artifact_bytes"][key] for key in ("low", "mid", "high"))
    assert low <= mid <= high
    assert mid == document["model_bytes"]["mid"] + document["code_bytes"]
    assert document["headroom_bytes"] == pytest.approx(16_000_000 - mid, abs=1)
    assert {group["group"] for group in document["groups"]} == {
        "embed", "attn", "mlp", "control", "container"
    }  # fmt: skip
    assert document["regime"] == "entropy"
    assert document["confidence"] == 0.99


def test_too_big_is_exit_code_one_and_says_what_would_fit():
    result = invoke("gate", "--set", "NUM_LAYERS=30", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["verdict"] == "too_big"
    layers = next(s for s in document["suggestions"] if s["knob"] == "NUM_LAYERS")
    fitting = invoke("gate", "--set", f"NUM_LAYERS={layers['value']}", "--json")
    assert json.loads(fitting.stdout)["verdict"] == "fits"
    shown = invoke("gate", "--set", "NUM_LAYERS=30")
    assert shown.exit_code == 1
    assert f"NUM_LAYERS={layers['value']}" in shown.stdout


def test_table_shows_groups_code_interval_and_headroom():
    result = invoke("gate", "--set", "MODEL_DIM=256")
    assert result.exit_code == 0
    for word in ("FITS", "embed", "attn", "mlp", "code", "headroom", "99% interval"):
        assert word in result.stdout


def test_invalid_is_exit_code_one_with_the_reason():
    result = invoke("gate", "--set", "MODEL_DIM=510", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["verdict"] == "invalid"
    assert "NUM_HEADS" in document["reason"]
    assert document["artifact_bytes"] is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [("MODLE_DIM=512", "MODEL_DIM"), ("MODEL_DIM", "K=V")],
)
def test_a_setting_that_names_no_knob_is_wrong_input(setting, message):
    result = invoke("gate", "--set", setting)
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
    assert result.exception.exit_code == 2


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("NUM_LAYERS=wide", "a whole number, as NUM_LAYERS=9"),
        ("MATRIX_LR=fast", "a number, as MATRIX_LR=0.04"),
        ("TIE_EMBEDDINGS=tied", "TIE_EMBEDDINGS=1 or TIE_EMBEDDINGS=0"),
    ],
)
def test_a_value_that_a_knob_cannot_hold_is_refused_with_one_that_it_can(setting, expected):
    result = invoke("gate", "--set", setting)
    assert isinstance(result.exception, InputError)
    assert expected in str(result.exception)


def test_our_trainer_counts_as_a_launch_ships_it_with_and_without_a_sweep():
    bare = json.loads(invoke("gate", "--json").stdout)["code_bytes"]
    swept = json.loads(invoke("gate", "--sweep", "sweeps/lr.yaml", "--json").stdout)["code_bytes"]
    assert bare == swept < 25_000


def test_a_truth_value_is_given_in_the_words_that_the_program_reads():
    said = [invoke("gate", "--set", f"TIE_EMBEDDINGS={text}", "--json") for text in ("false", "0")]
    sizes = [json.loads(result.stdout)["model_params"] for result in said]
    assert sizes[0] == sizes[1]
    assert sizes[0] > json.loads(invoke("gate", "--json").stdout)["model_params"]


def test_a_strangers_script_with_a_syntax_error_is_wrong_input(tmp_path):
    script = tmp_path / "train_gpt.py"
    script.write_text("import os\nwidth = int(os.environ.get('MODEL_DIM', 512)\n")
    error = invoke("gate", "--program", str(script)).exception
    assert isinstance(error, InputError)
    assert error.exit_code == 2
    assert "train_gpt.py is not valid Python: '(' was never closed" in str(error)
    assert "train_gpt.py:2" in str(error)


def test_a_steps_time_decides_a_strangers_steps_and_so_its_bytes(tmp_path):
    script = tmp_path / "train_gpt.py"
    fixed = "t.new_tensor([[1 / 127]])"
    source = (HEAD + TRAINING).replace("t.float().abs().amax(dim=1, keepdim=True) / 127", fixed)
    wallclock = "    wallclock = float(os.environ.get('MAX_WALLCLOCK_SECONDS', '600'))\n"
    script.write_text(source.replace("    dim = int", wallclock + "    dim = int", 1))
    sizes = []
    for milliseconds in ("500", "50"):
        asked = ("--program", str(script), "--step-ms", milliseconds, "--set", "MODEL_DIM=128")
        sizes.append(json.loads(invoke("gate", *asked, "--json").stdout)["model_bytes"]["mid"])
    assert sizes[1] > sizes[0]
    stop_helper()


def test_a_steps_time_of_our_trainer_is_wrong_input():
    error = invoke("gate", "--step-ms", "45").exception
    assert isinstance(error, InputError)
    assert "--program" in str(error.expected)


def test_words_of_a_flag_reach_the_probed_script(tmp_path):
    script = tmp_path / "train_gpt.py"
    script.write_text(
        "import os\nfrom torch import nn\nWIDE = os.environ.get('WIDE', 'no') == 'yes'\n"
        "class GPT(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.head = nn.Linear(64 if WIDE else 8, 8, bias=False)\nmodel = GPT()\n"
    )
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text("program: train_gpt.py\nmethod: random\nparameters: {WIDE: {value: true}}\n")
    given = {"program": ["--program", str(script), "--set", "WIDE=yes"], "sweep": ["--sweep"]}
    given["sweep"].append(str(sweep))
    for words in given.values():
        assert json.loads(invoke("gate", *words, "--json").stdout)["model_params"] == 512
    refused = invoke("gate", "--program", str(script), "--set", "WIDE=1").exception
    assert "WIDE=yes or WIDE=no" in str(refused)


def test_a_strangers_script_is_unknown_and_launches(tmp_path):
    script = tmp_path / "train_gpt.py"
    script.write_text("import os\nwidth = int(os.environ.get('MODEL_DIM', 512))\n")
    result = invoke("gate", "--program", str(script), "--set", "MODEL_DIM=256", "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["verdict"] == "unknown"
    assert document["code_bytes"] == script.stat().st_size
    assert document["knobs"] == {"MODEL_DIM": 256}


def test_a_sweep_file_gives_rules_and_fixed_values():
    result = invoke("gate", "--sweep", str(ROOT / "sweeps" / "demo.yaml"), "--json",
                    "--set", "MODEL_DIM=64", "--set", "NUM_LAYERS=2")  # fmt: skip
    document = json.loads(result.stdout)
    assert document["cap_bytes"] < 1_000_000
    assert document["knobs"]["VOCAB_SIZE"] == 512
    assert document["verdict"] == "fits"


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda path: path.stem)
def test_plan_works_on_every_sweep_without_data_or_gpu(sweep, tmp_path):
    arguments = ["plan", str(sweep), "--draws", "60", "--data-root", str(tmp_path)]
    document = json.loads(invoke(*arguments, "--json").stdout)
    share = document["share"]
    kinds = ("fits", "near", "too_big", "invalid", "unknown")
    assert sum(share[kind] for kind in kinds) == pytest.approx(1)
    assert share["fits"] + share["near"] > 0
    assert document["cost"]["trials"] > 0
    assert document["cost"]["wall_seconds"] > 0
    assert sum(one["count"] for one in document["histogram"]) <= 60
    shown = invoke(*arguments)
    assert shown.exit_code == 0
    assert f"cap {document['cap_bytes']:,}" in shown.stdout


def test_neither_command_imports_torch():
    code = (
        "import sys; from typer.testing import CliRunner; import pgolf_sweep.cli.gate; "
        "from pgolf_sweep.cli.common import app; "
        "r = [CliRunner().invoke(app, a) for a in (['gate'], ['plan', 'sweeps/demo.yaml'])]; "
        "assert [x.exit_code for x in r] == [0, 0], r; "
        "heavy = {'torch', 'ray', 'wandb', 'optuna'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_strangers_script_is_probed_and_all_of_it_shown():
    script = str(ROOT / "tests" / "data" / "scripts" / "tiny_gpt.py")
    result = invoke("gate", "--program", script, "--set", "NUM_LAYERS=3", "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert (document["verdict"], document["regime"]) == ("fits", "probed")
    assert document["model_params"] == 256 * 128 + 3 * (5 * 128 * 128 + 128)
    assert document["probe"]["quantizer"] == "its own export"
    assert document["probe"]["codec"] == "zlib"
    assert document["probe"]["stand_ins"] == []
    assert {group["group"] for group in document["groups"]} >= {"embed", "attn", "mlp"}
    refused = invoke("gate", "--program", script, "--set", "NUM_HEADS=3")
    assert refused.exit_code == 1
    assert "model_dim must be divisible by num_heads" in refused.stdout


SWEEP = """\
method: {method}
{more}
parameters:
  MODEL_DIM: {{values: [448, 640, 768, 1024]}}
  MATRIX_BITS: {{value: 8}}
pgolf:
  require: ["MODEL_DIM != 320"]
  budget: {{usd_per_gpu_hour: 2.5{budget}}}
  gate: {{memory_gib: 80, confidence: 0.9{gate}}}
"""


@pytest.fixture
def sweep(tmp_path):
    def write(*, method="grid", more="run_cap: 9", budget="", gate="", **replaced):
        text = SWEEP.format(method=method, more=more, budget=budget, gate=gate)
        for old, new in replaced.items():
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return str(path)

    return write


def asked(sweep, *settings, more=()):
    words = ["gate", "--sweep", sweep, "--json", *more]
    for setting in settings:
        words += ["--set", setting]
    result = invoke(*words)
    return json.loads(result.stdout)


def test_gate_of_a_sweep_is_the_one_that_launch_asks(sweep):
    path = sweep(**{"values: [448": "values: [320, 448"})
    assert asked(path, "MODEL_DIM=448")["verdict"] == "fits"
    refused = asked(path, "MODEL_DIM=320")
    assert (refused["verdict"], refused["reason"]) == (
        "invalid",
        "require: MODEL_DIM != 320 is false",
    )
    batches = asked(path, "MODEL_DIM=448", "TRAIN_BATCH_TOKENS=100000")
    assert "must be a multiple of 8192 (8 ranks" in batches["reason"]
    heavy = asked(path, "MODEL_DIM=448", "TRAIN_BATCH_TOKENS=33554432")
    assert "GiB of device memory" in heavy["reason"]
    assert asked(path, "MODEL_DIM=448")["confidence"] == 0.9
    surer = asked(path, "MODEL_DIM=448", more=["--confidence", "0.999"])
    assert surer["confidence"] == 0.999
    assert surer["model_bytes"]["high"] > asked(path, "MODEL_DIM=448")["model_bytes"]["high"]
    assert asked(path, "MODEL_DIM=320", "MATRIX_BITS=8")["confidence"] == 0.9


def test_gate_of_a_sweep_refuses_what_the_sweep_never_tries(sweep):
    result = invoke("gate", "--sweep", sweep(), "--set", "MODEL_DIM=512", "--set", "MATRIX_BITS=4")
    assert isinstance(result.exception, InputError)
    assert result.exception.exit_code == 2
    assert result.exception.got == "MODEL_DIM=512, MATRIX_BITS=4"
    assert "MODEL_DIM one of 448, 640, 768, 1024" in result.exception.expected
    assert "MATRIX_BITS always 8" in result.exception.expected


def test_suggestions_meet_the_sweeps_requirements(sweep):
    path = sweep(**{"MODEL_DIM != 320": "MODEL_DIM > 512"})
    knobs = [one["knob"] for one in asked(path, "MODEL_DIM=768")["suggestions"]]
    assert "NUM_LAYERS" in knobs
    assert "MODEL_DIM" not in knobs


def test_gate_of_a_sweep_learns_from_the_files_store_and_says_so(sweep, tmp_path):
    with pytest.raises(InputError, match="no such calibration store") as caught:
        raise invoke("gate", "--sweep", sweep(gate=", calibration: st.jsonl")).exception
    assert "mine.yaml:9: pgolf.gate.calibration" in caught.value.where
    (tmp_path / "t.csv").write_text("model_dim,model_bytes\n448,12000000\n449,12000000\n")
    words = ["--table", str(tmp_path / "t.csv"), "--store", str(tmp_path / "st.jsonl")]
    assert invoke("calibrate", *words).exit_code == 0
    with (tmp_path / "st.jsonl").open("a") as file:
        file.write("torn")
    for more in ([], ["--calibration", str(tmp_path / "st.jsonl")]):  # not twice from one store
        result = invoke("gate", "--sweep", str(tmp_path / "mine.yaml"), *more)
        assert result.stderr.count("learnt from") == 1
        assert "learnt from 1 of 2 runs of store st.jsonl; 1 of its lines" in result.stderr


@pytest.mark.parametrize("method", ["grid", "random"])
def test_plan_counts_neither_discards_nor_what_ran_before(sweep, method):
    plan = json.loads(invoke("plan", sweep(method=method), "--json").stdout)
    assert plan["cost"]["trials"] == 1
    assert invoke("plan", sweep(method=method)).stdout.count("1 trials of") == 1


def test_plan_of_a_space_in_which_nothing_fits_names_what_would(sweep):
    path = sweep(**{"values: [448, 640, 768, 1024]": "values: [1024, 1536]"})
    result = invoke("plan", path, "--draws", "20")
    assert result.exit_code == 1
    assert "none of 20 draws fits; the nearest," in result.stderr
    assert "MODEL_DIM=1024" in result.stderr
    changed = re.search(r"with (\w+)=(\d+) it would fit", result.stderr)
    assert changed is not None
    settings = {"MODEL_DIM": "1024", changed[1]: changed[2]}
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    rules = ("--rules", "parameter-golf-2026")
    assert invoke("gate", "--sweep", path, *rules, *words).exit_code == 0
    assert json.loads(invoke("plan", path, "--draws", "20", "--json").stdout)["infeasible"]
    assert invoke("plan", sweep(), "--draws", "20").exit_code == 0


def test_plan_says_where_the_budget_ends_a_sweep(sweep):
    wide = {"values: [448, 640, 768, 1024]": "min: 64, max: 512"}
    path = sweep(budget=", gpu_hours: 12", **wide)
    shown = " ".join(invoke("plan", path, "--draws", "200").stdout.split())
    assert "The budget, 12 GPU-hours, ends it after about 8 of 9 trials." in shown
    assert "A promotion, 3 runs, 3.2 GPU-hours, $8, is kept back of it." in shown
    cost = json.loads(invoke("plan", path, "--draws", "200", "--json").stdout)["cost"]
    assert (cost["trials"], cost["asked_trials"], cost["ended_by_budget"]) == (8, 9, True)
    assert (cost["reserved_runs"], round(cost["reserved_gpu_hours"], 1)) == (3, 3.2)
    path = sweep(budget=", usd: 100, deadline: 36h", **wide)
    shown = " ".join(invoke("plan", path, "--draws", "200").stdout.split())
    assert "That is within the budget, $100, a deadline of 36h." in shown
    shown = " ".join(invoke("plan", sweep(**wide), "--draws", "200").stdout.split())
    assert "A promotion, 3 runs, 3.2 GPU-hours, $8, comes on top." in shown


def test_plan_of_a_sweep_without_end_asks_for_one(sweep):
    endless = {"MATRIX_BITS: {value: 8}": "MATRIX_LR: {min: 0.01, max: 0.1}"}
    path = sweep(more="", method="random", **endless)
    shown = invoke("plan", path, "--draws", "50", "--deadline-hours", "3").stdout
    assert "set run_cap or a budget" in shown
    assert "no number of slots" not in shown


def test_plan_without_rules_knows_the_cost_only_with_limits(tmp_path):
    (tmp_path / "train.py").write_text(
        'import argparse\np = argparse.ArgumentParser()\np.add_argument("--lr", type=float)\n'
        'print("loss:", p.parse_args().lr)\n'
    )
    path = tmp_path / "plain.yaml"

    def planned(more=""):
        path.write_text(
            "program: train.py\ncommand: [python, '${program}', '${args}']\nmethod: random\n"
            "run_cap: 5\nmetric: {name: loss}\nparameters: {lr: {min: 0.001, max: 0.1}}\n"
            f"pgolf: {{rules: none, resources: {{gpus: 1}}{more}}}\n"
        )
        return invoke("plan", str(path), "--draws", "20", "--deadline-hours", "3").stdout

    shown = planned()
    assert "5 trials on 1 GPU: cost unknown" in shown
    assert "a continuous space; minimize loss" in shown
    assert "a trial runs: python train.py --lr=0.0" in shown
    assert "bytes" not in shown
    assert "draws" not in shown
    assert "GPU-hours" not in planned()
    assert "GPU-hours" in planned(", limits: {total_seconds: 1800}")


def test_nothing_is_suggested_by_the_knobs_of_another_program():
    script = str(ROOT / "tests" / "data" / "scripts" / "tiny_gpt.py")
    result = invoke("gate", "--program", script, "--set", "NUM_LAYERS=400")
    assert result.exit_code == 1
    assert "MATRIX_BITS" not in result.stderr
    assert "only tried for the builtin trainer" in result.stderr


def test_containment_of_a_probe_is_told():
    script = str(ROOT / "tests" / "data" / "scripts" / "tiny_gpt.py")
    document = json.loads(invoke("gate", "--program", script, "--json").stdout)
    assert document["probe"]["containment"] == containment().describe()


@pytest.mark.parametrize("command", ["gate", "gate --sweep", "plan"])
def test_nothing_is_executed_without_a_probe(command, tmp_path):
    stop_helper()
    script = tmp_path / "train_gpt.py"
    script.write_text((ROOT / "tests" / "data" / "scripts" / "tiny_gpt.py").read_text())
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(f"program: {script}\nmethod: random\nrun_cap: 3\n"
                     "parameters: {NUM_LAYERS: {values: [2, 3]}}\n")  # fmt: skip
    given = ["--program", str(script)] if command == "gate" else [str(sweep)]
    done = invoke(*command.split(), *given, "--no-probe", "--json")
    assert done.exit_code == 0, done.exception
    document = json.loads(done.stdout)
    if command == "plan":
        assert (document["share"]["unknown"], document["containment"]) == (1.0, None)
    else:
        assert (document["verdict"], document["probe"]) == ("unknown", None)
        assert "it is not probed" in document["reason"]
    assert contained_by() is None  # no helper was started

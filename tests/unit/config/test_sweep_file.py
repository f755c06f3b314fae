"""A sweep file is read strictly: right becomes a spec, wrong is all said at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgolf_sweep.config.sweep_file import (
    Budget,
    EarlyTerminate,
    SweepSpec,
    check_against_program,
    load_spec,
    parse_spec,
)
from pgolf_sweep.core.errors import InputError, SpecError
from pgolf_sweep.script.knobs.booleans import NOT_EMPTY, Words
from pgolf_sweep.script.knobs.knobs import Knob
from pgolf_sweep.script.program import Program
from pgolf_sweep.space.domains import Choices, Constant, Multiples, Range

GOOD = """\
# Which learning rates and warmdown suit the 9x512 baseline?
program: trainer
method: bayes
metric: {name: val_bpb, goal: minimize}
run_cap: 64
parameters:
  MATRIX_LR:     {distribution: log_uniform_values, min: 0.015, max: 0.08}
  MODEL_DIM:     {distribution: q_uniform, min: 384, max: 640, q: 64}
  NUM_LAYERS:    {distribution: int_uniform, min: 7, max: 13}
  LR_SCHEDULE:   {values: [linear, cosine, wsd]}
  MIN_LR_FRAC:   {min: 0.0, max: 0.2, when: {LR_SCHEDULE: cosine}}
  MATRIX_BITS:   {values: [4, 5, 6, 8]}
  SEED:          {value: 1337}
early_terminate: {type: hyperband, min_iter: 3}
pgolf:
  rules: parameter-golf-2026
  require: ["MODEL_DIM % NUM_HEADS == 0"]
  resources: {gpus: 8}
  gate: {confidence: 0.99}
  budget: {gpu_hours: 40, usd_per_gpu_hour: 2.5}
  warm_start: [{MATRIX_LR: 0.04, MODEL_DIM: 512}]
"""


def read(text: str) -> SweepSpec:
    return parse_spec(text, Path("sweeps/mine.yaml"))


def problems(text: str) -> dict[str, tuple[int | None, str]]:
    """Line and message of every problem, by key path."""
    with pytest.raises(SpecError) as caught:
        read(text)
    return {p.path: (p.line, p.message) for p in caught.value.problems}


def parameter_problem(line: str) -> str:
    """The one problem of a parameter written as flow YAML."""
    found = problems(f"method: random\nparameters:\n  X: {line}\n")
    assert len(found) == 1, found
    ((number, message),) = found.values()
    assert number == 3
    return message


def test_the_documented_sweep_file_reads_as_documented() -> None:
    spec = read(GOOD)
    assert (spec.name, spec.program, spec.method, spec.run_cap) == ("mine", "trainer", "bayes", 64)
    assert spec.early_terminate == EarlyTerminate(kind="hyperband", min_iter=3)
    assert spec.pgolf.budget == Budget(gpu_hours=40, usd_per_gpu_hour=2.5)
    assert spec.pgolf.require == ("MODEL_DIM % NUM_HEADS == 0",) == spec.space.require
    assert [start.knobs for start in spec.pgolf.warm_start] == [
        {"MATRIX_LR": 0.04, "MODEL_DIM": 512}
    ]
    parameters = spec.space.parameters
    assert list(parameters)[:2] == ["MATRIX_LR", "MODEL_DIM"]
    assert parameters["MATRIX_LR"].domain == Range(0.015, 0.08, log=True)
    assert parameters["MODEL_DIM"].domain == Multiples(6, 10, 64)
    assert parameters["MIN_LR_FRAC"].when == {"LR_SCHEDULE": ("cosine",)}
    assert spec.text == GOOD


def test_a_wandb_file_launches_unchanged() -> None:
    spec = read("""\
program: train_gpt.py
name: matrix lr
method: bayes
project: golf
entity: me
metric: {name: val_bpb, goal: minimize}
command: ["${env}", "${args_no_hyphens}", torchrun, --standalone, --nproc_per_node=8, train_gpt.py]
parameters:
  MATRIX_LR: {min: 0.01, max: 0.1}
  NUM_LAYERS: {min: 7, max: 11}
  MLP_MULT: {values: [2, 3]}
  ADAM_EPS: {value: 1e-8}
early_terminate: {type: hyperband, max_iter: 27, s: 2, strict: true}
""")
    domains = {name: p.domain for name, p in spec.space.parameters.items()}
    assert domains == {
        "MATRIX_LR": Range(0.01, 0.1),
        "NUM_LAYERS": Multiples(7, 11),
        "MLP_MULT": Choices((2, 3)),
        "ADAM_EPS": Constant(1e-8),
    }
    assert (spec.name, spec.project, spec.entity) == ("matrix lr", "golf", "me")
    assert spec.pgolf.gpus == 8
    assert spec.early_terminate == EarlyTerminate(kind="hyperband", max_iter=27, s=2)
    assert spec.early_terminate.iterations() == (3, 9)


def test_the_command_decides_program_and_processes_where_nothing_else_does() -> None:
    spec = read(
        "method: random\nparameters: {A: {value: 1}}\n"
        "command: [env, '${args_no_hyphens}', torchrun, --nproc-per-node=2, train_gpt.py]\n"
    )
    assert (spec.program, spec.pgolf.gpus) == ("train_gpt.py", 2)


def test_every_mistake_is_reported_at_once_with_its_line() -> None:
    found = problems("""\
program: 3
methd: bayes
method: bayse
metric: {name: val_bpb, goal: maximize, targett: 1}
run_cap: 0
parameters:
  A: {min: 3, max: 1}
  B: {values: [], value: 3}
  C: {distribution: loguniform, min: 1, max: 2}
  D: 5
  E: {distribution: q_uniform, min: 1, max: 2, q: 0, foo: 1}
  F: {values: [1, 2], when: {G: 3, ZZ: 1}}
  G: {values: [1, 2]}
  H: {parameters: {a: {valu: 1}}, value: 3}
  SEED: {values: [1, 2]}
early_terminate: {type: hyperbad}
pgolf:
  rulez: x
  fidelity: []
  require: ["A ==", "A % 2 == 0"]
  gate: {confidence: 2, repair: [CLIP_SIGMAS], export: [MODEL_DIM]}
""")
    assert {path: line for path, (line, _) in found.items()} == {
        "program": 1,
        "methd": 2,
        "method": 3,
        "metric.targett": 4,
        "metric.goal": 4,
        "run_cap": 5,
        "parameters.A.min": 7,
        "parameters.B": 8,
        "parameters.C.distribution": 9,
        "parameters.D": 10,
        "parameters.E.q": 11,
        "parameters.E.foo": 11,
        "parameters.F.when.G": 12,
        "parameters.F.when.ZZ": 12,
        "parameters.H.value": 14,
        "parameters.H.parameters.a.valu": 14,
        "parameters.SEED": 15,
        "early_terminate.type": 16,
        "pgolf.rulez": 18,
        "pgolf.fidelity": 19,
        "pgolf.require.0": 20,
        "pgolf.gate.confidence": 21,
        "pgolf.gate.repair.0": 21,
        "pgolf.gate.export.0": 21,
    }
    assert "did you mean 'method'" in found["methd"][1]
    assert "did you mean 'bayes'" in found["method"][1]
    assert "did you mean 'log_uniform'" in found["parameters.C.distribution"][1]
    assert "{value: 5}" in found["parameters.D"][1]
    assert "lower is better" in found["metric.goal"][1]
    assert "names no rung" in found["pgolf.fidelity"][1]
    assert "cheating" in found["parameters.SEED"][1]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{min: 3, max: 1}", "min 3 is greater than max 1"),
        ("{min: 3}", "missing; int_uniform needs min and max"),
        ("{values: []}", "at least one value"),
        ("{values: 3}", "must be a list"),
        ("{values: [[.nan]]}", "must be a number"),
        ("{values: [2026-01-01]}", "quote text"),
        ("{value: .nan}", "must be a number"),
        ("{value: 1, values: [1]}", "contradiction: value and values"),
        ("{value: 1, min: 1, max: 2}", "contradiction: value and min/max"),
        ("{}", "nothing to choose from"),
        ("{mu: 1, sigma: 2}", "mu, sigma need a distribution"),
        ("[7, 9]", "{values: [7, 9]}"),
        ("{values: [1, 2], probabilities: [0.5, 0.6]}", "must sum to 1, not 1.1"),
        ("{values: [1, 2], probabilities: [1]}", "1 of them for 2 values"),
        ("{values: [1, 2], probabilities: [-1, 2]}", "none negative"),
        ("{values: [1, 2], mu: 1}", "does not belong to categorical"),
        ("{distribution: categorical_w_probabilities, values: [1]}", "must be a list of numbers"),
        ("{min: 1, max: 3, q: 1}", "needs a distribution"),
        ("{distribution: q_uniform, min: 1, max: 2, q: -1}", "must be above 0"),
        ("{distribution: q_uniform, min: 65, max: 127, q: 64}", "no multiple of 64"),
        ("{distribution: log_uniform_values, min: 0, max: 2}", "must be above 0"),
        ("{distribution: log_uniform, min: 1, max: 1000}", "exponents"),
        ("{distribution: int_uniform, min: 1.5, max: 2}", "whole number"),
        ("{distribution: normal, sigma: -1}", "must be at least 0"),
        ("{distribution: beta, a: -1}", "must be above 0"),
        ("{distribution: constant}", "missing"),
        ("{min: a, max: 2}", "must be a number"),
        ("{min: true, max: 2.0}", "must be a number"),
        ("{values: [1], when: {X: 1}}", "conditions in a circle"),
        ("{values: [1], when: [Y]}", "must be a mapping"),
        ("{values: [1], when: {}}", "must name a parameter"),
    ],
)
def test_a_wrong_parameter_says_what_is_wrong(line: str, expected: str) -> None:
    assert expected in parameter_problem(line)


def test_conditions_in_a_circle_are_named() -> None:
    found = problems(
        "method: random\nparameters:\n  A: {values: [1], when: {B: 1}}\n"
        "  B: {values: [1], when: {A: 1}}\n"
    )
    ((path, (_, message)),) = found.items()
    assert path in {"parameters.A.when", "parameters.B.when"}
    assert message.count("->") == 2


def test_a_condition_on_a_continuous_parameter_is_refused() -> None:
    found = problems(
        "method: random\nparameters:\n  A: {min: 0.0, max: 1.0}\n  B: {value: 1, when: {A: 0.5}}\n"
    )
    assert "A is continuous" in found["parameters.B.when.A"][1]


def test_a_grid_needs_parameters_that_end() -> None:
    found = problems("method: grid\nparameters:\n  A: {min: 0.0, max: 1.0}\n  B: {values: [1]}\n")
    assert list(found) == ["parameters.A"]
    assert "uniform is continuous" in found["parameters.A"][1]


def test_seeds_may_be_listed_only_in_a_grid() -> None:
    assert read("method: grid\nparameters: {SEED: {values: [1, 2, 3]}}\n").space.size() == 3
    assert "SEED" in str(problems("method: grid\nparameters: {SEED: {min: 1, max: 9}}\n"))


def test_one_at_a_time_is_the_order_of_a_grid_and_of_nothing_else() -> None:
    text = "method: {}\nparameters: {{A: {{values: [1, 2]}}}}\npgolf: {{one_at_a_time: true}}\n"
    assert read(text.format("grid")).space.one_at_a_time
    found = problems(text.format("bayes"))
    assert found.keys() == {"pgolf.one_at_a_time"}
    assert "method: grid, not bayes" in found["pgolf.one_at_a_time"][1]


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("", None, "empty"),
        ("# only a comment\n", None, "empty"),
        ("- a\n- b\n", None, "must be a mapping"),
        ("hello", None, "must be a mapping"),
        ("method: random\nparameters: {A: {value: 1}\n", 3, "column 1"),
        ("method: [random\n", 2, "not valid YAML"),
        ("method: a\n\tb: c\n", 2, "not valid YAML"),
        ("a: \x01\n", None, "not valid YAML"),
        ("a: *nowhere\n", 1, "undefined alias"),
        ("a: 1\n---\nb: 2\n", 2, "not valid YAML"),
    ],
)
def test_what_is_no_sweep_file_says_so(text: str, line: int | None, expected: str) -> None:
    ((_, (number, message)),) = problems(text).items()
    assert number == line
    assert expected in message


def test_duplicate_keys_name_both_lines() -> None:
    found = problems(
        "method: random\nparameters:\n  A: {value: 1}\n  B: {value: 2}\n  A: {value: 3}\n"
    )
    assert found == {"parameters.A": (5, "written twice, first on line 3")}


def test_yaml_anchors_and_merge_keys_work_and_endless_aliases_do_not() -> None:
    spec = read(
        "method: random\nparameters:\n  A: &a {min: 1, max: 5}\n  B: {<<: *a, max: 9}\n  C: *a\n"
    )
    assert spec.space.parameters["B"].domain == Multiples(1, 9)
    assert spec.space.parameters["C"].domain == Multiples(1, 5)
    with pytest.raises(SpecError, match="contains itself"):
        read("method: random\nparameters: {A: {values: &v [1, *v]}}\n")


def test_missing_method_and_parameters_are_both_said() -> None:
    assert {"method", "parameters"} <= set(problems("program: trainer\n"))


@pytest.mark.parametrize(
    ("extra", "path", "expected"),
    [
        ("job: a/b", "job", "launch jobs are not used"),
        ("metric: {goal: minimise}", "metric.goal", "did you mean 'minimize'"),
        ("metric: {name: val_bpb, target: low}", "metric.target", "must be a number"),
        ("metric: {name: loss, impute: mean}", "metric.impute", "latest, best, worst"),
        ("metric: {impute_while_running: best}", "metric.impute_while_running", "not offered"),
        ("command: [sudo, '${program}']", "command.0", "would be lost"),
        ("command: [env, ITERATIONS=5, '${program}']", "command.1", "write it under parameters"),
        ("command: [python, other.py]\nprogram: train.py", "command.1", "would be lost"),
        (
            "command: [torchrun, --nproc_per_node=8]\npgolf: {resources: {gpus: 4}}",
            "pgolf.resources.gpus",
            "contradiction",
        ),
        ("early_terminate: {min_iter: 3}", "early_terminate.type", "missing"),
        ("early_terminate: {type: hyperband}", "early_terminate.min_iter", "missing"),
        (
            "early_terminate: {type: hyperband, max_iter: 2, s: 2}",
            "early_terminate.max_iter",
            "no trial would stop",
        ),
        ("early_terminate: {type: hyperband, eta: 1}", "early_terminate.eta", "above 1"),
        ("early_terminate: {type: median, eta: 2}", "early_terminate.eta", "unknown key"),
        ("name: [a]", "name", "must be text"),
        ("scheduler: {engine: optuna}", "scheduler", "choose a method"),
        ("command: python", "command", "list of words"),
        ("command: [python, '${programme}']", "command.1", "no macro of W&B"),
        ("command: [python, '--x=${args}']", "command.1", "word of its own"),
        ("program: a.py\ncommand: [python, -m, b.train]", "command", "starts no program"),
        ("command: [srun, python, train.py]", "command.0", "Ray put it"),
        ("command: [torchrun, --nnodes, 2, train.py]", "command.2", "one node, not 2"),
        ("command: [torchrun, --nproc_per_node, 0, train.py]", "command.2", "at least 1"),
        ("program: a.py\ncommand: [python, '${args}']", "command", "starts no program"),
        ("pgolf: {metric: {pattern: '('}}", "pgolf.metric.pattern", "no regular expression"),
        ("pgolf: {metric: {pattern: x}}", "pgolf.metric.pattern", "needs one group"),
        ("run_cap: many", "run_cap", "whole number"),
        ("pgolf: 3", "pgolf", "must be a mapping"),
        ("pgolf: {resources: {gpus: 3}}", "pgolf.resources.gpus", "divide 8"),
        ("pgolf: {resources: {gpu: 8}}", "pgolf.resources.gpu", "did you mean 'gpus'"),
        ("pgolf: {gate: {enabled: 1}}", "pgolf.gate.enabled", "true or false"),
        ("pgolf: {data: {path: x}}", "pgolf.data.tokenizer", "missing"),
        ("pgolf: {data: [x]}", "pgolf.data", "must be a mapping"),
        ("pgolf: {limits: {total_seconds: 0}}", "pgolf.limits.total_seconds", "above 0"),
        ("pgolf: {budget: {gpu_hours: -1}}", "pgolf.budget.gpu_hours", "above 0"),
        ("pgolf: {warm_start: [{A: 2}]}", "pgolf.warm_start.0", "outside the space"),
        ("pgolf: {warm_start: [{study: a, top: 0}]}", "pgolf.warm_start.0", "{study: NAME"),
        ("pgolf: {warm_start: [{study: ../a}]}", "pgolf.warm_start.0", "{study: NAME"),
        ("pgolf: {warm_start: {A: 1}}", "pgolf.warm_start", "list of configurations"),
        ("pgolf: {require: [1]}", "pgolf.require", "list of text"),
        ("pgolf: {promote: {seeds: 0}}", "pgolf.promote.seeds", "at least 1"),
        ("pgolf: {max_retries: -1}", "pgolf.max_retries", "at least 0"),
        ("pgolf: {nodes: {failures: -1}}", "pgolf.nodes.failures", "at least 0"),
        ("pgolf: {nodes: {retry_seconds: 0}}", "pgolf.nodes.retry_seconds", "above 0"),
        ("pgolf: {nodes: {give_up: 1}}", "pgolf.nodes.give_up", "did you mean 'give_up_seconds'"),
        ("pgolf: {nodes: {check: maybe}}", "pgolf.nodes.check", "true or false"),
        ("pgolf: {nodes: {speed: slow}}", "pgolf.nodes.speed", "refuse, mark, none"),
        ("pgolf: {nodes: {min_speed: 1.5}}", "pgolf.nodes.min_speed", "below 1"),
        ("pgolf: {nodes: {check: false, speed: mark}}", "pgolf.nodes.speed", "contradiction"),
    ],
)
def test_a_wrong_key_says_what_is_wrong(extra: str, path: str, expected: str) -> None:
    found = problems(f"method: random\nparameters: {{A: {{value: 1}}}}\n{extra}\n")
    assert path in found
    assert expected in found[path][1]


def test_contradictions_between_blocks_are_found() -> None:
    found = problems("""\
method: random
parameters:
  VAL_LOSS_EVERY: {value: 0}
  DATA_PATH: {value: /shards}
early_terminate: {type: median}
pgolf: {data: sp1024}
""")
    assert set(found) == {"early_terminate", "parameters.DATA_PATH"}


def test_early_terminate_none_and_absent_mean_the_same() -> None:
    assert read("method: random\nparameters: {A: {value: 1}}\nearly_terminate: {type: none}\n")
    assert read("method: random\nparameters: {A: {value: 1}}\n").early_terminate is None


def test_a_missing_file_is_an_input_error_with_a_next_step(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the sweep file") as caught:
        load_spec(tmp_path / "no.yaml")
    assert "define" in (caught.value.next_step or "")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(InputError, match="UTF-8"):
        load_spec(tmp_path / "latin.yaml")


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load_spec(path).name == "bom"


KNOBS: dict[str, Knob] = {
    "MATRIX_LR": Knob(name="MATRIX_LR", kind="float", default=None, line=1),
    "MODEL_DIM": Knob(name="MODEL_DIM", kind="int", default=None, line=1),
    "NUM_HEADS": Knob(name="NUM_HEADS", kind="int", default=None, line=1),
    "NUM_LAYERS": Knob(name="NUM_LAYERS", kind="int", default=None, line=1),
    "LR_SCHEDULE": Knob(name="LR_SCHEDULE", kind="str", default=None, line=1),
    "MIN_LR_FRAC": Knob(name="MIN_LR_FRAC", kind="float", default=None, line=1),
    "MATRIX_BITS": Knob(name="MATRIX_BITS", kind="int", default=None, line=1),
    "SEED": Knob(name="SEED", kind="int", default=None, line=1),
    "TIE_EMBEDDINGS": Knob(name="TIE_EMBEDDINGS", kind="bool", default=None, line=1),
}


def reading(knobs: dict[str, Knob], unnamed: tuple[str, ...] = ()) -> Program:
    """A program that reads these variables and takes no flags."""
    return Program(name="t.py", files={"t.py": b""}, knobs=knobs, builtin=False, unnamed=unnamed)


def test_parameters_that_the_program_reads_pass() -> None:
    check_against_program(read(GOOD), reading(KNOBS))


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        ("MATRX_LR: {value: 0.1}", "never reads MATRX_LR; did you mean 'MATRIX_LR'?"),
        ("NUM_LAYERS: {min: 7.0, max: 9.0}", "as int and cannot read 7.0; write whole numbers"),
        ("NUM_LAYERS: {values: [7, 8.0]}", "cannot read 8.0"),
        ("NUM_LAYERS: {values: ['7', x]}", "cannot read 'x'"),
        ("MODEL_DIM: {distribution: q_uniform, min: 1, max: 9, q: 1.0}", "cannot read 1.0"),
        ("MODEL_DIM: {distribution: normal, mu: 5}", "cannot read 1.0"),
        ("MATRIX_LR: {values: [fast]}", "as float and cannot read 'fast'"),
        ("TIE_EMBEDDINGS: {values: [2]}", "as bool and cannot read 2"),
    ],
)
def test_a_parameter_that_the_program_cannot_read_is_refused(parameter: str, expected: str) -> None:
    spec = read(f"method: random\nparameters:\n  {parameter}\n")
    with pytest.raises(SpecError) as caught:
        check_against_program(spec, reading(KNOBS))
    (problem,) = caught.value.problems
    assert problem.line == 3
    assert expected in problem.message


def test_a_file_that_names_no_program_is_refused_in_one_line() -> None:
    spec = read("method: random\nparameters:\n  lr: {value: 0.1}\n  layers: {value: 2}\n")
    trainer = Program(name="t.py", files={"t.py": b""}, knobs=KNOBS, builtin=True)
    with pytest.raises(SpecError) as caught:
        check_against_program(spec, trainer)
    (problem,) = caught.value.problems
    assert "name the script that reads lr, layers" in problem.message


def test_text_that_the_knob_can_hold_is_fine() -> None:
    check_against_program(
        read(
            "method: random\nparameters: {MATRIX_LR: {values: [1, '1e-2']}, "
            "NUM_LAYERS: {value: '7'}, TIE_EMBEDDINGS: {values: [true, 0, '1']}, "
            "LR_SCHEDULE: {values: [1, cosine]}}\n"
        ),
        reading(KNOBS),
    )


def flag(words: Words) -> dict[str, Knob]:
    return {"FLAG": Knob(name="FLAG", kind="bool", default=False, line=1, words=words)}


@pytest.mark.parametrize("values", ["[true, false]", "['true', 'false']", "[false, TRUE]"])
def test_a_boolean_of_words_takes_booleans_and_its_words(values: str) -> None:
    words = Words(listed=("true",), meaning=True, fold="lower")
    spec = read(f"method: random\nparameters: {{FLAG: {{values: {values}}}}}\n")
    check_against_program(spec, reading(flag(words)))


@pytest.mark.parametrize(
    ("words", "value", "fix"),
    [
        # "1" is not "true", so that the script would run with its flag off.
        (Words(listed=("true",), meaning=True, fold="lower"), "1", "FLAG=true or FLAG=false"),
        (Words(listed=("true",), meaning=True), "'True'", "FLAG=true or FLAG=false"),
        # bool("0") is True.
        (NOT_EMPTY, "0", "FLAG=1 or FLAG="),
        # != "1": is true to be the variable's text or what the script makes of it?
        (Words(listed=("1",), meaning=False), "true", "FLAG=0 or FLAG=1"),
    ],
)
def test_a_text_that_the_script_reads_otherwise_is_refused(
    words: Words, value: str, fix: str
) -> None:
    spec = read(f"method: random\nparameters: {{FLAG: {{value: {value}}}}}\n")
    with pytest.raises(SpecError, match=fix):
        check_against_program(spec, reading(flag(words)))


def test_a_refusal_names_the_reads_whose_names_only_the_script_knows() -> None:
    spec = read("method: random\nparameters: {DEEP: {value: 1}}\n")
    with pytest.raises(SpecError, match=r'train\.py:7.*write os\.environ\.get\("DEEP"\) into'):
        check_against_program(spec, reading(KNOBS, ("train.py:7",)))


def test_a_requirement_over_an_unknown_knob_is_refused() -> None:
    spec = read(
        "method: random\nparameters: {SEED: {value: 1}}\npgolf: {require: [NUM_HEAD > 1]}\n"
    )
    with pytest.raises(SpecError, match=r"NUM_HEAD is neither .* did you mean 'NUM_HEADS'"):
        check_against_program(spec, reading(KNOBS))


def test_declared_scheme_reaches_the_gate(tmp_path: Path) -> None:
    sweep = tmp_path / "mine.yaml"
    sweep.write_text(
        "method: random\nparameters: {MATRIX_LR: {min: 0.01, max: 0.1}}\n"
        "pgolf: {gate: {scheme: {bits: 6, embed_bits: 8, scale: sdclip, clip_sigmas: 12.85, "
        "codec: brotli}}}\n"
    )
    scheme = load_spec(sweep).pgolf.gate_scheme
    assert scheme is not None
    assert (scheme.bits, scheme.embed_bits, scheme.scale) == (6, 8, "sdclip")
    assert (scheme.parameter, scheme.codec, scheme.keep_below) == (12.85, "brotli", 65_536)


def test_scheme_that_lacks_its_parameter_is_a_mistake(tmp_path: Path) -> None:
    sweep = tmp_path / "mine.yaml"
    sweep.write_text(
        "method: random\nparameters: {MATRIX_LR: {min: 0.01, max: 0.1}}\n"
        "pgolf: {gate: {scheme: {scale: sdclip, codec: rar}}}\n"
    )
    with pytest.raises(SpecError) as caught:
        load_spec(sweep)
    assert "sdclip needs clip_sigmas" in str(caught.value)
    assert "rar" in str(caught.value)


def test_a_parameter_that_others_hang_on_cannot_give_for_a_repair():
    text = GOOD.replace(
        "gate: {confidence", "gate: {repair: [MATRIX_BITS, LR_SCHEDULE], confidence"
    )
    (path, (line, message)), *more = problems(text).items()
    assert (path, line, more) == ("pgolf.gate.repair.1", 19, [])
    assert "MIN_LR_FRAC exists only under a value of it" in message

"""Sweep files of every form that W&B takes, each with a stub that reads the same names.

A stub says what it got, in a file, and a score. How it reads its parameters is the second item of
an entry; the parser's text is there for those who read it, and is not run.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HEAD = """\
import json, os, sys
NAMES = {names}
got = {{"argv": sys.argv[1:], "env": {{n: v for n, v in os.environ.items() if n in NAMES}}}}
for word in sys.argv[1:]:
    if word.endswith(".json") and os.path.exists(word):
        got["json"] = json.load(open(word))
with open({out!r}, "a") as file:
    file.write(json.dumps(got) + "\\n")
print("{metric}: 1.25")
if got["argv"] == ["parse"]:
{parser}
"""

PLAIN = "program: train.py\nmethod: random\nmetric: {name: loss, goal: minimize}\n"
COMMAND = "command: [{words}]\n"


def _with(parameters: str, command: str = "", top: str = PLAIN) -> str:
    text = top + (COMMAND.format(words=command) if command else "")
    return text + "parameters:\n" + "".join(f"  {line}\n" for line in parameters.split("\n"))


LR = "lr: {min: 0.001, max: 0.1}"
MIXED = "lr: {values: [0.1, 0.01]}\nlayers: {values: [2, 4]}\nname: {values: [adam, sgd]}"
BOOL = "flag: {values: [true, false]}\nlr: {value: 0.5}"
DEFAULT = "'${env}', '${interpreter}', '${program}', '${args}'"


TOP = """\
apiVersion: core/v1
kind: sweep
name: "lr/sweep: second try"
project: p
entity: e
description: d
controller: {type: local}
program: train.py
method: bayes
run_cap: 9
metric: {name: loss, goal: minimize, target: 0.1, impute: worst, impute_while_running: "false"}
early_terminate: {type: hyperband, min_iter: 3, eta: 2.5, s: 2, strict: false}
parameters: {lr: {min: 0.1, max: 1.0}}
"""


def _c(*words: str) -> str:
    return ", ".join(f"'{word}'" for word in words)


CORPUS: dict[str, tuple[str, str]] = {
    # what a parameter can be
    "constant": (_with("lr: {value: 0.1}\nlayers: {values: [2, 4]}"), "argparse"),
    "constant-spelled-out": (_with("lr: {distribution: constant, value: 3}"), "argparse"),
    "categorical": (_with(MIXED), "argparse"),
    "categorical-spelled-out": (
        _with("lr: {distribution: categorical, values: [1, 2]}"),
        "argparse",
    ),
    "one-element list": (_with("seed: {values: [1337]}\nlr: {values: [1, 2]}"), "argparse"),
    "doubled values": (_with("lr: {values: [0.1, 0.1, 0.2]}"), "argparse"),
    "one and true": (_with("x: {values: [1, true]}"), "argv"),
    "int, float and text": (_with("x: {values: [1, 1.0, '1']}"), "argv"),
    "null": (_with("resume: {values: [null, last]}\nlr: {value: null}"), "argv"),
    "lists": (_with("sizes: {values: [[1, 2], [3, 4]]}"), "argparse"),
    "a list as a constant": (_with("sizes: {value: [1, 2, 3]}"), "argparse"),
    "mappings": (_with("opt: {values: [{name: adam, lr: 0.1}, {name: sgd}]}"), "argparse"),
    "weights": (_with("lr: {values: [1, 2, 3], probabilities: [0.5, 0.25, 0.25]}"), "argparse"),
    "weights spelled out": (
        _with(
            "lr: {distribution: categorical_w_probabilities, values: [a, b], "
            "probabilities: [0.9, 0.1]}"
        ),
        "argparse",
    ),
    "int range": (_with("layers: {min: 2, max: 9}"), "argparse"),
    "float range": (_with("lr: {min: 0.0, max: 1.0}"), "argparse"),
    "int_uniform": (_with("layers: {distribution: int_uniform, min: 2, max: 9}"), "argparse"),
    "uniform of ints": (_with("lr: {distribution: uniform, min: 1, max: 3}"), "argparse"),
    "q_uniform": (_with("w: {distribution: q_uniform, min: 64, max: 512, q: 64}"), "argparse"),
    "q_uniform of floats": (
        _with("w: {distribution: q_uniform, min: 0.0, max: 1.0, q: 0.1}"),
        "argparse",
    ),
    "log_uniform": (_with("lr: {distribution: log_uniform, min: -9, max: -2}"), "argparse"),
    "log_uniform_values": (
        _with("lr: {distribution: log_uniform_values, min: 0.0001, max: 0.1}"),
        "argparse",
    ),
    "q_log_uniform": (
        _with("b: {distribution: q_log_uniform, min: 2, max: 6, q: 8}"),
        "argparse",
    ),
    "q_log_uniform_values": (
        _with("b: {distribution: q_log_uniform_values, min: 16, max: 512, q: 16}"),
        "argparse",
    ),
    "inv_log_uniform": (
        _with("m: {distribution: inv_log_uniform, min: 0.05, max: 4}"),
        "argparse",
    ),
    "inv_log_uniform_values": (
        _with("m: {distribution: inv_log_uniform_values, min: 0.9, max: 0.999}"),
        "argparse",
    ),
    "normal": (_with("x: {distribution: normal, mu: 0, sigma: 2}"), "argparse"),
    "normal without spread": (_with("x: {distribution: normal, mu: 3.5, sigma: 0}"), "argparse"),
    "q_normal": (_with("x: {distribution: q_normal, mu: 50, sigma: 9, q: 1}"), "argparse"),
    "log_normal": (_with("x: {distribution: log_normal}"), "argparse"),
    "q_log_normal": (_with("x: {distribution: q_log_normal, mu: 3, q: 2}"), "argparse"),
    "beta": (_with("x: {distribution: beta, a: 2, b: 5}"), "argparse"),
    "q_beta": (_with("x: {distribution: q_beta, a: 2, b: 5, q: 0.05}"), "argparse"),
    "dotted names": (_with("model.depth: {values: [2, 4]}\nopt.lr: {min: 0.1, max: 1.0}"), "argv"),
    "dashed names": (_with("learning-rate: {min: 0.1, max: 1.0}"), "argparse"),
    "nested": (
        _with("model: {parameters: {depth: {values: [2, 4]}, width: {value: 64}}}\nlr: {value: 1}"),
        "argparse",
    ),
    "nested twice": (
        _with("a: {parameters: {b: {parameters: {c: {values: [x, y]}}}, d: {min: 0.1, max: 0.2}}}"),
        "argparse",
    ),
    "booleans": (_with(BOOL), "argv"),
    "exponents without a dot": (
        _with("lr: {values: [1e-3, 1e-4]}\neps: {value: 1e-8}"),
        "argparse",
    ),
    "exponents with a dot": (_with("lr: {values: [1.0e-3, 2.5e-05]}"), "argparse"),
    "long text": (_with("prompt: {value: 'two words, \"quoted\" $HOME'}"), "argparse"),
    "negative numbers": (_with("x: {values: [-1, -0.5]}"), "argparse"),
    # what starts it
    "default command": (_with(MIXED, DEFAULT), "argparse"),
    "args_no_hyphens": (
        _with(MIXED, _c("${env}", "${interpreter}", "${program}", "${args_no_hyphens}")),
        "argv",
    ),
    "args_no_equals": (_with(MIXED, _c("python", "${program}", "${args_no_equals}")), "argparse"),
    "args_no_boolean_flags": (
        _with(BOOL, _c("${env}", "python3", "${program}", "${args_no_boolean_flags}")),
        "argparse",
    ),
    "args_json": (_with(MIXED, _c("python", "${program}", "--config", "${args_json}")), "json"),
    "args_json_file": (
        _with(MIXED, _c("${interpreter}", "${program}", "${args_json_file}")),
        "json",
    ),
    "args_append_hydra": (
        _with(MIXED, _c("python", "${program}", "${args_append_hydra}")),
        "hydra",
    ),
    "args_override_hydra": (
        _with(MIXED, _c("python", "${program}", "${args_override_hydra}")),
        "hydra",
    ),
    "fixed flags between": (
        _with(
            MIXED, _c("${env}", "python", "-u", "${program}", "--epochs", "3", "${args}", "--bf16")
        ),
        "argparse",
    ),
    "a number among the words": (
        _with(MIXED, "python, '${program}', --epochs, 3, '${args}'"),
        "argparse",
    ),
    "an environment variable": (
        _with(MIXED, _c("python", "${program}", "--data=${envvar:PGOLF_TEST_DIR}", "${args}")),
        "argparse",
    ),
    "a variable that is not set": (
        _with(MIXED, _c("python", "${program}", "--data", "${envvar:NOWHERE}", "${args}")),
        "argparse",
    ),
    "the program by its name": (_with(MIXED, _c("python", "train.py", "${args}")), "argparse"),
    "no program but in the command": (
        _with(MIXED, _c("python", "train.py", "${args}"), "method: random\nmetric: {name: loss}\n"),
        "argparse",
    ),
    "env with settings": (
        _with(MIXED, _c("${env}", "OMP_NUM_THREADS=2", "python", "${program}", "${args}")),
        "argparse",
    ),
    "env by its path": (
        _with(MIXED, _c("/usr/bin/env", "python", "${program}", "${args}")),
        "argparse",
    ),
    "knobs before the program": (
        _with("LR: {values: [1, 2]}", _c("${env}", "${args_no_hyphens}", "python", "${program}")),
        "env",
    ),
    "no arguments but the environment": (
        _with("LR: {values: [1, 2]}", _c("${env}", "python", "${program}")),
        "env",
    ),
    "uv run": (_with(MIXED, _c("uv", "run", "${program}", "${args}")), "argparse"),
    "conda run": (
        _with(MIXED, _c("conda", "run", "-n", "golf", "python", "${program}", "${args}")),
        "argparse",
    ),
    "accelerate launch": (
        _with(
            MIXED,
            _c("accelerate", "launch", "--num_processes", "2", "${program}", "${args}"),
        ),
        "argparse",
    ),
    "deepspeed": (
        _with(MIXED, _c("deepspeed", "--num_gpus=2", "${program}", "${args}")),
        "argparse",
    ),
    "a module of a package": (
        _with(
            MIXED,
            _c("${env}", "uv", "run", "python", "-m", "${program}", "${args}"),
            PLAIN.replace("train.py", "src.main"),
        ),
        "argparse",
    ),
    "a module by its name": (
        _with(
            MIXED,
            _c("python", "-m", "src.main", "${args}"),
            PLAIN.replace("train.py", "src/main.py"),
        ),
        "argparse",
    ),
    "a module and no program": (
        _with(
            "model.depth: {values: [2, 4]}",
            _c("python", "-m", "src.main", "${args_no_hyphens}"),
            "method: random\nmetric: {name: loss}\n",
        ),
        "argv",
    ),
    # how it reads
    "environment": (_with("LR: {min: 0.1, max: 1.0}\nNAME: {values: [a, b]}"), "env"),
    "environment of odd values": (_with("SIZES: {values: [[1, 2], [3]]}\nX: {value: null}"), "env"),
    "environment and booleans": (_with("FLAG: {values: [true, false]}"), "env"),
    "flags and environment": (_with("LR: {values: [1, 2]}\nlayers: {values: [3, 4]}"), "both"),
    "click": (_with(MIXED), "click"),
    "typer": (_with("lr: {values: [0.1, 0.2]}\nlayers: {values: [2, 4]}"), "typer"),
    "fire": (_with(MIXED), "fire"),
    "absl": (_with(MIXED), "absl"),
    "tyro": (_with(MIXED), "tyro"),
    "HfArgumentParser": (_with(MIXED), "hf"),
    "simple_parsing": (_with(MIXED), "simple"),
    "sys.argv": (_with(MIXED), "argv"),
    "wandb.config": (_with(MIXED), "config"),
    "hydra": (
        _with(
            "model.lr: {values: [0.1, 0.2]}\n+trainer.max_epochs: {value: 3}".replace("+", ""),
            _c("${env}", "python", "${program}", "${args_no_hyphens}"),
        ),
        "hydra",
    ),
    # the rest of the file
    "everything at the top": (TOP, "argparse"),
    "maximize": (
        _with(LR, "", PLAIN.replace("name: loss, goal: minimize", "name: acc, goal: maximize")),
        "argparse",
    ),
    "metric with a slash": (
        _with(LR, "", PLAIN.replace("name: loss", "name: val/loss")),
        "argparse",
    ),
    "hyperband from the end": (
        _with(LR, "", PLAIN + "early_terminate: {type: hyperband, max_iter: 27, s: 2}\n"),
        "argparse",
    ),
    "grid": (
        _with(
            "lr: {values: [1, 2]}\nlayers: {min: 1, max: 3}", "", PLAIN.replace("random", "grid")
        ),
        "argparse",
    ),
}

TORCHRUN = {
    "torchrun": (
        _with(MIXED, _c("torchrun", "--nproc_per_node", "2", "${program}", "${args}")),
        "argparse",
    ),
    "torchrun with equals": (
        _with(
            MIXED,
            _c(
                "torchrun", "--standalone", "--nnodes=1", "--nproc-per-node=2", "--master_port",
                "29501", "train.py", "${args}",
            ),
        ),
        "argparse",
    ),
    "torch.distributed.run": (
        _with(
            MIXED,
            _c(
                "python", "-m", "torch.distributed.run", "--nproc_per_node=2", "train.py", "${args}"
            ),
        ),
        "argparse",
    ),
}  # fmt: skip


def parameters_of(text: str) -> dict[str, Any]:
    """The parameters as W&B's own YAML reads them."""
    found: dict[str, Any] = yaml.safe_load(text)["parameters"]
    return found


def program_of(text: str) -> str:
    """The file that a sweep file starts."""
    return "src/main.py" if "src" in text else "train.py"


def stub(text: str, reader: str, out: str) -> str:
    """A program that reads the file's parameters in a way, and leaves what it got in a file."""
    names = list(_leaves(parameters_of(text))) if reader == "env" else list(parameters_of(text))
    metric = (yaml.safe_load(text).get("metric") or {}).get("name", "loss")
    parser = "\n".join(f"    {line}" for line in _parser(parameters_of(text), reader))
    return HEAD.format(names=names, out=out, metric=metric, parser=parser)


def _leaves(parameters: Mapping[str, Any], around: str = "") -> Iterator[str]:
    for name, value in parameters.items():
        if "parameters" in value:
            yield from _leaves(value["parameters"], f"{around}{name}.")
        else:
            yield f"{around}{name}"


def _kind(parameter: Mapping[str, Any]) -> str:
    """The narrowest type that holds all values."""
    values = parameter.get("values", [parameter.get("value")])
    if "value" in parameter or "values" in parameter:
        if all(type(v) is bool for v in values):
            return "bool"
        if all(type(v) is int for v in values):
            return "int"
        numbers = all(type(v) in {int, float} or _is_number(v) for v in values)
        return "float" if numbers else "str"
    whole = type(parameter.get("min")) is int and parameter.get("distribution") in {
        None,
        "int_uniform",
    }
    return "int" if whole else "float"


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, str) and float(value) is not None
    except ValueError:
        return False


def _parser(  # noqa: C901, PLR0912 - one case a parser
    parameters: Mapping[str, Any], reader: str
) -> Iterator[str]:
    kinds = {name: _kind(value) for name, value in parameters.items()}
    fields = [f"{name.replace('-', '_')}: {kind} = None" for name, kind in kinds.items()]
    match reader:
        case "argparse":
            yield "import argparse"
            yield "parser = argparse.ArgumentParser()"
            for name, kind in kinds.items():
                typed = "action='store_true'" if kind == "bool" else f"type={kind}"
                yield f"parser.add_argument('--{name}', {typed})"
        case "env":
            for name in kinds:
                yield f"print(os.environ.get({name!r}))"
        case "both":
            first, second = kinds
            yield f"print(os.environ[{first!r}])"
            yield f"__import__('argparse').ArgumentParser().add_argument('--{second}', type=int)"
        case "click":
            yield "import click"
            yield "@click.command()"
            for name, kind in kinds.items():
                yield f"@click.option('--{name}', type={kind})"
            yield f"def main({', '.join(kinds)}): pass"
        case "typer":
            yield "import typer"
            yield f"def main({', '.join(f'{n}: {k} = 1' for n, k in kinds.items())}): pass"
            yield "typer.run(main)"
        case "fire":
            yield "import fire"
            yield f"def train({', '.join(f'{n}=None' for n in kinds)}): pass"
            yield "fire.Fire(train)"
        case "absl":
            yield "from absl import flags"
            for name, kind in kinds.items():
                word = {"int": "integer", "str": "string"}.get(kind, kind)
                yield f"flags.DEFINE_{word}('{name}', None, 'help')"
        case "tyro" | "hf" | "simple":
            yield "import dataclasses"
            yield "@dataclasses.dataclass"
            yield "class Config:"
            yield from (f"    {field}" for field in fields)
            yield {
                "tyro": "import tyro; tyro.cli(Config)",
                "hf": "from transformers import HfArgumentParser; HfArgumentParser(Config)",
                "simple": "import simple_parsing; simple_parsing.parse(Config)",
            }[reader]
        case "config":
            yield "import wandb"
            yield "wandb.init()"
            for name in kinds:
                yield f"print(wandb.config.{name})"
        case "hydra":
            yield "import hydra"
            yield "@hydra.main(config_path='.')"
            yield "def main(cfg): pass"
        case "json":
            for name in kinds:
                yield f"print(got['json'][{name!r}])"
        case _:
            yield "print(sys.argv)"


def said(path: Any) -> list[dict[str, Any]]:
    """What a stub got, one document a start."""
    return [json.loads(line) for line in path.read_text().splitlines()]

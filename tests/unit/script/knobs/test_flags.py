"""Flags are read from a script's text: names, types, defaults, choices, and what cannot be read."""

from __future__ import annotations

import ast

import pytest

from pgolf_sweep.script.knobs.flags import Flags, read_flags


def flags(text: str) -> Flags:
    return read_flags([ast.parse(text)])


ARGPARSE = """
import argparse
RATE = 0.1
parser = argparse.ArgumentParser()
group = parser.add_argument_group("g")
parser.add_argument("data")
parser.add_argument("-l", "--lr", "--learning-rate", type=float, default=RATE)
group.add_argument("--layers", type=int, default=3, choices=[3, 4])
parser.add_argument("--opt", choices=("adam", "sgd"))
parser.add_argument("--amp", action="store_true")
parser.add_argument("--ema", action=argparse.BooleanOptionalAction, default=True)
parser.add_argument("--strict", type=bool, default=False)
"""


def test_argparse() -> None:
    known = flags(ARGPARSE).known
    assert list(known) == [
        *("lr", "learning-rate", "layers", "opt", "amp", "ema", "strict"),
    ]
    assert (known["lr"].kind, known["lr"].default) == ("float", 0.1)
    assert known["learning-rate"].default == 0.1
    assert (known["layers"].kind, known["layers"].choices) == ("int", ("3", "4"))
    assert known["opt"].takes_flag("sgd")
    assert not known["opt"].takes_flag("lion")
    assert (known["amp"].switch, known["ema"].switch, known["lr"].switch) == ("", "--no-ema", None)
    assert not known["strict"].takes_flag(value=False)
    assert known["strict"].takes_flag(value=True)


OTHERS = {
    "click": """
import click
@click.command()
@click.option("--lr", default=0.1)
@click.option("--layers", type=click.IntRange(1, 9))
@click.option("--opt", type=click.Choice(["adam", "sgd"]))
@click.option("--amp/--no-amp", default=False)
def main(lr, layers, opt, amp): ...
""",
    "typer": """
import typer
from typing import Annotated, Literal
app = typer.Typer()
@app.command()
def main(data: str, lr: float = 0.1, layers: Annotated[int, typer.Option("--layers")] = 3,
         opt: Literal["adam", "sgd"] = "adam", amp: bool = False): ...
""",
    "fire": """
import fire
class Trainer:
    def __init__(self, lr=0.1, layers=3, opt="adam", amp=False): ...
fire.Fire(Trainer)
""",
    "absl": """
from absl import app, flags
flags.DEFINE_float("lr", 0.1, "rate")
flags.DEFINE_integer("layers", 3, "n")
flags.DEFINE_enum("opt", "adam", ["adam", "sgd"], "o")
flags.DEFINE_bool("amp", False, "a")
""",
    "tyro": """
import dataclasses, tyro
@dataclasses.dataclass
class Base:
    lr: float = 0.1
@dataclasses.dataclass
class Config(Base):
    layers: int = dataclasses.field(default=3)
    opt: "Literal['adam', 'sgd']" = "adam"
    amp: bool = False
tyro.cli(Config)
""",
    "HfArgumentParser": """
from dataclasses import dataclass
from typing import Optional
from transformers import HfArgumentParser
@dataclass
class ModelArguments:
    lr: Optional[float] = 0.1
    layers: int | None = 3
@dataclass
class DataArguments:
    opt: str = "adam"
    amp: bool = False
HfArgumentParser((ModelArguments, DataArguments)).parse_args_into_dataclasses()
""",
    "simple_parsing": """
from dataclasses import dataclass
from simple_parsing import ArgumentParser
@dataclass
class Config:
    lr: float = 0.1
    layers: int = 3
    opt: str = "adam"
    amp: bool = False
parser = ArgumentParser()
parser.add_arguments(Config, dest="config")
""",
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_parsers(name: str) -> None:
    found = flags(OTHERS[name])
    kinds = {name: found.known[name].kind for name in ("lr", "layers", "opt", "amp")}
    assert kinds == {"lr": "float", "layers": "int", "opt": "str", "amp": "bool"}
    assert found.known["lr"].default == 0.1
    assert "data" not in found.known
    assert found.beyond == []


def test_nested_dataclasses_have_dotted_names() -> None:
    found = flags("""
import tyro
from dataclasses import dataclass
@dataclass
class Model:
    max_depth: int = 2
@dataclass
class Config:
    model: Model
tyro.cli(Config)
""")
    assert {"model.max_depth", "model.max-depth"} <= set(found.known)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import hydra\n@hydra.main(config_path='c')\ndef main(cfg): ...", "hydra's configuration"),
        ("import sys\nfor word in sys.argv[1:]: print(word)", "sys.argv"),
        ("from sys import argv", "sys.argv"),
        ("p.add_argument(f'--{name}')", "a flag whose name is made at run time (line 1)"),
        ("from omegaconf import OmegaConf\nOmegaConf.from_cli()", "OmegaConf's command line"),
        ("import fire\nfire.Fire()", "fire, which takes whatever the script offers it"),
        ("import tyro\nfrom x import C\ntyro.cli(C)", "the fields of C that is not in the script"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, why: str) -> None:
    assert flags(text).beyond == [why]


@pytest.mark.parametrize(
    "text",
    ["print(open(__import__('sys').argv[0]))", "import sys\nopen(sys.argv[0])", "print(1)"],
)
def test_a_script_that_reads_its_own_name_takes_no_flags(text: str) -> None:
    found = flags(text)
    assert (found.known, found.beyond, found.config_names) == ({}, [], frozenset())


def test_names_of_wandb_config() -> None:
    text = 'import wandb\nrun = wandb.init()\nprint(wandb.config.lr, run.config["layers"])'
    assert {"lr", "layers"} <= flags(text).config_names
    assert flags("import wandb\nwandb.init()\nprint(args.lr)").config_names == frozenset()

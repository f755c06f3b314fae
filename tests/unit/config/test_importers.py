"""Search spaces of Optuna, hydra and Ray Tune become sweep files, held against the libraries."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from typer.testing import CliRunner

from pgolf_sweep.cli import app
from pgolf_sweep.config.importers import read_hydra, read_ray, within
from pgolf_sweep.config.sweep_file import load_spec, parse_spec
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.search.foreign import read_optuna
from pgolf_sweep.space.domains import Choices, Constant, Multiples, Quantile, Range

SCRIPT = """
import argparse
parser = argparse.ArgumentParser()
for_all = [
    parser.add_argument("--lr", type=float),
    parser.add_argument("--layers", type=int),
    parser.add_argument("--width", type=int),
    parser.add_argument("--drop", type=float),
    parser.add_argument("--opt"),
]
"""


def space_of(parameters: dict[str, Any]) -> dict[str, Any]:
    """Domains by name, as the reader of sweep files has them."""
    text = yaml.safe_dump({"method": "random", "parameters": parameters})
    return {n: p.domain for n, p in parse_spec(text, Path("x.yaml")).space.parameters.items()}


def objective(trial: optuna.Trial) -> float:
    rate = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    layers = trial.suggest_int("layers", 2, 8)
    trial.suggest_int("width", 64, 512, step=64)
    trial.suggest_float("drop", 0.0, 0.5, step=0.1)
    if trial.suggest_categorical("opt", ["adam", "sgd"]) == "sgd":
        raise optuna.TrialPruned
    return rate * layers


@pytest.fixture(params=["sqlite", "journal"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    path = tmp_path / f"study.{request.param}"
    if request.param == "sqlite":
        where: Any = f"sqlite:///{path}"
    else:
        backend = optuna.storages.journal.JournalFileBackend(str(path))
        where = optuna.storages.JournalStorage(backend)
    study = optuna.create_study(
        study_name="mine", storage=where, sampler=optuna.samplers.RandomSampler(seed=1)
    )
    study.optimize(objective, n_trials=30)
    return str(path)


def test_a_study_of_optuna_gives_its_space_and_its_best_trials(storage: str) -> None:
    found = read_optuna(f"{storage}#mine")
    assert space_of(dict(found.parameters)) == {
        "lr": Range(1e-4, 1e-1, log=True),
        "layers": Multiples(2, 8),
        "width": Multiples(1, 8, 64),
        "drop": Multiples(0, 5, 0.1),
        "opt": Choices(("adam", "sgd")),
    }
    assert found.goal == "minimize"
    scores = [float(t["lr"]) * int(t["layers"]) for t in found.trials]
    assert len(scores) == 10
    assert scores == sorted(scores)
    assert read_optuna(storage) == found  # the only study needs no name


def test_define_writes_it_with_the_trials_as_warm_start(storage: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    words = ["define", str(tmp_path / "mine.yaml"), "--from-optuna", f"{storage}#mine"]
    words += ["--program", str(tmp_path / "train.py"), "--rules", "none", "--metric", "loss"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, (done.output, done.exception)
    spec = load_spec(tmp_path / "mine.yaml")
    assert (spec.metric.name, spec.metric.goal, spec.pgolf.gpus) == ("loss", "minimize", 1)
    assert len(spec.pgolf.warm_start) == 10
    assert spec.pgolf.warm_start[0].knobs == dict(read_optuna(storage).trials[0])
    assert "yaml-language-server" in spec.text
    assert (tmp_path / "pgolf-sweep.schema.json").is_file()


@pytest.mark.parametrize(
    ("place", "reason"),
    [("lost.db#a", "no such storage"), ("sqlite:///lost.db#a", "no such storage")],
)
def test_a_storage_that_is_missing_is_not_made(place: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        read_optuna(place.replace("lost", str(tmp_path / "lost")))
    assert list(tmp_path.iterdir()) == []


def test_a_study_that_is_missing_is_named_with_those_that_are_there(storage: str) -> None:
    with pytest.raises(InputError, match="no study 'other'") as caught:
        read_optuna(f"{storage}#other")
    assert "mine" in str(caught.value)


def test_trials_outside_the_space_are_left_out() -> None:
    text = "method: random\nparameters: {A: {min: 1, max: 3}, B: {values: [x, y]}}\n"
    space = parse_spec(text, Path("x.yaml")).space
    trials = [{"A": 2, "B": "x", "C": 1}, {"A": 9}, {"B": "z"}, {"A": 2, "B": "x"}]
    assert within(space, trials) == [{"A": 2, "B": "x"}]


# -- hydra ----------------------------------------------------------------------------------------

GRAMMAR = {
    "lr": "interval(0.001, 0.1)",
    "rate": "tag(log, interval(0.0001, 0.1))",
    "layers": "int(interval(2, 8))",
    "width": "range(64, 256, 64)",
    "drop": "choice(0.0, 0.1, 0.2)",
    "opt": "adam,sgd",
    "name": "'a,b',c",
    "model.act": "choice(relu, 'gelu new')",
    "seed": "3",
    "wide": "tag(log, int(interval(16, 512)))",
    "mixed": "shuffle(range(1, 4))",
}


def hydra_file(folder: Path, params: dict[str, Any], **more: Any) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"lr": 1, "hydra": {"sweeper": {"params": params, **more}}}))
    return path


def test_a_sweep_of_hydra_becomes_a_space(tmp_path: Path) -> None:
    found = read_hydra(hydra_file(tmp_path, GRAMMAR, direction="maximize"))
    assert found.goal == "maximize"
    assert found.command[-1] == "${args_no_hyphens}"
    assert space_of(dict(found.parameters)) == {
        "lr": Range(0.001, 0.1),
        "rate": Range(0.0001, 0.1, log=True),
        "layers": Multiples(2, 8),
        "width": Choices((64, 128, 192)),
        "drop": Choices((0.0, 0.1, 0.2)),
        "opt": Choices(("adam", "sgd")),
        "name": Choices(("a,b", "c")),
        "model.act": Choices(("relu", "gelu new")),
        "seed": Constant(3),
        "wide": Multiples(16, 512, 1, log=True),
        "mixed": Choices((1, 2, 3)),
    }


@pytest.mark.parametrize("name", GRAMMAR)
def test_hydras_own_parser_reads_the_same(name: str, tmp_path: Path) -> None:
    parser = pytest.importorskip("hydra.core.override_parser.overrides_parser")
    override = parser.OverridesParser.create().parse_override(f"{name}={GRAMMAR[name]}")
    found = read_hydra(hydra_file(tmp_path, {name: GRAMMAR[name]}))
    domain = space_of(dict(found.parameters))[name]
    if not override.is_sweep_override():
        assert domain == Constant(override.value())
    elif override.is_interval_sweep():
        interval, parameter = override.value(), found.parameters[name]
        assert (parameter["min"], parameter["max"]) == (interval.start, interval.end)
        assert ("log" in parameter["distribution"]) == ("log" in interval.tags)
        assert isinstance(domain, Multiples) == isinstance(interval.start, int)
    else:
        texts = [v.strip("'").replace("\\", "") for v in override.sweep_string_iterator()]
        assert sorted(map(str, domain.values())) == sorted(texts)


def test_overrides_that_add_keys_keep_their_signs(tmp_path: Path) -> None:
    found = read_hydra(hydra_file(tmp_path, {"+a": "1,2", "+b.c": "choice(x,y)"}))
    assert list(found.parameters) == ["a", "b.c"]
    assert found.command[-1] == "${args_append_hydra}"
    with pytest.raises(InputError, match="with and without"):
        read_hydra(hydra_file(tmp_path, {"+a": "1,2", "b": "1,2"}))


def test_the_search_space_of_the_older_optuna_sweeper(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    space = {
        "x": {"type": "float", "low": -5.5, "high": 5.5, "step": 0.5},
        "n": {"type": "int", "low": 1, "high": 64, "log": True},
        "opt": {"type": "categorical", "choices": ["a", "b"]},
    }
    path.write_text(yaml.safe_dump({"hydra": {"sweeper": {"search_space": space}}}))
    assert space_of(dict(read_hydra(path).parameters)) == {
        "x": Multiples(-11, 11, 0.5),
        "n": Multiples(1, 64, 1, log=True),
        "opt": Choices(("a", "b")),
    }


@pytest.mark.parametrize("text", ["glob(*)", "interval(a, b)", "range(x)"])
def test_a_range_that_cannot_be_read_is_named(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the range of lr cannot be read"):
        read_hydra(hydra_file(tmp_path, {"lr": text}))


# -- Ray Tune -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tune() -> Any:
    """Ray's own domains; the package around them wants pyarrow, they do not."""
    package = importlib.util.find_spec("ray")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "tune" / "search" / "sample.py"
    spec = importlib.util.spec_from_file_location("ray_sample", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ray_sample"] = module
    spec.loader.exec_module(module)
    return module


def written(folder: Path, document: Any) -> Path:
    path = folder / "space.json"
    with path.open("w") as file:
        json.dump(document, file, default=lambda o: {"type": type(o).__name__, **vars(o)})
    return path


def test_a_space_of_ray_becomes_a_space(tune: Any, tmp_path: Path) -> None:
    space = {
        "lr": tune.loguniform(1e-4, 1e-1),
        "u": tune.uniform(0, 1),
        "q": tune.quniform(0, 1, 0.1),
        "layers": tune.randint(2, 9),
        "width": tune.qrandint(64, 512, 64),
        "wide": tune.lograndint(16, 513),
        "opt": tune.choice(["adam", "sgd"]),
        "x": tune.randn(1, 2),
        "g": {"grid_search": [1, 2]},
        "c": 3,
        "model": {"depth": tune.choice([2, 4])},
    }
    trials = [
        {"config": {"lr": 0.01, "model": {"depth": 4}}, "score": 2.0},
        {"config": {"lr": 0.02, "model": {"depth": 2}}, "score": 3.0},
        {"config": {"lr": 0.02}, "score": None},
    ]
    found = read_ray(written(tmp_path, {"space": space, "trials": trials, "mode": "max"}))
    assert found.goal == "maximize"
    assert [trial["model.depth"] for trial in found.trials] == [2, 4]
    assert space_of(dict(found.parameters)) == {
        "lr": Range(1e-4, 1e-1, log=True),
        "u": Range(0, 1),
        "q": Multiples(0, 10, 0.1),
        "layers": Multiples(2, 8),
        "width": Multiples(1, 8, 64),
        "wide": Multiples(16, 512, 1, log=True),
        "opt": Choices(("adam", "sgd")),
        "x": Quantile(kind="normal", shape=(1, 2)),
        "g": Choices((1, 2)),
        "c": Constant(3),
        "model.depth": Choices((2, 4)),
    }


def test_what_ray_draws_lies_in_the_space(tune: Any, tmp_path: Path) -> None:
    space = {
        "n": tune.randint(2, 9),
        "w": tune.qrandint(64, 512, 64),
        "q": tune.quniform(0, 1, 0.1),
    }
    domains = space_of(dict(read_ray(written(tmp_path, space)).parameters))
    for name, domain in space.items():
        for value in domain.sample(size=200):
            domains[name].encode(value.item() if hasattr(value, "item") else value)


def test_code_in_a_space_of_ray_is_refused(tune: Any, tmp_path: Path) -> None:
    space = {"x": tune.sample_from(lambda _: 3)}
    with pytest.raises(InputError, match="x cannot be written"):
        read_ray(written(tmp_path, space))


def test_only_one_source_is_taken(tmp_path: Path) -> None:
    words = ["define", str(tmp_path / "x.yaml"), "--from-ray", "a.json", "--from-hydra", "b.yaml"]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, InputError)

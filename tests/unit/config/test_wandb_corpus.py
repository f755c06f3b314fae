"""Every form of W&B's sweep files launches, and its program gets what W&B's agent would give it."""

from __future__ import annotations

import os
import queue
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.wandb_corpus import CORPUS, TORCHRUN, parameters_of, program_of, said, stub

from pgolf_sweep.config.binding import Binding
from pgolf_sweep.driver.opening import open_session
from pgolf_sweep.launch.node.environment import environment
from pgolf_sweep.launch.node.run import PARAMETERS_FILE, command

OURS = "pgolf: {rules: none, resources: {gpus: 0, cpus: 1}}\n"
RUNNERS = {
    # Launchers that are not installed here: what they do with the words after their own.
    "uv": 'shift; [ "$1" = python ] && shift; exec python "$@"',
    "conda": 'shift 3; exec "$@"',
    "accelerate": 'shift 3; exec python "$@"',
    "deepspeed": 'shift; exec python "$@"',
}


@pytest.fixture(scope="module", autouse=True)
def path(tmp_path_factory):
    """Stand-ins for launchers, and this environment's python, first on the PATH."""
    folder = tmp_path_factory.mktemp("bin")
    for name, words in RUNNERS.items():
        (folder / name).write_text(f"#!/bin/sh\n{words}\n")
        (folder / name).chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        own = str(Path(sys.executable).parent)
        patch.setenv("PATH", os.pathsep.join([str(folder), own, os.environ["PATH"]]))
        patch.setenv("PGOLF_TEST_DIR", "/data/golf")
        patch.setenv("WANDB_MODE", "disabled")
        yield


def opened(folder: Path, name: str, text: str, reader: str) -> Any:
    """The session of a corpus file in a folder."""
    out = folder / "got.jsonl"
    program = folder / program_of(text)
    program.parent.mkdir(exist_ok=True)
    program.write_text(stub(text, reader, str(out)))
    (folder / "mine.yaml").write_text(text + OURS)
    return open_session(folder / "mine.yaml", data_root=folder, need_data=False)


def launched(session: Any, folder: Path, knobs: dict[str, Any]) -> dict[str, Any]:
    """What the program got from us."""
    spec = session.trial_spec(0, session.resolve(knobs), "test", run_id="r")
    work = folder / "work"
    work.mkdir(exist_ok=True)
    for name, content in session.program.files.items():
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_bytes(content)
    (work / PARAMETERS_FILE).write_text(__import__("json").dumps(dict(spec.config)))
    subprocess.run(
        command(spec, os.environ), env=environment(spec, os.environ), cwd=work, check=True
    )
    return said(folder / "got.jsonl")[-1]


def by_wandb(parameters: dict[str, Any], knobs: dict[str, Any], around: str = "") -> dict[str, Any]:
    """The values that W&B's own YAML has in place of ours, nested as W&B nests them."""
    found = {}
    for name, parameter in parameters.items():
        dotted = f"{around}{name}"
        if "parameters" in parameter:
            found[name] = by_wandb(parameter["parameters"], knobs, f"{dotted}.")
            continue
        value = knobs[dotted]
        listed = parameter.get("values", [parameter["value"]] if "value" in parameter else [])
        same = [v for v in listed if type(v) is type(value) and v == value]
        same += [v for v in listed if isinstance(v, str) and isinstance(value, float)]
        spelled = [v for v in same if not isinstance(v, str) or str(value) == v or _equal(v, value)]
        found[name] = spelled[0] if spelled else value
    return found


def _equal(text: str, value: Any) -> bool:
    try:
        return float(text) == value
    except (ValueError, TypeError):
        return False


def wandb_agent_gives(
    folder: Path, text: str, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """What the program gets from W&B's own agent."""
    from wandb.wandb_agent import Agent

    monkeypatch.chdir(folder)
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    (folder / "wandb" / "sweep-s1").mkdir(parents=True, exist_ok=True)
    monkeypatch.delenv("WANDB_DIR", raising=False)
    agent = Agent(api=None, queue=queue.Queue(), sweep_id="s1")
    document = yaml.safe_load(text)
    agent._sweep_command = document.get("command") or []
    monkeypatch.setenv("WANDB_DIR", ".")
    run = {
        "type": "run",
        "run_id": "r1",
        "program": document.get("program"),
        "args": {name: {"value": value} for name, value in values.items()},
    }
    agent._command_run(run)
    assert agent._run_processes["r1"].wait(timeout=60) == 0
    return said(folder / "got.jsonl")[-1]


def test_the_corpus_is_large_and_valid_to_wandb() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = wandb_schema()
    assert len(CORPUS) >= 60
    for name, (text, _) in (CORPUS | TORCHRUN).items():
        errors = list(jsonschema.Draft7Validator(schema).iter_errors(yaml.safe_load(text)))
        assert not errors, (name, errors[0].message)


def wandb_schema() -> dict[str, Any]:
    """The schema inside W&B's own package, read without importing it."""
    import json
    from importlib.util import find_spec

    spec = find_spec("sweeps")
    if spec is None or spec.origin is None:
        pytest.skip("W&B's package sweeps is not installed")
    return json.loads((Path(spec.origin).parent / "config" / "schema.json").read_text())


@pytest.mark.parametrize("name", CORPUS)
def test_a_trial_gets_what_wandbs_agent_gives(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, reader = CORPUS[name]
    session = opened(tmp_path, name, text, reader)
    rng = random.Random(name)
    for _ in range(2):
        knobs = session.spec.space.sample(rng)
        ours = launched(session, tmp_path, knobs)
        values = by_wandb(parameters_of(text), knobs)
        theirs = wandb_agent_gives(tmp_path, text, values, monkeypatch)
        if reader in {"env", "both", "config"}:
            # W&B's agent sets no environment: the texts are those of its flags.
            spelled = dict(w.removeprefix("--").split("=", 1) for w in theirs["argv"] if "=" in w)
            spelled |= {n: str(v) for n, v in values.items()}
            for variable, given in ours["env"].items():
                assert given == spelled[variable]
            in_env = set(values) if reader in {"env", "config"} else set(list(values)[:1])
            assert set(ours["env"]) == in_env
            if reader == "both":
                assert ours["argv"] == [w for w in theirs["argv"] if w.startswith("--layers")]
            if reader == "config":
                assert Binding(session.spec, session.program).config(knobs) == values
            continue
        assert _named(ours["argv"]) == _named(theirs["argv"])
        assert ours.get("json") == theirs.get("json")


def _named(words: list[str]) -> list[str]:
    """The words, the name of the JSON file left out, which is each launcher's own."""
    return ["FILE" if word.endswith(".json") else word for word in words]


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHRUN)
def test_each_rank_of_a_torchrun_gets_what_wandbs_agent_gives(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, reader = TORCHRUN[name]
    session = opened(tmp_path, name, text, reader)
    knobs = session.spec.space.sample(random.Random(1))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    ours = launched(session, tmp_path, knobs)
    assert len(said(tmp_path / "got.jsonl")) == 2
    values = by_wandb(parameters_of(text), knobs)
    words = [f"--{n}={v}" for n, v in values.items()]
    assert ours["argv"] == words


@pytest.mark.parametrize("name", TORCHRUN)
def test_a_torchrun_of_any_spelling_has_a_port_of_its_own(name: str, tmp_path: Path) -> None:
    text, reader = TORCHRUN[name]
    session = opened(tmp_path, name, text, reader)
    spec = session.trial_spec(0, session.spec.space.sample(random.Random(1)), "t", run_id="r")
    words = command(spec, {})
    assert words[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert words.count("--standalone") == 1

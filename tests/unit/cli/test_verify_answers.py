"""The answers of `verify`: their schema, the strict preset, explanations, and what is named."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from typer.testing import CliRunner

from pgolf_sweep.cli import verify as _  # noqa: F401 - registers the command
from pgolf_sweep.cli.common import app
from pgolf_sweep.config.rules import load_rules
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.verify.explain import RULES

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from support.promotions import Bench

    root = tmp_path_factory.mktemp("good")
    return Bench(root=root, rules=load_rules("demo", base=root)).promote().folder


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    done = CliRunner().invoke(app, ["verify", "--json-schema"])
    assert done.exit_code == 0
    schema = json.loads(done.stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def answer(*words: str) -> tuple[int, Any]:
    done = CliRunner().invoke(app, ["verify", *words, "--json"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, json.loads(done.stdout)


def test_real_answers_are_of_the_schema(
    good: Path, tmp_path: Path, validator: jsonschema.Draft202012Validator
) -> None:
    for words in (
        [str(good)],
        [str(good), str(tmp_path)],
        [str(tmp_path)],
        [str(good), "--strict"],
    ):
        validator.validate(answer(*words)[1])


def test_the_schema_refuses_another_answer(
    good: Path, validator: jsonschema.Draft202012Validator
) -> None:
    document = answer(str(good))[1]
    for broken in (
        {**document, "more": 1},
        {key: value for key, value in document.items() if key != "ok"},
        {**document, "checks": [{**document["checks"][0], "rule": "no_such_rule"}]},
        {**document, "checks": [{**document["checks"][0], "verdict": "maybe"}]},
    ):
        assert not validator.is_valid(broken)


def test_strict_takes_what_cannot_be_told_for_broken(good: Path) -> None:
    code, document = answer(str(good))
    assert (code, document["ok"], document["strict"]) == (0, True, False)
    code, document = answer(str(good), "--strict")
    assert (code, document["ok"], document["strict"]) == (1, False, True)
    odd = {c["rule"]: c["verdict"] for c in document["checks"] if c["verdict"] != "pass"}
    assert odd == {"log_source": "unknown"}


def test_strict_accepts_a_folder_that_passes_every_rule(good: Path, tmp_path: Path) -> None:
    folder = tmp_path / good.name
    shutil.copytree(good, folder)
    source = (folder / "train_gpt.py").read_text()
    for log in folder.glob("*.log"):
        log.write_text(f"{source}\n{'=' * 100}\n{log.read_text()}")
    code, document = answer(str(folder), "--strict")
    odd = {c["rule"]: c["verdict"] for c in document["checks"] if c["verdict"] != "pass"}
    assert (code, odd) == (0, {})


def test_an_explanation_is_printed_and_is_a_document() -> None:
    told = CliRunner().invoke(app, ["verify", "--explain", "bytes_per_token"])
    assert told.exit_code == 0
    assert told.stdout.startswith("bytes_per_token: ")
    assert "measured: " in told.stdout
    assert "source: " in told.stdout
    code, document = answer("--explain", "all")
    assert code == 0
    assert list(document) == list(RULES)
    assert set(document["clock"]) == {"asks", "measured", "source"}


@pytest.mark.parametrize("words", [[], ["folder", "--changed", "main"], ["--explain", "clocks"]])
def test_no_folder_two_sources_and_no_such_rule_are_wrong_input(words: list[str]) -> None:
    done = CliRunner().invoke(app, ["verify", *words])
    assert isinstance(done.exception, InputError)

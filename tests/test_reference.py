"""The generated pages say what the code says, and every example in them is one."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import jsonschema
import pytest
import yaml
from support.reference import DOCS, pages

from pgolf_sweep.config.model_base import fields_of
from pgolf_sweep.config.models import ParameterBlock
from pgolf_sweep.config.schema import blocks, sweep_schema

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import BaseModel

BLOCKS = blocks()
SWEEPS = sorted((DOCS.parent / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_a_generated_page_is_up_to_date(path: Path) -> None:
    assert path.read_text() == pages()[path], "run: python tests/support/reference.py"


@pytest.mark.parametrize("path", BLOCKS)
def test_every_key_has_a_meaning_and_an_example_that_reads(path: str) -> None:
    model: type[BaseModel] = BLOCKS[path]
    for name, field in fields_of(model).items():
        assert field.description, name
        assert field.examples or field.default is not None, name
        for example in field.examples or []:
            assert model.model_validate({name: example}).model_fields_set


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda path: path.name)
def test_the_schema_takes_our_sweep_files(sweep: Path) -> None:
    jsonschema.validate(yaml.safe_load(sweep.read_text()), sweep_schema())


@pytest.mark.parametrize(
    "text",
    [
        "{method: random, parameters: {A: {value: 1}}, runcap: 3}",
        "{method: randm, parameters: {A: {value: 1}}}",
        "{method: random, parameters: {A: {mim: 1}}}",
        "{method: random}",
        "{method: random, parameters: {A: {value: 1}}, pgolf: {gate: {confidence: 2}}}",
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), sweep_schema())


def test_the_command_prints_the_schema() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pgolf_sweep", "schema"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == sweep_schema()
    assert ParameterBlock.__name__ in json.loads(done.stdout)["$defs"]

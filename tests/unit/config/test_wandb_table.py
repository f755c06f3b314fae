"""docs/wandb.md speaks of every key that W&B's own package knows, and says the truth of each."""

from __future__ import annotations

import inspect
import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pgolf_sweep.config.model_base import fields_of
from pgolf_sweep.config.schema import blocks
from pgolf_sweep.config.sweep_file import parse_spec
from pgolf_sweep.core.errors import SpecError
from pgolf_sweep.script.command import MACROS

PAGE = (Path(__file__).parents[3] / "docs" / "wandb.md").read_text()


def listed_after(words: str) -> list[str]:
    """The keys of the paragraph that begins with these words."""
    return re.findall(r"`([^`]+)`", PAGE.partition(words)[2].partition("\n\n")[0])


TABLE = dict(re.findall(r"^\| `([^`]+)` \| ([\w& ]+) \|", PAGE, re.MULTILINE))
TABLE |= dict.fromkeys(listed_after("As W&B, without a difference:"), "as W&B")
TABLE |= dict.fromkeys(listed_after("Differently, as `parameters.*.q`:"), "differently")


def wandb_keys() -> set[str]:
    """Keys, distributions and macros by W&B's packages."""
    from wandb.sdk.launch.sweeps import utils

    spec = find_spec("sweeps")
    if spec is None or spec.origin is None:
        pytest.skip("W&B's package sweeps is not installed")
    schema: dict[str, Any] = json.loads(
        (Path(spec.origin).parent / "config" / "schema.json").read_text()
    )
    definitions = schema["definitions"]
    found = set(schema["properties"])
    found |= {f"metric.{key}" for key in definitions["metric"]["properties"]}
    found |= {f"early_terminate.{k}" for k in definitions["hyperband_stopping"]["properties"]}
    found |= {f"controller.{k}" for k in schema["properties"]["controller"]["properties"]}
    for definition in definitions.values():
        for shape in definition.get("anyOf", [definition]):
            keys = shape.get("properties", {})
            if "distribution" in keys:
                found |= {f"parameters.*.{key}" for key in keys}
                found |= set(keys["distribution"]["enum"])
    macros = re.findall(r'"(args\w*)":', inspect.getsource(utils.create_sweep_command_args))
    found |= {f"${{{macro}}}" for macro in macros if macro != "args_dict"}
    return found | {"${env}", "${interpreter}", "${program}", "${args_json_file}", "${envvar:NAME}"}


def test_the_table_has_every_key_and_none_that_wandb_has_not() -> None:
    extra = {"parameters.*.parameters"}
    assert set(TABLE) == wandb_keys() | extra
    assert set(TABLE.values()) == {"as W&B", "differently", "refused"}


def test_the_table_is_true_of_the_reader() -> None:
    top = fields_of(blocks()[""])
    for key, verdict in TABLE.items():
        if key.startswith("$"):
            name = key[2:-1]
            assert (name in MACROS or name == "envvar:NAME") == (verdict != "refused")
        elif "." not in key and key in {*top, "job", "image_uri", "scheduler", "metrics"}:
            assert (key in top) == (verdict != "refused")
        elif key.startswith(("metric.", "early_terminate.", "controller.")):
            block, _, inner = key.partition(".")
            assert inner in fields_of(blocks()[block])


@pytest.mark.parametrize("key", [key for key, verdict in TABLE.items() if verdict == "refused"])
def test_what_is_refused_is_refused_by_name_with_its_line(key: str) -> None:
    values = {
        "metric.impute_while_running": "metric:\n  impute_while_running: best",
        "metrics": "metrics: [{name: a}, {name: b}]",
        "scheduler": "scheduler: {engine: optuna}",
        "job": "job: a/b:v1",
        "image_uri": "image_uri: x",
    }
    text = f"method: random\nparameters: {{A: {{value: 1}}}}\n{values[key]}\n"
    with pytest.raises(SpecError) as caught:
        parse_spec(text, Path("x.yaml"))
    (problem,) = caught.value.problems
    assert problem.path == key
    assert problem.line == (4 if "." in key else 3)

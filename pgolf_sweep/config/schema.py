"""The sweep file's JSON schema, for editors, and its reference, for people; from the models."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_args

import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from pgolf_sweep.config.model_base import fields_of
from pgolf_sweep.config.models import ParameterBlock, SweepFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

SCHEMA_FILE = "pgolf-sweep.schema.json"
"""Name under which `define` puts the schema beside the sweep files that it writes."""
SCHEMA_LINE = f"# yaml-language-server: $schema={SCHEMA_FILE}"
"""The comment by which editors find it."""

_NAMES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "array": "list",
    "object": "mapping",
    "null": "nothing",
}


def sweep_schema() -> dict[str, Any]:
    """The JSON schema of a sweep file."""
    schema = SweepFile.model_json_schema()
    data = schema["$defs"]["PgolfModel"]["properties"]["data"]
    data["anyOf"] = [{"type": "string"}, *data["anyOf"]]  # a name is short for {name: ...}
    fidelity = schema["$defs"]["PgolfModel"]["properties"]["fidelity"]
    block = {"$ref": fidelity.pop("$ref")}
    rungs = schema["$defs"]["FidelityBlock"]["properties"]["rungs"]
    listed = {"type": "array", "items": rungs["items"]}
    fidelity["anyOf"] = [listed, block]  # rungs alone are short for {rungs: ...}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pgolf-sweep sweep file",
        **{key: value for key, value in schema.items() if key != "title"},
        "required": ["method", "parameters"],
    }


def schema_text() -> str:
    """The schema as a file's content."""
    return json.dumps(sweep_schema(), indent=1) + "\n"


def reference() -> str:
    """Every key of a sweep file as Markdown: type, default, meaning, example."""
    lines: list[str] = []
    for path, model in blocks().items():
        lines += ["", f"## `{path}`" if path else "## Top of the file", "", _doc(model), ""]
        lines += ["| key | type | default | meaning | example |", "| --- | --- | --- | --- | --- |"]
        schema = model.model_json_schema()
        schema = schema.get("$defs", {}).get(model.__name__, schema)  # one that holds itself
        lines += [
            _row(name, field, schema["properties"][name])
            for name, field in fields_of(model).items()
        ]
        refused = getattr(model, "REFUSED", {})
        if refused:
            lines += ["", "Refused by name:", ""]
            lines += [f"* `{key}`: {reason}" for key, reason in refused.items()]
    return "\n".join(lines).strip() + "\n"


def blocks() -> dict[str, type[BaseModel]]:
    """Every block of the file by its dotted path, ``""`` for the top."""
    return dict(_blocks("", SweepFile))


def _blocks(path: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """A model and those below it by dotted path; parameters hold parameters, which ends there."""
    yield path, model
    for name, field in fields_of(model).items():
        inner = _model_in(field.annotation)
        if inner is None or model is ParameterBlock:
            continue
        below = "parameters.NAME" if inner is ParameterBlock else name
        yield from _blocks(f"{path}.{below}" if path else below, inner)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(part) for part in get_args(annotation))
    return next((one for one in found if one is not None), None)


def _doc(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _row(name: str, field: FieldInfo, schema: dict[str, Any]) -> str:
    example = field.examples[0] if field.examples else field.default
    cells = (
        f"`{name}`",
        " or ".join(dict.fromkeys(_words(schema))),
        _default(field),
        " ".join((field.description or "").split()),
        f"`{name}: {_flow(example)}`",
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _words(schema: dict[str, Any]) -> Iterator[str]:
    for part in schema.get("anyOf", [schema]):
        if "enum" in part or "const" in part:
            yield ", ".join(f"`{word}`" for word in part.get("enum", [part.get("const")]))
        elif "$ref" in part:
            yield "mapping"
        elif "type" not in part:
            yield "any"
        elif part["type"] != "null":
            bounds = [
                f"{word} {part[key]:g}"
                for key, word in (
                    ("exclusiveMinimum", "above"),
                    ("minimum", "at least"),
                    ("exclusiveMaximum", "below"),
                )
                if key in part
            ]
            yield " ".join(filter(None, (_NAMES[part["type"]], " and ".join(bounds))))


def _default(field: FieldInfo) -> str:
    empty = field.default in (None, PydanticUndefined, (), {})
    if empty or isinstance(field.default, BaseModel):
        return "-"
    return f"`{_flow(field.default)}`"


def _flow(value: Any) -> str:
    """A value as it stands in a file, on one line."""
    plain = json.loads(json.dumps(value, default=list))
    text: str = yaml.safe_dump(plain, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("...\n").strip()

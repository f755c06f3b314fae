"""From a model's complaints to mistakes with key path, line and nearest name.

A block with mistakes is read without the keys that have them, so that everything else in the file
is still checked in the same run.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from pgolf_sweep.config.model_base import fields_of
from pgolf_sweep.config.yaml_lines import did_you_mean, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

    from pgolf_sweep.config.yaml_lines import Document, KeyPath

Model = TypeVar("Model", bound=BaseModel)

_NOUNS = {
    "string_type": "text",
    "string_pattern_mismatch": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a number",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping of keys",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
}
_BOUNDS = {"gt": "above", "lt": "below", "ge": "at least", "le": "at most"}
_MOST_ROUNDS = 50
"""Each round removes at least one key; a mistake may hide those that stand below it."""


def read_block(model: type[Model], value: object, document: Document, path: KeyPath) -> Model:
    """A mapping of the document as a model; keys with mistakes read as absent.

    Args:
        model: None of its keys is required.
        value: What the document has there; nothing reads as empty.
        document: Mistakes are noted on it.
        path: Where the mapping stands.
    """
    left: Any = copy.deepcopy(value) if value is not None else {}
    for _ in range(_MOST_ROUNDS):
        try:
            return model.model_validate(left)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                keys = _keys(detail["loc"])
                document.problem((*path, *keys), _message(model, detail))
                left = _without(left, keys)
    return model.model_validate({})


def _keys(loc: tuple[int | str, ...]) -> KeyPath:
    return tuple(loc)


def _without(value: Any, keys: KeyPath) -> Any:
    """A value without what stands at a key path; without a list's key where an item is meant."""
    if not keys:
        return {}
    *parents, last = keys
    holder = value
    for index, key in enumerate(parents):
        inner = holder.get(key) if isinstance(holder, dict) else None
        if not isinstance(inner, dict):
            return _without(value, keys[: index + 1])
        holder = inner
    if isinstance(holder, dict):
        holder.pop(last, None)
    return value


def _message(model: type[BaseModel], detail: ErrorDetails) -> str:
    kind, given = detail["type"], detail["input"]
    context: Mapping[str, Any] = detail.get("ctx", {})
    keys = _keys(detail["loc"])
    if kind == "extra_forbidden":
        return _unknown(_model_at(model, keys[:-1]) or model, str(keys[-1]))
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return none_of(given, _options(model, keys))
    if kind in _NOUNS:
        return f"must be {_NOUNS[kind]}, not {shown(given)}"
    bounds = _bounds(model, keys)
    return f"must be {bounds}, not {given:g}" if bounds else detail["msg"]


def none_of(given: object, options: tuple[str, ...]) -> str:
    """What is said of a word that is none of a few."""
    hint = did_you_mean(str(given), options)
    return f"{shown(given)} is none of: {', '.join(options)}{hint}"


def _unknown(model: type[BaseModel], key: str) -> str:
    reason = getattr(model, "REFUSED", {}).get(key)
    known = tuple(fields_of(model))
    near = did_you_mean(key, known)
    return reason or f"unknown key{near or '; known keys: ' + ', '.join(known)}"


def _annotation(model: type[BaseModel], keys: KeyPath) -> Any:
    """The field that a key path names."""
    holder = _model_at(model, keys[:-1])
    return None if holder is None else fields_of(holder).get(str(keys[-1]))


def _model_at(model: type[BaseModel], keys: KeyPath) -> type[BaseModel] | None:
    """The model of the mapping at a key path."""
    current: type[BaseModel] | None = model
    for key in keys:
        field = None if current is None else fields_of(current).get(str(key))
        if field is None:
            continue  # the name of a parameter
        current = _inner_model(field.annotation)
    return current


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_inner_model(part) for part in get_args(annotation))
    return next((one for one in found if one is not None), None)


def _options(model: type[BaseModel], keys: KeyPath) -> tuple[str, ...]:
    return tuple(_leaves(getattr(_annotation(model, keys), "annotation", None)))


def _leaves(annotation: Any) -> list[str]:
    if isinstance(annotation, str):
        return [annotation]
    return [text for part in get_args(annotation) for text in _leaves(part)]


def _bounds(model: type[BaseModel], keys: KeyPath) -> str:
    """``above 0.5 and below 1`` for a field with such constraints."""
    field = _annotation(model, keys)
    marks = [] if field is None else [*field.metadata, *_marks(field.annotation)]
    said = [
        f"{word} {getattr(mark, name):g}"
        for mark in marks
        for name, word in _BOUNDS.items()
        if getattr(mark, name, None) is not None
    ]
    return " and ".join(said)


def _marks(annotation: Any) -> list[Any]:
    """Constraints inside an annotation, those that pydantic's `Field` carries included."""
    found: list[Any] = []
    for mark in getattr(annotation, "__metadata__", ()):
        found += getattr(mark, "metadata", None) or [mark]
    for part in get_args(annotation):
        found += _marks(part)
    return found

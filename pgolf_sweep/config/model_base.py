"""What the models of the sweep file are made of: a block, and the types of its keys."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from pgolf_sweep.config.yaml_lines import shown

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


def as_texts(value: object) -> object:
    """A text, or a list of texts, as a tuple."""
    items = [value] if isinstance(value, str) else value
    if isinstance(items, list) and all(isinstance(item, str) for item in items):
        return tuple(items)
    raise ValueError(f"must be a list of text, not {shown(value)}")


def as_number(value: object) -> int | float:
    """A finite number."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):  # type: ignore[arg-type]
        raise ValueError(f"must be a number, not {shown(value)}")
    return value  # type: ignore[return-value]


def as_pattern(value: object) -> object:
    """A regular expression with one group; other types are pydantic's to refuse."""
    if not isinstance(value, str):
        return value  # pydantic says that it is no text
    try:
        groups = re.compile(value).groups
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from error
    if groups != 1:
        raise ValueError(f"{value!r} needs one group, (...), around the number; it has {groups}")
    return value


Text = Annotated[str, StringConstraints(pattern=r"\S")]
Texts = Annotated[
    tuple[str, ...],
    BeforeValidator(as_texts),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
Number = Annotated[int | float, PlainValidator(as_number), WithJsonSchema({"type": "number"})]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
AnyValue = Annotated[Any, WithJsonSchema({})]
AnyList = Annotated[Any, WithJsonSchema({"type": "array"})]


class Block(BaseModel):
    """One mapping of the file: strict, closed, and a key without a value reads as absent."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )
    REFUSED: ClassVar[Mapping[str, str]] = {}
    """Keys that are understood and not offered, with the reason."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {key: item for key, item in value.items() if item is not None}


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """A block's fields by the keys of the file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}

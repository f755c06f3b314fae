"""``K=V`` texts as knobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgolf_sweep.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgolf_sweep.core.trial import KnobValue


def parse_settings(settings: Iterable[str]) -> dict[str, KnobValue]:
    """Values by name, numbers where they are numbers.

    Raises:
        InputError: A text has no value.
    """
    values: dict[str, KnobValue] = {}
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator:
            raise InputError(
                "--set needs a name and a value", got=setting, expected="K=V, as MODEL_DIM=576"
            )
        values[name] = value_of(text)
    return values


def value_of(text: str) -> KnobValue:
    """A text as the number that it is, or as text."""
    for reader in (int, float):
        try:
            return reader(text)
        except ValueError:
            continue
    return text

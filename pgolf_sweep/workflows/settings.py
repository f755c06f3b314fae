"""``K=V`` texts as knobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgolf_sweep.config.overrides import Overrides
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.driver.proposals import parsed_value

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


def parse_overrides(
    *, run_cap: int | None, settings: Iterable[str], budget: Iterable[str]
) -> Overrides:
    """What the options of `launch` want otherwise than the sweep file.

    Args:
        run_cap: ``--run-cap``.
        settings: Each ``--set``, ``K=V``.
        budget: Each ``--budget``, ``K=V`` or several with commas.

    Raises:
        InputError: A text has no value.
    """
    pairs = [pair for text in budget for pair in text.split(",")]
    return Overrides(
        run_cap=run_cap,
        settings=_pairs(settings, "--set", "K=V, as MATRIX_LR=0.03"),
        budget=_pairs(pairs, "--budget", "K=V, as gpu_hours=40"),
    )


def _pairs(texts: Iterable[str], option: str, expected: str) -> dict[str, KnobValue]:
    values: dict[str, KnobValue] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name.strip():
            raise InputError(f"{option} needs a name and a value", got=text, expected=expected)
        values[name.strip()] = parsed_value(value.strip())
    return values

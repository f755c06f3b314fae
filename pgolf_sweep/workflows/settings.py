"""``K=V`` texts as knobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgolf_sweep.config.overrides import Overrides
from pgolf_sweep.core.errors import InputError
from pgolf_sweep.core.trial import parsed_value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgolf_sweep.core.trial import KnobValue


def parse_settings(
    settings: Iterable[str], option: str = "--set", example: str = "MODEL_DIM=576"
) -> dict[str, KnobValue]:
    """Values by name: numbers and truth values where they are any.

    Args:
        settings: ``K=V`` texts.
        option: Of the command line, which gave them.
        example: One of them.

    Raises:
        InputError: A text has no name or no value.
    """
    values: dict[str, KnobValue] = {}
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator or not name.strip():
            raise InputError(
                f"{option} needs a name and a value", got=setting, expected=f"K=V, as {example}"
            )
        values[name.strip()] = parsed_value(text.strip())
    return values


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
        settings=parse_settings(settings, example="MATRIX_LR=0.03"),
        budget=parse_settings(pairs, "--budget", "gpu_hours=40"),
    )

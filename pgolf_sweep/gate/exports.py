"""Smaller exports of a trained model that turns out over the cap: the same weights, fewer bytes.

Only knobs on which the artifact alone depends (`trainer.export.EXPORT_KNOBS`) can change after the
training. The trainer tries the settings in their order and keeps the first that fits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgolf_sweep.config.types import LOSSLESS_KNOBS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pgolf_sweep.core.trial import KnobValue, Verdict

MOST_EXPORTS = 4
"""Settings that a trial is given: each that is tried costs a compression, a minute at full size."""
MOST_VALUES = 8
"""Values of one knob that are looked at."""
SPARE = 0.05
"""By how much the last setting is smaller than the prediction asks: it is there for surprises."""


def smaller_exports(
    verdict: Callable[[Mapping[str, KnobValue]], Verdict],
    knobs: Mapping[str, KnobValue],
    may_give: Mapping[str, Sequence[KnobValue]],
) -> list[dict[str, KnobValue]]:
    """Changes of one knob each, the mildest first.

    The best lossless one leads. The others follow by their size down to one that fits even where
    the artifact is as large as its prediction allows: errors of one training are much the same
    regardless of how its weights are stored.

    Args:
        verdict: The gate's answer for a configuration.
        knobs: The configuration that is trained.
        may_give: Other values of each knob that may change.
    """
    answer = verdict(knobs)
    if answer.artifact_bytes is None:
        return []
    now, high = answer.artifact_bytes.mid, answer.artifact_bytes.high
    enough = (1 - SPARE) * now * min(1.0, answer.cap_bytes / high)
    lossless: list[tuple[float, dict[str, KnobValue]]] = []
    others: list[tuple[float, dict[str, KnobValue]]] = []
    for knob, values in may_give.items():
        for value in values[:MOST_VALUES]:
            changed = verdict({**knobs, knob: value}).artifact_bytes
            if changed is not None and changed.mid < now:
                (lossless if knob in LOSSLESS_KNOBS else others).append(
                    (changed.mid, {knob: value})
                )
    others.sort(key=lambda option: -option[0])
    sure = next((at for at, (size, _) in enumerate(others) if size <= enough), len(others) - 1)
    found = [change for _, change in sorted(lossless, key=lambda option: option[0])[:1]]
    return found + _spread([change for _, change in others[: sure + 1]], MOST_EXPORTS - len(found))


def _spread(options: Sequence[dict[str, KnobValue]], count: int) -> list[dict[str, KnobValue]]:
    """At most that many of a list, evenly, its last among them."""
    if len(options) <= count:
        return list(options)
    return [options[round((at + 1) * len(options) / count) - 1] for at in range(count)]

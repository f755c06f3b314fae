"""Layouts that were computed, so that a verdict computes one only where it is new.

A layout takes up to a millisecond. The clip of sdclip is often searched as a continuous range: its
layouts are computed on a grid and interpolated, since bytes are all but linear in its logarithm.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pgolf_sweep.gate.physics import predict
from pgolf_sweep.gate.physics.entropy import ScaleRule
from pgolf_sweep.gate.physics.inventory import SIZE_KNOBS

if TYPE_CHECKING:
    from pgolf_sweep.gate.physics.predict import Layout

CLIPS_AN_OCTAVE = 3
"""Places of the grid of clips for each doubling."""
MOST_LAYOUTS = 4096
"""Kept at a time; the oldest goes first."""

_SCALES = frozenset({"CLIP_SIGMAS", "CLIP_PERCENTILE"})
_FIELDS = tuple(name.lower() for name in SIZE_KNOBS if name not in _SCALES)


class Layouts:
    """The layouts of one program's configurations. Not thread-safe."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], Layout] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, config: Any) -> Layout:
        """The layout of a configuration, a `trainer.config.Config`."""
        key = tuple(getattr(config, name) for name in _FIELDS)
        if config.quant_scale == ScaleRule.PERCENTILE:
            return self._at(key, config, config.clip_percentile)
        if config.quant_scale != ScaleRule.SDCLIP:
            return self._at(key, config, 0.0)  # the others have no parameter
        place = CLIPS_AN_OCTAVE * math.log2(config.clip_sigmas)
        below = math.floor(place)
        low, high = (self._at(key, config, _clip(at)) for at in (below, below + 1))
        return predict.between(low, high, place - below)

    def _at(self, key: tuple[Any, ...], config: Any, parameter: float) -> Layout:
        found = self._kept.get((*key, parameter))
        if found is None:
            found = predict.layout(config, parameter)
            while len(self._kept) >= MOST_LAYOUTS:
                del self._kept[next(iter(self._kept))]
            self._kept[*key, parameter] = found
        return found


def _clip(place: int) -> float:
    return min(float(2 ** (place / CLIPS_AN_OCTAVE)), 1e300)

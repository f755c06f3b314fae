"""A smooth surface of the contest's shape: what a trial would score, without training it.

Capacity helps by a power law and costs steps of the ten minutes; each rate has a best value that
moves with the others; fewer bits cost as they were measured to. Bytes are the gate's own physics
with a bias and a noise, both given.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgolf_sweep.driver.session import Session

SEED_NOISE = 0.0007
BITS_COST = {3: 0.25, 4: 0.035, 5: 0.0095, 6: 0.0028, 7: 0.001, 8: 0.0003}
EMBED_COST = {4: 0.02, 5: 0.006, 6: 0.0022, 7: 0.0007, 8: 0.0002}
SCHEDULE_COST = {"linear": 0.0, "cosine": 0.0018, "wsd": 0.0006}


class Smooth:
    """The surface.

    Args:
        session: Its gate, as it was before any trial, knows the bytes.
        seed: Of the noise, and of where the best values lie.
        bias: Relative error of the gate that all configurations share.
        noise: Relative error of the gate that each has for itself.
        off_centre: Whether the best values lie near the ends of their ranges.
    """

    def __init__(
        self,
        session: Session,
        seed: int,
        *,
        bias: float = 0.0,
        noise: float = 0.004,
        off_centre: bool = False,
    ) -> None:
        self._session = session
        self._bias = bias
        self._noise = noise
        self._rng = random.Random(seed)
        place = random.Random(1_000 + seed)
        self.best_rate = 0.024 * math.exp(place.uniform(-0.5, 0.5))
        self.best_embed = 0.035 * math.exp(place.uniform(-0.5, 0.5))
        self.best_decay = place.uniform(0.05, 0.13)
        self.best_momentum = place.uniform(0.95, 0.98)
        self.best_warmdown = place.uniform(0.5, 0.8)
        if off_centre:
            self.best_rate = place.choice([0.0065, 0.062])
            self.best_embed = place.choice([0.0125, 0.08])
            self.best_decay = place.choice([0.012, 0.188])
            self.best_momentum = place.choice([0.915, 0.987])
            self.best_warmdown = place.choice([0.15, 0.9])

    def size(self, knobs: Mapping[str, Any]) -> float:
        """Bytes without noise."""
        verdict = self._session.verdict(knobs)
        if verdict.artifact_bytes is None:
            return math.inf
        return verdict.artifact_bytes.mid * (1 + self._bias)

    def score(self, knobs: Mapping[str, Any]) -> float:
        """`val_bpb` without noise."""
        width, depth = float(knobs["MODEL_DIM"]), float(knobs["NUM_LAYERS"])
        mlp, decay = float(knobs["MLP_MULT"]), float(knobs["WEIGHT_DECAY"])
        params = depth * width * width * (3 + 2 * mlp) + 1024 * width
        step_ms = 20 + 60 * (params / 3e7) ** 0.9
        steps = 600_000 / step_ms
        rate = self.best_rate * (512 / width) ** 0.5 * (1 + 3 * (decay - self.best_decay))
        score = 0.86 + 0.30 * (params / 2e7) ** -0.22 * 0.9 + 0.035 * (steps / 9000) ** -0.8
        score += 0.012 * math.log(float(knobs["MATRIX_LR"]) / rate) ** 2
        score += 0.004 * math.log(float(knobs["TIED_EMBED_LR"]) / self.best_embed) ** 2
        score += 1.1 * (decay - self.best_decay) ** 2
        momentum = math.log((1 - float(knobs["MUON_MOMENTUM"])) / (1 - self.best_momentum))
        score += 0.004 * momentum**2
        score += 0.05 * (float(knobs["WARMDOWN_FRAC"]) - self.best_warmdown) ** 2
        score += 0.006 * math.log(depth / (11 * (width / 512) ** 0.3)) ** 2
        score += SCHEDULE_COST[str(knobs["LR_SCHEDULE"])]
        score += BITS_COST[int(knobs["MATRIX_BITS"])] * (1 - 2 * min(decay, 0.1))
        return score + EMBED_COST[int(knobs["EMBED_BITS"])]

    def tuned(self, shape: Mapping[str, Any]) -> dict[str, Any]:
        """A shape with its best rates, decay, momentum and warmdown."""
        decay = self.best_decay
        if decay < 0.1:  # fewer bits want a little more of it, up to there
            decay = min(0.1, decay + BITS_COST[int(shape["MATRIX_BITS"])] / 1.1)
        rate = self.best_rate * (512 / float(shape["MODEL_DIM"])) ** 0.5
        return {
            **shape,
            "WEIGHT_DECAY": decay,
            "MATRIX_LR": rate * (1 + 3 * (decay - self.best_decay)),
            "TIED_EMBED_LR": self.best_embed,
            "MUON_MOMENTUM": self.best_momentum,
            "WARMDOWN_FRAC": self.best_warmdown,
        }

    def minutes(self, knobs: Mapping[str, Any]) -> float:
        """Minutes for which a trial holds its slot."""
        return 13.0 + 2.0 * float(knobs["NUM_LAYERS"]) / 14

    def curve(self, knobs: Mapping[str, Any], final: float) -> list[tuple[float, float]]:
        """Validations on the way, before quantization.

        A power law in the share of the schedule; until the warmdown has run, what a high rate
        costs is paid, so that a long warmdown looks good early and a good rate bad.
        """
        before = final - BITS_COST[int(knobs["MATRIX_BITS"])] - EMBED_COST[int(knobs["EMBED_BITS"])]
        heat = 0.05 * (float(knobs["MATRIX_LR"]) / 0.024) ** 0.5
        warm = float(knobs["WARMDOWN_FRAC"])
        points = []
        for twentieth in range(1, 21):
            at = twentieth / 20
            cooled = max(0.0, (at - (1 - warm)) / warm)
            rise = 0.045 * (at**-0.6 - 1) + heat * (1 - cooled) + self._rng.gauss(0, 0.001)
            points.append((at, before + rise))
        return points

    def __call__(self, knobs: Mapping[str, Any]) -> dict[str, Any]:
        """What `pgolf_sweep.simulate` asks of a run."""
        final = self.score(knobs) + self._rng.gauss(0, SEED_NOISE)
        return {
            "val_bpb": final,
            "curve": self.curve(knobs, final),
            "artifact_bytes": self.size(knobs) * math.exp(self._rng.gauss(0, self._noise)),
            "minutes": self.minutes(knobs),
        }

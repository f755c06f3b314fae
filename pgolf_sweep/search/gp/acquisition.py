"""Log expected improvement, accurate far below the incumbent.

Source: Ament et al., 2023, https://arxiv.org/abs/2310.20708.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy.special import erfcx, log_ndtr

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

FAR = -1.0
"""Below this the difference of two nearly equal numbers is replaced by a scaled error function."""
VERY_FAR = -1e6


def log_expected_improvement(mean: Floats, sd: Floats, incumbent: float) -> Floats:
    """Ln E max(incumbent - value, 0) of normal values, where less is better."""
    z = (incumbent - mean) / sd
    return np.log(sd) + _log_h(z)


def _log_h(z: Floats) -> Floats:
    """ln(phi(z) + z Phi(z))."""
    z = np.maximum(z, -1e150)
    log_phi = -z * z / 2 - math.log(2 * math.pi) / 2
    near = np.maximum(z, FAR)
    direct = np.log(np.exp(-near * near / 2) / math.sqrt(2 * math.pi) + near * _ndtr(near))
    far = np.clip(z, VERY_FAR, FAR)
    # phi + z Phi = phi (1 - |z| Phi/phi); Phi/phi is a scaled complementary error function
    ratio = np.abs(far) * math.sqrt(math.pi / 2) * erfcx(np.abs(far) / math.sqrt(2))
    scaled = np.log(np.maximum(1 - ratio, 1e-15))
    very_far = log_phi - 2 * np.log(np.abs(np.minimum(z, FAR)))
    return np.where(z > FAR, direct, np.where(z < -1e3, very_far, log_phi + scaled))


def _ndtr(z: Floats) -> Floats:
    return np.exp(log_ndtr(z))

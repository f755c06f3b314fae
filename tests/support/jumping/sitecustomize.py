"""On PYTHONPATH: a clock that jumps. CLOCK_OFFSET names a file with seconds to add to the time."""

from __future__ import annotations

import os
import time
from pathlib import Path

_true = time.time


def _jumped() -> float:
    try:
        return _true() + float(Path(os.environ["CLOCK_OFFSET"]).read_text())
    except (OSError, KeyError, ValueError):
        return _true()


time.time = _jumped

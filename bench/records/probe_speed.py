"""How long the size probe takes by what changed, and what its short cuts cost in accuracy.

    python bench/records/probe_speed.py SCRIPT [--widths 640 768 896 576]

The first probe starts the helper process. Widths are predicted again by a prober that knows
nothing yet: the last column is how far the quick answer is from the slow one.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf_sweep.gate.physics.predict import Prediction
from pgolf_sweep.gate.probed import Foreign
from pgolf_sweep.script.probe.prober import Prober, stop_helper
from pgolf_sweep.script.program import from_files

if TYPE_CHECKING:
    from pgolf_sweep.core.trial import KnobValue
    from pgolf_sweep.script.program import Program


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("script", type=Path)
    arguments.add_argument("--widths", type=int, nargs="*", default=[640, 768, 896, 576])
    options = arguments.parse_args()
    script = options.script.name
    program = from_files(script, {script: options.script.read_bytes()}, builtin=False)
    warm = foreign(program)
    print(f"{'configuration':24}{'seconds':>10}{'model bytes':>15}{'off by':>9}")
    configurations: list[dict[str, KnobValue]] = [{}, {"NUM_LAYERS": 8}, {"MATRIX_LR": 0.03}]
    for knobs in [*configurations, *({"MODEL_DIM": width} for width in options.widths)]:
        seconds, size = timed(warm, knobs)
        slow = timed(foreign(program), knobs)[1] if "MODEL_DIM" in knobs else size
        text = " ".join(f"{name}={value}" for name, value in knobs.items()) or "defaults"
        print(f"{text:24}{seconds:10.4f}{size:15,.0f}{size / slow - 1:9.2%}")
    stop_helper()


def foreign(program: Program) -> Foreign:
    found = program.knobs.items()
    defaults = {name: knob.default for name, knob in found if knob.default is not None}
    return Foreign(Prober(program), defaults)


def timed(predictions: Foreign, knobs: dict[str, KnobValue]) -> tuple[float, float]:
    started = time.perf_counter()
    found = predictions.expected(knobs)
    seconds = time.perf_counter() - started
    return seconds, found.model_bytes if isinstance(found, Prediction) else float("nan")


if __name__ == "__main__":
    main()

"""The table of `hopper.sh`: step time, loss, memory and start of each part."""

from __future__ import annotations

import re
import sys
from pathlib import Path

NUMBERS = {
    "step_ms": r"step_avg:([\d.]+)ms",
    "train_loss": r"train_loss:([\d.]+)",
    "peak_mib": r"peak memory allocated: (\d+) MiB",
    "params": r"model_params:(\d+)",
}


def read(log: Path) -> dict[str, float]:
    """The last of each number that a log has, and the seconds of the whole run."""
    text = log.read_text(errors="replace")
    found = {name: re.findall(pattern, text) for name, pattern in NUMBERS.items()}
    values = {name: float(hits[-1]) for name, hits in found.items() if hits}
    return values | {"seconds": float(log.with_suffix(".seconds").read_text())}


def main(folder: Path) -> None:
    """Print one line a part, and ours over theirs where both ran."""
    parts = {log.stem: read(log) for log in sorted(folder.glob("*.log"))}
    columns = [*NUMBERS, "seconds"]
    print("part".ljust(16), *(name.rjust(12) for name in columns))
    for part, values in parts.items():
        cells = (f"{values[name]:,.4g}" if name in values else "-" for name in columns)
        print(part.ljust(16), *(cell.rjust(12) for cell in cells))
    steps = {
        side: [parts[f"{side}_{turn}"]["step_ms"] for turn in (1, 2) if f"{side}_{turn}" in parts]
        for side in ("ours", "theirs")
    }
    if steps["theirs"]:
        ratio = sum(steps["ours"]) / sum(steps["theirs"])
        print(f"ours / theirs, A/B/A/B: {ratio:.3f} of the step (bar: 0.94)")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

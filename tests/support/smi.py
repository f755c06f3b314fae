"""A stand-in for nvidia-smi, since no test machine has a GPU: it says what a file says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

SMI = """#!/bin/sh
exec {python} -S -E - "$1" <<'EOF'
import json, os, sys, time
said = json.load(open(os.environ["FAKE_SMI"]))
time.sleep(said["hang_seconds"])
if said["error"]:
    print(said["error"])
    sys.exit(9)
rows = said["gpus"] if sys.argv[1].startswith("--query-gpu") else said["apps"]
for row in rows:
    print(", ".join(str(cell) for cell in row))
EOF
"""


@dataclass(frozen=True)
class Card:
    """One GPU as nvidia-smi would list it."""

    index: int
    used_mib: int = 4
    name: str = "NVIDIA H100 80GB HBM3"
    driver: str = "550.90.07"

    @property
    def row(self) -> list[Any]:
        return [self.index, f"GPU-{self.index}", self.name, self.driver, self.used_mib]


def install(folder: Path, python: str) -> Path:
    """Put the stand-in into a folder for the PATH."""
    folder.mkdir(exist_ok=True)
    program = folder / "nvidia-smi"
    program.write_text(SMI.format(python=python))
    program.chmod(0o755)
    return folder


def say(
    file: Path,
    *cards: Card,
    apps: tuple[tuple[str, int, str], ...] = (),
    error: str = "",
    hang_seconds: float = 0.0,
) -> Path:
    """Have it list these; `apps` are the card's uuid, a process and its name."""
    said = {
        "gpus": [card.row for card in cards],
        "apps": apps,
        "error": error,
        "hang_seconds": hang_seconds,
    }
    file.write_text(json.dumps(said))
    return file

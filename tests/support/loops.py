"""The loops of the documentation, run as they stand there in a folder of their own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "tests" / "data" / "scripts" / "good.py"


def block_of(page: str, begins: str, language: str = "sh") -> str:
    """The one block of a page of docs/ that begins so."""
    text = (ROOT / "docs" / page).read_text()
    (block,) = re.findall(rf"```{language}\n({re.escape(begins)}\n.*?)```", text, re.DOTALL)
    return str(block)


def desk(folder: Path, sweep: str) -> dict[str, str]:
    """Put a sweep file and its script into a folder; the environment that finds our commands."""
    (folder / "sweeps").mkdir()
    shutil.copy(SCRIPT, folder / "sweeps")
    (folder / "sweeps" / "mine.yaml").write_text(sweep)
    commands = str(Path(sys.executable).parent)
    env = {**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}
    return env | {"WANDB_MODE": "disabled", "COLUMNS": "160"}


def typed(block: str, folder: Path, env: dict[str, str], *, seconds: float) -> str:
    """What a shell prints that runs a block to its end."""
    done = subprocess.run(
        ["bash", "-c", block],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

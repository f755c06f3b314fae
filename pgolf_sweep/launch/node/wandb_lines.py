"""The worker's end of `wandb_join`: the environment that it needs, the lines that it writes."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

from pgolf_sweep.launch.node import wandb_join
from pgolf_sweep.script.logs.metric import logged_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MOST_BYTES = 1 << 20
"""Read at once; what is beyond waits for the next look."""


class WandbJoin:
    """What a script that may use W&B needs to join the trial's run.

    Args:
        folder: A folder of its own, outside the script's working folder.
        config: The trial's parameters, which become ``wandb.config``.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        folder.mkdir()
        self._hook = folder
        self._log = folder / "log.jsonl"
        self._config = folder / "config.json"
        self._config.write_text(json.dumps(dict(config)))
        self._log.touch()
        self._offset = 0
        shutil.copyfile(wandb_join.__file__, folder / "sitecustomize.py")

    @staticmethod
    def concerns(files: Mapping[str, bytes]) -> bool:
        """Whether any of a program's Python files speaks of wandb."""
        return any(b"wandb" in data for name, data in files.items() if name.endswith(".py"))

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """The script's environment with the hook in it; without it, W&B stays silent."""
        path = os.pathsep.join(filter(None, (str(self._hook), env.get("PYTHONPATH", ""))))
        return {
            **env,
            "PYTHONPATH": path,
            "WANDB_MODE": "disabled",
            wandb_join.LOG: str(self._log),
            wandb_join.CONFIG: str(self._config),
        }

    def news(self) -> list[tuple[dict[str, Any], int | None]]:
        """Values and steps of the full lines since the last look."""
        try:
            with self._log.open("rb") as file:
                file.seek(self._offset)
                data = file.read(MOST_BYTES)
        except OSError:
            return []  # the script removed it; its log says the rest
        cut = data.rfind(b"\n") + 1
        self._offset += cut or (len(data) if len(data) == MOST_BYTES else 0)
        found = [logged_line(line) for line in data[:cut].splitlines()]
        return [one for one in found if one[0]]

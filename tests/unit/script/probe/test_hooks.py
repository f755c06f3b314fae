"""What a probed script may change on the disk: its own folder, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CODE = """
import os, shutil, sys
from pathlib import Path
from pgolf_sweep.script.probe.contain.hooks import write_only_below
place, outside = Path(sys.argv[1]), Path(sys.argv[2])
write_only_below(place)
(place / "own").write_text("x")
(place / "own").rename(place / "renamed")
tries = (
    lambda: (outside / "note").write_text("x"),
    lambda: open(outside / "kept", "a"),
    lambda: os.open(outside / "fd", os.O_WRONLY | os.O_CREAT),
    lambda: (outside / "folder").mkdir(),
    lambda: (outside / "kept").unlink(),
    lambda: (place / "renamed").rename(outside / "moved"),
    lambda: (place / ".." / outside.name / "up").write_text("x"),
    lambda: os.remove("kept", dir_fd=os.open(outside, os.O_RDONLY)),
    lambda: shutil.rmtree(outside),
)
for number, attempt in enumerate(tries):
    try:
        attempt()
    except PermissionError:
        continue
    sys.exit(f"attempt {number} was not refused")
assert (outside / "kept").read_text() == "kept"
"""


def test_changes_outside_the_folder_are_refused(tmp_path: Path) -> None:
    place, outside = tmp_path / "place", tmp_path / "outside"
    place.mkdir()
    outside.mkdir()
    (outside / "kept").write_text("kept")
    words = [sys.executable, "-c", CODE, str(place), str(outside)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in outside.iterdir()] == ["kept"]
    assert [path.name for path in place.iterdir()] == ["renamed"]

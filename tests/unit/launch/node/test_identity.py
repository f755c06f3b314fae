"""A copy of the program is the same as another by its sources."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from pgolf_sweep.launch.node.identity import PACKAGE, code_of

if TYPE_CHECKING:
    from pathlib import Path


def test_copy_that_ray_brings_to_a_node_is_the_same_until_its_source_differs(
    tmp_path: Path,
) -> None:
    copy = tmp_path / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))  # links followed
    assert code_of(copy) == code_of(PACKAGE)
    (copy / "core" / "locks.py").write_text("")
    assert code_of(copy) != code_of(PACKAGE)

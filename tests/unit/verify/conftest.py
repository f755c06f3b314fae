"""Promotions whose seeds a simulated launcher runs."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from support.promotions import Bench
from support.promotions import bench as bench  # noqa: PLC0414 - a fixture is found by its name
from support.repositories import git

from pgolf_sweep.config.rules import load_rules

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that passes every rule but `log_source`; not to be changed."""
    root = tmp_path_factory.mktemp("good")
    return Bench(root=root, rules=load_rules("demo", base=root)).promote().folder


@pytest.fixture
def repository(tmp_path: Path, good: Path) -> Path:
    """A contest's repository: one record on main, another on a branch, which is checked out."""
    root = tmp_path / "contest"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch=main")
    shutil.copytree(good, root / "records" / "demo" / "first")
    (root / "train_gpt.py").write_text("print('baseline')\n")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "first")
    git(root, "checkout", "--quiet", "-b", "mine")
    shutil.copytree(good, root / "records" / "demo" / "second")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "second")
    return root

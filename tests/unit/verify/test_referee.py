"""The GitHub Action and the pre-commit hook: their command lines judge a real repository."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.repositories import git

ROOT = Path(__file__).parents[3]
ACTION = yaml.safe_load((ROOT / "referee" / "action.yml").read_text())
(HOOK,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
NEEDED = {
    line.strip()
    for line in (ROOT / "referee" / "requirements.txt").read_text().splitlines()
    if not line.startswith("#")
}
ONLY_NEEDED = """
import importlib.metadata, re, sys

def closure(names):
    found, left = set(), list(names)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name in found:
            continue
        found.add(name)
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another system
        for line in lines:
            if "extra ==" not in line:
                left.append(re.match(r"[A-Za-z0-9._-]+", line)[0])
    return found

allowed = closure(sys.argv.pop(1).split(","))
modules = {
    module
    for module, owners in importlib.metadata.packages_distributions().items()
    if not {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners} & allowed
} - {"pgolf_sweep", "trainer"}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in modules:
            raise ModuleNotFoundError(f"not installed by the action: {name}", name=name)

sys.meta_path.insert(0, Absent())
from pgolf_sweep.cli import main
main()
"""


def step(name: str) -> dict[str, Any]:
    return next(one for one in ACTION["runs"]["steps"] if one.get("name") == name)


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """An environment in which `pgolf-sweep` is found and has what the action installs alone."""
    program = tmp_path / "bin" / "pgolf-sweep"
    program.parent.mkdir()
    (program.parent / "only_needed.py").write_text(ONLY_NEEDED)
    words = [sys.executable, str(program.parent / "only_needed.py"), ",".join(sorted(NEEDED))]
    program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    program.chmod(0o755)
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    return env | {"PATH": f"{program.parent}:{env['PATH']}", "PYTHONPATH": str(ROOT)}


def acted(repository: Path, env: dict[str, str], **inputs: str) -> subprocess.CompletedProcess[str]:
    """The action's command with inputs as GitHub gives them, in a checkout."""
    given = {name: one.get("default", "") for name, one in ACTION["inputs"].items()}
    assert inputs.keys() <= given.keys()
    given |= inputs
    values = {key: given[key.lower()] for key in step("verify")["env"]}
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step("verify")["run"]],
        cwd=repository,
        env=env | values,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_action_judges_what_a_pull_request_adds(
    repository: Path, installed: dict[str, str]
) -> None:
    done = acted(repository, installed, rules="demo", base="main")
    assert done.returncode == 0, done.stderr
    assert "records/demo/second passes demo" in done.stdout + done.stderr
    assert "records/demo/first" not in done.stdout + done.stderr
    done = acted(repository, installed, rules="demo", base="main", strict="true")
    assert done.returncode == 1, done.stderr
    folders = "records/demo/first\n\nrecords/demo/second\n"
    done = acted(repository, installed, rules="demo", folders=folders)
    assert done.returncode == 0, done.stderr
    (repository / "records/demo/second/submission.json").unlink()
    assert acted(repository, installed, rules="demo", base="main").returncode == 1


def test_the_action_demands_rules_and_runs_no_text_of_its_inputs(
    repository: Path, installed: dict[str, str]
) -> None:
    done = acted(repository, installed, base="main")
    assert done.returncode != 0
    assert "name the rules" in done.stderr
    hostile = "--help\n$(touch ran)\n; touch ran"
    assert acted(repository, installed, rules="demo", folders=hostile).returncode == 2
    assert not (repository / "ran").exists()
    for one in ACTION["runs"]["steps"]:
        assert "${{" not in one.get("run", "")


def test_the_action_installs_from_where_it_lies() -> None:
    install = step("install")
    assert install["working-directory"] == "${{ github.action_path }}"
    named = re.findall(r"--(?:constraint|requirement) (\S+)", install["run"])
    assert len(named) == 2
    assert all((ROOT / "referee" / name).is_file() for name in named)
    assert "--no-deps ..\n" in install["run"]
    assert (ROOT / "pyproject.toml").is_file()


def test_the_hook_judges_what_is_staged(repository: Path, installed: dict[str, str]) -> None:
    def hooked() -> int:
        words = [*shlex.split(HOOK["entry"]), *HOOK["args"], "--rules", "demo"]
        done = subprocess.run(words, cwd=repository, env=installed, check=False)
        return done.returncode

    assert HOOK["pass_filenames"] is False
    assert hooked() == 0  # nothing is staged
    readme = repository / "records/demo/second/README.md"
    readme.write_text(readme.read_text() + "\nMore.\n")
    git(repository, "add", ".")
    staged = git(repository, "diff", "--cached", "--name-only").splitlines()
    assert staged
    assert all(re.search(HOOK["files"], name) for name in staged)
    assert hooked() == 0
    readme.unlink()
    git(repository, "add", ".")
    assert hooked() == 1

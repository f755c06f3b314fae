"""The wheel, alone in an environment that has its dependencies, is a working program."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "ray", "optuna", "wandb", "pandas", "typer", "yaml", "pydantic", "numpy")
SOURCES = ("pgolf_sweep", "trainer", "sweeps", "cluster")
FILES = ("pyproject.toml", "README.md", "LICENSE", "constraints.txt")

pytestmark = [pytest.mark.slow, pytest.mark.ray]


def built_wheel(folder: Path) -> Path:
    source = folder / "source"
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name, symlinks=True)
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    words = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", *words, str(source)], check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the wheel; what it needs is lent by this one's folders."""
    folder = tmp_path_factory.mktemp("install")
    home = folder / "env"
    venv.create(home, with_pip=False, symlinks=True)
    site = next(home.glob("lib/python*/site-packages"))
    found = {find_spec(name).submodule_search_locations[0] for name in PACKAGES}
    # Plain folders: no .pth in them is read, so that no checkout comes along.
    lent = sorted({str(Path(place).parent) for place in found})
    (site / "lent.pth").write_text("".join(f"{place}\n" for place in lent))
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python")]
    wheel = str(built_wheel(folder))
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    return home / "bin"


def run(installed: Path, folder: Path, *words: str) -> str:
    env = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PGOLF_RUNS"}}
    env |= {"OMP_NUM_THREADS": "1", "PATH": f"{installed}:{env['PATH']}"}
    done = subprocess.run(
        [str(installed / "pgolf-sweep"), *words],
        cwd=folder, env=env, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_program_is_the_wheels(installed: Path, tmp_path: Path) -> None:
    code = "import pgolf_sweep, trainer; print(pgolf_sweep.__file__, trainer.__file__)"
    done = subprocess.run(
        [str(installed / "python"), "-c", code],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert all(path.startswith(str(installed.parent)) for path in done.stdout.split())
    metadata = next(installed.parent.glob("lib/*/site-packages/pgolf_sweep-*/METADATA")).read_text()
    pins = [line for line in metadata.splitlines() if line.startswith("Requires-Dist: torch")]
    assert pins == ["Requires-Dist: torch>=2.5"], "a torch that is already there is kept"


def test_a_project_is_begun_and_swept_away_from_the_checkout(
    installed: Path, tmp_path: Path
) -> None:
    golf = tmp_path / "golf"
    made = json.loads(run(installed, tmp_path, "init", "golf", "--json"))
    assert made["kept"] == []
    for name in ("train_gpt.py", "rules/demo.yaml", "cluster/slurm/sweep.sbatch", ".gitignore"):
        assert (golf / name).is_file(), name
    assert os.access(golf / "cluster/local/node.sh", os.X_OK)
    for sweep in sorted((golf / "sweeps").glob("*.yaml")):
        run(installed, golf, "plan", str(sweep), "--draws", "20")
    run(installed, golf, "data", "demo")
    short = ["--knob", "ITERATIONS=20", "--knob", "VAL_LOSS_EVERY=10", "--run-cap", "2"]
    axes = ["--width", "64", "--depth", "2", "--from", "sweeps/demo.yaml"]
    run(installed, golf, "define", "sweeps/small.yaml", *axes, *short)
    run(installed, golf, "launch", "sweeps/small.yaml", "--slots", "1")
    best = json.loads(run(installed, golf, "best", "small", "--json"))["trials"][0]
    assert best["artifact_bytes"] < 300_000
    assert (golf / "runs/small/program/train_gpt.py").is_file()

"""A missing requirement of a script is reported before the script starts."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

from pgolf_sweep.core.trial import EndCause, Limits, Resources, TrialSpec
from pgolf_sweep.launch.node.run import RunOrder
from pgolf_sweep.launch.node.worker import Worker
from pgolf_sweep.script.program import load_program
from pgolf_sweep.script.requirements import lacking

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = b"""
import numpy
import no_such_package.part
try:
    import optional_thing
except ImportError:
    pass
"""


def lacks(requirements: str) -> list[tuple[str, bool]]:
    files = {"train_gpt.py": SCRIPT, "requirements.txt": requirements.encode()}
    return [(lack.requirement, lack.installed is None) for lack in lacking(files, "train_gpt.py")]


def test_missing_package_that_the_script_imports_is_lacking() -> None:
    assert lacks("no-such-package>=1\nnumpy\n") == [("no-such-package>=1", True)]


def test_package_that_the_script_does_not_need_is_not_asked_for() -> None:
    assert lacks("datasets-of-another-script\noptional-thing==2\n") == []


def test_other_version_is_noted_and_a_good_one_is_not() -> None:
    assert lacks("numpy>=999 # new\n") == [("numpy>=999", False)]
    assert lacks("numpy>=1.0,<999\n-r other.txt\n") == []


HERE = version("numpy")
MAJOR, MINOR = HERE.split(".")[:2]


@pytest.mark.parametrize(
    ("requirement", "met"),
    [
        (f"numpy=={HERE}", True),
        (f"numpy=={MAJOR}.{MINOR}.*", True),
        (f"numpy~={MAJOR}.0", True),
        (f"numpy!={HERE}", False),
        ("numpy~=1.20", False),
        ("numpy==1.20.*", False),
        ("numpy<1; python_version < '3'", True),
        ("numpy<1; python_version >= '3'", False),
        ("NumPy[extra] (>=1)", True),
        ("numpy==1.0 \\\n    --hash=sha256:0", False),
        ("./numpy", True),
        ("numpy @ https://example.org/numpy.whl", True),
    ],
)
def test_versions_mean_what_pip_takes_them_for(requirement: str, met: bool) -> None:
    assert (lacks(requirement) == []) is met


def test_a_distribution_of_another_name_is_known_by_its_modules() -> None:
    files = {"train_gpt.py": b"import yaml\n", "requirements.txt": b"PyYAML>=999\n"}
    assert [lack.requirement for lack in lacking(files, "train_gpt.py")] == ["PyYAML>=999"]


def test_program_takes_its_requirements_and_siblings_along(tmp_path: Path) -> None:
    (tmp_path / "train_gpt.py").write_text("import os\nX = os.environ.get('X', 1)\n")
    (tmp_path / "requirements.txt").write_text("numpy\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "one.py").write_text("A = 1\n")
    program = load_program("train_gpt.py", base=tmp_path, extra_files=["parts/*.py"])
    assert set(program.files) == {"train_gpt.py", "requirements.txt", "parts/one.py"}


def test_script_of_a_newer_python_and_one_beside_it_have_their_imports_seen() -> None:
    files = {
        "train_gpt.py": b"exec(open('inner.py').read())",
        "inner.py": b"import no_such_package\nprint(f'{'a'}')\n",
        "requirements.txt": b"no-such-package\n",
    }
    assert [lack.requirement for lack in lacking(files, "train_gpt.py")] == ["no-such-package"]
    assert [lack.requirement for lack in lacking(files, "inner.py")] == ["no-such-package"]


def test_run_is_refused_where_a_package_is_missing(tmp_path: Path) -> None:
    spec = TrialSpec(
        study="s", number=0, knobs={}, env={}, program_name="train_gpt.py", program_sha256="0",
        resources=Resources(gpus=0, cpus=1.0),
        limits=Limits(total_seconds=30, silent_seconds=30), proposer="test",
    )  # fmt: skip
    files = {"train_gpt.py": SCRIPT, "requirements.txt": b"no-such-package\n"}
    worker = Worker(tmp_path)
    try:
        worker.start(RunOrder(run="r", node="here", spec=spec, files=files))
        cursor, end = (0, 0), None
        while end is None:
            progress = worker.poll("r", cursor, 5.0)
            cursor, end = progress.cursor, progress.end
    finally:
        worker.close()
    assert end.cause is EndCause.MISSING_DEPENDENCY
    assert "requirements.txt asks for no-such-package; it is not installed" in end.detail

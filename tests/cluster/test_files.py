"""Every file of cluster/ is linted, explained, without secrets, and listed in the index."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml
from support.namespaces import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

CLUSTER = PROJECT / "cluster"
FILES = sorted(path for path in CLUSTER.rglob("*") if path.is_file() and path.suffix != ".pyc")
SHELL = [path for path in FILES if path.suffix in {".sh", ".sbatch"}]
YAML = [path for path in FILES if path.suffix == ".yaml"]
PLATFORMS = ("local", "slurm", "ray-cluster", "kubernetes", "skypilot", "runpod")
SECRET = re.compile(
    r"(AKIA[0-9A-Z]{16}|hf_\w{20}|ghp_\w{20}|sk-\w{20}|[0-9a-f]{40}|://[^/\s$]+:[^/\s$]+@)"
)


def name(path: Path) -> str:
    return str(path.relative_to(CLUSTER))


def head(path: Path) -> str:
    """The comment at the top of a file, without its marks."""
    lines = path.read_text().removeprefix("#!/usr/bin/env bash\n").splitlines()
    comment = []
    for line in lines:
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# "))
    return "\n".join(comment)


def shell_of(path: Path) -> str:
    """The shell that a SkyPilot file holds, as one script."""
    document = yaml.safe_load(path.read_text())
    return "#!/usr/bin/env bash\n" + document["setup"] + document["run"]


@pytest.mark.parametrize("path", SHELL, ids=name)
def test_a_shell_file_is_strict_executable_and_passes_shellcheck(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    assert path.stat().st_mode & 0o111 or path.suffix == ".sbatch"
    subprocess.run(["bash", "-n", path], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (Debian: shellcheck)")
    done = subprocess.run(["shellcheck", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_shell_inside_the_skypilot_file_passes_shellcheck(tmp_path: Path) -> None:
    script = tmp_path / "sweep.sh"
    script.write_text(shell_of(CLUSTER / "skypilot" / "sweep.yaml"))
    subprocess.run(["bash", "-n", script], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (Debian: shellcheck)")
    # SkyPilot sets variables that shellcheck cannot know of: SC2154.
    words = ["shellcheck", "--exclude=SC2154", script]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def put_programs(folder: Path, programs: dict[str, str]) -> None:
    """Stand-ins for programs, a line of bash each."""
    for program, line in programs.items():
        file = folder / program
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/usr/bin/env bash\n{line}\n")
        file.chmod(0o755)


def test_a_slurm_job_that_cannot_copy_its_study_ends_ray_and_says_where_the_study_is(
    tmp_path: Path,
) -> None:
    programs = {
        "rsync": '[[ ${*: -1} != "$PWD/runs/"* ]]',  # what is copied back to runs is refused
        "srun": 'echo 0 >"$local_runs/exit-code"',
        "ray": 'echo "ray $*" >>done',
        "pgolf-sweep": "true",
        "scontrol": 'echo "scontrol $*" >>done',
    }
    put_programs(tmp_path / ".venv" / "bin", programs)
    (tmp_path / "lr.yaml").touch()
    env = {
        "PATH": os.environ["PATH"],
        "LOCAL_DISK": str(tmp_path / "disk"),
        "HEAD_ADDRESS": "10.0.0.1",
        "SLURM_JOB_ID": "7",
        "SLURM_NNODES": "1",
        "SLURM_CPUS_ON_NODE": "2",
        "SLURM_GPUS_ON_NODE": "8",
    }
    words = ["bash", CLUSTER / "slurm" / "sweep.sbatch", "lr.yaml"]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert (tmp_path / "done").read_text() == "ray stop --force\n"
    kept = tmp_path / "disk" / "pgolf-job-7"
    assert f"all of it is in {kept} on" in done.stderr
    assert (kept / "exit-code").is_file()


@pytest.mark.parametrize(
    ("rank", "there", "done"),
    [
        ("0", "no", ["node.sh head", "launch"]),
        ("1", "no", ["node.sh join 10.0.0.1"]),
        ("0", "yes", ["launch"]),
        ("1", "yes", []),
    ],
)
def test_the_skypilot_file_starts_ray_once_a_node_however_often_it_is_run(
    tmp_path: Path, rank: str, there: str, done: list[str]
) -> None:
    document = yaml.safe_load((CLUSTER / "skypilot" / "sweep.yaml").read_text())
    pgrep = '[[ $2 == *gcs-address=10.0.0.1:6379 && "$THERE" == yes ]]'
    programs = {
        "pgrep": pgrep,
        ".venv/bin/pgolf-sweep": 'echo "$1" >>done',
        "cluster/local/node.sh": 'echo "node.sh ${*%%--*}" | xargs >>done',
    }
    put_programs(tmp_path, programs)
    env = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
        "SKYPILOT_NODE_RANK": rank,
        "SKYPILOT_NUM_GPUS_PER_NODE": "8",
        "THERE": there,
        **document["envs"],
    }
    (tmp_path / "done").touch()
    subprocess.run(["bash", "-c", document["run"]], cwd=tmp_path, env=env, check=True)
    assert (tmp_path / "done").read_text().splitlines() == done


@pytest.mark.parametrize("path", YAML, ids=name)
def test_a_yaml_file_has_no_key_twice_and_no_long_line(path: Path) -> None:
    class NoTwice(yaml.SafeLoader):
        pass

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[str, object]:
        keys = [loader.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key twice, line {node.start_mark.line + 1}: {keys}"
        return dict(loader.construct_pairs(node, deep=True))

    NoTwice.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    text = path.read_text()
    assert all(isinstance(document, dict) for document in yaml.load_all(text, NoTwice))
    assert max(map(len, text.splitlines())) <= 100
    assert "\t" not in text


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_file_holds_a_secret(path: Path) -> None:
    assert not SECRET.search(path.read_text())


@pytest.mark.parametrize(
    "path",
    [
        CLUSTER / "local" / "node.sh",
        CLUSTER / "slurm" / "sweep.sbatch",
        CLUSTER / "ray-cluster" / "aws.yaml",
        CLUSTER / "kubernetes" / "rayjob.yaml",
        CLUSTER / "skypilot" / "sweep.yaml",
        CLUSTER / "runpod" / "sweep.sh",
    ],
    ids=name,
)
def test_a_platforms_file_says_how_it_is_used_what_it_costs_and_what_was_not_run(
    path: Path,
) -> None:
    said = head(path)
    for word in (
        "Usage",
        "up",
        "launch",
        "down",
        "Assumes",
        "Costs",
        "dollars",
        "Tested",
        "Not run",
    ):
        assert re.search(rf"\b{word}\b", said), word
    assert re.search(r"Ports: |reach each other on all ports", said)
    for test in re.findall(r"tests/cluster/\w+\.py", said):
        assert (PROJECT / test).is_file()


def test_the_index_names_every_platform_and_every_file_that_it_names_is_there() -> None:
    index = (CLUSTER / "README.md").read_text()
    for platform in PLATFORMS:
        assert f"({platform}/" in index
    for link in re.findall(r"\]\(([^)#:]+)\)", index):
        assert (CLUSTER / link).exists(), link


def test_every_file_takes_the_ray_that_this_project_is_tested_with() -> None:
    pinned = re.search(r"^ray==(\S+)", (PROJECT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    for path in FILES:
        for version in re.findall(
            r"(?:rayproject/ray:|rayVersion: )(\d+\.\d+\.\d+)", path.read_text()
        ):
            assert version == pinned[1], name(path)

"""The sbatch file, unchanged, on a real Slurm whose nodes are namespaces of this machine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.namespaces import PROJECT
from support.slurm import Slurm, why_no_slurm

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(700)]

SWEEP = """
program: good.py
method: random
run_cap: 6
parameters:
  MATRIX_LR: {distribution: log_uniform_values, min: 0.005, max: 0.08}
  ITERATIONS: {value: 20}
  STEP_SECONDS: {value: 0.2}
pgolf: {rules: demo, resources: {gpus: 8}}
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Three nodes with eight GPUs each, and a checkout on the file system that they share."""
    if reason := why_no_slurm():
        pytest.skip(reason)
    with Slurm(tmp_path_factory.mktemp("slurm"), nodes=3) as made:
        (made.shared / ".venv").symlink_to(sys.prefix)
        shutil.copy(PROJECT / "cluster" / "slurm" / "sweep.sbatch", made.shared)
        shutil.copy(PROJECT / "tests" / "data" / "scripts" / "good.py", made.shared)
        for name in ("night", "cut"):
            (made.shared / f"{name}.yaml").write_text(SWEEP)
        (made.shared / "own.yaml").write_text(SWEEP.replace("run_cap: 6", "run_cap: 2"))
        yield made


def submit(slurm: Slurm, nodes: int, words: str) -> int:
    """Number of a job that is in the queue."""
    settings = {"COPY_SECONDS": "5", "WANDB_MODE": "disabled"}
    said = slurm.enter(f"sbatch --parsable --nodes={nodes} sweep.sbatch {words}", **settings)
    assert said.returncode == 0, said.stderr
    return int(said.stdout)


def job(slurm: Slurm, number: int) -> dict[str, str]:
    """What Slurm says of a job."""
    return dict(re.findall(r"(\w+)=(\S*)", slurm.run(f"scontrol show job {number}")))


def has_ended(slurm: Slurm, number: int) -> bool:
    return job(slurm, number)["JobState"] not in {"PENDING", "RUNNING", "COMPLETING", "REQUEUED"}


def said_by(slurm: Slurm, number: int) -> str:
    file = slurm.shared / f"pgolf-sweep-{number}.log"
    return file.read_text(errors="replace") if file.is_file() else ""


def trials(slurm: Slurm, study: str) -> list[dict[str, Any]]:
    words = [sys.executable, "-m", "pgolf_sweep", "trials", study, "--json"]
    done = subprocess.run(words, cwd=slurm.shared, capture_output=True, text=True, check=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout)["trials"]
    return rows


def left_behind(slurm: Slurm) -> list[str]:
    """Processes of a job, and what it kept on the nodes' own disks."""
    ours = ("raylet", "gcs_server", "good.py", "pgolf-sweep", "symmetric-run", "ray::")
    found = [words for words in slurm.processes() if any(name in words for name in ours)]
    kept = slurm.run("srun --nodes=3 --ntasks-per-node=1 sh -c 'ls -d /tmp/pgolf-job-* || true'")
    return found + kept.split()


def test_a_sweep_on_two_nodes_that_the_time_limit_cuts_goes_on_in_the_next_run_of_its_job(
    slurm: Slurm,
) -> None:
    number = submit(slurm, 2, "night.yaml")
    slurm.wait_for((slurm.shared / "runs" / "night" / "slurm-job").is_file, 60.0)
    second = submit(slurm, 1, "night.yaml")  # on the third node
    slurm.wait_for(lambda: has_ended(slurm, second), 60.0)
    assert job(slurm, second)["ExitCode"] == "2:0"
    assert f"study night is being swept by job {number}" in said_by(slurm, second)

    slurm.wait_for(lambda: "val_bpb" in said_by(slurm, number), 200.0)
    # What Slurm sends by itself when the time limit is near.
    assert slurm.enter(f"scancel --batch --signal=USR1 {number}").returncode == 0
    slurm.wait_for(lambda: "goes back into the queue" in said_by(slurm, number), 120.0)
    done = {row["number"]: row for row in trials(slurm, "night") if row["outcome"] == "completed"}
    assert 0 < len(done) < 6

    slurm.wait_for(lambda: has_ended(slurm, number), 240.0)
    end = job(slurm, number)
    assert (end["JobState"], end["ExitCode"], end["Restarts"]) == ("COMPLETED", "0:0", "1")
    rows = trials(slurm, "night")
    assert [row["number"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert {row["outcome"] for row in rows} == {"completed"}
    assert {row["node"] for row in rows} == {"node1", "node2"}
    assert {n: row["ended_at"] for n, row in done.items()}.items() <= {
        row["number"]: row["ended_at"] for row in rows
    }.items()
    assert (slurm.shared / "runs" / "night" / "trials" / "0" / "final_model.int8.ptz").is_file()
    assert left_behind(slurm) == []


def test_a_cancelled_job_leaves_its_finished_trials_and_nothing_on_the_nodes(slurm: Slurm) -> None:
    number = submit(slurm, 1, "cut.yaml")
    slurm.wait_for(lambda: "val_bpb" in said_by(slurm, number), 200.0)
    assert slurm.enter(f"scancel {number}").returncode == 0
    slurm.wait_for(lambda: has_ended(slurm, number), 180.0)
    outcomes = [row["outcome"] for row in trials(slurm, "cut")]
    assert outcomes.count("completed") >= 1
    assert left_behind(slurm) == []


def test_a_job_whose_sweep_file_is_not_there_says_so_and_starts_no_ray(slurm: Slurm) -> None:
    number = submit(slurm, 1, "nowhere.yaml")
    slurm.wait_for(lambda: has_ended(slurm, number), 60.0)
    assert job(slurm, number)["ExitCode"] == "2:0"
    assert "no sweep file nowhere.yaml in /srv; submit from the checkout" in said_by(slurm, number)


def test_machines_of_ones_own_join_sweep_and_go_down(slurm: Slurm) -> None:
    """The nodes serve as machines here: srun stands for a login on each."""
    node = PROJECT / "cluster" / "local" / "node.sh"
    gpus = "--num-gpus=8 --num-cpus=8 --include-dashboard=false"

    def on(machine: str, command: str) -> subprocess.CompletedProcess[str]:
        done = slurm.enter(f"srun --nodelist={machine} --nodes=1 {command}", timeout=200.0)
        assert done.returncode == 0, done.stderr + slurm.log()
        return done

    refused = slurm.enter(f"HEAD_ADDRESS=8.8.8.8 {node} head")
    assert refused.returncode == 2
    assert "8.8.8.8 is no address of a private network" in refused.stderr
    assert "join 10.77.0.11 " in on("node1", f"{node} head {gpus}").stderr
    on("node2", f"{node} join 10.77.0.11 {gpus.rpartition(' ')[0]}")
    launch = f"{sys.executable} -m pgolf_sweep launch own.yaml --address 10.77.0.11:6379"
    on("node1", f"{launch} --runs /srv/runs --wandb disabled")
    rows = trials(slurm, "own")
    assert [row["outcome"] for row in rows] == ["completed", "completed"]
    assert {row["node"] for row in rows} == {"node1", "node2"}
    for machine in ("node2", "node1"):
        on(machine, f"{node} down")
    slurm.wait_for(lambda: left_behind(slurm) == [], 30.0)

from __future__ import annotations

import json
import resource
import time
import tomllib
from pathlib import Path

import pytest
from support.clusters import HEAD
from typer.testing import CliRunner

from pgolf_sweep.cli import app
from pgolf_sweep.data import locate
from pgolf_sweep.workflows import doctor
from pgolf_sweep.workflows import doctor_machine as machine
from pgolf_sweep.workflows import doctor_software as software
from pgolf_sweep.workflows.doctor import Needs
from pgolf_sweep.workflows.doctor_check import GB, Grade
from pgolf_sweep.workflows.doctor_software import Gpu

H100 = Gpu(name="H100", memory_bytes=80 * GB)
ROOT = Path(__file__).parents[3]


def test_libraries_are_those_of_the_project_file() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = {
        name.partition("[")[0]: least
        for name, _, least in (line.partition(">=") for line in declared)
        if name != "torch"
    }
    assert dict(software.LIBRARIES.values()) == wanted


def test_missing_old_and_broken_libraries_are_each_named() -> None:
    versions = {name: "9999.0" for name, _ in software.LIBRARIES.values()}
    assert software.judge_libraries(versions, {}).verdict is Grade.OK
    del versions["pandas"]
    versions["optuna"] = "4.9.1"
    check = software.judge_libraries(versions, {"brotli": "ImportError: no symbol"})
    assert check.verdict is Grade.FAIL
    assert "pandas is missing" in check.observed
    assert "optuna 4.9.1 is older than 5" in check.observed
    assert "brotli 9999.0 does not import: ImportError: no symbol" in check.observed
    assert check.next_step


def test_import_that_fails_is_reported_and_one_that_works_is_not() -> None:
    errors = software.import_errors(["json", "no_such_module_anywhere"])
    assert errors == {
        "no_such_module_anywhere": "ModuleNotFoundError: No module named 'no_such_module_anywhere'"
    }


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.abort()", "exit code -6"),
        ("raise RuntimeError('driver too old')", "RuntimeError: driver too old"),
        ("print('no json')", "exit code 0"),
    ],
)
def test_probe_that_dies_gives_a_reason(code: str, reason: str) -> None:
    assert software.probe(code) == {"error": reason}


def test_probe_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "_PROBE_SECONDS", 0.3)
    # Were it waited for, the test's own time limit would end it.
    assert "no answer" in software.probe("import time; time.sleep(1000)")["error"]


def test_torch_is_judged_by_import_and_version() -> None:
    sound = {"version": "2.13.0+cpu", "cuda": None, "gpus": []}
    assert software.judge_torch(sound).verdict is Grade.OK
    assert software.judge_torch({**sound, "version": "2.9.1"}).verdict is Grade.FAIL
    assert software.judge_torch({"error": "libcudart missing"}).observed == "libcudart missing"
    assert software.judge_torch({"error": "libcudart missing"}).verdict is Grade.FAIL


@pytest.mark.parametrize(
    ("count", "needed", "verdict"),
    [
        (0, None, Grade.WARN),
        (0, 0, Grade.OK),
        (1, None, Grade.OK),
        (7, 8, Grade.FAIL),
        (8, 8, Grade.OK),
    ],
)
def test_gpus_fail_only_where_a_sweep_needs_more(
    count: int, needed: int | None, verdict: Grade
) -> None:
    check = software.judge_gpus([H100] * count, needed=needed)
    assert check.verdict is verdict
    assert (check.next_step is None) == (verdict is Grade.OK)
    if count:
        assert check.observed == f"{count} x H100, 80 GB"


def test_limits_of_the_machine_are_judged() -> None:
    assert software.judge_python((3, 10, 9)).verdict is Grade.FAIL
    assert software.judge_python((3, 11, 0)).verdict is Grade.OK
    assert machine.judge_memory(2, GB).verdict is Grade.WARN
    assert machine.judge_memory(2, None).verdict is Grade.OK
    assert machine.judge_shared_memory(64 * 2**20).verdict is Grade.WARN
    assert machine.judge_shared_memory(None).observed == "no /dev/shm"
    assert machine.judge_shared_memory(16 * GB).verdict is Grade.OK
    few = machine.judge_descriptors(1024, 4096)
    assert few.verdict is Grade.WARN
    assert few.next_step is not None
    assert few.next_step.startswith("ulimit -n 4096 ")
    unlimited = resource.RLIM_INFINITY
    assert machine.judge_descriptors(unlimited, unlimited).verdict is Grade.OK
    grades = [machine.judge_disk(ROOT, int(gb * GB)).verdict for gb in (0.1, 5, 50)]
    assert grades == [Grade.FAIL, Grade.WARN, Grade.OK]


def test_clock_that_lags_or_disagrees_is_a_warning() -> None:
    assert machine.judge_clock(time.time(), 0.1).verdict is Grade.OK
    assert machine.judge_clock(time.time(), 30).verdict is Grade.WARN
    assert machine.judge_clock(0.0, 0.1).observed == "earlier than the program's own files"


def test_folder_of_studies_may_not_exist_yet_but_must_be_writable(tmp_path: Path) -> None:
    disk, clock = machine.folders(tmp_path / "not" / "yet")
    assert str(tmp_path) in disk.observed
    assert clock.verdict is Grade.OK
    assert not list(tmp_path.iterdir())
    [refused] = machine.folders(Path("/proc/runs"))
    assert refused.verdict is Grade.FAIL


def test_wandb_key_is_never_shown() -> None:
    key = "a" * 40
    check = doctor.tracking({"WANDB_API_KEY": key, "HOME": "/nowhere"})
    assert check.verdict is Grade.OK
    assert key not in repr(check)
    assert doctor.tracking({"WANDB_MODE": "sometimes"}).verdict is Grade.FAIL
    assert doctor.tracking({"WANDB_MODE": "offline"}).verdict is Grade.OK


def test_data_set_fails_only_where_a_sweep_needs_it(tmp_path: Path) -> None:
    [nothing] = doctor.data_sets(tmp_path, None)
    assert (nothing.verdict, nothing.next_step) == (Grade.WARN, "pgolf-sweep data demo")
    (tmp_path / "datasets" / "demo_sp512").mkdir(parents=True)
    [broken] = doctor.data_sets(tmp_path, None)
    assert (broken.name, broken.verdict) == ("data demo_sp512", Grade.WARN)
    needs = Needs(gpus=0, dataset=locate("demo", tmp_path))
    [needed] = doctor.data_sets(tmp_path, needs)
    assert needed.verdict is Grade.FAIL
    assert needed.next_step is not None
    assert needed.next_step.startswith("pgolf-sweep data demo")


def test_nodes_are_listed_and_one_must_hold_a_trial() -> None:
    nodes = [("head", 0.0, 4.0), ("worker", 8.0, 96.0)]
    check = doctor.judge_nodes(nodes, needed=8, expected="x")
    assert check.verdict is Grade.OK
    assert check.observed == "head (0 GPUs, 4 CPUs), worker (8 GPUs, 96 CPUs)"
    assert doctor.judge_nodes(nodes[:1], needed=8, expected="x").verdict is Grade.FAIL
    assert doctor.judge_nodes([], needed=None, expected="x").verdict is Grade.FAIL


def test_unreachable_cluster_fails_within_seconds_with_exit_code_3(tmp_path: Path) -> None:
    arguments = ["doctor", "--address", "127.0.0.1:9", "--json", "--data-root", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert document["ok"] is False
    by_name = {check["name"]: check for check in document["checks"]}
    assert by_name["ray cluster"]["verdict"] == "fail"
    assert by_name["libraries"]["verdict"] == "ok"
    assert by_name["torch"]["verdict"] == "ok"
    assert set(by_name["python"]) == {"name", "verdict", "observed", "expected", "next_step"}


def test_sweep_without_its_gpus_and_data_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(software, "probe", lambda code, *_: {"error": "not looked at"})
    (tmp_path / "train_gpt.py").write_text(
        'import os\nLR = float(os.environ.get("MATRIX_LR", 0.04))\n'
    )
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(
        "program: train_gpt.py\nmethod: random\nrun_cap: 2\n"
        "metric: {name: val_bpb, goal: minimize}\n"
        "parameters:\n  MATRIX_LR: {min: 0.01, max: 0.1}\n"
        "pgolf: {data: sp1024, resources: {gpus: 8}}\n"
    )
    result = CliRunner().invoke(app, ["doctor", str(sweep), "--data-root", str(tmp_path)])
    assert result.exit_code == 3, result.output
    needs = Needs(gpus=8, dataset=locate("sp1024", tmp_path))
    checks = list(doctor.examine(data_root=tmp_path, runs=tmp_path, needs=needs))
    failed = {check.name for check in checks if check.verdict is Grade.FAIL}
    assert {"gpus", "torch", "data fineweb10B_sp1024"} <= failed


@pytest.mark.ray
def test_cluster_that_answers_is_listed_by_node() -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=HEAD | {"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1, num_gpus=8)
        check = doctor.cluster(cluster.address, needed=8)
        assert check.verdict is Grade.OK
        assert "8 GPUs" in check.observed
    finally:
        cluster.shutdown()


@pytest.mark.parametrize(("mode", "grade"), [(0o600, Grade.OK), (0o644, Grade.WARN)])
def test_token_of_ray_that_others_read_is_a_warning(
    tmp_path: Path, mode: int, grade: Grade
) -> None:
    token = tmp_path / "auth_token"
    assert list(machine.ray_token(token)) == []
    token.write_text("t")
    token.chmod(mode)
    (check,) = machine.ray_token(token)
    assert check.verdict is grade
    assert (check.next_step is None) is (grade is Grade.OK)

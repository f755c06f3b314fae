import pytest

from pgolf_sweep.core.trial import Limits, Resources, TrialSpec
from pgolf_sweep.launch.node.environment import environment, read_places, withheld
from pgolf_sweep.launch.node.run import command

SCRIPT = b"""
import os
layers = int(os.environ.get("NUM_LAYERS", 9))
schedule = os.environ.get("LR_SCHEDULE", "linear")
data = os.environ.get("DATA_PATH", "./data")
shards = os.environ.get("TRAIN_FILES")
first = int(os.environ.get("BOS_TOKEN", 1))
threads = int(os.environ.get("OMP_NUM_THREADS", 1))
kind = os.environ["NODE_KIND"]
key, home = os.environ.get("HF_TOKEN"), os.environ.get("HOME")
"""
FILES = {"train_gpt.py": SCRIPT}


def spec(env: dict[str, str], passes: tuple[str, ...] = (), gpus: int = 0) -> TrialSpec:
    return TrialSpec(
        study="s",
        number=1,
        knobs={},
        env=env,
        program_name="train_gpt.py",
        program_sha256="0",
        resources=Resources(gpus=gpus, cpus=1.0),
        limits=Limits(total_seconds=60.0, silent_seconds=60.0),
        proposer="test",
        passes=passes,
    )


def test_script_gets_the_systems_environment_and_its_own() -> None:
    trial = spec({"OMP_NUM_THREADS": "7", "SEED": "1"})
    node = {"PATH": "/bin", "RANK": "3", "RAY_JOB_ID": "1", "WORLD_SIZE": "4", "SEED": "9"}
    env = environment(trial, node | {"MUON": "1"})
    assert env == {
        "PATH": "/bin",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "7",
        "SEED": "1",
    }
    assert command(trial, {})[1:] == ["-u", "train_gpt.py"]


@pytest.mark.parametrize(
    "name",
    [
        "PGOLF_STORAGE",
        "WANDB_API_KEY",
        "WANDB_RUN_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_PROFILE",
        "GITHUB_TOKEN",
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "DATABASE_URL",
        "SSH_AUTH_SOCK",
        "KUBECONFIG",
        "SEED",
    ],
)
def test_nothing_else_reaches_a_script_unless_the_sweep_file_names_it(name: str) -> None:
    node = {name: "value", "HOME": "/root"}
    assert name not in environment(spec({}), node)
    assert environment(spec({}, (name,)), node)[name] == "value"


@pytest.mark.parametrize(
    "name",
    ["CUDA_VISIBLE_DEVICES", "NCCL_DEBUG", "TORCHINDUCTOR_CACHE_DIR", "HF_HOME", "LD_LIBRARY_PATH"],
)
def test_libraries_find_what_they_need(name: str) -> None:
    assert environment(spec({}), {name: "x"})[name] == "x"


@pytest.mark.parametrize(
    ("name", "stays_behind"),
    [
        ("NUM_LAYERS", True),
        ("LR_SCHEDULE", True),
        ("BOS_TOKEN", True),
        ("HF_TOKEN", True),
        ("NODE_KIND", True),
        ("DATA_PATH", False),
        ("TRAIN_FILES", False),
        ("OMP_NUM_THREADS", False),
        ("HOME", False),
    ],
)
def test_what_the_script_reads_and_does_not_get_is_named(name: str, *, stays_behind: bool) -> None:
    node = {name: "3", "READ_BY_NO_SCRIPT": "3"}
    assert withheld(spec({}), FILES, node) == ((name,) if stays_behind else ())
    assert withheld(spec({name: "4"}), FILES, node) == ()
    assert withheld(spec({}, (name,)), FILES, node) == ()
    places = read_places(spec({}), FILES, node)
    assert (name in environment(spec({}), node, places)) is not stays_behind


def test_of_a_script_that_cannot_be_read_nothing_is_known() -> None:
    assert withheld(spec({}), {"train_gpt.py": b"def ("}, {"NUM_LAYERS": "3"}) == ()


@pytest.mark.parametrize(
    ("node", "root"),
    [
        ({"PGOLF_DATA": "/volume/data", "HOME": "/root"}, "/volume/data/compile-cache"),
        ({"XDG_CACHE_HOME": "/c", "HOME": "/root"}, "/c/pgolf-sweep/compile"),
        ({"HOME": "/home/me"}, "/home/me/.cache/pgolf-sweep/compile"),
    ],
)
def test_what_a_gpu_trial_compiles_outlives_it(node: dict[str, str], root: str) -> None:
    env = environment(spec({}, gpus=1), node)
    assert env["TORCHINDUCTOR_CACHE_DIR"] == f"{root}/inductor"
    assert env["TRITON_CACHE_DIR"] == f"{root}/triton"
    own = environment(spec({}, gpus=1), {**node, "TRITON_CACHE_DIR": "/mine"})
    assert own["TRITON_CACHE_DIR"] == "/mine"
    assert "TRITON_CACHE_DIR" not in environment(spec({}), node)

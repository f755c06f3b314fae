import pytest

from pgolf_sweep.core.trial import Limits, Resources, TrialSpec
from pgolf_sweep.launch.node.environment import environment, stray_knobs
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


def spec(env: dict[str, str]) -> TrialSpec:
    return TrialSpec(
        study="s",
        number=1,
        knobs={},
        env=env,
        program_name="train_gpt.py",
        program_sha256="0",
        resources=Resources(gpus=0, cpus=1.0),
        limits=Limits(total_seconds=60.0, silent_seconds=60.0),
        proposer="test",
    )


def test_script_gets_the_nodes_environment_and_its_own_but_not_rays() -> None:
    trial = spec({"OMP_NUM_THREADS": "7"})
    node = {"PATH": "/bin", "RANK": "3", "RAY_JOB_ID": "1", "WORLD_SIZE": "4", "MUON": "1"}
    env = environment(trial, node, ("MUON",))
    assert env == {"PATH": "/bin", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "7"}
    assert command(trial, {})[1:] == ["-u", "train_gpt.py"]


@pytest.mark.parametrize(
    ("name", "stays_behind"),
    [
        ("NUM_LAYERS", True),
        ("LR_SCHEDULE", True),
        ("BOS_TOKEN", True),
        ("DATA_PATH", False),
        ("TRAIN_FILES", False),
        ("OMP_NUM_THREADS", False),
        ("HF_TOKEN", False),
        ("HOME", False),
        ("NODE_KIND", False),
        ("READ_BY_NO_SCRIPT", False),
    ],
)
def test_only_what_configures_the_script_stays_behind(name: str, *, stays_behind: bool) -> None:
    files = {"train_gpt.py": SCRIPT}
    assert stray_knobs(spec({}), files, {name: "3"}) == ((name,) if stays_behind else ())
    assert stray_knobs(spec({name: "4"}), files, {name: "3"}) == ()


def test_of_a_script_that_cannot_be_read_no_knob_is_known() -> None:
    assert stray_knobs(spec({}), {"train_gpt.py": b"def ("}, {"NUM_LAYERS": "3"}) == ()

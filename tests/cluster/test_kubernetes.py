"""The RayJob against a table of the fields that it uses.

The table is ours. It was written from KubeRay 1.7.0's definition
(ray-operator/config/crd/bases/ray.io_rayjobs.yaml, Apache 2.0), which no package of ours carries,
and agrees with it: the whole file was checked against that definition once, strictly.
"""

from __future__ import annotations

import copy
from typing import Any

import jsonschema
import pytest
import yaml
from support.namespaces import PROJECT

FOLDER = PROJECT / "cluster" / "kubernetes"


def table(required: str = "", **fields: Any) -> dict[str, Any]:
    """A mapping with these fields and no other."""
    return {
        "type": "object",
        "properties": fields,
        "required": required.split(),
        "additionalProperties": False,
    }


TEXT, COUNT, YES = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
AMOUNTS = {"type": "object", "additionalProperties": {"type": ["string", "integer"]}}


def many(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": 1}


CONTAINER = table(
    "name image resources",
    name=TEXT,
    image=TEXT,
    envFrom=many(table(secretRef=table("name", name=TEXT, optional=YES))),
    resources=table(requests=AMOUNTS, limits=AMOUNTS),
    volumeMounts=many(table("name mountPath", name=TEXT, mountPath=TEXT, readOnly=YES)),
)
VOLUME = table(
    "name",
    name=TEXT,
    persistentVolumeClaim=table("claimName", claimName=TEXT),
    emptyDir=table(medium=TEXT, sizeLimit=TEXT),
)
POD = table(
    "spec",
    spec=table(
        "containers",
        containers=many(CONTAINER),
        volumes=many(VOLUME),
        securityContext=table(
            fsGroup=COUNT, fsGroupChangePolicy={"enum": ["Always", "OnRootMismatch"]}
        ),
        terminationGracePeriodSeconds=COUNT,
        tolerations=many(table(key=TEXT, operator=TEXT, effect=TEXT)),
    ),
)
HEAD = table(
    "template",
    rayStartParams=TEXTS,
    template=POD,
    serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
)
WORKERS = table(
    "groupName template maxReplicas minReplicas",
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    rayStartParams=TEXTS,
    template=POD,
)
CLUSTER = table(
    "headGroupSpec",
    rayVersion=TEXT,
    authOptions=table(mode={"enum": ["disabled", "token"]}),
    headGroupSpec=HEAD,
    workerGroupSpecs=many(WORKERS),
)
RAYJOB = table(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=table("name", name=TEXT),
    spec=table(
        "",
        entrypoint=TEXT,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        shutdownAfterJobFinishes=YES,
        ttlSecondsAfterFinished=COUNT,
        activeDeadlineSeconds=COUNT,
        preRunningDeadlineSeconds={"type": "integer", "minimum": 1},
        backoffLimit=COUNT,
        rayClusterSpec=CLUSTER,
    ),
)


@pytest.fixture
def rayjob() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((FOLDER / "rayjob.yaml").read_text())
    return document


def test_the_rayjob_has_no_field_that_kuberay_does_not_know(rayjob: dict[str, Any]) -> None:
    jsonschema.validate(rayjob, RAYJOB)
    wrong = copy.deepcopy(rayjob)
    wrong["spec"]["activeDeadlineSecond"] = 1
    with pytest.raises(jsonschema.ValidationError, match="activeDeadlineSecond"):
        jsonschema.validate(wrong, RAYJOB)


def test_the_rayjob_ends_its_nodes_whatever_happens_and_lets_nobody_in(
    rayjob: dict[str, Any],
) -> None:
    spec = rayjob["spec"]
    assert spec["shutdownAfterJobFinishes"]
    assert 0 < spec["ttlSecondsAfterFinished"] <= 600
    assert spec["activeDeadlineSeconds"] <= 24 * 3600
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_trials_find_their_gpus_and_their_volumes(rayjob: dict[str, Any]) -> None:
    cluster = rayjob["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] == workers["replicas"] == workers["maxReplicas"]
    for group in (cluster["headGroupSpec"], workers):
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == 8
    claims = yaml.safe_load_all((FOLDER / "storage.yaml").read_text())
    assert {claim["metadata"]["name"] for claim in claims} == {"pgolf-runs", "pgolf-data"}


def test_the_driver_may_write_to_the_volume_of_the_study(rayjob: dict[str, Any]) -> None:
    pod = rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (container,) = pod["containers"]
    (runs,) = [mount for mount in container["volumeMounts"] if mount["mountPath"] == "/runs"]
    assert not runs.get("readOnly")
    # Ray's images run as user ray with the group users, 100.
    assert pod["securityContext"] == {"fsGroup": 100, "fsGroupChangePolicy": "OnRootMismatch"}


def test_the_image_gets_no_more_than_a_checkout_holds() -> None:
    ignored = set((PROJECT / ".dockerignore").read_text().split())
    assert {".git", ".venv", "data", "runs", "wandb"} <= ignored


def test_the_entrypoint_is_a_command_that_this_program_takes(rayjob: dict[str, Any]) -> None:
    from typer.main import get_command

    from pgolf_sweep.cli import app

    words = rayjob["spec"]["entrypoint"].partition("&&")[2].split()
    assert words[:2] == ["pgolf-sweep", "launch"]
    assert (PROJECT / words[2]).is_file()
    launch = get_command(app).commands["launch"]  # type: ignore[attr-defined]
    launch.make_context("launch", words[2:])

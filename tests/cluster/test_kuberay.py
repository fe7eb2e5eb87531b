"""The KubeRay manifests: KubeRay's field names, security and storage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

MANIFESTS = Path(__file__).parents[2] / "cluster" / "kuberay"
TABLE = yaml.safe_load(Path(__file__).with_name("kuberay_fields.yaml").read_text())
_BASIC: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "map": {"type": "object", "additionalProperties": {"type": "string"}},
    "quantities": {"type": "object", "additionalProperties": {"type": ["string", "integer"]}},
}


def _schema_of(kind: object) -> dict[str, Any]:
    if isinstance(kind, list):
        return {"enum": kind}
    assert isinstance(kind, str)
    if kind.endswith(" list"):
        return {"type": "array", "items": _schema_of(kind.removesuffix(" list"))}
    return _BASIC.get(kind) or {"$ref": f"#/$defs/{kind}"}


def _definitions() -> dict[str, Any]:
    """The table as JSON schema; a key that it does not name is an error."""
    return {
        name: {
            "type": "object",
            "additionalProperties": False,
            "required": [field[:-1] for field in fields if field.endswith("!")],
            "properties": {field.rstrip("!"): _schema_of(kind) for field, kind in fields.items()},
        }
        for name, fields in TABLE["types"].items()
    }


def _check(document: dict[str, Any]) -> None:
    kind = TABLE["kinds"][f"{document['apiVersion']} {document['kind']}"]
    jsonschema.validate(document, {"$ref": f"#/$defs/{kind}", "$defs": _definitions()})


def _documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((MANIFESTS / name).read_text()))


ALL = [(path.name, document) for path in sorted(MANIFESTS.glob("*.yaml")) for document in _documents(path.name)]
every_document = pytest.mark.parametrize(
    "document", [each for _, each in ALL], ids=[f"{n}-{d['kind']}" for n, d in ALL]
)


def _nested(value: object, key: str) -> Iterator[Any]:
    """Every value of `key`, at any depth."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == key:
                yield inner
            yield from _nested(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _nested(inner, key)


def _pods(document: dict[str, Any]) -> list[dict[str, Any]]:
    templates = [*_nested(document, "template"), *_nested(document, "submitterPodTemplate")]
    return [template["spec"] for template in templates]


def _cluster(name: str) -> dict[str, Any]:
    (document,) = _documents(name)
    spec: dict[str, Any] = document["spec"]
    return spec.get("rayClusterSpec", spec)


CLUSTERS = ["raycluster.yaml", "rayjob.yaml"]


@every_document
def test_every_field_is_one_of_kuberays(document: dict[str, Any]) -> None:
    _check(document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "workerGroupSpec"), []),
        (("spec", "authOptions", "mode"), "on"),
        (("spec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (
            ("spec", "headGroupSpec", "template", "spec", "containers", 0, "securityContext", "dropCapabilities"),
            ["ALL"],
        ),
        (("spec", "workerGroupSpecs", 0, "maxReplicas"), "8"),
    ],
)
def test_the_check_finds_wrong_values(path: tuple[str | int, ...], value: object) -> None:
    document = yaml.safe_load((MANIFESTS / "raycluster.yaml").read_text())
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value

    with pytest.raises(jsonschema.ValidationError):
        _check(document)


def test_the_check_finds_missing_fields() -> None:
    document = yaml.safe_load((MANIFESTS / "raycluster.yaml").read_text())
    del document["spec"]["workerGroupSpecs"][1]["groupName"]

    with pytest.raises(jsonschema.ValidationError, match="groupName"):
        _check(document)


@every_document
def test_no_container_can_become_root(document: dict[str, Any]) -> None:
    for pod in _pods(document):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        contexts = [container["securityContext"] for container in pod["containers"]]
        for context in contexts + [options["securityContext"] for options in _nested(document, "autoscalerOptions")]:
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
    assert not list(_nested(document, "privileged")) + list(_nested(document, "hostPath"))
    assert not list(_nested(document, "hostNetwork"))


@every_document
def test_every_container_has_its_limits_and_an_image_with_a_version(document: dict[str, Any]) -> None:
    for pod in _pods(document):
        for container in pod["containers"]:
            assert set(container["resources"]) == {"requests", "limits"}
            assert {"cpu", "memory"} <= set(container["resources"]["limits"])
            name, _, version = container["image"].partition(":")
            assert "/" not in name, "whose registry it is stands nowhere in this repository"
            assert version not in ("", "latest")


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_cluster_asks_for_a_token(name: str) -> None:
    cluster = _cluster(name)
    assert cluster["authOptions"] == {"mode": "token"}
    # KubeRay gives the token to its containers by itself; a manifest that names one overrides that.
    assert not [entry for variables in _nested(cluster, "env") for entry in variables if "AUTH" in entry["name"]]


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_cluster_runs_the_ray_that_is_installed(name: str) -> None:
    assert _cluster(name)["rayVersion"] == ray.__version__


@pytest.mark.parametrize("name", CLUSTERS)
def test_all_nodes_share_the_folder_that_holds_the_artifacts(name: str) -> None:
    cluster = _cluster(name)
    (claim,) = _documents("storage.yaml")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        (mount,) = container["volumeMounts"]
        (volume,) = pod["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert volume["name"] == mount["name"]
        store = {entry["name"]: entry["value"] for entry in container["env"]}["V2A_STORE"]
        assert store.startswith(f"{mount['mountPath']}/")


@pytest.mark.parametrize("name", CLUSTERS)
def test_cpu_and_gpu_groups_grow_and_shrink(name: str) -> None:
    cluster = _cluster(name)
    assert cluster["enableInTreeAutoscaling"] is True
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    assert set(groups) == {"cpu", "gpu"}
    for group in groups.values():
        assert group["minReplicas"] <= group["replicas"] < group["maxReplicas"]
    (gpu,) = groups["gpu"]["template"]["spec"]["containers"]
    (cpu,) = groups["cpu"]["template"]["spec"]["containers"]
    assert gpu["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in cpu["resources"]["limits"]


def test_the_lasting_cluster_keeps_its_heads_state() -> None:
    service, redis = _documents("redis.yaml")
    options = _cluster("raycluster.yaml")["gcsFaultToleranceOptions"]
    assert options["redisAddress"] == f"redis://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    secret = options["redisPassword"]["valueFrom"]["secretKeyRef"]["name"]
    assert redis["spec"]["template"]["spec"]["volumes"][0]["secret"]["secretName"] == secret


def test_the_job_starts_again_and_its_results_are_on_the_shared_volume() -> None:
    (job,) = _documents("rayjob.yaml")
    words = job["spec"]["entrypoint"].split()
    assert words[:2] == ["v2a", "sweep"]
    assert words[words.index("--run-dir") + 1].startswith("/mnt/v2a/")
    assert job["spec"]["backoffLimit"] >= 1
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    shipped = MANIFESTS.parents[1] / "tune_configs" / Path(words[2]).name
    assert shipped.exists()


def test_both_manifests_describe_one_cluster() -> None:
    lasting, of_the_job = _cluster("raycluster.yaml"), _cluster("rayjob.yaml")
    del lasting["gcsFaultToleranceOptions"]
    assert lasting == of_the_job

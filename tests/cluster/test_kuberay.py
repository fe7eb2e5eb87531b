"""The KubeRay manifests: KubeRay's field names, security and storage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

from v2a_ray.orchestration.cluster.capacity import Capacity, worker_types

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
NUM_PODS = {"raycluster.yaml": 3, "rayjob.yaml": 4, "redis.yaml": 1}
"""Kinds of pods in each file that makes some: a check over none would pass."""
every_file_with_pods = pytest.mark.parametrize("name", NUM_PODS)


def _pods_of(name: str) -> list[dict[str, Any]]:
    pods = [pod for document in _documents(name) for pod in _pods(document)]
    assert len(pods) == NUM_PODS[name]
    return pods


def test_the_other_files_make_no_pods() -> None:
    others = {name for name, document in ALL if not _pods(document)} - NUM_PODS.keys()
    assert others == {"network.yaml", "storage.yaml"}


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


@every_file_with_pods
def test_no_container_can_become_root(name: str) -> None:
    documents = _documents(name)
    options = [each for document in documents for each in _nested(document, "autoscalerOptions")]
    assert len(options) == (name in CLUSTERS)
    for pod in _pods_of(name):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        contexts = [container["securityContext"] for container in pod["containers"]]
        assert contexts
        for context in contexts + [each["securityContext"] for each in options]:
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
    for forbidden in ("privileged", "hostPath", "hostNetwork"):
        assert not [each for document in documents for each in _nested(document, forbidden)]


@every_file_with_pods
def test_every_container_has_its_limits_and_an_image_with_a_version(name: str) -> None:
    for pod in _pods_of(name):
        for container in pod["containers"]:
            assert set(container["resources"]) == {"requests", "limits"}
            assert {"cpu", "memory"} <= set(container["resources"]["limits"])
            image, _, version = container["image"].partition(":")
            assert "/" not in image, "whose registry it is stands nowhere in this repository"
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


def test_a_redis_that_does_not_answer_is_started_again() -> None:
    _, redis = _documents("redis.yaml")
    (container,) = redis["spec"]["template"]["spec"]["containers"]
    (_, _, command) = container["livenessProbe"]["exec"]["command"]
    assert "redis-cli ping" in command
    # The password is one of the files that the volume mounts, and no word of the command.
    (settings,) = redis["spec"]["template"]["spec"]["volumes"]
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}["settings"]
    files = [f"{mounted}/{item['path']}" for item in settings["secret"]["items"]]
    assert f"{mounted}/password" in files and f"$(cat {mounted}/password)" in command


def test_only_the_clusters_pods_reach_its_ports() -> None:
    of_ray, of_redis = _documents("network.yaml")
    ray_pods = {"podSelector": {"matchLabels": {"ray.io/is-ray-node": "yes"}}}
    everywhere, at_the_dashboard = of_ray["spec"]["ingress"]
    assert of_ray["spec"]["podSelector"] == ray_pods["podSelector"]
    assert everywhere == {"from": [ray_pods]}
    assert [port["port"] for port in at_the_dashboard["ports"]] == [8265]
    assert {"namespaceSelector", "podSelector"} == {key for peer in at_the_dashboard["from"] for key in peer}
    _, redis = _documents("redis.yaml")
    assert of_redis["spec"]["podSelector"]["matchLabels"] == redis["spec"]["template"]["metadata"]["labels"]
    assert [rule["from"] for rule in of_redis["spec"]["ingress"]] == [[ray_pods]]


@pytest.mark.parametrize("name", CLUSTERS)
def test_v2a_reads_the_groups_where_rays_autoscaler_does(name: str) -> None:
    """Ray's translation of the manifest, and what a sweep makes of it."""
    resource = {"metadata": {"name": "v2a", "namespace": "v2a"}, "spec": _cluster(name)}
    config = AutoscalingConfig(_derive_autoscaling_config_from_ray_cr(resource))
    there = Capacity(tuple(worker_types(config)), config.get_max_num_worker_nodes(), elastic=True)
    assert resource["spec"]["autoscalerOptions"]["version"] == "v2"
    assert there.total("GPU") == 4
    assert there.room({"CPU": 1}) == 64, "eight nodes of the CPU group, none of the other"
    assert there.room({"CPU": 1, "GPU": 0.25}) == 16


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

"""Each overlay as it would be applied: valid, and of one piece."""

import copy
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.kubernetes.check import errors_in, render
from tests.infra.conftest import Manifest, rayjob_spec

ROOT = Path(__file__).parents[2]
GIB, MIB = 2**30, 2**20
FREE = {"annotations", "data", "labels", "limits", "matchLabels", "nodeSelector", "rayStartParams", "requests"}
"""Whose keys are anyone's: a typo is no error of form."""
STORE_PER_CORE, LIMIT_PER_CORE = 512 * MIB, 3 * GIB


def pod_templates(manifests: list[Manifest]) -> list[Manifest]:
    spec = rayjob_spec(manifests)
    cluster = spec["rayClusterSpec"]
    cronjobs = [some["spec"]["jobTemplate"]["spec"] for some in manifests if some["kind"] == "CronJob"]
    deployments = [some["spec"] for some in manifests if some["kind"] == "Deployment"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"], *deployments]
    return [spec["submitterPodTemplate"], *(some["template"] for some in (*groups, *cronjobs))]


def places(node: Any, path: tuple = ()) -> Iterator[tuple]:
    """Paths to all keys whose names a schema knows."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield (*path, key)
            if key not in FREE:
                yield from places(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from places(value, (*path, index))


def with_typo(manifest: Manifest, path: tuple) -> Manifest:
    """With the last key of a path misspelt."""
    changed = copy.deepcopy(manifest)
    parent: Any = changed
    for part in path[:-1]:
        parent = parent[part]
    parent[f"{path[-1]}x"] = parent.pop(path[-1])
    return changed


def test_all_are_valid(manifests: list[Manifest]) -> None:
    assert [error for manifest in manifests for error in errors_in(manifest)] == []


def test_a_typo_in_any_field_is_found(manifests: list[Manifest]) -> None:
    """But in the labels that a Service selects by, which the test of Prometheus' names holds."""
    missed = [
        (manifest["kind"], *path)
        for manifest in manifests
        for path in places(manifest)
        if path not in {("apiVersion",), ("kind",)} and not any(errors_in(with_typo(manifest, path)))
    ]
    assert {path[:3] for path in missed} == {("Service", "spec", "selector")}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("submissionMode", "HttpMode"),
        ("activeDeadlineSeconds", 0),
        ("backoffLimit", "0"),
        ("rayClusterSpec", {"workerGroupSpecs": []}),
        ("rayClusterSpec", {"headGroupSpec": {"template": {"spec": {"containers": [{"image": "ssd-batch"}]}}}}),
    ],
)
def test_a_wrong_value_is_found(field: str, value: Any) -> None:
    rayjob = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "nightly"}, "spec": {}}
    assert list(errors_in(rayjob)) == []
    assert len(list(errors_in(rayjob | {"spec": {field: value}}))) == 1


def test_kuberay_schedules_the_same_job_as_kubernetes() -> None:
    by_kubernetes, by_kuberay = (
        rayjob_spec(render(ROOT / "infra/kubernetes/overlays" / name)) for name in ("gpu", "gpu-raycronjob")
    )
    assert by_kuberay == {key: value for key, value in by_kubernetes.items() if key != "suspend"}
    assert by_kubernetes["suspend"]


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    expressions = selector.get("matchExpressions", [])
    assert all(some["operator"] == "In" for some in expressions)
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        labels.get(some["key"]) in some["values"] for some in expressions
    )


def ports_of(template: Manifest) -> set[int]:
    return {
        port["containerPort"] for container in template["spec"]["containers"] for port in container.get("ports", [])
    }


def test_network_policies_and_budgets_are_of_pods_that_are_there(manifests: list[Manifest]) -> None:
    templates = pod_templates(manifests)
    policies = [some for some in manifests if some["kind"] == "NetworkPolicy"]
    budgets = [some for some in manifests if some["kind"] == "PodDisruptionBudget"]
    ways = [
        (some["spec"]["podSelector"], way["ports"])
        for some in policies
        for way in some["spec"].get("ingress", [])
        if "ports" in way
    ]
    ways += [
        (peer["podSelector"], way["ports"])
        for some in policies
        for way in some["spec"].get("egress", [])
        for peer in way["to"]
        if "podSelector" in peer and "namespaceSelector" not in peer and "ports" in way
    ]
    assert ways
    assert budgets
    for selector in [some["spec"]["podSelector"] for some in policies] + [some["spec"]["selector"] for some in budgets]:
        assert any(selects(selector, template["metadata"]["labels"]) for template in templates), selector
    for selector, ports in ways:
        for template in templates:
            if selector and selects(selector, template["metadata"]["labels"]):
                assert {port["port"] for port in ports} <= ports_of(template)


def test_prometheus_finds_all_that_has_metrics(manifests: list[Manifest]) -> None:
    config = yaml.safe_load((ROOT / "infra/monitoring/prometheus-kubernetes.yaml").read_text())
    asked = {
        (name, some["port"])
        for job in config["scrape_configs"]
        for some in job["dns_sd_configs"]
        for name in some["names"]
    }
    services = {some["metadata"]["name"]: some["spec"] for some in manifests if some["kind"] == "Service"}
    assert asked == {(f"{name}.ssd-batch.svc", spec["ports"][0]["port"]) for name, spec in services.items()}
    for template in pod_templates(manifests):
        ports = {
            port["containerPort"]
            for some in template["spec"]["containers"]
            for port in some.get("ports", [])
            if port["name"] == "metrics"
        }
        found = {
            spec["ports"][0]["port"]
            for spec in services.values()
            if selects({"matchLabels": spec["selector"]}, template["metadata"]["labels"])
        }
        assert found == ports


def test_nothing_is_open_that_is_not_said(manifests: list[Manifest]) -> None:
    deny = next(some["spec"] for some in manifests if some["metadata"]["name"] == "default-deny")
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_one_image_of_this_version(manifests: list[Manifest]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {
        container["image"] for template in pod_templates(manifests) for container in template["spec"]["containers"]
    }
    assert len(images) == 1
    assert re.fullmatch(rf".+/ssd-batch:{re.escape(version)}-(cpu|cuda)", images.pop())


def test_kuberay_knows_which_ray_it_is(manifests: list[Manifest]) -> None:
    pins = (ROOT / "constraints.txt").read_text().split()
    assert f"ray=={rayjob_spec(manifests)['rayClusterSpec']['rayVersion']}" in pins


def size(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()
    return int(number) * {"Mi": MIB, "Gi": GIB}[unit]


def test_memory_is_as_the_rule_says(manifests: list[Manifest]) -> None:
    cluster = rayjob_spec(manifests)["rayClusterSpec"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        limits, requests = (pod["containers"][0]["resources"][key] for key in ("limits", "requests"))
        volumes = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume}
        store = int(group["rayStartParams"]["object-store-memory"])
        assert limits == requests
        assert store == int(limits["cpu"]) * STORE_PER_CORE
        assert size(limits["memory"]) == int(limits["cpu"]) * LIMIT_PER_CORE
        assert volumes["shm"] == {"medium": "Memory", "sizeLimit": f"{store * 9 // 8 // MIB}Mi"}
        assert size(volumes["tmp"]["sizeLimit"]) < size(limits["ephemeral-storage"])


def test_pods_are_as_the_namespace_demands(manifests: list[Manifest]) -> None:
    namespace = next(some for some in manifests if some["kind"] == "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    containers = [some for template in pod_templates(manifests) for some in template["spec"]["containers"]]
    autoscaler = rayjob_spec(manifests)["rayClusterSpec"].get("autoscalerOptions")
    for container in containers + ([autoscaler] if autoscaler else []):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]]
        assert {"limits", "requests"} <= set(container["resources"])
    for template in pod_templates(manifests):
        context = template["spec"]["securityContext"]
        assert context["runAsNonRoot"]
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}


def test_a_stopped_driver_has_time_to_commit(manifests: list[Manifest]) -> None:
    spec = rayjob_spec(manifests)
    pod = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (head,) = pod["containers"]
    (wait_s,) = [int(some["value"]) for some in head["env"] if some["name"] == "RAY_JOB_STOP_WAIT_TIME_S"]
    assert wait_s < pod["terminationGracePeriodSeconds"]
    assert head["lifecycle"]["preStop"]["exec"]["command"][-1] == spec["jobId"]


def test_a_night_ends_before_the_next(manifests: list[Manifest]) -> None:
    assert rayjob_spec(manifests)["activeDeadlineSeconds"] < 24 * 3600
    for cronjob in (some["spec"] for some in manifests if some["kind"] == "CronJob"):
        assert cronjob["concurrencyPolicy"] == "Forbid"
        assert cronjob["jobTemplate"]["spec"]["activeDeadlineSeconds"] + cronjob["startingDeadlineSeconds"] <= 24 * 3600


def test_the_scheduler_may_no_more_than_it_does(manifests: list[Manifest]) -> None:
    for role in (some for some in manifests if some["kind"] == "Role"):
        assert role["rules"] == [
            {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get", "list"]}
        ]
    assert not any(some["kind"].startswith("ClusterRole") for some in manifests)


def test_the_policy_of_s3_is_of_the_nightly_spec() -> None:
    spec = yaml.safe_load((ROOT / "jobs/nightly.yaml").read_text())
    policy = json.loads((ROOT / "infra/s3-policy.json").read_text())
    allowed = {
        (action, resource)
        for statement in policy["Statement"]
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
        for resource in ([statement["Resource"]] if isinstance(statement["Resource"], str) else statement["Resource"])
    }
    bucket, images = spec["input"].removeprefix("s3://").split("/", 1)
    arn = f"arn:aws:s3:::{bucket}"
    table, model = (spec[name].removeprefix(f"s3://{bucket}/") for name in ("table", "model"))
    models = model.removesuffix("/latest")
    written = {
        (f"s3:{verb}", f"{arn}/{table}/*")
        for verb in ("GetObject", "PutObject", "DeleteObject", "AbortMultipartUpload")
    }
    assert (
        allowed
        == {("s3:ListBucket", arn), ("s3:GetObject", f"{arn}/{images}/*"), ("s3:GetObject", f"{arn}/{models}/*")}
        | written
    )

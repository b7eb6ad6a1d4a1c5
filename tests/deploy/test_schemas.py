"""Every manifest is valid, and a manifest with a fault is not."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from tests.deploy.faults import SCHEMAS, faults
from tests.deploy.manifests import Resource, stored

pytest.importorskip("kubernetes_validate", reason="the extra `deploy` is not installed")
STORED = dict(stored())
SERVER, RAY, SCALED = "server/Deployment", "ray/RayService", "scaled/ScaledObject"


@pytest.mark.parametrize("name", STORED)
def test_manifests_are_valid(name: str) -> None:
    assert faults(STORED[name]) == []


def test_every_kind_is_looked_at() -> None:
    """Those of operators, whose schemas are ours, among them."""
    kinds = {resource["kind"] for resource in STORED.values()}
    assert kinds >= {*SCHEMAS}
    assert kinds >= {"Deployment", "Service", "PersistentVolumeClaim", "PodDisruptionBudget", "NetworkPolicy"}
    assert "HorizontalPodAutoscaler" in kinds


def pod(resource: Resource) -> dict[str, Any]:
    spec: dict[str, Any] = resource["spec"]["template"]["spec"]
    return spec


def worker(resource: Resource) -> dict[str, Any]:
    group: dict[str, Any] = resource["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    return group


PLANTED: dict[str, tuple[str, Callable[[Resource], object], str]] = {
    "an unknown field": (SERVER, lambda r: r["spec"].update(replica=2), "'replica' was unexpected"),
    "an unknown field of a container": (
        SERVER,
        lambda r: pod(r)["containers"][0].update(arguments=[]),
        "'arguments' was unexpected",
    ),
    "no selector": (SERVER, lambda r: r["spec"].pop("selector"), "'selector' is a required property"),
    "a selector of other pods": (
        SERVER,
        lambda r: r["spec"]["selector"]["matchLabels"].update(tier="web"),
        "does not fit the pods' labels",
    ),
    "a probe at a wrong port": (
        SERVER,
        lambda r: pod(r)["containers"][0]["readinessProbe"]["httpGet"].update(port=8080),
        "readinessProbe asks at port 8080",
    ),
    "a probe at a port of no name": (
        SERVER,
        lambda r: pod(r)["containers"][0]["livenessProbe"]["httpGet"].update(port="web"),
        "livenessProbe asks at port web",
    ),
    "a number in place of a text": (
        SERVER,
        lambda r: pod(r)["containers"][0]["args"].append(7),
        "7 is not of type",
    ),
    "a volume that is not there": (SERVER, lambda r: pod(r).pop("volumes"), "which is no volume"),
    "an unknown field of KubeRay's": (
        RAY,
        lambda r: r["spec"].update(replicas=2),
        "'replicas' was unexpected",
    ),
    "a group without bounds": (RAY, lambda r: worker(r).pop("maxReplicas"), "'maxReplicas' is a required"),
    "a start parameter that is no text": (
        RAY,
        lambda r: worker(r)["rayStartParams"].update({"num-cpus": 4}),
        "4 is not of type 'string'",
    ),
    "an unknown field of a Ray worker's pod": (
        RAY,
        lambda r: worker(r)["template"]["spec"].update(volume=[]),
        "'volume' was unexpected",
    ),
    "another version of KubeRay's API": (
        RAY,
        lambda r: r.update(apiVersion="ray.io/v1alpha1"),
        "is of ray.io/v1",
    ),
    "a threshold that is no text": (
        SCALED,
        lambda r: r["spec"]["triggers"][0]["metadata"].update(threshold=2),
        "2 is not of type 'string'",
    ),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found(fault: str) -> None:
    name, plant, told = PLANTED[fault]
    resource = deepcopy(STORED[name])
    plant(resource)
    found = faults(resource)
    assert any(told in each for each in found), found

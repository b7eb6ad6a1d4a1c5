"""The chart, rendered by Helm: the manifests that lie in deploy/kubernetes, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.faults import faults
from tests.deploy.manifests import CHART, KUBERNETES, VALUES, of_values, rendered

helm = pytest.importorskip("helm_python", reason="the extra `deploy` is not installed")


@pytest.mark.parametrize("path", VALUES, ids=lambda path: path.stem)
def test_the_plain_manifests_are_the_charts(path: Path) -> None:
    """After a change of the chart: `python -m tests.deploy.manifests`."""
    assert (KUBERNETES / path.name).read_text(encoding="utf-8") == of_values(path)


def test_nothing_else_lies_beside_them() -> None:
    assert {path.name for path in KUBERNETES.iterdir()} == {path.name for path in VALUES}


def warnings(chart: Path) -> list[dict[str, Any]]:
    """What `helm lint` says beyond advice (1): warnings (2) and errors (3)."""
    return [each for each in helm.lint(str(chart))["messages"] if each["severity"] > 1]


def test_helm_finds_nothing_wrong(tmp_path: Path) -> None:
    """And does so in a chart that has a fault."""
    assert warnings(CHART) == []
    copied = shutil.copytree(CHART, tmp_path / "outrider")
    (copied / "templates" / "cache.yaml").write_text("{{ .Values.persistence")
    assert warnings(copied)


SHARED: dict[str, Any] = {"accessMode": "ReadWriteMany"}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown value": ({"replica": 2}, "replica"),
    "an unknown mode": ({"mode": "vllm"}, "mode"),
    "an unknown value within another": ({"image": {"name": "outrider"}}, "name"),
    "pods that cannot share a volume": ({"replicas": 2}, "ReadWriteMany"),
    "replicas on Ray that cannot": ({"mode": "ray"}, "ReadWriteMany"),
    "Ray's scaling of plain servers": ({"autoscaling": {"kind": "ray"}}, "for mode=ray"),
    "KEDA's of replicas on Ray": (
        {"mode": "ray", "autoscaling": {"kind": "keda"}, "persistence": SHARED},
        "for mode=server",
    ),
    "less than nothing": (
        {"autoscaling": {"kind": "hpa", "minReplicas": 5, "maxReplicas": 4}, "persistence": SHARED},
        "more than maxReplicas=4",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused_with_a_reason(what: str) -> None:
    values, told = REFUSED[what]
    with pytest.raises(helm.HelmError, match=told):
        rendered(values)


BESIDE: dict[str, dict[str, Any]] = {
    "no volume": {"replicas": 3, "persistence": {"enabled": False}},
    "a volume that is there": {"replicas": 3, "persistence": {"existingClaim": "models"}},
    "Ray with a key and a GPU": {
        "mode": "ray",
        "gpus": 1,
        "apiKey": {"existingSecret": "outrider"},
        "nodeSelector": {"pool": "gpu"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "persistence": SHARED,
        "monitoring": {"kind": "gke"},
    },
    "no network policy": {"networkPolicy": {"enabled": False}},
    "askers from elsewhere": {
        "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"team": "chat"}}}], "hub": False},
        "envFrom": [{"secretRef": {"name": "hub"}}],
        "imagePullSecrets": [{"name": "registry"}],
        "service": {"type": "LoadBalancer", "port": 80},
    },
}


@pytest.mark.parametrize("what", BESIDE)
def test_other_values_make_valid_manifests_too(what: str) -> None:
    pytest.importorskip("kubernetes_validate", reason="the extra `deploy` is not installed")
    resources = list(yaml.safe_load_all(rendered(BESIDE[what])))
    assert len(resources) > 2
    assert [fault for resource in resources for fault in faults(resource)] == []


def test_only_replicas_lie_on_graphics_processors() -> None:
    (service,) = (
        each
        for each in yaml.safe_load_all(rendered(BESIDE["Ray with a key and a GPU"]))
        if each["kind"] == "RayService"
    )
    cluster = service["spec"]["rayClusterConfig"]
    head, worker = cluster["headGroupSpec"]["template"], cluster["workerGroupSpecs"][0]["template"]
    assert worker["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert worker["spec"]["nodeSelector"] == {"pool": "gpu"}
    assert "nvidia.com/gpu" not in head["spec"]["containers"][0]["resources"]["limits"]
    assert "nodeSelector" not in head["spec"]

"""Manifests, Compose and the dashboard agree with the server: its options, routes, metrics and limits."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from outrider import LLM
from outrider.cli.options import settings_of
from outrider.cluster import DIRECT
from outrider.config import EngineConfig
from outrider.serving.settings import ServerConfig
from tests.deploy.manifests import DEPLOY, Resource, stored, templates
from tests.docs.configs import ENDING
from tests.docs.shell import COMMANDS, understand_outrider
from tests.serving.harness import Served, running

ROOT = DEPLOY.parent
STORED = dict(stored())
PODS = [(name, pod) for name, resource in STORED.items() for pod in templates(resource)]
SERVERS = [(name, pod) for name, pod in PODS if name.endswith("Deployment")]
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
PORT = ServerConfig.model_fields["port"].default
LLM_ALONE = {"speculative_model"}  # what makes a part of EngineConfig
METRIC = r"outrider[:_]\w+"


@pytest.fixture(scope="module")
def served(target: str) -> Iterator[Served]:
    with running(LLM(target, device="cpu")) as served:
        yield served


@pytest.fixture(scope="module")
def metrics(served: Served) -> set[str]:
    """Names of what /metrics shows, after a request."""
    served.post("/v1/completions", prompt="the", max_tokens=2)
    shown = served.http.get("/metrics").text
    return {re.split(r"[{ ]", line)[0] for line in shown.splitlines() if not line.startswith("#")}


@pytest.mark.parametrize(("name", "pod"), SERVERS, ids=[name for name, _ in SERVERS])
def test_arguments_are_those_of_the_server(name: str, pod: Resource) -> None:
    """And settings are those of LLM."""
    (container,) = pod["spec"]["containers"]
    understand_outrider(["outrider", "serve", *container["args"]])
    given = COMMANDS["serve"].make_context("serve", list(container["args"])).params
    assert settings_of(given["setting"]).keys() <= EngineConfig.model_fields.keys()
    assert given["shutdown_timeout"] + 5 < ENDING < pod["spec"]["terminationGracePeriodSeconds"] - 5


def test_the_application_of_replicas_has_its_arguments() -> None:
    """As long as the cluster is not there, those of LLM among them."""
    (config,) = (each["spec"]["serveConfigV2"] for name, each in STORED.items() if name == "ray/RayService")
    (application,) = yaml.safe_load(config)["applications"]
    assert application["import_path"] == "outrider.cluster.replicas:app"
    arguments = application["args"]
    assert arguments["options"].keys() <= EngineConfig.model_fields.keys() | LLM_ALONE
    if importlib.util.find_spec("outrider.cluster") is not None:
        given = importlib.import_module("outrider.cluster.config").ClusterConfig(**arguments)
        assert given.replicas == 2


def test_nodes_of_ray_treat_engines_as_the_command_does() -> None:
    """Workers have the priority that Ray was told of where the node was started."""
    nodes = [pod for name, pod in PODS if name == "ray/RayService"]
    assert len(nodes) == 2
    for node in nodes:
        (container,) = node["spec"]["containers"]
        given = {each["name"]: each["value"] for each in container["env"] if each["name"] in DIRECT}
        assert given.keys() >= {"RAY_worker_niceness"}
        assert given.items() <= DIRECT.items()


def test_an_argument_that_there_is_not_is_found() -> None:
    with pytest.raises(Exception, match="No such option"):
        understand_outrider(["outrider", "serve", "smollm2", "--speculativ-model", "auto"])


def test_probes_ask_for_what_the_server_answers(served: Served) -> None:
    probes = [
        (probe["httpGet"], container)
        for _, pod in SERVERS
        for container in pod["spec"]["containers"]
        for key, probe in container.items()
        if key.endswith("Probe")
    ]
    assert len(probes) >= 3 * len(SERVERS)
    for asked, container in probes:
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports[asked["port"]] == PORT
        assert served.http.get(asked["path"]).status_code == 200
    assert served.http.get("/healthz").status_code == 404  # not everything is answered


def test_scrapers_ask_for_what_the_server_answers(served: Served) -> None:
    monitors = [each for name, each in STORED.items() if "PodMonitor" in name]
    scraped = yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text())["scrape_configs"]
    endpoints = [
        endpoint
        for monitor in monitors
        for endpoint in monitor["spec"].get("podMetricsEndpoints") or monitor["spec"]["endpoints"]
    ]
    paths = [endpoint["path"] for endpoint in endpoints] + [job["metrics_path"] for job in scraped]
    assert len(paths) > 3
    assert {served.http.get(path).status_code for path in paths} == {200}
    named = {port["name"] for _, pod in PODS for each in pod["spec"]["containers"] for port in each["ports"]}
    assert {endpoint["port"] for endpoint in endpoints} <= named


def scaled_by() -> set[str]:
    """Metrics that pods are scaled by; an adapter writes `_` for `:`."""
    found = set()
    for name, resource in STORED.items():
        if name.endswith(("ScaledObject", "HorizontalPodAutoscaler")):
            found |= {*re.findall(METRIC, json.dumps(resource["spec"]))}
    chart = yaml.safe_load((DEPLOY / "helm" / "outrider" / "values.yaml").read_text())
    return found | {*chart["autoscaling"]["metrics"].values()}


def test_metrics_that_are_asked_for_are_there(metrics: set[str]) -> None:
    assert len(scaled_by()) >= 4
    there = metrics | {name.replace(":", "_") for name in metrics}
    assert scaled_by() <= there
    assert "outrider:num_requests_queued" not in there


@pytest.mark.parametrize(("name", "pod"), PODS, ids=[name for name, _ in PODS])
def test_pods_may_no_more_than_they_need(name: str, pod: Resource) -> None:
    spec = pod["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    user = re.findall(r"(?m)^USER (\d+)$", (ROOT / "Dockerfile").read_text())
    assert {str(spec["securityContext"]["runAsUser"])} == {*user}
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    scales = name == "ray/RayService" and pod["metadata"]["labels"]["app.kubernetes.io/component"] == "head"
    assert spec["automountServiceAccountToken"] is scales
    for container in spec["containers"]:
        allowed = container["securityContext"]
        assert allowed["readOnlyRootFilesystem"] is True
        assert allowed["allowPrivilegeEscalation"] is False
        assert allowed["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {"/tmp", "/home/outrider/.cache"} <= mounts


def test_what_selects_pods_selects_those_of_its_file() -> None:
    for name, resource in STORED.items():
        file, kind = name.split("/")
        spec = resource["spec"]
        selector = {
            "Service": lambda spec: spec["selector"],
            "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
            "PodMonitor": lambda spec: spec["selector"]["matchLabels"],
            "PodMonitoring": lambda spec: spec["selector"]["matchLabels"],
        }.get(kind)
        if selector is not None:
            labels = [pod["metadata"]["labels"] for of, pod in PODS if of.startswith(f"{file}/")]
            assert any(selector(spec).items() <= each.items() for each in labels), name


def test_every_file_has_what_pods_need_in_a_cluster() -> None:
    for file in {name.split("/")[0] for name in STORED}:
        kinds = {name.split("/")[1] for name in STORED if name.startswith(f"{file}/")}
        assert {"PersistentVolumeClaim", "PodDisruptionBudget", "NetworkPolicy"} <= kinds


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((DEPLOY / "helm" / "outrider" / "Chart.yaml").read_text())
    (version,) = re.findall(r'(?m)^version = "(.+)"$', (ROOT / "pyproject.toml").read_text())
    assert chart["version"] == chart["appVersion"] == version


def test_compose_starts_the_server_as_it_understands_it() -> None:
    service = COMPOSE["services"]["outrider"]
    words = [re.sub(r"\$\{\w+:-(\w+)\}", r"\1", word) for word in service["command"]]
    understand_outrider(["outrider", "serve", *words])
    assert float(service["stop_grace_period"].removesuffix("s")) > ENDING
    assert service["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    build = service["build"]
    assert (DEPLOY / "compose" / build["context"] / "Dockerfile").resolve() == ROOT / "Dockerfile"
    assert f" AS {build['target']}\n" in (ROOT / "Dockerfile").read_text()
    assert service["read_only"] is True


def test_compose_mounts_files_that_there_are() -> None:
    mounts = [mount for service in COMPOSE["services"].values() for mount in service.get("volumes", [])]
    files = [Path(mount.split(":")[0]) for mount in mounts if mount.startswith(".")]
    assert len(files) == 4
    assert all((DEPLOY / "compose" / file).is_file() for file in files)
    assert {m.split(":")[0] for m in mounts if not m.startswith(".")} == COMPOSE["volumes"].keys()


def test_prometheus_asks_the_server_with_its_key() -> None:
    (job,) = yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text())["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    name, port = target.split(":")
    assert name in COMPOSE["services"]
    assert int(port) == PORT
    (secret,) = COMPOSE["services"]["prometheus"]["secrets"]
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{secret}"
    assert COMPOSE["secrets"][secret]["environment"] in COMPOSE["services"]["outrider"]["environment"]

"""What is wrong with a manifest: by schemas of Kubernetes and operators, and how its parts hang together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.manifests import Resource, templates

SCHEMAS = {path.stem: path for path in (Path(__file__).parent / "schemas").glob("*.yaml")}
OLDEST = "1.30"  # of Kubernetes, as Chart.yaml says; the newest is what kubernetes-validate knows


def faults(resource: Resource) -> list[str]:
    """Sentences, none for a manifest that is as it should be."""
    return [*_of_schemas(resource), *_of_selectors(resource), *_of_probes(resource), *_of_volumes(resource)]


def _of_schemas(resource: Resource) -> Iterator[str]:
    import jsonschema
    import kubernetes_validate

    def told(each: Resource) -> Iterator[str]:
        for version in (OLDEST, kubernetes_validate.latest_version()):
            try:
                kubernetes_validate.validate(each, version, strict=True)
            except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
                yield f"Kubernetes {version}: {error.message}"

    kind = resource["kind"]
    if kind not in SCHEMAS:
        yield from told(resource)
        return
    group, schema = SCHEMAS[kind].read_text(encoding="utf-8").split("\n", 1)
    if resource["apiVersion"] != group.removeprefix("# "):
        yield f"{kind} is of {group.removeprefix('# ')}, not {resource['apiVersion']}"
    if extra := resource.keys() - {"apiVersion", "kind", "metadata", "spec"}:
        yield f"{kind} has no {sorted(extra)}"
    validator = jsonschema.Draft202012Validator(yaml.safe_load(schema))
    yield from (f"{error.json_path}: {error.message}" for error in validator.iter_errors(resource["spec"]))
    for template in templates(resource):
        metadata = {"name": "pod", **template.get("metadata", {})}
        yield from told({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})


def _of_selectors(resource: Resource) -> Iterator[str]:
    """A Deployment's selects its own pods."""
    if resource["kind"] == "Deployment":
        wanted = resource["spec"].get("selector", {}).get("matchLabels", {})
        labels = resource["spec"]["template"]["metadata"]["labels"]
        if not wanted or not wanted.items() <= labels.items():
            yield f"the selector {wanted} does not fit the pods' labels {labels}"


def _of_probes(resource: Resource) -> Iterator[str]:
    for container in _containers(resource):
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            port = container.get(name, {}).get("httpGet", {}).get("port")
            if port is not None and port not in {*ports, *ports.values()}:
                yield f"{name} asks at port {port}, and {container['name']} has {ports}"


def _of_volumes(resource: Resource) -> Iterator[str]:
    for template in templates(resource):
        there = {volume["name"] for volume in template["spec"].get("volumes", [])}
        for container in template["spec"]["containers"]:
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in there:
                    yield f"{container['name']} mounts {mount['name']}, which is no volume of {sorted(there)}"


def _containers(resource: Resource) -> Iterator[dict[str, Any]]:
    for template in templates(resource):
        yield from template["spec"]["containers"]

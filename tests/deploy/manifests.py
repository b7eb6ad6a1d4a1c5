"""The chart's manifests for each file of values: rendered by Helm, and as they lie in deploy/kubernetes.

python -m tests.deploy.manifests writes what is rendered there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
CHART = DEPLOY / "helm" / "outrider"
VALUES = sorted((DEPLOY / "helm" / "values").glob("*.yaml"))
KUBERNETES = DEPLOY / "kubernetes"
NAME = NAMESPACE = "outrider"
HEAD = """# Rendered from deploy/helm/outrider with deploy/helm/values/{name}. Change those, and render again:
# python -m tests.deploy.manifests
"""

Resource = dict[str, Any]


def rendered(values: Mapping[str, Any]) -> str:
    """All manifests of the chart, in order of its files' names. Raises helm_python.HelmError for values that
    it refuses."""
    import helm_python

    with helm_python.Chart.load(str(CHART)) as chart:
        files = chart.render(dict(values), name=NAME, namespace=NAMESPACE)
    texts = (text.strip() for _, text in sorted(files.items()))
    return "\n---\n".join(text for text in texts if text) + "\n"


def of_values(path: Path) -> str:
    """What lies in deploy/kubernetes for a file of values."""
    values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return HEAD.format(name=path.name) + rendered(values)


def stored() -> list[tuple[str, Resource]]:
    """Every resource of deploy/kubernetes, with the name of its file and its kind."""
    return [
        (f"{path.stem}/{resource['kind']}", resource)
        for path in sorted(KUBERNETES.glob("*.yaml"))
        for resource in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    ]


def templates(resource: Resource) -> Iterator[Resource]:
    """The templates of pods in a resource."""
    spec = resource["spec"]
    if resource["kind"] == "Deployment":
        yield spec["template"]
    elif resource["kind"] == "RayService":
        cluster = spec["rayClusterConfig"]
        yield cluster["headGroupSpec"]["template"]
        yield from (group["template"] for group in cluster["workerGroupSpecs"])


def main() -> None:
    KUBERNETES.mkdir(exist_ok=True)
    for path in VALUES:
        (KUBERNETES / path.name).write_text(of_values(path), encoding="utf-8")


if __name__ == "__main__":
    main()

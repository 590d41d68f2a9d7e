"""What a rendered chart holds, and what the gateway makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.config import Config, load
from tests.deploy.helm import CHART

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Manifest = dict[str, Any]

REDIS = "-f", CHART / "ci/redis-values.yaml"
PRODUCTION = "-f", CHART / "ci/production-values.yaml"
OPENSHIFT = "-f", CHART / "ci/openshift-values.yaml"
SIDECAR = "-f", CHART / "ci/sidecar-app-values.yaml"

SECRETS = {
    "store__url": "redis://:hidden@127.0.0.1:1/0",
    "store__password": "hidden-store",
    "store__sentinel_password": "hidden-sentinel",
    "store__tls__key_password": "hidden-key",
    "cache__secret": "0123456789abcdef0123456789abcdef",
    "admin__token": "hidden-0123456789abcdef0123456789abcdef",
    "upstreams__openai__api_key": "sk-hidden-openai",
    "upstreams__my-vllm__api_key": "sk-hidden-vllm",
}
"""What the tests mount for each of the chart's `secrets`."""


def workload(manifests: list[Manifest]) -> Manifest | None:
    """The Deployment, where there is one."""
    return next((m for m in manifests if m["kind"] == "Deployment"), None)


def pod_of(deployment: Manifest) -> Manifest:
    """The pod's spec."""
    pod: Manifest = deployment["spec"]["template"]["spec"]
    return pod


def all_containers(pod: Manifest) -> list[Manifest]:
    """Init containers included."""
    return [*pod.get("initContainers", ()), *pod["containers"]]


def config_map_of(manifests: list[Manifest]) -> Manifest:
    """The ConfigMap with the gateway's file, not the one with the dashboard."""
    (found,) = (m for m in manifests if m["kind"] == "ConfigMap" and "warmgate.yaml" in m["data"])
    return found


def gateway_container(pod: Manifest) -> Manifest:
    """The container that runs the gateway."""
    (found,) = (container for container in all_containers(pod) if container["name"] == "warmgate")
    return found


def annotations_of(manifest: Manifest) -> Manifest:
    """Its annotations, if only none."""
    annotations: Manifest = manifest["metadata"].get("annotations") or {}
    return annotations


def pods(manifests: list[Manifest]) -> Iterator[Manifest]:
    """The spec of every pod, that of the helm test included."""
    for manifest in manifests:
        match manifest["kind"]:
            case "Deployment":
                yield pod_of(manifest)
            case "Pod":
                yield manifest["spec"]
            case _:
                pass


def settings_of(
    manifests: list[Manifest], folder: Path, *, image: dict[str, str] | None = None
) -> Config:
    """What the gateway makes of a rendered pod, or of the ConfigMap where there is no pod.

    `image` holds the variables that the image sets; those of the pod win.
    """
    return load(*mounted(manifests, folder, image=image))


def mounted(
    manifests: list[Manifest], folder: Path, *, image: dict[str, str] | None = None
) -> tuple[Path, dict[str, str]]:
    """The config file and the environment of a rendered pod, with its files put into `folder`."""
    config_map = config_map_of(manifests)
    (file_name, text), *more = config_map["data"].items()
    assert not more
    file = folder / file_name
    file.write_text(text, encoding="utf-8")
    environ = dict(image or {})
    deployment = workload(manifests)
    if deployment is None:
        return file, environ
    pod = pod_of(deployment)
    container = gateway_container(pod)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    places = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert places["/etc/warmgate/config"]["configMap"]["name"] == config_map["metadata"]["name"]
    assert container["args"] == ["serve"]
    for variable in container["env"]:
        value = variable.get("value", "from the pod")
        if variable["name"].startswith("GATEWAY_") and variable["name"].endswith("_FILE"):
            mount, _, name = value.rpartition("/")
            sources = places[mount]["projected"]["sources"]
            assert name in {item["path"] for s in sources for item in s["secret"]["items"]}
            secret = folder / name
            secret.write_text(SECRETS[name] + "\n", encoding="utf-8")
            value = str(secret)
        environ[variable["name"]] = value
    assert environ["GATEWAY_CONFIG"] == f"/etc/warmgate/config/{file_name}"
    # It is not there in the tests, but in `folder`.
    environ["GATEWAY_CONFIG"] = str(file)
    return file, environ

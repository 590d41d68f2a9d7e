from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.deploy.helm import CHART, Helm
from tests.deploy.manifests import (
    Manifest,
    all_containers,
    gateway_container,
    mounted,
    pod_of,
    pods,
    settings_of,
    workload,
)
from tests.deploy.schemas import KUBES, complaints

if TYPE_CHECKING:
    from pathlib import Path

ROOT = CHART.parents[1]
LABELS = ("name", "instance", "component", "version", "part-of", "managed-by")


def containers(manifests: list[Manifest]) -> list[Manifest]:
    return [container for pod in pods(manifests) for container in all_containers(pod)]


def test_lints_strictly(helm: Helm, values: Path) -> None:
    done = helm.run("lint", "--strict", CHART, "-f", values)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kube", [KUBES[0], KUBES[-1]])
def test_renders_the_same_for_every_kubernetes(helm: Helm, values: Path, kube: str) -> None:
    assert helm.template("-f", values, kube=f"{kube}.0") == helm.of_the_chart("-f", values)


def test_survives_being_packaged(helm: Helm, values: Path, tmp_path: Path) -> None:
    assert helm.run("package", CHART, "-d", tmp_path).returncode == 0
    (package,) = tmp_path.glob("warmgate-*.tgz")
    assert helm.manifests("-f", values, chart=package) == helm.manifests("-f", values)


@pytest.mark.parametrize("kube", KUBES)
def test_is_valid_for_kubernetes(helm: Helm, values: Path, kube: str) -> None:
    for manifest in helm.manifests("-f", values):
        assert not complaints(manifest, kube), manifest["kind"]


def test_no_member_stands_twice(helm: Helm, values: Path) -> None:
    # Parsers take the last one, API servers refuse it.
    def check(node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            names = [key.value for key, _ in node.value]
            assert len(names) == len(set(names)), names
            for _, value in node.value:
                check(value)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                check(item)

    extra = ("--set=podLabels.tier=a,commonLabels.tier=b", "--set=podAnnotations.checksum/config=c")
    for document in yaml.compose_all(helm.of_the_chart("-f", values, *extra), yaml.SafeLoader):
        check(document)


def test_sets_no_namespace(helm: Helm, values: Path) -> None:
    for manifest in helm.manifests("-f", values):
        assert "namespace" not in manifest["metadata"], manifest["kind"]


def test_labels_everything_alike(helm: Helm, values: Path) -> None:
    for manifest in helm.manifests("-f", values):
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "rel"
        assert {f"app.kubernetes.io/{name}" for name in LABELS} | {"helm.sh/chart"} <= set(
            labels
        ), manifest["kind"]


def test_names_no_floating_image(helm: Helm, values: Path) -> None:
    for container in containers(helm.manifests("-f", values)):
        assert re.search(r"@sha256:[0-9a-f]{64}$|:[0-9][\w.-]*$", container["image"])


def test_runs_the_gateway_with_least_privilege(helm: Helm, values: Path) -> None:
    asked = yaml.safe_load(values.read_text(encoding="utf-8")) or {}
    is_assigned = asked.get("runAsUser") == "assigned"
    user = {} if is_assigned else {"runAsUser": 65532, "runAsGroup": 65532}
    for container in containers(helm.manifests("-f", values)):
        if container["name"] == "app":
            continue
        assert container["securityContext"] == {
            **user,
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert container["resources"]["limits"]["memory"]


def test_is_let_into_a_namespace_with_restricted_pod_security(helm: Helm, values: Path) -> None:
    # https://kubernetes.io/docs/concepts/security/pod-security-standards/
    allowed = {
        *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral"),
        *("persistentVolumeClaim", "projected", "secret"),
    }
    for pod in pods(helm.manifests("-f", values)):
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        for volume in pod.get("volumes", ()):
            assert set(volume) - {"name"} <= allowed
        for container in all_containers(pod):
            context = {**pod["securityContext"], **container["securityContext"]}
            # Whether the image of an app runs without root, only its people know.
            assert container["name"] == "app" or context["runAsNonRoot"] is True
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert not any("hostPort" in port for port in container.get("ports", ()))


def test_mounts_no_token(helm: Helm, values: Path) -> None:
    manifests = helm.manifests("-f", values)
    accounts = [m for m in manifests if m["kind"] == "ServiceAccount"]
    for holder in (*pods(manifests), *accounts):
        assert holder["automountServiceAccountToken"] is False


def test_mounts_only_what_is_a_volume(helm: Helm, values: Path) -> None:
    deployment = workload(helm.manifests("-f", values))
    if deployment is None:
        return
    pod = pod_of(deployment)
    container = gateway_container(pod)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert set(mounts.values()) == set(volumes)
    assert "emptyDir" in volumes[mounts["/tmp"]]


def test_has_settings_that_the_gateway_accepts(helm: Helm, values: Path, tmp_path: Path) -> None:
    manifests = helm.manifests("-f", values)
    # The image's own variables are there too, and the pod's must win over them.
    settings = settings_of(
        manifests,
        tmp_path,
        image={"GATEWAY_SERVER__HOST": "192.0.2.1", "GATEWAY_SERVER__PROBE_HOST": "192.0.2.1"},
    )
    deployment = workload(manifests)
    if deployment is None:
        assert settings.store.url == "memory://"
        return
    container = gateway_container(pod_of(deployment))
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert settings.server.probe_port == ports["probes"]
    assert settings.server.probe_host == "0.0.0.0"
    if "api" in ports:
        assert (settings.server.host, settings.server.port) == ("0.0.0.0", ports["api"])
    else:
        assert (settings.server.host, settings.server.port) == ("127.0.0.1", 4180)


def test_passes_gateway_check(helm: Helm, values: Path, tmp_path: Path) -> None:
    file, environ = mounted(helm.manifests("-f", values), tmp_path)
    done = subprocess.run(
        # As `kubectl exec ... -- gateway check`: it must find the file that is served by itself.
        [sys.executable, "-m", "gateway", "check"],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "GATEWAY_CONFIG": str(file),
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "drain_timeout_s" in done.stdout
    assert "hidden" not in done.stdout


def test_ends_within_its_grace_period(helm: Helm, values: Path, tmp_path: Path) -> None:
    manifests = helm.manifests("-f", values)
    deployment = workload(manifests)
    if deployment is None:
        return
    server = settings_of(manifests, tmp_path).server
    drain = server.drain_delay_s + server.drain_timeout_s
    pod = pod_of(deployment)
    sleep = gateway_container(pod).get("lifecycle", {"preStop": {"sleep": {"seconds": 0}}})
    asleep = sleep["preStop"]["sleep"]["seconds"]
    assert drain > 0
    assert asleep + drain + 5 <= pod["terminationGracePeriodSeconds"]


def test_is_probed_on_the_probe_port(helm: Helm, values: Path) -> None:
    deployment = workload(helm.manifests("-f", values))
    if deployment is None:
        return
    container = gateway_container(pod_of(deployment))
    paths = {
        name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")
    }
    assert paths == {
        "startup": {"path": "/livez", "port": "probes"},
        "liveness": {"path": "/livez", "port": "probes"},
        "readiness": {"path": "/readyz", "port": "probes"},
    }

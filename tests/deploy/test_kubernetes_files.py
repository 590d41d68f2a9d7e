"""The plain manifests, the Kustomize component and its examples."""

from __future__ import annotations

import functools
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from gateway.config import load
from tests.deploy.kubernetes_files import FOLDER, OF_HELM, OVER_THE_TOKEN, rendered
from tests.deploy.manifests import SIDECAR, all_containers, gateway_container, pod_of, workload
from tests.deploy.schemas import KUBES, complaints
from tests.helpers.required import missing

if TYPE_CHECKING:
    from pathlib import Path

    from tests.deploy.helm import Helm
    from tests.deploy.manifests import Manifest

PLAIN = ["warmgate.yaml", "app-with-sidecar.yaml"]
# The workload of each, as its own people wrote it.
EXAMPLES = {"deployment": "chat.yaml", "job": "evaluate.yaml"}
OTHER_WORKLOADS = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  serviceName: agent
  template:
    metadata: {labels: {app: agent}}
    spec: {containers: [{name: agent, image: "agent:1"}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: shipper}
spec:
  selector: {matchLabels: {app: shipper}}
  template:
    metadata: {labels: {app: shipper}}
    spec:
      # One of its own, which is not to be lost, and may ask the gateway.
      initContainers: [{name: schema, image: "shipper:1"}]
      containers: [{name: shipper, image: "shipper:1"}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: 0 3 * * *
  jobTemplate:
    spec:
      template:
        spec: {restartPolicy: Never, containers: [{name: nightly, image: "nightly:1"}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: redis, labels: {warmgate: none}}
spec:
  selector: {matchLabels: {app: redis}}
  template:
    metadata: {labels: {app: redis}}
    spec: {containers: [{name: redis, image: "redis:7"}]}
"""


def of_file(path: Path) -> list[Manifest]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def kustomize(folder: Path) -> list[Manifest]:
    """What `kubectl kustomize` makes of a folder; that needs no cluster."""
    return list(yaml.safe_load_all(kustomized(folder)))


@functools.cache
def kustomized(folder: Path) -> str:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        missing("kubectl", "is not installed")
    done = subprocess.run(
        [kubectl, "kustomize", folder], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def pod_in(manifest: Manifest) -> dict[str, Any]:
    """The pod's spec of a workload of any kind."""
    spec = manifest["spec"]
    template = spec.get("jobTemplate", {"spec": spec})["spec"]["template"]
    found: dict[str, Any] = template["spec"]
    return found


def test_the_files_are_what_the_chart_renders(helm: Helm) -> None:
    for path, text in rendered(helm).items():
        assert (FOLDER / path).read_text(encoding="utf-8") == text, (
            f"{path}: the chart has changed: .venv/bin/python -m tests.deploy.kubernetes_files"
        )


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("kube", KUBES)
def test_plain_manifests_are_valid_for_kubernetes(name: str, kube: str) -> None:
    manifests = of_file(FOLDER / name)
    for manifest in manifests:
        assert not complaints(manifest, kube), manifest["kind"]
        assert not OF_HELM & set(manifest["metadata"]["labels"])
        assert "namespace" not in manifest["metadata"]
    assert workload(manifests)


def test_the_components_sidecar_is_the_charts(helm: Helm) -> None:
    (patch,) = of_file(FOLDER / "sidecar/pod.yaml")
    (cron,) = of_file(FOLDER / "sidecar/cronjob.yaml")
    assert pod_in(patch) == pod_in(cron)
    (sidecar,) = pod_in(patch)["initContainers"]
    deployment = workload(
        helm.manifests("--set=mode=sidecar", "--set=sidecar.app.image=registry.example.com/chat:1")
    )
    assert deployment
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["volumeMounts"].pop() == OVER_THE_TOKEN
    assert sidecar == gateway_container(pod_of(deployment))


def test_the_components_settings_are_a_small_gateways() -> None:
    settings = load(FOLDER / "sidecar/warmgate.yaml", {})
    assert settings.store.url == "memory://"
    assert settings.store.memory_bytes == 16 * 1024 * 1024
    assert settings.server.drain_timeout_s == 5


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("kube", KUBES)
def test_examples_are_valid_for_kubernetes(example: str, kube: str) -> None:
    for manifest in kustomize(FOLDER / "examples" / example):
        assert not complaints(manifest, kube), manifest["kind"]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_the_app_as_it_was_with_the_gateway_before_it(example: str) -> None:
    manifests = {m["kind"]: m for m in kustomize(FOLDER / "examples" / example)}
    settings = manifests.pop("ConfigMap")
    (manifest,) = manifests.values()
    pod = pod_in(manifest)
    first, *others = pod["initContainers"]
    assert first["name"] == "warmgate"
    assert first["image"] == "registry.example.com/warmgate:0.1.0"
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    # Its name ends in a hash, so that the pods roll when it changes.
    assert settings["metadata"]["name"].startswith("warmgate-")
    assert volumes["warmgate-config"]["configMap"]["name"] == settings["metadata"]["name"]
    (before,) = of_file(FOLDER / "examples" / example / EXAMPLES[example])
    was = pod_in(before)
    assert others == was.get("initContainers", [])
    (app,) = pod["containers"]
    assert {v["name"]: v.get("value") for v in app["env"]}.items() >= {
        "OPENAI_BASE_URL": "http://127.0.0.1:4180/v1",
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:4180",
    }.items()
    rest = {name: value for name, value in app.items() if name != "env"}
    assert rest == {name: value for name, value in was["containers"][0].items() if name != "env"}
    assert manifest["metadata"] == before["metadata"]


def test_a_job_ends_with_its_own_container() -> None:
    (job,) = (m for m in kustomize(FOLDER / "examples/job") if m["kind"] == "Job")
    pod = pod_in(job)
    assert pod["restartPolicy"] == "Never"
    # Only a sidecar may go on when the others have ended; as a container it would hold the Job up.
    assert [c["name"] for c in pod["containers"]] == ["evaluate"]
    assert pod["initContainers"][0]["restartPolicy"] == "Always"


def test_every_kind_of_workload_gets_it_but_those_that_say_no(tmp_path: Path) -> None:
    shutil.copytree(FOLDER / "sidecar", tmp_path / "sidecar")
    here = tmp_path / "here"
    here.mkdir()
    (here / "workloads.yaml").write_text(OTHER_WORKLOADS, encoding="utf-8")
    kustomization = {"resources": ["workloads.yaml"], "components": ["../sidecar"]}
    (here / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
    beside = {
        manifest["kind"]: [container["name"] for container in all_containers(pod_in(manifest))]
        for manifest in kustomize(here)
        if manifest["kind"] != "ConfigMap"
    }
    assert beside == {
        "StatefulSet": ["warmgate", "agent"],
        "DaemonSet": ["warmgate", "schema", "shipper"],
        "CronJob": ["warmgate", "nightly"],
        "Deployment": ["redis"],
    }


def test_settings_are_where_workloads_with_a_namespace_look_for_them(tmp_path: Path) -> None:
    # Without `namespace` in the kustomization the ConfigMap has none, and Kustomize leaves the
    # workload with a name that is nowhere.
    shutil.copytree(FOLDER / "sidecar", tmp_path / "sidecar")
    here = tmp_path / "here"
    here.mkdir()
    (before,) = of_file(FOLDER / "examples/deployment/chat.yaml")
    before["metadata"]["namespace"] = "apps"
    (here / "chat.yaml").write_text(yaml.safe_dump(before), encoding="utf-8")
    said = (FOLDER / "sidecar/kustomization.yaml").read_text(encoding="utf-8")
    assert "give the kustomization the same `namespace`" in " ".join(said.split("\n# "))
    kustomization = {"resources": ["chat.yaml"], "components": ["../sidecar"], "namespace": "apps"}
    (here / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
    manifests = {m["kind"]: m for m in kustomize(here)}
    metadata = manifests["ConfigMap"]["metadata"]
    volumes = {volume["name"]: volume for volume in pod_in(manifests["Deployment"])["volumes"]}
    assert metadata["namespace"] == "apps"
    assert volumes["warmgate-config"]["configMap"]["name"] == metadata["name"]


def test_the_patch_is_the_component_and_the_environment(helm: Helm) -> None:
    (patch,) = of_file(FOLDER / "patch.yaml")
    (component,) = of_file(FOLDER / "sidecar/pod.yaml")
    patched = pod_in(patch)
    (app,) = patched.pop("containers")
    assert patched == pod_in(component)
    (rendered_app,) = pod_in(helm.one("Deployment", *SIDECAR))["containers"]
    assert app["env"] == rendered_app["env"][: len(app["env"])]

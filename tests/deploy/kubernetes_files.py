"""Keeps deploy/kubernetes in step with the chart, from which its manifests are rendered.

After a change of the chart: .venv/bin/python -m tests.deploy.kubernetes_files
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.helm import CHART, Helm, install, manifests_in
from tests.deploy.manifests import Manifest, config_map_of, gateway_container, pod_of, workload

FOLDER = CHART.parents[1] / "deploy/kubernetes"
APP = "registry.example.com/chat:1.0.0"
SIDECAR = ("--set=mode=sidecar", f"--set=sidecar.app.image={APP}")
# What is said of a release of Helm is not true of plain manifests.
OF_HELM = {"helm.sh/chart", "app.kubernetes.io/managed-by"}
KUBE = "1.33.0"
# As templates/_sidecar.tpl has it for pods that are another's.
OVER_THE_TOKEN = {
    "name": "warmgate-config",
    "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
    "readOnly": True,
}

HEAD = (
    "# Rendered from helm/warmgate: change it there, then python -m tests.deploy.kubernetes_files\n"
)


class _Plain(yaml.SafeDumper):
    """Texts of several lines as they are read, and no references between parts of a file."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        return super().increase_indent(flow, indentless=False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else "")


_Plain.add_representer(str, _text)


def _yaml(manifests: list[Manifest], said: str = "") -> str:
    body = yaml.dump_all(manifests, Dumper=_Plain, sort_keys=False, width=100)
    return f"{HEAD}{said}---\n{body}" if len(manifests) > 1 else f"{HEAD}{said}{body}"


def _release(helm: Helm, *arguments: str) -> list[Manifest]:
    """The manifests of a release `warmgate`, as nobody's release."""
    done = helm.run("template", "warmgate", CHART, "--kube-version", KUBE, "--no-hooks", *arguments)
    assert done.returncode == 0, done.stderr
    manifests = manifests_in(done.stdout)
    for manifest in manifests:
        metadatas = [manifest["metadata"]]
        if manifest["kind"] == "Deployment":
            metadatas.append(manifest["spec"]["template"]["metadata"])
            # Of the text as it was; nothing here would bring it up to date.
            del metadatas[-1]["annotations"]
        for metadata in metadatas:
            metadata["labels"] = {k: v for k, v in metadata["labels"].items() if k not in OF_HELM}
    return manifests


def _pod(manifests: list[Manifest]) -> Manifest:
    deployment = workload(manifests)
    assert deployment
    return pod_of(deployment)


def rendered(helm: Helm) -> dict[str, str]:
    """The text of each file that is rendered, by its path below deploy/kubernetes."""
    gateway = _release(helm, "--set=replicaCount=1")
    beside = _release(helm, *SIDECAR)
    pod = _pod(beside)
    sidecar = gateway_container(pod)
    hidden = {**sidecar, "volumeMounts": [*sidecar["volumeMounts"], OVER_THE_TOKEN]}
    part = {"initContainers": [hidden], "volumes": pod["volumes"]}
    (app,) = pod["containers"]
    patch = {**part, "containers": [{"name": "app", "env": app["env"]}]}

    def named(template: Manifest, kind: str, api: str) -> str:
        target = {"apiVersion": api, "kind": kind, "metadata": {"name": "whatever-is-selected"}}
        return _yaml([{**target, "spec": template}])

    settings: str = config_map_of(beside)["data"]["warmgate.yaml"]
    return {
        "warmgate.yaml": _yaml(
            gateway,
            "# The gateway for many apps, behind a Service: kubectl apply -f warmgate.yaml\n"
            "# One pod, since each would have a cache of its own: for more of them give the store below a\n"
            "# Redis URL (docs/how-to/kubernetes.md), or purges through one leave what others hold.\n",
        ),
        "app-with-sidecar.yaml": _yaml(
            beside, "# An app with the gateway beside it: kubectl apply -f app-with-sidecar.yaml\n"
        ),
        "patch.yaml": _yaml(
            [{"spec": {"template": {"spec": patch}}}],
            "# For a Deployment whose app's container is called `app`:\n"
            "#   kubectl create configmap warmgate --from-file=sidecar/warmgate.yaml\n"
            "#   kubectl patch deployment chat --patch-file patch.yaml\n",
        ),
        "sidecar/warmgate.yaml": f"# All settings: docs/reference/settings.md\n{settings}",
        "sidecar/pod.yaml": named({"template": {"spec": part}}, "Deployment", "apps/v1"),
        "sidecar/cronjob.yaml": named(
            {"jobTemplate": {"spec": {"template": {"spec": part}}}}, "CronJob", "batch/v1"
        ),
    }


def write() -> None:
    """Render all of them anew. Raises RuntimeError where helm cannot be had."""
    if reason := install():
        raise RuntimeError(reason)
    with tempfile.TemporaryDirectory() as home:
        for path, text in rendered(Helm(Path(home))).items():
            file = FOLDER / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()

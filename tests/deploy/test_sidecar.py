from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest
import yaml

from gateway.config import load
from tests.deploy.helm import CHART, HERE, Helm, default_values
from tests.deploy.kubernetes_files import OVER_THE_TOKEN
from tests.deploy.manifests import (
    SECRETS,
    SIDECAR,
    Manifest,
    annotations_of,
    gateway_container,
    pod_of,
    settings_of,
    workload,
)

if TYPE_CHECKING:
    from pathlib import Path

APP_CHART = HERE / "app-chart"


@pytest.fixture
def app_chart(tmp_path: Path) -> Path:
    """An app's chart with ours among its dependencies, as `helm dependency build` leaves it."""
    chart = tmp_path / "app"
    shutil.copytree(APP_CHART, chart)
    shutil.copytree(CHART, chart / "charts/warmgate")
    return chart


def the_pod(manifests: list[Manifest]) -> Manifest:
    deployment = workload(manifests)
    assert deployment
    return pod_of(deployment)


def test_starts_before_the_app_and_ends_after_it(helm: Helm) -> None:
    pod = the_pod(helm.manifests(*SIDECAR))
    (sidecar,) = pod["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    # Not /readyz: a model server that is down would keep the app from starting.
    assert sidecar["startupProbe"]["httpGet"] == {"path": "/livez", "port": "probes"}
    # It is out of no Service's way, so it need not sleep before it ends.
    assert "lifecycle" not in sidecar
    assert [container["name"] for container in pod["containers"]] == ["app"]
    assert pod["terminationGracePeriodSeconds"] == 45


def test_its_api_is_on_loopback_and_no_port_of_the_pod(helm: Helm, tmp_path: Path) -> None:
    manifests = helm.manifests(*SIDECAR)
    settings = settings_of(manifests, tmp_path, image={"GATEWAY_SERVER__HOST": "0.0.0.0"})
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 4180)
    ports = gateway_container(the_pod(manifests))["ports"]
    assert [port["name"] for port in ports] == ["probes"]


def test_the_app_is_pointed_at_it(helm: Helm) -> None:
    (app,) = the_pod(helm.manifests(*SIDECAR))["containers"]
    environ = {variable["name"]: variable["value"] for variable in app["env"]}
    assert environ == {
        # Where the official SDKs add /chat/completions and /v1/messages.
        "OPENAI_BASE_URL": "http://127.0.0.1:4180/v1",
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:4180",
        "LOG_LEVEL": "info",
    }
    assert (app["command"], app["args"]) == (["python"], ["-m", "chat"])


def test_the_mode_renders_nothing_of_the_other_one(helm: Helm) -> None:
    kinds = sorted(m["kind"] for m in helm.manifests(*SIDECAR))
    assert kinds == ["ConfigMap", "Deployment", "PodMonitor"]
    assert [m["kind"] for m in helm.manifests("--set=mode=sidecar")] == ["ConfigMap"]


def test_a_dead_model_server_takes_the_app_out_of_service_only_if_asked_to(helm: Helm) -> None:
    def sidecar(*arguments: str) -> Manifest:
        pod = the_pod(helm.manifests(*SIDECAR, *arguments))
        return gateway_container(pod)

    assert "readinessProbe" not in sidecar("--set=sidecar.gateReadiness=false")
    assert sidecar()["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "probes"}
    assert default_values()["sidecar"]["gateReadiness"] is False


def test_it_is_smaller_than_a_gateway_for_many(helm: Helm, tmp_path: Path) -> None:
    small = settings_of(helm.manifests("--set=mode=sidecar"), tmp_path)
    large = settings_of(helm.manifests(), tmp_path)
    assert small.store.memory_bytes < large.store.memory_bytes
    assert small.prompt_cache.tree_bytes < large.prompt_cache.tree_bytes
    requests = gateway_container(the_pod(helm.manifests(*SIDECAR)))["resources"]
    assert requests == default_values()["sidecar"]["resources"]


def test_what_is_set_for_both_modes_wins_if_only_a_zero(helm: Helm, tmp_path: Path) -> None:
    settings = settings_of(helm.manifests(*SIDECAR), tmp_path)
    assert settings.store.memory_bytes == 0
    assert (
        settings.cache.door_entries
        == default_values()["sidecar"]["config"]["cache"]["door_entries"]
    )


def test_an_app_image_needs_a_tag(helm: Helm) -> None:
    for image in ("chat", "registry.example.com:5000/chat", "chat:latest"):
        refusal = helm.refusal("--set=mode=sidecar", f"--set=sidecar.app.image={image}")
        assert "sidecar.app.image" in refusal


def test_an_apps_chart_takes_it_in_with_four_lines(
    helm: Helm, app_chart: Path, tmp_path: Path
) -> None:
    assert helm.run("lint", "--strict", app_chart).returncode == 0
    manifests = helm.manifests(chart=app_chart)
    assert sorted(m["kind"] for m in manifests) == ["ConfigMap", "Deployment"]
    settings = settings_of(manifests, tmp_path)
    assert settings.store.url == SECRETS["store__url"]
    pod = the_pod(manifests)
    assert pod["initContainers"][0]["restartPolicy"] == "Always"
    assert pod["initContainers"][0]["image"] == "registry.example.com/warmgate:0.1.0"
    environ = {variable["name"] for variable in pod["containers"][0]["env"]}
    assert environ == {"OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"}


def test_an_apps_chart_can_leave_its_user_to_the_cluster(helm: Helm, app_chart: Path) -> None:
    # Helm keeps a default of a dependency's chart where the values have null.
    pod = the_pod(helm.manifests("--set=warmgate.runAsUser=assigned", chart=app_chart))
    context = gateway_container(pod)["securityContext"]
    assert context["runAsNonRoot"] is True
    assert not {"runAsUser", "runAsGroup"} & set(context)


def test_it_sees_no_token_of_an_app_that_needs_one(helm: Helm, app_chart: Path) -> None:
    # The API server gives a token to each container that has nothing mounted at this path.
    mounts = gateway_container(the_pod(helm.manifests(chart=app_chart)))["volumeMounts"]
    at = {mount["mountPath"]: mount for mount in mounts}
    assert at["/var/run/secrets/kubernetes.io/serviceaccount"] == OVER_THE_TOKEN
    assert len(at) == len(mounts)


def test_an_apps_chart_can_give_it_a_name_and_turn_it_off(helm: Helm, app_chart: Path) -> None:
    # `.Subcharts.llm-cache` is no Go, so aliases have humps; names of objects must not.
    file = app_chart / "Chart.yaml"
    chart = yaml.safe_load(file.read_text(encoding="utf-8"))
    chart["dependencies"][0] |= {"alias": "llmCache", "condition": "llmCache.enabled"}
    file.write_text(yaml.safe_dump(chart), encoding="utf-8")
    for file in (app_chart / "values.yaml", app_chart / "templates/deployment.yaml"):
        text = file.read_text(encoding="utf-8")
        text = text.replace(".Subcharts.warmgate", ".Subcharts.llmCache")
        file.write_text(re.sub("^warmgate:", "llmCache:", text), encoding="utf-8")
    manifests = helm.manifests("--set=llmCache.enabled=true", chart=app_chart)
    (name,) = (m["metadata"]["name"] for m in manifests if m["kind"] == "ConfigMap")
    assert name == "rel-llmcache"
    volumes = {volume["name"]: volume for volume in the_pod(manifests)["volumes"]}
    assert volumes["warmgate-config"]["configMap"]["name"] == name
    (app_chart / "templates/deployment.yaml").unlink()
    assert helm.manifests("--set=llmCache.enabled=false", chart=app_chart) == []


def test_helm_finds_the_chart_where_the_apps_chart_names_it(helm: Helm, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(CHART, tree / "helm/warmgate")
    shutil.copytree(APP_CHART, tree / "tests/deploy/app-chart")
    done = helm.run("dependency", "build", tree / "tests/deploy/app-chart")
    assert done.returncode == 0, done.stderr
    assert helm.manifests(chart=tree / "tests/deploy/app-chart")


def test_an_apps_pods_roll_when_the_settings_change(helm: Helm, app_chart: Path) -> None:
    def checksum(*arguments: str) -> str:
        template = helm.one("Deployment", *arguments, chart=app_chart)["spec"]["template"]
        found: str = annotations_of(template)["checksum/warmgate-config"]
        return found

    assert checksum() != checksum("--set=warmgate.config.cache.ttl_s=60")


def test_an_apps_chart_is_told_when_the_mode_is_wrong(helm: Helm, app_chart: Path) -> None:
    refusal = helm.refusal("--set=warmgate.mode=deployment", chart=app_chart)
    assert "needs `mode: sidecar`" in refusal


def test_a_typo_in_an_apps_values_is_refused(helm: Helm, app_chart: Path) -> None:
    refusal = helm.refusal("--set=warmgate.config.cache.tll_s=60", chart=app_chart)
    assert "tll_s" in refusal


def test_the_settings_of_a_sidecar_load_without_a_pod(helm: Helm, tmp_path: Path) -> None:
    (config_map,) = helm.manifests("--set=mode=sidecar")
    file = tmp_path / "warmgate.yaml"
    file.write_text(config_map["data"]["warmgate.yaml"], encoding="utf-8")
    assert load(file, {}).server.drain_timeout_s == 5


def test_the_guide_shows_the_lines_that_are_tested_here() -> None:
    include = re.compile(r'\{\{- include "warmgate\.[^}]+\}\}')
    template = (APP_CHART / "templates/deployment.yaml").read_text(encoding="utf-8")
    guide = (HERE.parents[1] / "docs/how-to/kubernetes.md").read_text(encoding="utf-8")
    assert len(include.findall(template)) == 4
    assert include.findall(guide) == include.findall(template)

"""What the chart makes beside the gateway: ways in, monitors, alerts, a dashboard, labels."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.deploy import promql
from tests.deploy.chart_schema import COPIES
from tests.deploy.manifests import PRODUCTION, SIDECAR, annotations_of
from tests.deploy.schemas import KUBES, OTHERS, complaints
from tests.helpers.prometheus_server import promtool

if TYPE_CHECKING:
    from pathlib import Path

    from tests.deploy.helm import Helm

ROUTE = ("--set=httpRoute.enabled=true", "--set=httpRoute.parentRefs[0].name=edge")


@pytest.mark.parametrize(("copy", "source"), COPIES.items(), ids=lambda path: path.name)
def test_the_charts_files_are_those_of_deploy(copy: Path, source: Path) -> None:
    assert copy.read_bytes() == source.read_bytes(), (
        "deploy/ has changed: .venv/bin/python -m tests.deploy.chart_schema"
    )


def test_the_rule_holds_every_alert_and_says_where_its_runbook_is(helm: Helm) -> None:
    base = "https://git.example.com/warmgate/blob/main/"
    spec = helm.one("PrometheusRule", *PRODUCTION)["spec"]
    (source,) = (each for each in COPIES.values() if each.name == "alerts.yaml")
    expected = yaml.safe_load(source.read_text(encoding="utf-8"))
    for group in expected["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                rule["annotations"]["runbook_url"] = base + rule["annotations"]["runbook_url"]
    assert expected == spec


def test_prometheus_takes_the_rule(helm: Helm, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump(helm.one("PrometheusRule", *PRODUCTION)["spec"]))
    status, said = promtool("check", "rules", rules)
    assert status == 0, said


def test_the_alerts_find_a_release_whatever_it_is_called(helm: Helm) -> None:
    # By default a PodMonitor's job is its namespace and name: `ns/llm-gateway` is none of ours.
    watched = {
        found for rule in promql.rules() for found in re.findall(r'job=~"([^"]+)"', rule["expr"])
    }
    assert watched
    for arguments in (PRODUCTION, SIDECAR):
        (endpoint,) = helm.one("PodMonitor", *arguments)["spec"]["podMetricsEndpoints"]
        (relabeling,) = endpoint["relabelings"]
        assert relabeling["targetLabel"] == "job"
        for pattern in watched:
            assert re.fullmatch(pattern, relabeling["replacement"])


def test_the_dashboard_is_where_grafana_looks_for_it(helm: Helm) -> None:
    (config_map,) = (
        m for m in helm.manifests(*PRODUCTION) if m["metadata"]["name"].endswith("-dashboard")
    )
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert annotations_of(config_map)["grafana_folder"] == "LLM"
    (source,) = (each for each in COPIES.values() if each.suffix == ".json")
    ((name, text),) = config_map["data"].items()
    assert name == "warmgate.json"
    assert json.loads(text) == json.loads(source.read_text(encoding="utf-8"))
    # `kubectl apply` keeps a copy in an annotation, which holds 256 KiB at most.
    assert len(yaml.safe_dump(config_map)) < 256 * 1024


def test_a_sidecars_alerts_and_dashboard_are_made_too(helm: Helm) -> None:
    kinds = sorted(
        m["kind"]
        for m in helm.manifests(
            *("--set=mode=sidecar", "--set=prometheusRule.enabled=true"),
            "--set=dashboard.enabled=true",
        )
    )
    assert kinds == ["ConfigMap", "ConfigMap", "PrometheusRule"]


def test_ways_in_lead_to_the_service(helm: Helm) -> None:
    service = helm.one("Service", *PRODUCTION)
    name, (port,) = service["metadata"]["name"], service["spec"]["ports"]
    ingress = helm.one("Ingress", *PRODUCTION)["spec"]
    assert ingress["ingressClassName"] == "nginx"
    assert ingress["tls"] == [{"secretName": "llm-certificate", "hosts": ["llm.example.com"]}]
    (rule,) = ingress["rules"]
    assert rule["host"] == "llm.example.com"
    (path,) = rule["http"]["paths"]
    assert path["backend"]["service"] == {"name": name, "port": {"name": port["name"]}}
    route = helm.one("HTTPRoute", *PRODUCTION)["spec"]
    assert route["parentRefs"] == [{"name": "edge", "namespace": "ingress", "sectionName": "https"}]
    (rule,) = route["rules"]
    assert rule["backendRefs"] == [{"name": name, "port": port["port"]}]
    assert rule["timeouts"] == {"request": "0s"}


def test_a_route_without_a_timeout_leaves_it_to_the_gateway(helm: Helm) -> None:
    (rule,) = helm.one("HTTPRoute", *ROUTE)["spec"]["rules"]
    assert "timeouts" not in rule


def test_common_labels_are_on_everything_but_in_no_selector(helm: Helm) -> None:
    for arguments in (PRODUCTION, SIDECAR):
        for manifest in helm.manifests(*arguments):
            assert manifest["metadata"]["labels"]["example.com/cost-center"] == "42"
            if manifest["kind"] == "Deployment":
                spec = manifest["spec"]
                labels = spec["template"]["metadata"]["labels"]
                assert labels["example.com/cost-center"] == "42"
                assert labels["example.com/tier"] == "edge"
                assert "example.com/cost-center" not in spec["selector"]["matchLabels"]


def test_the_more_special_label_wins(helm: Helm) -> None:
    labels = helm.one("Deployment", "--set=commonLabels.tier=all", "--set=podLabels.tier=pod")[
        "spec"
    ]["template"]["metadata"]["labels"]
    assert labels["tier"] == "pod"


def test_a_value_that_is_taken_back_is_an_empty_one(helm: Helm) -> None:
    names = ("commonLabels", "podLabels", "podAnnotations", "resources", "sidecar.config")
    for mode in ("deployment", "sidecar"):
        helm.template(f"--set=mode={mode}", *(f"--set={name}=null" for name in names))


def test_a_longest_name_leaves_room_for_what_is_added_to_it(helm: Helm) -> None:
    for manifest in helm.manifests(*PRODUCTION, f"--set=fullnameOverride={'n' * 80}"):
        assert len(manifest["metadata"]["name"]) <= 63


@pytest.mark.parametrize("kube", [*KUBES, "1.38"])
def test_the_schemas_see_what_is_wrong(helm: Helm, kube: str) -> None:
    deployment = helm.one("Deployment")
    if kube not in KUBES:
        # No older schemas in the place of those that are not there.
        with pytest.raises(Exception, match=r".*") as refused:
            complaints(deployment, kube)
        assert type(refused.value).__name__ == "VersionNotSupportedError"
        return
    deployment["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    assert "livenesProbe" in complaints(deployment, kube)[0]


@pytest.mark.parametrize("kind", OTHERS)
def test_a_misspelt_member_of_other_kinds_is_seen(helm: Helm, kind: str) -> None:
    manifest = helm.one(kind, *PRODUCTION)
    assert not complaints(manifest, KUBES[-1])
    manifest["spec"]["selektor"] = {}
    assert complaints(manifest, KUBES[-1])

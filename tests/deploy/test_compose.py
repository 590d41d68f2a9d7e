"""compose.yaml and what it mounts. There is no container engine here: they are held to what they refer to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config import load
from gateway.telemetry import signals
from tests.deploy.test_dockerfile import FINAL, VERSION
from tests.helpers.dockerfile import texts

DEPLOY = Path(__file__).parents[2] / "deploy"
MEMBERS = {
    # Of the Compose Specification, as far as these files go: a misspelt one would be ignored or refused.
    *("image", "build", "ports", "environment", "read_only", "tmpfs", "cap_drop", "security_opt"),
    *(
        "stop_grace_period",
        "restart",
        "depends_on",
        "command",
        "healthcheck",
        "profiles",
        "volumes",
    ),
}
# Ports that an image listens on by its own defaults.
LISTENS = {
    "redis": {6379},
    "redis-exporter": {9121},
    "jaeger": {4317, 16686},
    "prometheus": {9090},
    "grafana": {3000},
}


def read(name: str) -> dict[str, Any]:
    told: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    return told


COMPOSE = read("compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def listens(service: str) -> set[int]:
    if service == "gateway":
        return {int(port) for port in texts(FINAL, "EXPOSE")[0].split()}
    if service == "collector":
        return set(map(int, re.findall(r"(?:0\.0\.0\.0:|port: )(\d+)", collector_text())))
    return LISTENS[service]


def collector_text() -> str:
    return (DEPLOY / "collector/config.yaml").read_text(encoding="utf-8")


def test_it_has_what_was_asked_for_and_nothing_misspelt() -> None:
    assert set(COMPOSE) == {"name", "services", "volumes"}
    always = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert always == {"gateway", "redis"}
    observing = {name for name, service in SERVICES.items() if service.get("profiles")}
    assert observing == {"redis-exporter", "collector", "jaeger", "prometheus", "grafana"}
    for name, service in SERVICES.items():
        assert set(service) <= MEMBERS, name
        assert service.get("profiles", ["observe"]) == ["observe"]
        assert set(service.get("depends_on", ())) <= set(SERVICES)


def test_every_image_is_pinned_by_its_version() -> None:
    for name, service in SERVICES.items():
        tag = service["image"].rpartition(":")[2]
        assert re.fullmatch(r"v?\d+\.\d+\.\d+", tag), name
    assert SERVICES["gateway"]["image"] == f"warmgate:{VERSION}"


def test_every_port_is_published_on_the_loopback_and_listened_on() -> None:
    published = []
    for name, service in SERVICES.items():
        for port in service.get("ports", ()):
            address, outside, inside = port.split(":")
            assert address == "127.0.0.1", name
            assert int(inside) in listens(name), name
            published.append(outside)
    assert len(set(published)) == len(published)


def test_every_file_that_is_mounted_is_there_and_named_volumes_are_declared() -> None:
    named = set()
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source, target, *mode = volume.split(":")
            assert target.startswith("/")
            if source.startswith("."):
                assert (DEPLOY / source).exists(), volume
                assert mode == ["ro"], volume
            else:
                named.add(source)
    assert named == set(COMPOSE["volumes"])


def test_the_gateway_builds_from_its_dockerfile_and_its_settings_are_settings() -> None:
    gateway = SERVICES["gateway"]
    root = (DEPLOY / gateway["build"]["context"]).resolve()
    assert (root / gateway["build"]["dockerfile"]).is_file()
    assert (root / "pyproject.toml").is_file()
    ours = {k: v for k, v in gateway["environment"].items() if k.startswith("GATEWAY_")}
    assert ours
    config = load(None, ours)
    assert config.store.url == "redis://redis:6379/0"
    assert int(gateway["stop_grace_period"].removesuffix("s")) > config.server.drain_timeout_s
    with pytest.raises(Exception, match="STORE__URI"):
        load(None, {"GATEWAY_STORE__URI": "redis://redis"})


def test_traces_go_where_the_collector_listens_and_metrics_are_scraped_alone() -> None:
    environment = SERVICES["gateway"]["environment"]
    otel = {k: v for k, v in environment.items() if k.startswith("OTEL_")}
    assert not signals.has_endpoint(otel | {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, "TRACES")
    assert not signals.wants_otlp(otel, "METRICS")
    assert signals.wants_otlp(otel, "TRACES")
    resource = signals.resource(otel, VERSION)
    assert resource.attributes["deployment.environment.name"] == "compose"
    how_to = (DEPLOY.parent / "docs/how-to/observe.md").read_text(encoding="utf-8")
    (host, port) = re.findall(r"export OTEL_EXPORTER_OTLP_ENDPOINT=http://(\w+):(\d+)", how_to)[0]
    assert int(port) in listens(host)


def test_prometheus_scrapes_only_what_listens_and_finds_its_rules() -> None:
    config = read("prometheus/prometheus.yaml")
    for job in config["scrape_configs"]:
        for each in job["static_configs"]:
            for target in each["targets"]:
                host, _, port = target.partition(":")
                service = job["job_name"] if host == "localhost" else host
                assert int(port) in listens(service), target
    home = "/etc/prometheus"
    mounted = {volume.split(":")[1] for volume in SERVICES["prometheus"]["volumes"]}
    assert {f"{home}/{rule}" for rule in config["rule_files"]} <= mounted
    assert f"--config.file={home}/prometheus.yaml" in SERVICES["prometheus"]["command"]
    jobs = [job["job_name"] for job in config["scrape_configs"]]
    assert any("warmgate" in job for job in jobs)


def test_pipelines_of_the_collector_use_what_is_defined_and_send_where_somebody_listens() -> None:
    config = read("collector/config.yaml")
    optional = {"tail_sampling"}
    used: dict[str, set[str]] = {"receivers": set(), "processors": set(), "exporters": set()}
    for pipeline in config["service"]["pipelines"].values():
        for kind, names in used.items():
            names.update(pipeline[kind])
    for kind, names in used.items():
        assert names == set(config[kind]) - optional
    assert set(config["service"]["extensions"]) == set(config["extensions"])
    # First of all, so that it can refuse; and nothing is batched before it is drawn.
    for pipeline in config["service"]["pipelines"].values():
        assert pipeline["processors"][0] == "memory_limiter"
        assert pipeline["processors"][-1] == "batch"
    endpoint = re.findall(r"TRACES_ENDPOINT:-(\w+):(\d+)\}", collector_text())
    assert [(host, int(port) in listens(host)) for host, port in endpoint] == [("jaeger", True)]
    (mounted,) = SERVICES["collector"]["volumes"]
    assert SERVICES["collector"]["command"] == [f"--config={mounted.split(':')[1]}"]


def test_grafana_is_given_the_data_source_and_the_dashboard() -> None:
    mounted = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    assert mounted["./grafana/provisioning"] == "/etc/grafana/provisioning"
    sources = read("grafana/provisioning/datasources/warmgate.yaml")["datasources"]
    for source in sources:
        host, _, port = source["url"].removeprefix("http://").partition(":")
        assert int(port) in listens(host)
    assert [source["type"] for source in sources if source.get("isDefault")] == ["prometheus"]
    (provider,) = read("grafana/provisioning/dashboards/warmgate.yaml")["providers"]
    folder = provider["options"]["path"]
    assert mounted["./grafana/warmgate.json"] == f"{folder}/warmgate.json"
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{folder}/warmgate.json"

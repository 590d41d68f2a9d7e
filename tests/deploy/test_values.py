from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from gateway.config import Config
from gateway.telemetry.setup import Telemetry
from tests.deploy.chart_schema import SCHEMA_FILE, rendered
from tests.deploy.helm import CHART, Helm, manifests_in
from tests.deploy.manifests import (
    PRODUCTION,
    REDIS,
    SECRETS,
    SIDECAR,
    gateway_container,
    pod_of,
    settings_of,
    workload,
)
from tests.deploy.schemas import KUBES, complaints

if TYPE_CHECKING:
    from pathlib import Path

CREDENTIALS = sorted(SECRETS.values())


def paths(schema: dict[str, Any], prefix: str = "") -> set[str]:
    found = set()
    for name, member in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        found |= {path} | paths(member, f"{path}.")
    return found


def test_the_schema_knows_the_gateways_settings() -> None:
    expected = rendered()
    assert SCHEMA_FILE.read_text(encoding="utf-8") == expected, (
        "the settings have changed: .venv/bin/python -m tests.deploy.chart_schema"
    )


def test_every_value_is_documented_where_it_stands() -> None:
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    documented = set(re.findall(r"^ *# ([\w.]+): \S", text, re.MULTILINE))
    # Set by Helm for all charts of a release; not ours to explain.
    expected = paths(schema) - {"global"}
    assert {path for path in documented if not path.startswith("config.")} == expected


def test_every_value_has_a_default() -> None:
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    for path in paths(schema) - {"global"}:
        here = values
        for step in path.split("."):
            assert step in here, path
            here = here[step]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("replicas=3", "Additional property replicas is not allowed"),
        ("resources.limit.memory=1Gi", "Additional property limit is not allowed"),
        ("resources.limits.memory=1GB", "resources.limits.memory"),
        ("ingress.enabled=true", "ingress.enabled needs ingress.hosts"),
        ("ingress.hosts[0]=https://llm.example.com", "ingress.hosts.0"),
        ("httpRoute.enabled=true", "httpRoute.enabled needs httpRoute.parentRefs"),
        ("httpRoute.timeout=forever", "httpRoute.timeout"),
        ("prometheusRule.runbookBaseUrl=docs", "prometheusRule.runbookBaseUrl"),
        ("podLabels.app\\.kubernetes\\.io/name=mine", "podLabels"),
        ("tolerations[0].efect=NoSchedule", "Additional property efect is not allowed"),
        ("extraEnv[0].name=X,extraEnv[0].valeu=1", "Additional property valeu is not allowed"),
        ("extraEnv[0].name=GATEWAY_SERVER__HOST", "is the chart's own"),
        ("extraEnv[0].name=GATEWAY_LOG__LEVEL,extraEnv[0].value=debug", "belong into `config`"),
        ("config.admin.host=0.0.0.0", "secrets.admin__token"),
        (
            "mode=sidecar,networkPolicy.enabled=true",
            "networkPolicy.enabled is for mode: deployment",
        ),
        ("mode=sidecar,podMonitor.enabled=true", "the pods are of another chart"),
        ("sidecar.app.image=chat:1.0.0", "sidecar.app.image is for mode: sidecar"),
        (
            "extraVolumes[0].name=warmgate-tmp,extraVolumes[0].emptyDir.medium=Memory",
            "extraVolumes.0",
        ),
        ("extraVolumeMounts[0].name=ca,extraVolumeMounts[0].mountpath=/ca", "mountpath"),
        ("probePort=8080", "must differ, and are [8080 8080 9181]"),
        ("mode=sidecar,sidecar.port=9181", "must differ, and are [9181 9180 9181]"),
        (
            "secrets.upstreams__mine__api_key.existingSecret=a,secrets.upstreams__mine__api_key.key=b",
            "there is no config.upstreams.mine",
        ),
        ("sidecar.config.store.memroy_bytes=1", "memroy_bytes"),
        ("mode=daemon", "mode"),
        ("image.tag=latest", "image.tag: `latest` is another image every day"),
        ("image.digest=sha256:0f", "image.digest"),
        ("config.cache.tll_s=60", "tll_s"),
        ("config.cache.ttl_s=0", "config.cache.ttl_s"),
        ("config.cache.when=sometimes", "config.cache.when"),
        ("config.server.port=9000", "port"),
        ("config.server.probe_host=127.0.0.1", "probe_host"),
        ("config.upstreams.x.provider=openai", "base_url"),
        ("config.upstreams.x.dns=http://x/v1,config.upstreams.x.engine=tgi", "engine"),
        (
            "config.upstreams.x.backends[0].url=http://x/v1,config.upstreams.x.backends[0].port=1",
            "port",
        ),
        ("config.upstreams.x.dns=http://x/v1,config.upstreams.x.routing.policy=random", "policy"),
        (
            "config.upstreams.x.dns=http://x/v1,config.upstreams.x.health.interval_s=-1",
            "interval_s",
        ),
        ("secrets.store__url=redis://plain", "secrets.store__url"),
        ("secrets.log__level.existingSecret=x", "log__level"),
        ("probePort=80", "probePort"),
        ("runAsUser=0", "runAsUser"),
        ("bindAddress=localhost", "bindAddress"),
        ("runAsUser=root", "runAsUser"),
        ("nameOverride=My_App", "nameOverride"),
        ("fullnameOverride=llm.gateway", "fullnameOverride"),
        ("config.admin.port=0", "config.admin.port: 0 is another port at each start"),
        ("config.server.drain_timeout_s=0", "config.server.drain_timeout_s"),
        ("preStopSleepSeconds=-1", "preStopSleepSeconds"),
        ("networkPolicy.dnsPorts[0]=dns", "networkPolicy.dnsPorts"),
        (
            "networkPolicy.adminFrom[0].podSelector.matchLabels.app=ops",
            "networkPolicy.adminFrom: /admin/ listens on 127.0.0.1",
        ),
        (
            (
                "networkPolicy.enabled=true,config.admin.host=0.0.0.0,"
                "secrets.admin__token.existingSecret=a,secrets.admin__token.key=token"
            ),
            "networkPolicy.adminFrom lets nobody get to /admin/",
        ),
        (
            "networkPolicy.enabled=true,config.upstreams.mine.dns=http://vllm.models:8000/v1",
            "networkPolicy lets nothing through to config.upstreams.mine, at port 8000",
        ),
        (
            "networkPolicy.enabled=true,config.upstreams.mine.base_url=http://models/v1",
            "networkPolicy lets nothing through to config.upstreams.mine, at port 80",
        ),
        (
            "networkPolicy.enabled=true,config.upstreams.mine.backends[0]=http://[fd00::1]:8000/v1",
            "networkPolicy lets nothing through to config.upstreams.mine, at port 8000",
        ),
        (
            "networkPolicy.enabled=true,config.upstreams.mine.backends[0].url=https://a:8443/v1",
            "networkPolicy lets nothing through to config.upstreams.mine, at port 8443",
        ),
        (
            "networkPolicy.enabled=true,config.store.url=rediss://redis.cache:6379/0",
            "networkPolicy.extraEgress lets nothing through to Redis",
        ),
        (
            "networkPolicy.enabled=true,secrets.store__url.existingSecret=r,secrets.store__url.key=url",
            "networkPolicy.extraEgress lets nothing through to Redis",
        ),
        (
            "networkPolicy.enabled=true,otlpEndpoint=http://otel.observability:4318",
            "networkPolicy.extraEgress lets nothing through to otlpEndpoint",
        ),
        (
            "networkPolicy.enabled=true,podMonitor.enabled=true",
            "networkPolicy.metricsFrom lets nobody read",
        ),
        (
            (
                "networkPolicy.enabled=true,extraEnv[0].name=REDIS_URL,"
                "extraEnv[0].valueFrom.secretKeyRef.name=r,extraEnv[0].valueFrom.secretKeyRef.key=url"
            ),
            "networkPolicy.extraEgress lets nothing through to Redis",
        ),
        ("enabled=false", "enabled does not match"),
        ("extraEnv[0].name=A,extraEnv[1].name=A", "extraEnv: A stands there twice"),
        (
            "secrets.store__password.existingSecret=r,secrets.store__password.key=p",
            "secrets.store__password: there is no Redis that would ask for it",
        ),
        (
            (
                "config.store.url=redis://redis.cache:6379,"
                "secrets.store__sentinel_password.existingSecret=r,"
                "secrets.store__sentinel_password.key=p"
            ),
            "secrets.store__sentinel_password: there is no Redis behind Sentinels",
        ),
        (
            "mode=sidecar,sidecar.config.store.url=redis://redis.cache:6379",
            "sidecar.config.store.url: config.store.url (memory://) wins over it",
        ),
        # The root file system is read-only, and the gateway's own default is a file on it.
        ("config.store.url=sqlite:////var/lib/warmgate/a.db", "where the container cannot write"),
        ("config.store.url=sqlite:///a.db", "where the container cannot write"),
        ("config.store.url=null", "where the container cannot write"),
        (
            (
                "config.store.url=sqlite:////data/a.db,extraVolumes[0].name=d,"
                "extraVolumes[0].emptyDir.medium=Memory,extraVolumeMounts[0].name=d,"
                "extraVolumeMounts[0].mountPath=/data,extraVolumeMounts[0].readOnly=true"
            ),
            "where the container cannot write",
        ),
    ],
)
def test_a_mistake_is_refused_by_name(helm: Helm, arguments: str, complaint: str) -> None:
    assert complaint in helm.refusal("--set", arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        "config.store.url=sqlite:////tmp/a.db",
        (
            "config.store.url=sqlite:////data/a.db,extraVolumes[0].name=d,"
            "extraVolumes[0].emptyDir.medium=Memory,extraVolumeMounts[0].name=d,"
            "extraVolumeMounts[0].mountPath=/data/"
        ),
        "mode=sidecar,sidecar.config.store.url=redis://r:6379,config.store.url=null",
        (
            "extraEnv[0].name=REDIS_URL,extraEnv[0].valueFrom.secretKeyRef.name=r,"
            "extraEnv[0].valueFrom.secretKeyRef.key=url,"
            "secrets.store__sentinel_password.existingSecret=r,secrets.store__sentinel_password.key=p"
        ),
    ],
)
def test_a_store_that_can_be_reached_is_taken(helm: Helm, arguments: str) -> None:
    assert helm.template("--set", arguments)


def test_a_pool_reaches_the_settings_as_it_is_written(helm: Helm, tmp_path: Path) -> None:
    mine = "config.upstreams.mine"
    written = (
        f"{mine}.engine=vllm,{mine}.dns=http://vllm.models:8000/v1,{mine}.routing.break_s=3,"
        f"{mine}.backends[0]=http://10.0.0.1:8000/v1,{mine}.backends[1].url=http://10.0.0.2:8000/v1,"
        f"{mine}.backends[1].weight=2"
    )
    pool = settings_of(helm.manifests("--set", written), tmp_path).upstreams["mine"]
    assert [(each.url, each.weight) for each in pool.backends] == [
        ("http://10.0.0.1:8000/v1", 1),
        ("http://10.0.0.2:8000/v1", 2),
    ]
    assert (pool.engine, pool.dns) == ("vllm", "http://vllm.models:8000/v1")
    assert pool.routing is not None
    assert pool.routing.break_s == 3


@pytest.mark.parametrize(
    "arguments",
    [
        "config.cache.secret={0123456789abcdef0123456789abcdef}",
        "config.upstreams.openai.api_key=sk-hidden-openai",
        "config.store.url=redis://:hidden@redis.example.com:6379/0",
        "config.store.url=rediss://gw:hidden@redis.example.com:6379/0",
        "config.store.url=redis+sentinel://gw:hidden@a:26379/primary",
        "config.store.url=redis://redis.example.com:6379/0?password=hidden",
        "config.store.password=hidden",
        "config.admin.token=hidden",
        "config.upstreams.mine.base_url=https://gw:hidden@models.example.com/v1",
        "otlpEndpoint=https://me:hidden@otel.example.com:4318",
        "extraEnv[0].name=REDIS_URL,extraEnv[0].value=redis://:hidden@redis.example.com",
        "extraEnv[0].name=HTTPS_PROXY,extraEnv[0].value=http://me:hidden@proxy:3128",
        "extraEnv[0].name=OTEL_EXPORTER_OTLP_HEADERS,extraEnv[0].value=api-key=hidden",
    ],
)
def test_a_credential_among_the_values_is_refused(helm: Helm, arguments: str) -> None:
    refusal = helm.refusal("--set", arguments)
    assert "hidden" not in refusal
    assert re.search("secret|credential|api_key|Additional property (password|token)", refusal)


def test_secrets_are_mounted_and_reach_the_settings(helm: Helm, tmp_path: Path) -> None:
    text = helm.template(*REDIS)
    assert not [secret for secret in CREDENTIALS if secret in text]
    manifests = list(yaml.safe_load_all(text))
    settings = settings_of(manifests, tmp_path)
    assert settings.store.url == SECRETS["store__url"]
    assert [secret.get_secret_value() for secret in settings.cache.secret] == [
        SECRETS["cache__secret"]
    ]
    keys = {name: upstream.api_key for name, upstream in settings.upstreams.items()}
    assert {name: key.get_secret_value() for name, key in keys.items() if key} == {
        "openai": SECRETS["upstreams__openai__api_key"],
        "my-vllm": SECRETS["upstreams__my-vllm__api_key"],
    }


def test_the_files_of_secrets_can_be_read_by_the_gateways_user(helm: Helm) -> None:
    deployment = workload(helm.manifests(*REDIS))
    assert deployment
    (volume,) = (v for v in pod_of(deployment)["volumes"] if "projected" in v)
    assert volume["projected"]["defaultMode"] == 0o444
    (mount,) = (
        mount
        for mount in gateway_container(pod_of(deployment))["volumeMounts"]
        if mount["name"] == volume["name"]
    )
    assert mount["readOnly"] is True


def test_numbers_stay_whole_and_a_bare_off_stays_off(helm: Helm, tmp_path: Path) -> None:
    settings = settings_of(helm.manifests(*REDIS), tmp_path)
    assert settings.store.memory_bytes == 128 * 1024 * 1024
    assert settings.routes[0].cache.when == "off"


def test_the_autoscaler_names_a_metric_that_is_exported() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    telemetry = Telemetry.start(Config().telemetry, {}, "0")
    try:
        exported = telemetry.metrics.render().decode()
    finally:
        telemetry.close(5)
    assert f"\n# TYPE {values['autoscaling']['inflightMetric']} gauge\n" in exported


@pytest.mark.parametrize("given", [PRODUCTION, SIDECAR], ids=["production", "sidecar"])
def test_each_value_can_be_taken_back_or_is_asked_for(helm: Helm, given: tuple[str, Path]) -> None:
    for path in sorted(paths(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))):
        arguments = (*given, "--set", f"{path}=null")
        done = helm.run("template", "rel", CHART, "--kube-version=1.33.0", *arguments)
        if done.returncode == 0:
            for manifest in manifests_in(done.stdout):
                if manifest["kind"] != "ConfigMap":
                    assert not complaints(manifest, KUBES[-1]), path
        else:
            # Not a template that fell over it.
            assert re.search("values don't meet the spec|execution error at", done.stderr), path


def test_an_older_kubernetes_is_refused(helm: Helm) -> None:
    # It would not know preStop.sleep and leave it out.
    done = helm.run("template", "rel", CHART, "--kube-version", "1.29.0")
    assert done.returncode != 0
    assert ">=1.30.0" in done.stderr

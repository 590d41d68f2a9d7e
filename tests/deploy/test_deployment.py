from __future__ import annotations

import importlib.metadata
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.deploy.helm import CHART, Helm, manifests_in
from tests.deploy.manifests import (
    OPENSHIFT,
    PRODUCTION,
    Manifest,
    annotations_of,
    gateway_container,
    pod_of,
    pods,
    settings_of,
    workload,
)
from tests.deploy.schemas import KUBES, complaints

if TYPE_CHECKING:
    from pathlib import Path


def kinds(manifests: list[Manifest]) -> list[str]:
    return sorted(m["kind"] for m in manifests if "helm.sh/hook" not in annotations_of(m))


def test_is_made_of_these_parts(helm: Helm) -> None:
    assert kinds(helm.manifests()) == [
        "ConfigMap",
        "Deployment",
        "PodDisruptionBudget",
        "Service",
        "ServiceAccount",
    ]
    assert kinds(helm.manifests(*PRODUCTION)) == [
        "ConfigMap",
        "ConfigMap",
        "Deployment",
        "HTTPRoute",
        "HorizontalPodAutoscaler",
        "Ingress",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "PodMonitor",
        "PrometheusRule",
        "Service",
        "ServiceAccount",
    ]


def test_every_selector_finds_the_pods_and_not_the_test(helm: Helm) -> None:
    manifests = helm.manifests(*PRODUCTION)
    by_kind = {m["kind"]: m for m in manifests}
    pods = by_kind["Deployment"]["spec"]["template"]["metadata"]["labels"]
    test = by_kind["Pod"]["metadata"]["labels"]
    selectors = [
        by_kind["Service"]["spec"]["selector"],
        by_kind["Deployment"]["spec"]["selector"]["matchLabels"],
        by_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        by_kind["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        by_kind["PodMonitor"]["spec"]["selector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= pods.items()
        assert not selector.items() <= test.items()


def test_sleeps_and_drains_by_default(helm: Helm, tmp_path: Path) -> None:
    manifests = helm.manifests()
    deployment = workload(manifests)
    assert deployment
    pod = pod_of(deployment)
    assert pod["terminationGracePeriodSeconds"] == 330
    assert gateway_container(pod)["lifecycle"] == {"preStop": {"sleep": {"seconds": 10}}}
    assert settings_of(manifests, tmp_path).server.drain_timeout_s == 300


@pytest.mark.parametrize(
    "arguments",
    [
        ("terminationGracePeriodSeconds=30",),
        ("terminationGracePeriodSeconds=60", "config.server.drain_timeout_s=50"),
        ("preStopSleepSeconds=320",),
        ("terminationGracePeriodSeconds=60", "config.server.drain_delay_s=40"),
    ],
)
def test_refuses_a_grace_period_that_is_too_short(helm: Helm, arguments: tuple[str, ...]) -> None:
    assert "is too short" in helm.refusal(*(f"--set={argument}" for argument in arguments))


def test_rolls_its_pods_when_the_settings_change(helm: Helm) -> None:
    def checksum(*arguments: str) -> str:
        pod = helm.one("Deployment", *arguments)["spec"]["template"]
        found: str = pod["metadata"]["annotations"]["checksum/config"]
        return found

    assert checksum() == checksum("--set", "service.port=80")
    assert checksum() != checksum("--set", "config.cache.ttl_s=60")


def test_its_pods_can_read_changed_settings_while_they_run(helm: Helm) -> None:
    def template(*arguments: str) -> Manifest:
        deployment = helm.one("Deployment", "--set=rollOnConfigChange=false", *arguments)
        found: Manifest = deployment["spec"]["template"]
        return found

    assert template() == template("--set=config.cache.ttl_s=60")
    # A file that is mounted by itself would never change in a running pod.
    mounts = gateway_container(template()["spec"])["volumeMounts"]
    assert not [mount for mount in mounts if "subPath" in mount]


def test_a_new_chart_with_the_same_pods_restarts_none(helm: Helm, tmp_path: Path) -> None:
    newer = tmp_path / "warmgate"
    shutil.copytree(CHART, newer)
    chart = newer / "Chart.yaml"
    text = chart.read_text(encoding="utf-8")
    bumped = text.replace("\nversion: 0.1.0", "\nversion: 0.1.1")
    assert bumped != text
    chart.write_text(bumped, encoding="utf-8")
    before, after = helm.one("Deployment"), helm.one("Deployment", chart=newer)
    assert before["metadata"]["labels"] != after["metadata"]["labels"]
    assert before["spec"] == after["spec"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("replicaCount=1",), False),
        (("replicaCount=2",), True),
        (("replicaCount=2", "podDisruptionBudget.enabled=false"), False),
        (("replicaCount=1", "autoscaling.enabled=true", "autoscaling.minReplicas=2"), True),
        # With five pods it protects them; with one it is in nobody's way.
        (("replicaCount=1", "autoscaling.enabled=true", "autoscaling.minReplicas=1"), True),
        (
            (
                "autoscaling.enabled=true",
                "autoscaling.minReplicas=1",
                "autoscaling.maxReplicas=1",
            ),
            False,
        ),
    ],
)
def test_has_a_disruption_budget_for_more_than_one_pod(
    helm: Helm, arguments: tuple[str, ...], expected: bool
) -> None:
    manifests = helm.manifests(*(f"--set={argument}" for argument in arguments))
    budgets = [m for m in manifests if m["kind"] == "PodDisruptionBudget"]
    assert bool(budgets) is expected
    for budget in budgets:
        assert budget["spec"]["maxUnavailable"] == 1


def test_leaves_the_number_of_pods_to_the_autoscaler(helm: Helm) -> None:
    assert helm.one("Deployment")["spec"]["replicas"] == 2
    assert "replicas" not in helm.one("Deployment", *PRODUCTION)["spec"]
    scaler = helm.one("HorizontalPodAutoscaler", *PRODUCTION)
    assert scaler["apiVersion"] == "autoscaling/v2"
    assert scaler["spec"]["scaleTargetRef"]["name"] == "llm-gateway"
    inflight, cpu = scaler["spec"]["metrics"]
    assert inflight["pods"]["metric"]["name"] == "gateway_inflight"
    assert inflight["pods"]["target"] == {"type": "AverageValue", "averageValue": "200"}
    assert cpu["resource"]["target"] == {"type": "Utilization", "averageUtilization": 70}


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("autoscaling.targetCPUUtilizationPercentage=0", "needs targetInflightRequests"),
        ("autoscaling.minReplicas=11", "is less than"),
    ],
)
def test_refuses_an_autoscaler_that_cannot_scale(helm: Helm, argument: str, complaint: str) -> None:
    assert complaint in helm.refusal("--set=autoscaling.enabled=true", "--set", argument)


def test_policy_lets_in_only_whom_it_names(helm: Helm) -> None:
    policy = helm.one("NetworkPolicy", *PRODUCTION)["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    api, metrics = policy["ingress"]
    assert api["ports"] == [{"port": "api", "protocol": "TCP"}]
    assert api["from"][0] == {"podSelector": {}}
    assert metrics["ports"] == [{"port": "probes", "protocol": "TCP"}]
    assert metrics["from"][0]["namespaceSelector"]["matchLabels"]
    dns, providers, redis = policy["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert dns["to"][0]["podSelector"]["matchLabels"] == {"k8s-app": "kube-dns"}
    assert providers["to"][0]["ipBlock"]["except"] == ["169.254.0.0/16"]
    assert [port["port"] for port in providers["ports"]] == [443]
    assert redis["ports"] == [{"port": 6379, "protocol": "TCP"}]


def test_policy_opens_what_the_settings_open(helm: Helm) -> None:
    policy = helm.one("NetworkPolicy", *OPENSHIFT)["spec"]
    admin = policy["ingress"][-1]
    assert admin["ports"] == [{"port": 9181, "protocol": "TCP"}]
    assert admin["from"][0]["namespaceSelector"]
    dns, upstreams = policy["egress"]
    assert dns["ports"] == [{"port": 5353, "protocol": name} for name in ("UDP", "TCP")]
    assert [port["port"] for port in upstreams["ports"]] == [443, 8000]
    elsewhere = helm.one("NetworkPolicy", *OPENSHIFT, "--set=config.admin.port=9999")["spec"]
    assert elsewhere["ingress"][-1]["ports"] == [{"port": 9999, "protocol": "TCP"}]


def test_refuses_a_share_of_a_request_that_is_not_made(helm: Helm) -> None:
    # The autoscaler would see <unknown> and never scale.
    asked = ("--set=autoscaling.enabled=true", "--set=resources.requests.cpu=null")
    assert "in percent of resources.requests.cpu" in helm.refusal(*asked)
    assert helm.template(*asked, "--set=resources.limits.cpu=2")
    assert helm.template(
        *asked,
        "--set=autoscaling.targetCPUUtilizationPercentage=0,autoscaling.targetInflightRequests=50",
    )


def test_a_variable_of_extra_env_stands_there_once(helm: Helm) -> None:
    arguments = (
        "--set=otlpEndpoint=http://otel.observability:4318",
        "--set=extraEnv[0].name=OTEL_SERVICE_NAME,extraEnv[0].value=llm",
    )
    container = gateway_container(pod_of(helm.one("Deployment", *arguments)))
    names = [variable["name"] for variable in container["env"]]
    assert len(names) == len(set(names))
    values = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert values["OTEL_SERVICE_NAME"] == "llm"
    assert values["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://otel.observability:4318"


def test_policy_says_nothing_of_an_upstream_with_rules_of_its_own(helm: Helm) -> None:
    helm.template(
        "--set=networkPolicy.enabled=true,config.upstreams.mine.dns=http://vllm.models:8000/v1",
        "--set=networkPolicy.extraEgress[0].ports[0].port=8000",
    )


@pytest.mark.parametrize("user", [None, "assigned", 1_000_670_000])
def test_its_user_is_the_charts_another_or_the_clusters_own(helm: Helm, user: object) -> None:
    # OpenShift refuses a number that is not of the namespace's range.
    said = "null" if user is None else user
    manifests = helm.manifests(f"--set=runAsUser={said}")
    seen = set()
    for pod in pods(manifests):
        for context in (pod["securityContext"], *(c["securityContext"] for c in pod["containers"])):
            assert context["runAsNonRoot"] is True
            seen |= {context.get(name) for name in ("runAsUser", "runAsGroup", "fsGroup")}
    assert seen == ({user, None} if isinstance(user, int) else {None})


def test_without_a_sleep_there_is_no_hook(helm: Helm) -> None:
    def hook(*arguments: str | Path) -> Any:
        return gateway_container(pod_of(helm.one("Deployment", *arguments))).get("lifecycle")

    assert hook() == {"preStop": {"sleep": {"seconds": 10}}}
    assert hook(*OPENSHIFT) is None


def test_a_number_as_a_name_stays_a_text(helm: Helm) -> None:
    secret = "secrets.store__url"
    done = helm.run(
        *("template", "123", CHART, "--kube-version=1.33.0"),
        *(f"--set-string={secret}.existingSecret=1", f"--set-string={secret}.key=2"),
        *("--set-string=priorityClassName=3", "--set=networkPolicy.enabled=false"),
    )
    assert done.returncode == 0, done.stderr
    for manifest in manifests_in(done.stdout):
        assert not complaints(manifest, KUBES[-1]), manifest["kind"]


def test_policy_has_no_rule_for_an_empty_list(helm: Helm) -> None:
    # `from: []` would let everybody in.
    policy = helm.one(
        "NetworkPolicy",
        "--set=networkPolicy.enabled=true",
        "--set-json=networkPolicy.apiFrom=[]",
    )
    assert not policy["spec"]["ingress"]


def test_metrics_are_on_no_service(helm: Helm) -> None:
    assert [p["targetPort"] for p in helm.one("Service")["spec"]["ports"]] == ["api"]
    (endpoint,) = helm.one("PodMonitor", *PRODUCTION)["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("probes", "/metrics")


def test_helm_test_asks_through_the_service(helm: Helm) -> None:
    pod = helm.one("Pod")
    assert annotations_of(pod)["helm.sh/hook"] == "test"
    (container,) = pod["spec"]["containers"]
    python, dash_c, program, url = container["command"]
    assert (python, dash_c, url) == ("python", "-c", "http://rel-warmgate:8080/")
    compile(program, "helm test", "exec")


def test_helm_test_runs_where_the_gateway_does(helm: Helm) -> None:
    # An image may be for one kind of node only, and those be kept for who tolerates them.
    test = helm.one(
        "Pod",
        "--set-string=nodeSelector.kubernetes\\.io/arch=arm64",
        "--set=tolerations[0].key=llm,tolerations[0].operator=Exists",
    )["spec"]
    assert test["nodeSelector"] == {"kubernetes.io/arch": "arm64"}
    assert test["tolerations"] == [{"key": "llm", "operator": "Exists"}]


def test_image_is_the_app_version_a_tag_or_a_digest(helm: Helm) -> None:
    def image(*arguments: str) -> str:
        found: str = gateway_container(pod_of(helm.one("Deployment", *arguments)))["image"]
        return found

    version = importlib.metadata.version("warmgate")
    digest = "sha256:" + "0f" * 32
    assert image() == f"warmgate:{version}"
    assert image("--set=image.tag=1.2.3") == "warmgate:1.2.3"
    assert image(f"--set=image.digest={digest},image.tag=1.2.3") == f"warmgate@{digest}"


def test_extras_reach_the_pod(helm: Helm) -> None:
    deployment = helm.one("Deployment", *PRODUCTION)
    pod = pod_of(deployment)
    container = gateway_container(pod)
    environ = {variable["name"]: variable for variable in container["env"]}
    assert environ["SSL_CERT_FILE"]["value"] == "/etc/ca/ca.crt"
    assert environ["OTEL_EXPORTER_OTLP_ENDPOINT"]["value"].endswith(":4318")
    assert "$(POD_NAME)" in environ["OTEL_RESOURCE_ATTRIBUTES"]["value"]
    # A variable can only refer to those before it.
    order = list(environ)
    assert order.index("POD_NAME") < order.index("OTEL_RESOURCE_ATTRIBUTES")
    assert pod["imagePullSecrets"] == [{"name": "regcred"}]
    assert pod["priorityClassName"] == "high"
    assert pod["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
    assert pod["topologySpreadConstraints"][0]["whenUnsatisfiable"] == "DoNotSchedule"
    metadata = deployment["spec"]["template"]["metadata"]
    assert metadata["labels"]["example.com/tier"] == "edge"
    assert metadata["annotations"]["example.com/owner"] == "platform"

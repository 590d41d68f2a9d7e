"""Dashboard, alerts and their runbooks: they name what there is, and Prometheus understands them."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest
import yaml

from gateway import config
from gateway.lab.stub_provider import StubProvider
from gateway.telemetry import semconv
from gateway.telemetry.setup import Telemetry
from tests.deploy import promql
from tests.helpers.gateway_here import gateway_here
from tests.helpers.metric_dice import throw, watch
from tests.helpers.prometheus_server import PrometheusServer, promtool
from tests.helpers.redis_servers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus"

OF_OTHERS = {
    # Prometheus itself, and redis_exporter.
    *("up", "redis_memory_used_bytes", "redis_memory_max_bytes", "redis_evicted_keys_total"),
    *("redis_expired_keys_total", "redis_connected_clients"),
}
OF_TARGETS = {"namespace", "job", "instance", "pod", "__name__", "le"}
SILENT = (
    # No Redis and no engine is here; nothing is cached by the provider; and nothing goes wrong.
    *("Redis", "KV cache in use", "Prefix hits of engines", "Gateway"),
    *("Saved and paid, dollars an hour B", "Saved by our markers", "Drift through us"),
    *("Read from providers' prompt caches B", "Almost hits", "Conversations that stayed"),
    *("Ended early", "Limited, by tenant", "Store without an answer", "Telemetry lost B"),
    *("Went on to another replica", "annotation", "Dearest cache breakers", "Tokens lost"),
)
ROWS = ["Value", "Health", "Cache", "Routing", "Runtime"]
VARIABLES = ["datasource", "namespace", "pod", "route", "provider", "model", "scope"]
PAGES = {"GatewayErrorBudgetBurn", "GatewayNoReadyBackends", "GatewayDown"}
TICKETS = {
    *("GatewayHitRatioDrop", "GatewayCacheStoreUnavailable", "GatewayOverheadHigh"),
    *("GatewayTTFCHigh", "GatewayBackendEjected", "GatewayRoutingImbalance", "GatewayKeyExplosion"),
    *("GatewayMarkersUnused", "GatewayPrefixDrift", "GatewayMetricsAbsent", "RedisMemoryHigh"),
    "GatewayConfigReloadFailed",
    "RedisEvictionsHigh",
}


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    """/metrics of a gateway to which everything has happened."""
    telemetry = Telemetry.start(config.Telemetry(traces="off"), {}, "1")
    watch(telemetry)
    throw(telemetry, range(200))
    yield telemetry.metrics.render().decode()
    telemetry.close(2)


def shown(page: str) -> dict[str, set[str]]:
    """The names that queries can use, with their labels."""
    found: dict[str, set[str]] = {}
    for line in page.splitlines():
        if not line.startswith("#"):
            name, _, rest = line.partition("{")
            labels = set(re.findall(r'(\w+)="', rest))
            found.setdefault(name.partition(" ")[0], set()).update(labels)
    return found


def dashboard() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(promql.DASHBOARD.read_text(encoding="utf-8"))
    return told


def every_expression() -> dict[str, str]:
    return promql.of_dashboard() | promql.of_rules()


def test_what_an_expression_names_is_found() -> None:
    expression = (
        'histogram_quantile(0.9, sum by (le, pod) (rate(a_b_bucket{x="c", y=~"d|e"}[5m] offset 1w)))'
        " / on (z) group_left () (sum(job:f:rate5m) > 0) or vector(1) unless g"
    )
    assert promql.metrics_of(expression) == {"a_b_bucket", "job:f:rate5m", "g"}
    assert promql.labels_of(expression) == {"le", "pod", "x", "y", "z"}


def test_dashboard_and_alerts_name_only_metrics_and_labels_that_there_are(page: str) -> None:
    known = shown(page)
    recorded = {rule["record"] for rule in promql.rules() if "record" in rule}
    for where, expression in every_expression().items():
        named = promql.metrics_of(expression)
        assert named or "otel_metric_overflow" in expression, where
        assert named <= set(known) | OF_OTHERS | recorded, where
        labels = set().union(*(known.get(name, set()) for name in named))
        if not named & OF_OTHERS:
            assert promql.labels_of(expression) <= labels | OF_TARGETS | {"otel_metric_overflow"}, (
                where
            )


def test_all_that_is_shown_is_of_semconv(page: str) -> None:
    ours = {name.replace(".", "_") for key, name in vars(semconv).items() if key.startswith("M_")}
    for name in shown(page):
        assert name == "target_info" or name.startswith(tuple(ours)), name


def test_the_dashboard_has_its_rows_and_variables() -> None:
    told = dashboard()
    assert [panel["title"] for panel in told["panels"] if panel["type"] == "row"] == ROWS
    assert [each["name"] for each in told["templating"]["list"]] == VARIABLES
    ids = [panel["id"] for panel in told["panels"]]
    assert len(set(ids)) == len(ids)


def test_what_is_subtracted_or_divided_is_chosen_alike_on_both_sides() -> None:
    raw = {
        panel["title"]: [target["expr"] for target in panel.get("targets", [])]
        for panel in dashboard()["panels"]
    }
    # The convention names providers otherwise (`gen_ai.provider.name`) than our own metrics do.
    of_models = [each for told in raw.values() for each in told if "gen_ai_client_inf" in each]
    assert len(of_models) > 2
    assert not [each for each in of_models if "provider=~" in each]
    (markers,) = raw["Saved by our markers, 24 h"]
    # Markers that only lose money have no series of what they spared.
    assert markers.count(" or vector(0))") == 2


def test_no_panel_lies_upon_another_and_each_has_something_to_show() -> None:
    taken: set[tuple[int, int]] = set()
    titles = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not taken & cells, panel["title"]
        taken |= cells
        assert panel["title"] not in titles
        titles.add(panel["title"])
        if panel["type"] != "row":
            assert panel["targets"], panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}"


def test_what_variables_ask_for_is_there(page: str) -> None:
    known = shown(page)
    for each in dashboard()["templating"]["list"][1:]:
        metric, label = re.fullmatch(
            r"label_values\((\w+)(?:\{.*\})?, (\w+)\)", each["definition"]
        ).groups()  # type: ignore[union-attr]
        assert metric in known
        assert label in known[metric] | OF_TARGETS


def test_every_alert_has_a_severity_a_summary_and_a_runbook() -> None:
    alerts = [rule for rule in promql.rules() if "alert" in rule]
    by_severity: dict[str, set[str]] = {}
    for rule in alerts:
        name = rule["alert"]
        by_severity.setdefault(rule["labels"]["severity"], set()).add(name)
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md"
        text = (ROOT / rule["annotations"]["runbook_url"]).read_text(encoding="utf-8")
        assert text.startswith(f"# {name}\n")
        headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert headings == ["What it means", "How to see it", "What to do", "How to make it quiet"]
    assert by_severity == {"page": PAGES, "ticket": TICKETS}


def test_each_alert_is_shown_to_fire_and_to_stay_silent() -> None:
    fires: set[str] = set()
    silent: set[str] = set()
    for file in RULES.glob("*_test.yaml"):
        for case in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]:
            for each in case["alert_rule_test"]:
                (fires if each["exp_alerts"] else silent).add(each["alertname"])
                labels = {str(alert["exp_labels"]) for alert in each["exp_alerts"]}
                # One that fires for one of several series is silent for the others.
                if len(case["input_series"]) > 1 and len(labels) == 1:
                    silent.add(each["alertname"])
    assert fires == silent == PAGES | TICKETS


def test_every_runbook_is_in_the_list_and_is_an_alerts() -> None:
    listed = (ROOT / "docs/runbooks/README.md").read_text(encoding="utf-8")
    files = {file.stem for file in (ROOT / "docs/runbooks").glob("*.md")} - {"README"}
    assert files == PAGES | TICKETS
    assert set(re.findall(r"\]\((\w+)\.md\)", listed)) == files


def test_queries_of_the_docs_name_metrics_that_there_are(page: str) -> None:
    known = set(shown(page)) | OF_OTHERS | {r["record"] for r in promql.rules() if "record" in r}
    count = 0
    for file in [*(ROOT / "docs/runbooks").glob("*.md"), ROOT / "docs/how-to/observe.md"]:
        for block in re.findall(
            r"^```promql\n(.*?)^```", file.read_text("utf-8"), re.MULTILINE | re.DOTALL
        ):
            text = "\n".join(line for line in block.splitlines() if not line.startswith("#"))
            named = promql.metrics_of(text)
            assert named <= known, file.name
            count += len(named)
    assert count > 15


@pytest.mark.slow
def test_promtool_finds_no_fault_with_the_rules_and_their_cases() -> None:
    assert promtool("check", "rules", RULES / "alerts.yaml")[0] == 0
    status, said = promtool("test", "rules", *sorted(RULES.glob("*_test.yaml")))
    assert status == 0, said
    status, said = promtool("check", "config", RULES / "prometheus.yaml")
    assert status == 0, said


def test_promtool_finds_no_fault_with_the_names_of_everything_that_can_be_counted(
    page: str,
) -> None:
    assert promtool("check", "metrics", text=page.encode()) == (0, "")


@pytest.mark.slow
async def test_a_real_prometheus_scrapes_a_gateway_and_answers_every_query() -> None:
    async with StubProvider() as stub, StubProvider() as other:
        pool = {"backends": [{"url": stub.v1_url}, {"url": other.v1_url}], "engine": "openai"}
        upstreams = {
            "openai": {"base_url": stub.v1_url, "provider": "openai"},
            "anthropic": {"base_url": stub.v1_url, "provider": "anthropic"},
            "gpu": pool,
            "away": {"base_url": f"http://127.0.0.1:{free_port()}/v1"},
        }
        async with (
            gateway_here(stub.url, upstreams=upstreams) as gateway,
            aiohttp.ClientSession() as session,
            PrometheusServer([gateway.probe_url], promql.ALERTS) as prometheus,
        ):
            await prometheus.until('up{job="warmgate"} == 1')
            for turn in range(6):
                await _mixed_traffic(session, gateway.api_url, turn)
            async with session.get(f"{gateway.probe_url}/metrics") as response:
                text = await response.read()
            assert promtool("check", "metrics", text=text) == (0, "")
            # Twice scraped with something in it: rates have a value.
            lookups = (
                'sum by (result) (rate(gateway_cache_lookups_total{result=~"hit|miss"}[5s]) > 0)'
            )
            seen: set[str] = set()
            async with asyncio.timeout(10):
                turn = 6
                while seen != {"hit", "miss"}:
                    await _mixed_traffic(session, gateway.api_url, turn := turn + 1)
                    seen |= {each["metric"]["result"] for each in await prometheus.query(lookups)}
            await prometheus.until("warmgate:errors:ratio_rate5m > 0")
            answered = {
                where: await prometheus.query(expression)
                for where, expression in every_expression().items()
            }
            empty = {where for where, vector in answered.items() if not vector}
            print(f"{len(answered) - len(empty)} of {len(answered)} expressions had a value")
            # A panel that is silent here names labels that its metric doesn't have, or has a reason.
            assert {where for where in empty if not where.startswith(SILENT)} == set()
            told = await prometheus.get("rules")
            states = {
                rule["name"]: rule["health"] for group in told["groups"] for rule in group["rules"]
            }
            assert set(states) == set(promql.of_rules())
            assert set(states.values()) == {"ok"}
            firing = await prometheus.query('ALERTS{alertstate="firing"}')
            assert firing == []


async def _mixed_traffic(session: aiohttp.ClientSession, url: str, turn: int) -> None:
    """Hits, misses, streams, a pool, errors, another API, what is passed through."""
    said = [{"role": "user", "content": f"Question {turn}?"}]
    chat = {"model": "gpt-5.6", "messages": said}
    asked = [
        ("/v1/chat/completions", chat),
        ("/v1/chat/completions", chat),
        ("/v1/chat/completions", {**chat, "stream": True, "seed": turn}),
        ("/u/away/v1/chat/completions", chat),
        ("/v1/messages", {"model": "claude-opus-4-8", "max_tokens": 9, "messages": said}),
        ("/u/gpu/v1/chat/completions", {"model": "local", "messages": said}),
        ("/v1/embeddings", {"model": "text-embedding-3-small", "input": [f"words {turn}"]}),
        ("/v1/chat/completions", {"model": 7}),
        (f"/v1/made/up/{turn}", {}),
    ]
    for path, body in asked:
        headers = {"Authorization": f"Bearer sk-{turn % 2}", "x-api-key": f"sk-{turn % 2}"}
        headers["Content-Type"] = "application/json"
        async with session.post(url + path, data=orjson.dumps(body), headers=headers) as response:
            await response.read()

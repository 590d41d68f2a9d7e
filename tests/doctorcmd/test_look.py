"""`gateway doctor` over whole installations: one that is well, and ones that are broken."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from gateway.cli import main
from gateway.config import Config
from gateway.doctorcmd import look as look_module
from gateway.doctorcmd.finding import Finding, Verdict
from gateway.doctorcmd.look import examine
from gateway.lab.engine_server import EngineServer
from tests.helpers.gateway_here import gateway_here
from tests.helpers.otlp_collector import otlp_collector
from tests.helpers.redis_servers import free_port
from tests.helpers.scripted_upstream import serve_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

KEY = "sk-live-0123456789abcdef"


def by_check(findings: Iterable[Finding]) -> dict[str, Finding]:
    return {each.check: each for each in findings}


async def looked(
    upstreams: dict[str, Any], *, environ: dict[str, str] | None = None, **sections: Any
) -> dict[str, Finding]:
    """Only what is asked of upstreams and what the clock makes of it, unless `skip` says otherwise."""
    skip = sections.pop("skip", ("host", "gateway", "store", "otlp"))
    config = Config.model_validate(
        {"upstreams": upstreams, "store": {"url": "memory://"}, **sections}
    )
    return by_check(await examine(config, environ or {}, skip=skip, timeout_s=10.0))


@asynccontextmanager
async def answering(status: int, **headers: str) -> AsyncIterator[tuple[str, list[web.Request]]]:
    """A server that says this to everything; the base URL, and what it was asked."""
    asked: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request)
        return web.Response(status=status, headers=headers, text=f"no, {KEY}")

    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", answer)
    async with serve_app(app) as base:
        yield f"{base}/v1", asked


async def test_an_installation_that_is_well_has_nothing_to_mend() -> None:
    async with (
        EngineServer(engine="vllm", decode_s=0.0) as one,
        EngineServer(engine="vllm", decode_s=0.0) as two,
        otlp_collector() as collector,
    ):
        pool = {"engine": "vllm", "backends": [one.v1_url, two.v1_url]}
        ports = {"probe": free_port(), "admin": free_port()}
        sections: dict[str, Any] = {
            "server": {"probe_port": ports["probe"]},
            "admin": {"port": ports["admin"]},
            "upstreams": {"models": pool},
        }
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        async with gateway_here("http://127.0.0.1:1", **sections) as gateway:
            await _until_ready(gateway)
            found = await looked(
                {"models": pool},
                environ=environ,
                skip=("host",),
                server=sections["server"],
                admin=sections["admin"],
            )

        bad = [each for each in found.values() if each.verdict is Verdict.MEND]
        assert bad == []
        assert found["gateway.probes"].said == "it lives, and is ready"
        assert found["gateway.pool.models"].verdict is Verdict.OK
        # (That one has other ports for its API.)
        assert found["gateway.config"].verdict is Verdict.LOOK
        assert found["upstream.models"].said == "2 replicas, all well"
        told = found[f"upstream.models.127.0.0.1:{one.port}.cached_tokens"]
        assert told.verdict is Verdict.OK
        assert told.facts["cached_tokens"] > 0
        assert found["otlp.traces"].facts["status"] == 200
        assert found["clock"].verdict is Verdict.OK
        assert found["upstream.openai"].verdict is Verdict.SKIPPED
        # Nothing of it was kept there.
        assert collector.spans == []


async def _until_ready(gateway: Any) -> None:
    async with asyncio.timeout(10):
        while any(  # noqa: ASYNC110 - readiness can only be polled
            each["state"] != "ready"
            for pool in (await _backends(gateway)).values()
            for each in pool["backends"]
        ):
            await asyncio.sleep(0.02)


async def _backends(gateway: Any) -> dict[str, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{gateway.admin_url}/admin/backends") as answer,
    ):
        told = await answer.json()
    upstreams: dict[str, Any] = told["upstreams"]
    return upstreams


async def test_a_port_on_which_nobody_listens_is_told_from_a_name_without_address() -> None:
    port = free_port()
    found = await looked(
        {
            "down": {"base_url": f"http://127.0.0.1:{port}/v1"},
            "nowhere": {"base_url": "http://no-such-name.invalid/v1"},
        }
    )

    assert found["upstream.down.tcp"].verdict is Verdict.MEND
    assert "refuses connections" in found["upstream.down.tcp"].said
    assert found["upstream.nowhere.dns"].verdict is Verdict.MEND
    assert "no-such-name.invalid has no address" in found["upstream.nowhere.dns"].said


async def test_who_takes_connections_and_says_nothing_is_given_up() -> None:
    hold = asyncio.Event()

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hold.wait()
        writer.transport.abort()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        config = Config.model_validate(
            {"upstreams": {"mute": {"base_url": f"http://127.0.0.1:{port}/v1"}}}
        )
        found = by_check(
            await examine(config, {}, skip=("host", "gateway", "store", "otlp"), timeout_s=0.2)
        )
    finally:
        hold.set()
        server.close()
        await server.wait_closed()

    assert found["upstream.mute.http"].verdict is Verdict.MEND
    assert "answers nothing in time" in found["upstream.mute.http"].said


@pytest.mark.parametrize(
    ("status", "key", "expected", "word"),
    [
        (200, None, "ok", "200"),
        (401, None, "ok", "the client's own key"),
        (401, KEY, "mend", "does not take the configured key"),
        (403, KEY, "mend", "does not take the configured key"),
        (302, None, "mend", "points elsewhere"),
        (404, None, "look", "no list of models"),
        (429, KEY, "look", "too many requests"),
        (503, None, "mend", "not well"),
        (418, None, "look", "418"),
    ],
)
async def test_what_a_status_means_is_said(
    status: int, key: str | None, expected: str, word: str
) -> None:
    headers = {"Location": "/elsewhere"} if status == 302 else {}
    async with answering(status, **headers) as (url, asked):
        upstream = {"base_url": url} | ({"api_key": key} if key else {})
        found = await looked({"one": upstream})

    assert found["upstream.one.http"].verdict.value == expected
    assert word in found["upstream.one.http"].said
    # Redirects are not followed, and the key goes as the gateway sends it.
    assert [each.path for each in asked] == ["/v1/models"]
    assert asked[0].headers.get("Authorization") == (f"Bearer {key}" if key else None)
    assert all(KEY not in each.said + each.mend for each in found.values())


async def test_anthropics_credential_goes_where_anthropic_wants_it() -> None:
    async with answering(200) as (url, asked):
        await looked({"claude": {"base_url": url, "provider": "anthropic", "api_key": KEY}})

    assert asked[0].headers["x-api-key"] == KEY
    assert "anthropic-version" in asked[0].headers
    assert "Authorization" not in asked[0].headers


async def test_a_pool_with_one_replica_down_is_to_look_at_and_with_none_to_mend() -> None:
    dead = f"http://127.0.0.1:{free_port()}/v1"
    async with EngineServer(engine="llamacpp") as engine:
        some = await looked({"m": {"engine": "llamacpp", "backends": [engine.v1_url, dead]}})
        none = await looked({"m": {"engine": "llamacpp", "backends": [dead]}})

    assert some["upstream.m"].verdict is Verdict.LOOK
    assert some["upstream.m"].facts == {"replicas": 2, "asked": 2, "failing": 1}
    assert none["upstream.m"].verdict is Verdict.MEND


async def test_replicas_behind_a_name_are_found() -> None:
    async with EngineServer(engine="vllm", decode_s=0.0) as engine:
        found = await looked(
            {"m": {"engine": "vllm", "dns": f"http://localhost:{engine.port}/v1"}},
            skip=("host", "gateway", "store", "otlp", "engines"),
        )

    assert found[f"upstream.m.127.0.0.1:{engine.port}.http"].verdict is Verdict.OK


async def test_a_clock_that_is_wrong_is_said_by_how_much() -> None:
    async with answering(200, Date="Sun, 22 Nov 2020 00:00:00 GMT") as (url, _):
        found = await looked({"one": {"base_url": url}})

    assert found["clock"].verdict is Verdict.MEND
    assert "ahead of 127.0.0.1" in found["clock"].said


async def test_a_date_out_of_a_cache_says_nothing_of_the_clock() -> None:
    async with answering(200, Date="Sun, 22 Nov 2020 00:00:00 GMT", Age="9") as (url, _):
        found = await looked({"one": {"base_url": url}})

    assert found["clock"].verdict is Verdict.SKIPPED


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, "ok"), (400, "look"), (401, "mend"), (404, "mend"), (502, "mend")],
)
async def test_what_a_receiver_of_telemetry_answers_is_judged(status: int, expected: str) -> None:
    async with answering(status) as (url, asked):
        found = await looked(
            {},
            skip=("host", "gateway", "store", "upstreams", "clock"),
            environ={
                "OTEL_EXPORTER_OTLP_ENDPOINT": url.removesuffix("/v1"),
                "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={KEY}",
            },
        )

    assert found["otlp.traces"].verdict.value == expected
    assert sorted(each.path for each in asked) == ["/v1/metrics", "/v1/traces"]
    assert {each.headers["authorization"] for each in asked} == {KEY}


async def test_telemetry_that_goes_nowhere_is_told_and_so_are_files_that_are_not_there() -> None:
    skip = ("host", "gateway", "store", "upstreams", "clock")
    nobody = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    grpc = {**nobody, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    lost = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://127.0.0.1:1",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": "/no/such.pem",
    }
    odd = {"OTEL_EXPORTER_OTLP_ENDPOINT": "ftp://x:y"}

    for environ in (nobody, grpc, lost, odd):
        found = await looked({}, skip=skip, environ=environ)
        assert found["otlp.traces"].verdict is Verdict.MEND, environ

    assert (await looked({}, skip=skip))["otlp"].verdict is Verdict.SKIPPED


async def test_no_gateway_is_told_from_something_else_on_its_port() -> None:
    skip = ("host", "store", "upstreams", "otlp", "clock")
    ports: dict[str, Any] = {"server": {"probe_port": free_port()}, "admin": {"port": free_port()}}
    nobody = await looked({}, skip=skip, **ports)
    async with answering(200) as (url, _):
        port = int(url.split(":")[2].partition("/")[0])
        other = await looked({}, skip=skip, server={"probe_port": port}, admin={"port": port})

    assert "no gateway answers" in nobody["gateway.probes"].said
    assert "that is no gateway" in other["gateway.probes"].said
    assert "that is no gateway" in other["gateway.admin"].said


async def test_a_gateway_that_drains_and_a_pool_without_replicas_are_said() -> None:
    dead = f"http://127.0.0.1:{free_port()}/v1"
    sections: dict[str, Any] = {
        "server": {"probe_port": free_port()},
        "admin": {"port": free_port(), "token": "an-admin-token-of-enough-characters"},
        "upstreams": {"m": {"backends": [dead], "health": {"unhealthy_after": 1}}},
    }
    async with gateway_here("http://127.0.0.1:1", **sections) as gateway:
        gateway.readiness.drain()
        skip = ("host", "store", "upstreams", "otlp", "clock")
        known = {"server": sections["server"], "admin": sections["admin"]}
        found = await looked({}, skip=skip, **known)
        wrong = {**known["admin"], "token": "another-token-of-enough-characters"}
        refused = await looked({}, skip=skip, server=sections["server"], admin=wrong)

    assert found["gateway.probes"].verdict is Verdict.MEND
    assert "draining" in found["gateway.probes"].said
    assert found["gateway.admin"].verdict is Verdict.OK
    assert "gateway.pool.m" in found
    assert refused["gateway.admin"].verdict is Verdict.LOOK


@pytest.mark.parametrize(
    ("told", "expected", "word"),
    [
        ({}, "look", "holds there, and here"),
        ({"waiting": ["server.port"]}, "look", "wait for a restart: server.port"),
        (
            {
                "last": {
                    "outcome": "refused",
                    "faults": [{"path": "store.url", "problem": "is odd"}],
                }
            },
            "mend",
            "refused (store.url: is odd)",
        ),
        ({"last": {"outcome": "refused", "faults": None}}, "mend", "does not say why"),
    ],
)
async def test_a_config_that_does_not_hold_is_told(
    told: dict[str, Any], expected: str, word: str
) -> None:
    async def config(_: web.Request) -> web.Response:
        return web.json_response({"generation": "0123456789abcdef", "last": None, **told})

    async def backends(_: web.Request) -> web.Response:
        return web.json_response({"upstreams": {"odd": {"states": None, "backends": [1]}}})

    app = web.Application()
    app.router.add_get("/admin/config", config)
    app.router.add_get("/admin/backends", backends)
    async with serve_app(app) as base:
        found = await looked(
            {},
            skip=("host", "store", "upstreams", "otlp", "clock"),
            admin={"port": int(base.rpartition(":")[2])},
            server={"probe_port": free_port()},
        )

    assert found["gateway.config"].verdict.value == expected
    assert word in found["gateway.config"].said
    assert found["gateway.pool.odd"].verdict is Verdict.MEND


async def test_a_gateway_that_hangs_is_told_from_none() -> None:
    hold = asyncio.Event()

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hold.wait()
        writer.transport.abort()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    try:
        config = Config.model_validate(
            {
                "server": {"probe_port": server.sockets[0].getsockname()[1]},
                "admin": {"port": free_port()},
            }
        )
        skip = ("host", "store", "upstreams", "otlp", "clock")
        found = by_check(await examine(config, {}, skip=skip, timeout_s=0.2))
    finally:
        hold.set()
        server.close()
        await server.wait_closed()

    assert "its event loop hangs" in found["gateway.probes"].mend


async def test_who_has_no_home_is_told_to_say_where_the_store_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nobody(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", nobody)
    skip = ("host", "gateway", "upstreams", "otlp", "clock")
    found = by_check(await examine(Config.model_validate({}), {}, skip=skip))

    assert found["store"].verdict is Verdict.MEND
    assert "store.url" in found["store"].mend


async def test_a_check_that_fails_itself_keeps_nothing_from_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*_: object) -> list[Finding]:
        raise LookupError(KEY)

    monkeypatch.setattr(look_module, "running", broken)
    found = await looked({}, skip=("host", "upstreams", "clock"))

    assert found["gateway"].verdict is Verdict.LOOK
    assert "LookupError" in found["gateway"].said
    assert KEY not in found["gateway"].said
    assert found["store"].verdict is Verdict.OK


def test_faults_of_the_config_are_named_and_nothing_else_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("server: {port: 99999999}\nstore: {url: nonsense}\n")
    monkeypatch.setenv("GATEWAY_UPSTREAMS__X__API_KEY", KEY)

    assert main(["doctor", "--config", str(file), "--json"]) == 2
    told = orjson.loads(capsys.readouterr().out)

    assert told["status"] == 2
    assert not told["ok"]
    config = next(each for each in told["findings"] if each["check"] == "config")
    assert {each["path"].split(" ")[0] for each in config["facts"]["faults"]} >= {
        "server.port",
        "store.url",
    }
    assert {each["verdict"] for each in told["findings"] if each["check"] == "store"} == {"skipped"}
    assert KEY not in orjson.dumps(told).decode()


def test_the_exit_status_says_whether_there_is_something_to_mend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gateway.yaml"
    port = free_port()
    file.write_text(
        f"store: {{url: 'memory://'}}\nupstreams: {{x: {{base_url: 'http://127.0.0.1:{port}/v1'}}}}\n"
    )
    alone = ["doctor", "--config", str(file), "--skip", "gateway", "--skip", "host"]

    assert main(alone) == 1
    shown = capsys.readouterr().out
    assert "MEND     upstream.x.tcp" in shown
    assert "-> nothing listens there" in shown
    assert main([*alone, "--skip", "upstreams", "--quiet"]) == 0
    assert capsys.readouterr().out == "\n0 to mend, 0 to look at, 2 fine, 2 skipped\n"


def test_what_is_only_to_look_at_fails_where_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(f"store: {{url: 'sqlite:///{tmp_path}/x.sqlite', sqlite_bytes: {1 << 60}}}\n")
    alone = ["doctor", "--config", str(file)]
    for group in ("gateway", "host", "upstreams", "otlp"):
        alone += ["--skip", group]

    assert main(alone) == 0
    assert main([*alone, "--strict"]) == 1
    assert "lower store.sqlite_bytes" in capsys.readouterr().out


def test_a_resolver_that_hangs_holds_nothing_up_beyond_its_deadline(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    let_go, ended = threading.Event(), threading.Event()

    def hanging(*_: object, **__: object) -> list[Any]:
        let_go.wait(10.0)
        ended.set()
        raise socket.gaierror(socket.EAI_AGAIN, "Try again")

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    monkeypatch.setenv("GATEWAY_UPSTREAMS__OPENAI__BASE_URL", "http://hangs.example/v1")
    monkeypatch.setenv("GATEWAY_STORE__URL", "redis://hangs.example")
    alone = ["doctor", "--timeout", "0.2"]
    for group in ("host", "gateway", "otlp"):
        alone += ["--skip", group]
    try:
        assert main(alone) == 1
        assert not ended.is_set()
    finally:
        let_go.set()
    said = capsys.readouterr().out
    assert "the resolver said nothing of hangs.example" in said
    assert "store.redis" in said

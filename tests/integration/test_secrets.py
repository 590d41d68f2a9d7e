"""Marked secrets are put wherever a client, an upstream or the config can put one; then all that leaves
is searched for them: log, spans, metrics, admin port, errors, names in stores, the process itself.

What has to carry content is listed in docs/explanation/what-is-remembered.md, and here in `MAY`.
"""

from __future__ import annotations

import asyncio
import base64
import io
import sqlite3
import sys
import zlib
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest
import redis.asyncio
import yaml
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.app import start
from gateway.config import Config
from gateway.config.redaction import secrets_in
from gateway.store.base import StoreUnavailable
from gateway.telemetry.logs import setup_logging
from tests.helpers.gateway_here import settings
from tests.helpers.gateway_process import GatewayProcess
from tests.helpers.raw_client import fetch
from tests.helpers.redis_servers import RedisServer, binary
from tests.helpers.scripted_upstream import (
    LAST_CHUNK,
    ScriptedUpstream,
    chunk,
    response,
    serve_app,
    stream_head,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from gateway.app import RunningGateway

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
EMBEDDINGS, COMPLETIONS, FILES = "/v1/embeddings", "/v1/completions", "/v1/files"
WAIT_S = 10.0
MAY = {"session", "fingerprint"}
"""On spans: the conversation's id, as its client names it in a header for that (`x-gateway-session`), and
the name that OpenAI gives to what it runs on. Nowhere else."""


CREDENTIALS = {
    *("bearerkey", "xapikey", "azurekey", "cookie", "headervalue", "baggage", "tracestate"),
    *("querykey", "filequery", "setcookie", "oddheader", "configkey", "admintoken", "cachesecret"),
    *("redispassword", "otlpkey", "useragent", "betaheader", "badheader", "errortext"),
}
ENVIRON = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_METRIC_EXPORT_INTERVAL": "100"}


class Marks:
    """Secrets by name; each is a word that stands nowhere else."""

    def __init__(self) -> None:
        self.made: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        """The secret of that name."""
        return self.made.setdefault(name, f"zq{name}q{zlib.crc32(name.encode()):08x}zq")

    def found_in(self, text: bytes | str) -> set[str]:
        """The names of those that stand there, plain or encoded in a usual way."""
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        return {
            name
            for name, value in self.made.items()
            if any(form in data for form in _forms(value.encode()))
        }


def _forms(value: bytes) -> Iterator[bytes]:
    yield value
    yield value.upper()
    yield value.hex().encode()
    for shift in range(3):
        # Of base64 what is the same whatever stands around it.
        coded = base64.b64encode(b"\0" * shift + value)
        yield coded[4 * ((shift + 2) // 3) : -4]


@pytest.fixture
def marks() -> Marks:
    return Marks()


@pytest.fixture
def valkey(marks: Marks) -> Iterator[RedisServer]:
    executable = binary("valkey")
    assert executable is not None
    server = RedisServer(executable, password=marks("redispassword"))
    server.start()
    yield server
    server.close()


@dataclass
class Heard:
    """All that left over OTLP, as it came: the messages of traces, and the raw bytes of the rest."""

    url: str = ""
    spans: list[ExportTraceServiceRequest] = field(default_factory=list)
    other: list[bytes] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def names(self) -> list[str]:
        return [
            span.name
            for message in self.spans
            for group in message.resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]

    def leaked(self, marks: Marks) -> set[str]:
        """The secrets in it, but for the caller's own `tracestate`, which belongs to its trace."""
        found = {name for body in self.other for name in marks.found_in(body)}
        for message in self.spans:
            for group in message.resource_spans:
                for scope in group.scope_spans:
                    for span in scope.spans:
                        span.trace_state = ""
                        for link in span.links:
                            link.trace_state = ""
            found |= marks.found_in(message.SerializeToString())
        return found


@asynccontextmanager
async def collector() -> AsyncIterator[Heard]:
    heard = Heard()

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        async with heard.changed:
            if request.path.endswith("/traces"):
                heard.spans.append(ExportTraceServiceRequest.FromString(body))
            else:
                heard.other.append(body)
            heard.changed.notify_all()
        return web.Response(body=b"", content_type="application/x-protobuf")

    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/{signal}", take)
    async with serve_app(app) as heard.url:
        yield heard


def headers(marks: Marks, **more: str) -> list[tuple[str, str]]:
    return [
        ("Authorization", f"Bearer {marks('bearerkey')}"),
        ("x-api-key", marks("xapikey")),
        ("api-key", marks("azurekey")),
        ("Cookie", f"session={marks('cookie')}"),
        ("x-custom-header", marks("headervalue")),
        ("anthropic-beta", marks("betaheader")),
        ("user-agent", marks("useragent")),
        ("baggage", f"user={marks('baggage')}"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", f"vendor={marks('tracestate')}"),
        ("x-gateway-session", marks("session")),
        ("x-gateway-cache-tags", "harbour"),
        *((name.replace("_", "-"), value) for name, value in more.items()),
    ]


def chat(marks: Marks, **more: Any) -> dict[str, Any]:
    image = base64.b64encode(f"   {marks('imagebytes')}   ".encode()).decode()
    return {
        "model": "gpt-5.6",
        "user": marks("userid"),
        "metadata": {"user_id": marks("metadata")},
        "prompt_cache_key": marks("cachekey"),
        "messages": [
            {
                "role": "system",
                "content": f"{marks('systemprompt')} Current time: 2026-11-22T10:00:00Z id "
                + "The rules of the harbour. " * 400,
            },
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": marks("userprompt")},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
                    {"type": "file", "file": {"file_data": marks("filecontent")}},
                ],
            },
            {
                "role": "assistant",
                "tool_calls": [
                    {
                        "id": marks("toolcallid"),
                        "type": "function",
                        "function": {"name": "look", "arguments": f'{{"a":"{marks("toolargs")}"}}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": marks("toolcallid"), "content": marks("toolresult")},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": marks("toolname"),
                    "description": marks("tooldescription"),
                    "parameters": {"type": "object", "properties": {marks("toolproperty"): {}}},
                },
            }
        ],
        "stop": [marks("stopsequence")],
        marks("unknownmember"): marks("unknownvalue"),
        **more,
    }


def messages(marks: Marks, **more: Any) -> dict[str, Any]:
    return {
        "model": "claude-sonnet-4-5",
        "max_tokens": 64,
        "metadata": {"user_id": marks("anthropicuser")},
        "system": f"{marks('claudesystem')} Current time: 2026-11-22T10:00:00Z\n"
        + "The rules of the harbour are kept. " * 400,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": marks("claudeprompt")}]},
            {
                "role": "assistant",
                "content": [
                    {
                        "type": "tool_use",
                        "id": "toolu_1",
                        "name": marks("claudetool"),
                        "input": {marks("inputname"): marks("inputvalue")},
                    }
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": marks("claude")}
                ],
            },
        ],
        **more,
    }


def chat_answer(marks: Marks, **more: Any) -> bytes:
    message = {"role": "assistant", "content": marks("responsetext"), "refusal": None}
    return orjson.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": "gpt-5.6-2026",
            "system_fingerprint": marks("fingerprint"),
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1900, "completion_tokens": 5, "total_tokens": 1905},
            **more,
        }
    )


def claude_answer(marks: Marks) -> bytes:
    return orjson.dumps(
        {
            "id": "msg_01A",
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-4-5",
            "content": [{"type": "text", "text": marks("clauderesponse")}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 2000, "output_tokens": 5},
        }
    )


def refusal(marks: Marks, status: str) -> bytes:
    """An upstream's own error, which quotes the key that it was sent."""
    told = f"Incorrect API key provided: {marks('bearerkey')}. {marks('errortext')}"
    body = {"error": {"message": told, "type": marks("errortype"), "code": marks("errorcode")}}
    given = {"content-type": "application/json", "set-cookie": f"a={marks('setcookie')}"}
    return response(orjson.dumps(body), status=status, headers=given)


ANSWERED = {"content-type": "application/json"}


class World:
    """A gateway in front of a scripted upstream, and all that it says."""

    def __init__(
        self, gateway: RunningGateway, upstream: ScriptedUpstream, marks: Marks, log: io.StringIO
    ) -> None:
        self.gateway = gateway
        self.upstream = upstream
        self.marks = marks
        self.log = log
        self.errors: list[bytes] = []
        """Bodies of errors of our own."""

    async def send(
        self, path: str, body: Any, *pieces: Any, method: str = "POST", **more: str
    ) -> tuple[int, bytes]:
        if pieces:
            self.upstream.otherwise(*pieces)
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        got = await fetch(self.gateway.api_url, method, path, raw, headers(self.marks, **more))
        if b"gateway_" in got.body:
            self.errors.append(got.body)
        return got.status, got.body

    async def everything(self) -> None:
        """One of each kind of request and answer."""
        marks = self.marks
        cookie = {**ANSWERED, "set-cookie": f"a={marks('setcookie')}", "x-odd": marks("oddheader")}
        answered = response(chat_answer(marks), headers=cookie)
        query = f"?api-version=1&key={marks('querykey')}"
        for _ in range(2):
            # The second is a hit.
            assert (await self.send(CHAT + query, chat(marks), answered))[0] == 200
        claude = response(claude_answer(marks), headers=cookie)
        for turn in range(3):
            said = [*messages(marks)["messages"], {"role": "user", "content": f"turn {turn}"}]
            body = messages(marks, messages=said)
            assert (await self.send(MESSAGES, body, claude))[0] == 200
        for status in ("401 Unauthorized", "400 Bad Request", "429 Too Many", "500 Oh"):
            body = chat(marks, seed=int(status[:3]))
            refused = refusal(marks, status)
            status_got, _ = await self.send(CHAT, body, refused)
            assert status_got in {400, 401, 429, 500, 502}
        await self._streams()
        await self._odd()

    async def _streams(self) -> None:
        marks = self.marks
        delta = {"id": "c", "model": "gpt-5.6", "object": "chat.completion.chunk"}
        event = {**delta, "choices": [{"index": 0, "delta": {"content": marks("streamed")}}]}
        data = b"data: " + orjson.dumps(event) + b"\n\n"
        whole = chunk(data) + chunk(
            b"data: "
            + orjson.dumps(
                {**delta, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
            )
            + b"\n\ndata: [DONE]\n\n"
        )
        body = chat(marks, stream=True)
        await self.send(CHAT, {**body, "seed": 1}, stream_head(), whole, LAST_CHUNK)
        failed = orjson.dumps({"error": {"message": marks("sseerror"), "type": "server_error"}})
        broken = chunk(data) + chunk(b"data: " + failed + b"\n\n")
        await self.send(CHAT, {**body, "seed": 2}, stream_head(), broken, LAST_CHUNK)
        odd = chunk(data) + chunk(b"data: {" + marks("brokenevent").encode() + b"\n\n")
        await self.send(CHAT, {**body, "seed": 3}, stream_head(), odd, LAST_CHUNK)

    async def _odd(self) -> None:
        marks, secret = self.marks, self.marks
        text = {"content-type": "application/json"}
        await self.send(CHAT, chat(marks, seed=10), response(b"{" + marks("nojson").encode()))
        for body in (
            b"{" + marks("brokenbody").encode(),
            b'{"model":"gpt-5.6","messages":[{"role":"' + secret("oddrole").encode() + b'"}]}',
            b'{"model":"gpt-5.6","a":1,"a":"' + secret("twice").encode() + b'","messages":[]}',
            b'\xff\xfe{"' + secret("noutf8").encode() + b'"}',
            orjson.dumps({"model": "gpt-5.6", "messages": marks("messagestext")}),
            orjson.dumps({"model": "gpt-5.6", "messages": [], "temperature": marks("temperature")}),
        ):
            await self.send(CHAT, body, response(chat_answer(marks), headers=text))
        given = {"model": "text-embedding-3-small", "input": [marks("input1"), marks("input2")]}
        vector = {"object": "embedding", "embedding": [0.5], "index": 0}
        listed = {
            "object": "list",
            "model": "text-embedding-3-small",
            "data": [vector, {**vector, "index": 1}],
            "usage": {"prompt_tokens": 2, "total_tokens": 2},
        }
        await self.send(EMBEDDINGS, given, response(orjson.dumps(listed), headers=text))
        await self.send(
            COMPLETIONS,
            {"model": "gpt-3.5-turbo-instruct", "prompt": marks("completion")},
            response(b"{}", headers=text),
        )
        instructions = {"model": "gpt-5.6", "input": marks("responsesinput")}
        instructions["instructions"] = marks("instructions")
        await self.send(RESPONSES, instructions, response(b"{}", headers=text))
        upload = marks("upload").encode()
        await self.send(f"{FILES}?key={marks('filequery')}", upload, response(b"{}", headers=text))
        no = {"cache_control": f"only-if-cached, {marks('directive')}"}
        await self.send(CHAT, chat(marks, seed=11), **no)
        await self.send(f"/u/nobody{CHAT}", chat(marks))
        await self.send(CHAT, chat(marks), x_gateway_explain="1")
        # Nobody answers; then nobody speaks HTTP.
        self.upstream.otherwise(f"{marks('nohttp')}\r\n\r\n".encode(), then_close=True)
        await self.send(CHAT, chat(marks, seed=12))
        await self._no_http()

    async def _no_http(self) -> None:
        port = int(self.gateway.api_url.rpartition(":")[2])
        for text in (
            f"POST {CHAT} HTTP/1.1\r\nbad header {self.marks('badheader')}\r\n\r\n",
            f"{self.marks('badline')}\r\n\r\n",
            f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {self.marks('badlength')}\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(text.encode())
            async with asyncio.timeout(WAIT_S):
                await reader.read()
            writer.close()

    async def admin(self, token: str | None) -> dict[str, bytes]:
        """What the admin port says, by path."""
        assert self.gateway.admin_url is not None
        told: dict[str, bytes] = {}
        given = {"Authorization": f"Bearer {token}"} if token else {}
        async with aiohttp.ClientSession(headers=given) as session:

            async def get(path: str) -> Any:
                async with session.get(f"{self.gateway.admin_url}{path}") as answer:
                    told[path] = await answer.read() + repr(answer.headers).encode()
                    return orjson.loads(told[path].partition(b"<CIMulti")[0] or b"{}")

            for path in ("stats", "backends", "savings", "nothing/there"):
                await get(f"/admin/{path}")
            for path in ("summary", "names", "backends", "prefixes", "savings", "breakers"):
                await get(f"/admin/page/{path}")
            listed = await get("/admin/page/requests")
            for each in listed.get("requests", ())[:200]:
                await get(f"/admin/page/requests/{each['id']}")
            entries = await get("/admin/cache/entries")
            for each in entries.get("entries", ()):
                await get(f"/admin/cache/entries/{each['key']}")
        return told

    async def pages(self) -> bytes:
        async with aiohttp.ClientSession() as session:
            pages = b""
            for path in ("/metrics", "/readyz?verbose", "/livez"):
                async with session.get(self.gateway.probe_url + path) as answer:
                    pages += await answer.read()
            return pages


def tree_of(marks: Marks, upstream: ScriptedUpstream, store: str, form: str) -> dict[str, Any]:
    return settings(
        upstream.url,
        store={"url": store, "deadline_ms": 2000},
        cache={"secret": [marks("cachesecret") + "x" * 32]},
        admin={"port": 0, "token": marks("admintoken") + "x" * 32},
        telemetry={"traces": "on"},
        log={"level": "debug", "format": form},
        prompt_cache={"rewrites": ["move-volatile", "sort-tools"]},
        upstreams={
            "openai": {"base_url": f"{upstream.url}/v1", "provider": "openai"},
            "anthropic": {
                "base_url": f"{upstream.url}/v1",
                "provider": "anthropic",
                "api_key": marks("configkey"),
            },
        },
    )


@asynccontextmanager
async def world(marks: Marks, store: str, form: str, otlp: str) -> AsyncIterator[World]:
    log = io.StringIO()
    async with ScriptedUpstream() as upstream:
        config = Config.model_validate(tree_of(marks, upstream, store, form))
        setup_logging("debug", form, log, secrets=secrets_in(config))
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": otlp,
            "OTEL_EXPORTER_OTLP_HEADERS": f"api-key={marks('otlpkey')}",
            **ENVIRON,
        }
        gateway = await start(config, environ)
        try:
            yield World(gateway, upstream, marks, log)
        finally:
            await gateway.stop()
            setup_logging("info", "auto")


async def in_redis(server: RedisServer) -> bytes:
    """The names of all keys, channels and members, one to a line."""
    found: list[Any] = []
    async with redis.asyncio.Redis.from_url(server.url) as client:
        async for key in client.scan_iter():
            found.append(key)
            if await client.type(key) == b"hash":
                found.append(await client.hgetall(key))
            elif await client.type(key) == b"stream":
                found.append(await client.xrange(key))
        found.append(await client.pubsub_channels())
    return "\n".join(map(repr, found)).encode()


@pytest.mark.parametrize("form", ["json", "console"])
async def test_no_secret_leaves_but_where_it_has_to(
    form: str, marks: Marks, valkey: RedisServer
) -> None:
    async with collector() as heard, world(marks, valkey.url, form, heard.url) as there:
        await there.everything()
        await there.gateway.background.idle()
        told = await there.admin(marks("admintoken") + "x" * 32)
        refused = await there.admin(None) if form == "console" else {}
        metrics = await there.pages()
        names = await in_redis(valkey)
        async with asyncio.timeout(WAIT_S), heard.changed:
            await heard.changed.wait_for(lambda: f"POST {FILES}" in heard.names() and heard.other)
    log = there.log.getvalue()
    # It is there that there was much to find.
    assert len(marks.made) > 60
    assert log.count("request") > 20
    assert len(told) > 30
    assert b"gateway_requests_total" in metrics
    assert names.count(b"\n") > 5
    assert len(there.errors) >= 4
    assert {name: marks.found_in(body) for name, body in told.items() if marks.found_in(body)} == {}
    assert marks.found_in(b"".join(refused.values())) == set()
    assert marks.found_in(metrics) == set()
    assert marks.found_in(names) == set()
    assert marks.found_in(log) == set()
    assert heard.leaked(marks) <= MAY
    assert marks.found_in(b"".join(there.errors)) == set()


class Raising:
    """Stands in the place of a method, and raises what has the secret in its words."""

    def __init__(self, kind: type[Exception], secret: str) -> None:
        self._kind = kind
        self._secret = secret
        self.calls = 0

    def __call__(self, *_: Any, **__: Any) -> Any:
        self.calls += 1
        raise self._kind(f"it says {self._secret}") from KeyError(self._secret)


def parts_of(gateway: RunningGateway) -> dict[str, tuple[Any, str, type[Exception]]]:
    """What is broken, one after the other: whose method, its name, and what it raises."""
    assembled = gateway._assembled
    proxy = assembled.proxy
    return {
        "planner": (assembled.planning.planner, "plan", ValueError),
        "learner": (assembled.planning.planner, "learn", ValueError),
        "watching": (assembled.planning.watching, "watch", ValueError),
        "proving": (assembled.planning.proving, "prove", ValueError),
        "store": (proxy._cache._store, "get", StoreUnavailable),
        "broken store": (proxy._cache._store, "get", ValueError),
        "put": (proxy._cache._store, "put", StoreUnavailable),
        "broken put": (proxy._cache._store, "put", ValueError),
        "recognition": (proxy._recognition, "recognise_beside", ValueError),
        "reading": (proxy._recognition, "_parse", ValueError),
        "answering": (proxy._answering, "cached", ValueError),
        "keeping": (proxy._keeping, "keep", ValueError),
        "connection": (gateway._client, "call", OSError),
    }


@pytest.mark.parametrize("form", ["json", "console"])
async def test_errors_inside_are_told_without_their_words(
    form: str, marks: Marks, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = marks("raised")
    async with collector() as heard, world(marks, "memory://", form, heard.url) as there:
        told: dict[str, bytes] = {}
        called: set[str] = set()
        for number, (name, (owner, method, kind)) in enumerate(parts_of(there.gateway).items()):
            raising = Raising(kind, secret)
            with monkeypatch.context() as patched:
                patched.setattr(owner, method, raising, raising=False)
                for path, body in ((CHAT, chat), (MESSAGES, messages)):
                    answered = chat_answer if path == CHAT else claude_answer
                    given = body(marks, top_k=number)
                    _, got = await there.send(path, given, response(answered(marks)))
                    told[f"{name} {path}"] = got
                await there.gateway.background.idle()
            if raising.calls:
                called.add(name)
        monkeypatch.setattr(
            there.gateway._store, "get", Raising(StoreUnavailable, secret), raising=False
        )
        admin = await there.admin(marks("admintoken") + "x" * 32)
        metrics = await there.pages()
        task = asyncio.get_running_loop().create_task(
            asyncio.to_thread(Raising(ValueError, secret))
        )
        there.gateway.background.spawn(_wait(task), "a test")
        await there.gateway.background.idle()
        async with asyncio.timeout(WAIT_S), heard.changed:
            await heard.changed.wait_for(lambda: len(heard.names()) > 20)
    log = there.log.getvalue()
    assert len(called) > 8, called
    assert "ValueError" in log
    assert "Traceback" in log
    assert "test_secrets.py" in log
    assert marks.found_in(log) == set()
    assert heard.leaked(marks) <= MAY
    assert marks.found_in(metrics) == set()
    assert marks.found_in(b"".join(admin.values())) == set()
    assert {name for name, got in told.items() if secret.encode() in got} == set()


async def _wait(task: asyncio.Task[Any]) -> None:
    await task


async def test_a_process_says_nothing_of_its_config(marks: Marks, valkey: RedisServer) -> None:
    async with ScriptedUpstream() as upstream:
        refused = refusal(marks, "401 Unauthorized")
        upstream.otherwise(refused)
        tree = tree_of(marks, upstream, valkey.url, "json")
        tree["telemetry"] = {"traces": "off"}
        async with GatewayProcess(tree) as gateway:
            got = await fetch(
                gateway.api_url, "POST", CHAT, orjson.dumps(chat(marks)), headers(marks)
            )
            assert got.status == 401
            about = Path(f"/proc/{gateway.pid}")
            title = (about / "cmdline").read_bytes() + (about / "comm").read_bytes()
            valkey.kill()
            await fetch(
                gateway.api_url, "POST", CHAT, orjson.dumps(chat(marks, seed=1)), headers(marks)
            )
            said = gateway.output()
        said += gateway.output()
    assert "request" in said
    assert marks.found_in(said) == set()
    assert marks.found_in(title) == set()


@pytest.mark.parametrize(
    "url", ["redis://:{}@h:1/x", "redis://{}@h:1/0", "rediss://u:{}@h:1/0?a=b"]
)
async def test_check_shows_no_secret(marks: Marks, tmp_path: Path, url: str) -> None:
    async with ScriptedUpstream() as upstream:
        tree = tree_of(marks, upstream, url.format(marks("urlpassword")), "json")
    file = tmp_path / "gateway.yaml"
    file.write_text(yaml.safe_dump(tree))
    for verb in (["check"], ["check", "--json"], ["serve"], ["cache", "stats", "--local"]):
        run = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", *verb, "--config", str(file)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(30):
            if verb == ["serve"] and url.endswith("/0"):
                assert run.stdout is not None
                said = await run.stdout.readline()
                run.terminate()
                said += await run.stdout.read()
                await run.wait()
            else:
                said, _ = await run.communicate()
        assert said
        assert marks.found_in(said) == set(), verb


async def test_in_a_file_only_answers_lie(marks: Marks, tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite3"
    async with collector() as heard, world(marks, f"sqlite:///{path}", "json", heard.url) as there:
        await there.everything()
        await there.gateway.background.idle()
    answers = {"responsetext", "clauderesponse", "streamed", "fingerprint"}
    files = list(tmp_path.iterdir())  # noqa: ASYNC240 - the gateway is gone
    names = "".join(each.name for each in files)
    assert marks.found_in(names) == set()
    kept = b"".join(each.read_bytes() for each in files)
    assert marks.found_in(kept) <= answers
    with closing(sqlite3.connect(path)) as file:
        tables = [
            row[0] for row in file.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        rows = [row for table in tables for row in file.execute(f"SELECT * FROM {table}")]
    assert len(rows) > 3
    assert marks.found_in(repr(rows)) <= answers


async def test_told_content_is_content_and_no_credential(
    marks: Marks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the standard variable on, prompts and answers are on spans; keys and headers never."""
    variable = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
    monkeypatch.setitem(ENVIRON, variable, "SPAN_ONLY")
    async with collector() as heard, world(marks, "memory://", "json", heard.url) as there:
        await there.everything()
        metrics = await there.pages()
        told = await there.admin(marks("admintoken") + "x" * 32)
        async with asyncio.timeout(WAIT_S), heard.changed:
            await heard.changed.wait_for(lambda: f"POST {FILES}" in heard.names())
    found = heard.leaked(marks)
    assert {"userprompt", "responsetext", "systemprompt"} <= found
    assert found & CREDENTIALS == set()
    assert marks.found_in(there.log.getvalue()) == set()
    assert marks.found_in(metrics) == set()
    assert marks.found_in(b"".join(told.values())) == set()

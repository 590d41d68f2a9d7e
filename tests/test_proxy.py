"""The way of one request at its edges: what is refused, what is retried, what leaks nowhere."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from gateway import accounts
from tests.helpers.gateway_here import gateway_here
from tests.helpers.raw_client import RawClient, fetch, request
from tests.helpers.scripted_upstream import LAST_CHUNK, ScriptedUpstream, chunk, response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.helpers.raw_client import Response

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
MODELS = "/v1/models"


def question(text: str = "hi", **more: object) -> bytes:
    messages = [{"role": "user", "content": text}]
    return orjson.dumps({"model": "gpt-4o", "max_tokens": 99, "messages": messages, **more})


ANSWER = response(
    orjson.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-4o",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "yes", "refusal": None},
                    "finish_reason": "stop",
                    "logprobs": None,
                }
            ],
            "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
        }
    )
)


def error_of(answer: Response) -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(answer.body)
    inner: dict[str, Any] = document["error"]
    return inner


def code_of(answer: Response) -> str:
    """The code of our own error, in either API's shape."""
    told = answer.body.decode()
    found = [
        word for word in told.replace('"', " ").replace(":", " ").split() if "gateway_" in word
    ]
    return found[0].strip(",.()") if found else told


@contextlib.asynccontextmanager
async def odd_upstream(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server that talks as told; yields its `http://...`."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await talk(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


# --- what is answered here ------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_root_answers_without_asking_anybody(method: str) -> None:
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        answer = await fetch(gateway.api_url, method, "/")
        assert answer.status == 200
        assert upstream.seen == []
        if method == "GET":
            assert orjson.loads(answer.body)["name"] == "warmgate"


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/", 404, "gateway_not_found"),  # POST /
        ("/v2/chat/completions", 404, "gateway_not_found"),
        ("/chat/completions", 404, "gateway_not_found"),
        ("/v1x/models", 404, "gateway_not_found"),
        ("/u/nobody/v1/models", 404, "gateway_not_found"),
        ("/u/openai", 404, "gateway_not_found"),
        ("/u/openai/models", 404, "gateway_not_found"),
        ("/admin/cache", 404, "gateway_not_found"),
        ("/metrics", 404, "gateway_not_found"),
        ("/v1/../admin", 400, "gateway_bad_request"),
        ("/v1/files/..", 400, "gateway_bad_request"),
        ("/v1/./models", 400, "gateway_bad_request"),
        ("/v1/%2e%2E/models", 400, "gateway_bad_request"),
        ("/v1/files/.%2e/x", 400, "gateway_bad_request"),
        ("/u/openai/v1/%2e%2e/x", 400, "gateway_bad_request"),
        ("http://api.openai.com/v1/models", 400, "gateway_bad_request"),
    ],
)
async def test_what_has_no_place_here_is_refused_and_never_sent(
    target: str, status: int, code: str
) -> None:
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        answer = await fetch(gateway.api_url, "POST", target, b"{}")
        assert (answer.status, error_of(answer)["code"]) == (status, code)
        assert answer.head.get("x-should-retry") == "false"
        assert answer.head.get("x-gateway-request-id").startswith("gw_")
        assert upstream.seen == []


async def test_our_errors_have_the_shape_of_the_api_that_was_called() -> None:
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        openai = await fetch(gateway.api_url, "POST", "/u/nobody" + CHAT, b"{}")
        assert set(orjson.loads(openai.body)) == {"error"}
        assert set(error_of(openai)) == {"message", "type", "param", "code"}
        anthropic = await fetch(gateway.api_url, "POST", "/u/nobody" + MESSAGES, b"{}")
        assert orjson.loads(anthropic.body)["type"] == "error"
        assert set(error_of(anthropic)) >= {"type", "message"}


@pytest.mark.parametrize("path", [CHAT, "/v1/models"])
async def test_what_can_not_be_told_of_a_request_does_not_fail_it(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("nobody listens")

    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        upstream.otherwise(ANSWER)
        for place in ("gateway.exchange.request_line", "gateway.core.recent.Recent.add"):
            monkeypatch.setattr(place, fails)
            for _ in range(2):
                assert (await fetch(gateway.api_url, "POST", path, question())).status == 200


async def test_names_of_models_are_not_kept_at_any_length() -> None:
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        upstream.otherwise(response(b"{}", status="404 Not Found"))
        before = accounts._listed.cache_info().currsize
        for number in range(3):
            body = question(model=f"{number}" * 100_000)
            assert (await fetch(gateway.api_url, "POST", CHAT, body)).status == 404
        assert accounts._listed.cache_info().currsize == before
        names = await fetch(gateway.admin_url or "", "GET", "/admin/page/names")
        assert len(names.body) < 4_000


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_only_if_cached_never_asks(path: str) -> None:
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        for target in (path, "/v1/embeddings"):
            headers = [("Cache-Control", "only-if-cached")]
            answer = await fetch(gateway.api_url, "POST", target, question(), headers)
            assert answer.status == 504
            assert code_of(answer) == "gateway_not_in_cache"
            assert answer.head.get("x-should-retry") == "false"
        assert upstream.seen == []


# --- bodies ---------------------------------------------------------------------------------------


async def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent() -> None:
    async with (
        ScriptedUpstream() as upstream,
        gateway_here(upstream.url, server={"body_limit_bytes": 1000}) as gateway,
        RawClient(gateway.api_url) as client,
    ):
        # Not a byte of the body follows.
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n"
        await client.send(head.encode())
        answer = await client.response()
        assert (answer.status, code_of(answer)) == (413, "gateway_body_too_large")
        assert "1000 bytes" in error_of(answer)["message"]
        assert upstream.seen == []


async def test_a_chunked_body_is_refused_as_soon_as_it_is_too_large() -> None:
    async with (
        ScriptedUpstream() as upstream,
        gateway_here(upstream.url, server={"body_limit_bytes": 1000}) as gateway,
        RawClient(gateway.api_url) as client,
    ):
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        # The last chunk never comes.
        await client.send(head.encode() + chunk(b"x" * 600) + chunk(b"x" * 600))
        answer = await client.response()
        assert (answer.status, code_of(answer)) == (413, "gateway_body_too_large")
        assert upstream.seen == []


async def test_a_body_of_exactly_the_limit_passes() -> None:
    body = question()
    async with (
        ScriptedUpstream() as upstream,
        gateway_here(upstream.url, server={"body_limit_bytes": len(body)}) as gateway,
    ):
        upstream.otherwise(ANSWER)
        assert (await fetch(gateway.api_url, "POST", CHAT, body)).status == 200
        assert (await fetch(gateway.api_url, "POST", CHAT, body + b" ")).status == 413


async def test_passed_through_uploads_have_no_limit() -> None:
    body = b"x" * 50_000
    async with (
        ScriptedUpstream() as upstream,
        gateway_here(upstream.url, server={"body_limit_bytes": 1000}) as gateway,
    ):
        upstream.otherwise(response(b"{}"))
        assert (await fetch(gateway.api_url, "POST", "/v1/files", body)).status == 200
        assert (await upstream.request(0)).body == body


@pytest.mark.parametrize("path", [CHAT, "/v1/files"])
async def test_a_client_that_waits_for_100_continue_gets_it(path: str) -> None:
    body = question()
    async with (
        ScriptedUpstream() as upstream,
        gateway_here(upstream.url) as gateway,
        RawClient(gateway.api_url) as client,
    ):
        upstream.otherwise(ANSWER)
        head = request("POST", path, body, [("Expect", "100-continue")])[: -len(body)]
        await client.send(head)
        assert (await client.head()).status == 100
        await client.send(body)
        answer = await client.response()
        assert (answer.status, answer.interim) == (200, [])
        seen = await upstream.request(0)
        assert seen.body == body
        assert "expect" not in seen.headers()
        # And the connection goes on.
        await client.ask("POST", path, body)
        assert (await client.response()).status == 200


async def test_a_client_that_waits_for_100_continue_with_too_much_never_sends_it() -> None:
    async with (
        ScriptedUpstream() as upstream,
        gateway_here(upstream.url, server={"body_limit_bytes": 10}) as gateway,
        RawClient(gateway.api_url) as client,
    ):
        head = request("POST", CHAT, question(), [("Expect", "100-continue")])
        await client.send(head[: -len(question())])
        assert (await client.response()).status == 413


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01 hello\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nAuthorization Bearer sk-secret\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nAuthorization: Bearer sk-secret\x00\r\n\r\n",
        b"GET /v1/" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /v1/files HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v1/files HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_refused_in_the_shape_of_an_api_and_logged_without_its_bytes(
    sent: bytes, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        ScriptedUpstream() as upstream,
        gateway_here(upstream.url) as gateway,
        RawClient(gateway.api_url) as client,
    ):
        await client.send(sent)
        answer = await client.response()
        assert (answer.status, error_of(answer)["code"]) == (400, "gateway_bad_request")
        assert await client.ended() == b""
        assert upstream.seen == []
    told = caplog.text + "".join(capsys.readouterr())
    assert "not HTTP" in told
    assert "secret" not in told
    assert "Traceback" not in told


# --- old clients, and many requests on one connection ---------------------------------------------


async def test_an_http_1_0_client_gets_a_body_without_chunks() -> None:
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        parts = [chunk(b"data: 1\n\n"), chunk(b"data: 2\n\n"), LAST_CHUNK]
        for path in ("/v1/responses", CHAT):
            upstream.answer(head + b"transfer-encoding: chunked\r\n\r\n", *parts)
            async with RawClient(gateway.api_url) as client:
                await client.send(request("POST", path, question(stream=True), version="1.0"))
                answer = await client.response()
                assert answer.head.status_line == b"HTTP/1.0 200 OK"
                assert answer.head.get("transfer-encoding") == ""
                assert answer.body == b"data: 1\n\ndata: 2\n\n"
                assert await client.ended() == b""


async def test_an_http_1_0_client_may_keep_its_connection() -> None:
    async with (
        ScriptedUpstream() as upstream,
        gateway_here(upstream.url) as gateway,
        RawClient(gateway.api_url) as client,
    ):
        upstream.otherwise(response(b"[]"))
        for _ in range(2):
            keep = [("Connection", "keep-alive")]
            await client.send(request("GET", MODELS, None, keep, version="1.0"))
            answer = await client.response()
            assert answer.body == b"[]"
            assert answer.head.get("connection") == "keep-alive"


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with (
        ScriptedUpstream() as upstream,
        gateway_here(upstream.url) as gateway,
        RawClient(gateway.api_url) as client,
    ):
        for number in range(20):
            upstream.answer(response(b"%d" % number))
        asked = [request("GET", f"/v1/models/{n}") for n in range(10)]
        asked += [request("POST", "/v1/files", b"x" * n) for n in range(10)]
        await client.send(b"".join(asked))
        got = [(await client.response()).body for _ in range(20)]
        assert got == [b"%d" % number for number in range(20)]
        assert [s.body for s in upstream.seen[10:]] == [b"x" * n for n in range(10)]


async def test_a_client_may_ask_to_close() -> None:
    async with (
        ScriptedUpstream() as upstream,
        gateway_here(upstream.url) as gateway,
        RawClient(gateway.api_url) as client,
    ):
        upstream.answer(response(b"[]"))
        await client.ask("GET", MODELS, None, [("Connection", "close")])
        answer = await client.response()
        assert answer.head.get("connection") == "close"
        assert await client.ended() == b""
        # What one hop agrees with another is not the other side's business.
        assert (await upstream.request(0)).headers().get("connection") != "close"


async def test_an_upload_that_is_answered_early_gets_its_answer() -> None:
    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response(b'{"error":"too much"}', status="413 Too Large"))
        await writer.drain()
        # It reads on, so that nothing is reset.
        while await reader.read(65536):
            pass

    async with (
        odd_upstream(hasty) as base,
        gateway_here(base) as gateway,
        RawClient(gateway.api_url) as client,
    ):
        head = b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        await client.send(head + b"x" * 1000)
        answer = await client.response()
        assert (answer.status, answer.body) == (413, b'{"error":"too much"}')


# --- upstreams that fail --------------------------------------------------------------------------


def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "no-such-host.invalid"])
@pytest.mark.parametrize("path", [CHAT, MESSAGES, MODELS])
async def test_an_upstream_that_can_not_be_reached_is_said_to_be(path: str, host: str) -> None:
    async with gateway_here(f"http://{host}:{unused_port()}") as gateway:
        method = "GET" if path == MODELS else "POST"
        answer = await fetch(gateway.api_url, method, path, question("?"), [("x-q", "?secret")])
        assert answer.status == 502
        assert code_of(answer) == "gateway_upstream_unreachable"
        # The SDKs may try again, as they would without us: nothing was sent.
        assert answer.head.get("x-should-retry") == ""
        assert host in error_of(answer)["message"]


@pytest.mark.parametrize(
    ("path", "method"), [(CHAT, "POST"), ("/v1/files", "PUT"), (MODELS, "GET"), (MODELS, "DELETE")]
)
async def test_what_was_sent_is_never_sent_again(path: str, method: str) -> None:
    heads: list[bytes] = []

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        if len(heads) == 1:
            writer.write(response(b"{}"))
            # Kept, and broken under the second request.
            heads.append(await reader.readuntil(b"\r\n\r\n"))

    async with odd_upstream(reset) as base, gateway_here(base) as gateway:
        body = None if method in {"GET", "DELETE"} else question("a")
        assert (await fetch(gateway.api_url, method, path, body)).status == 200
        answer = await fetch(gateway.api_url, method, path, body and question("b"))
        assert (answer.status, code_of(answer)) == (502, "gateway_upstream_broken")
        assert len(heads) == 2


async def test_an_upstream_that_speaks_no_http_is_broken() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x00\x01 SSH-2.0 hello\r\n\r\n")
        await reader.read()

    async with odd_upstream(babble) as base, gateway_here(base) as gateway:
        answer = await fetch(gateway.api_url, "POST", CHAT, question())
        assert (answer.status, code_of(answer)) == (502, "gateway_upstream_broken")


def idle(base: str, seconds: float) -> dict[str, Any]:
    member = {"base_url": f"{base}/v1", "idle_timeout_s": seconds}
    return {"openai": {**member, "provider": "openai"}, "anthropic": member}


@pytest.mark.parametrize("path", [CHAT, "/v1/responses"])
async def test_an_upstream_that_says_nothing_for_too_long_is_given_up(path: str) -> None:
    async with (
        ScriptedUpstream() as upstream,
        gateway_here(upstream.url, upstreams=idle(upstream.url, 0.2)) as gateway,
    ):
        upstream.answer((asyncio.Event(), b""))
        answer = await fetch(gateway.api_url, "POST", path, question())
        assert (answer.status, code_of(answer)) == (504, "gateway_upstream_timeout")
        seen = await upstream.request(0)
        await asyncio.wait_for(seen.hung_up.wait(), 1)
        assert len(upstream.seen) == 1


async def test_silence_in_the_middle_of_a_stream_breaks_it() -> None:
    async with (
        ScriptedUpstream() as upstream,
        gateway_here(upstream.url, upstreams=idle(upstream.url, 0.2)) as gateway,
        RawClient(gateway.api_url) as client,
    ):
        head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        upstream.answer(head, chunk(b"one"), (0.1, chunk(b"two")), (asyncio.Event(), b""))
        await client.ask("POST", "/v1/responses", question())
        await client.head()
        # Two pauses shorter than the limit are none; then it ends without its last chunk.
        assert await client.ended() == chunk(b"one") + chunk(b"two")


async def test_redirects_are_for_the_client() -> None:
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        where = {"location": "http://127.0.0.1:1/v1/elsewhere"}
        upstream.answer(response(b"", status="307 Temporary Redirect", headers=where))
        answer = await fetch(gateway.api_url, "POST", CHAT, question())
        assert (answer.status, answer.head.get("location")) == (307, where["location"])
        assert len(upstream.seen) == 1


async def test_cookies_of_one_answer_do_not_stick_to_the_next_request() -> None:
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        upstream.otherwise(response(b"[]", headers={"set-cookie": "session=1; Path=/"}))
        for _ in range(2):
            await fetch(gateway.api_url, "GET", MODELS)
        assert "cookie" not in upstream.seen[1].headers()


# --- headers and credentials ----------------------------------------------------------------------

OWN = [("Authorization", "Bearer sk-clients-own"), ("x-api-key", "sk-ant-clients-own")]


@pytest.mark.parametrize("path", [CHAT, MESSAGES, MODELS, "/v1/messages/count_tokens"])
async def test_the_clients_credential_passes_untouched(path: str) -> None:
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        upstream.otherwise(response(b"{}"))
        await fetch(gateway.api_url, "POST", path, question(), OWN)
        lines = (await upstream.request(0)).header_lines
        assert b"Authorization: Bearer sk-clients-own" in lines
        assert b"sk-ant-clients-own" in b"\n".join(lines)


@pytest.mark.parametrize("path", [CHAT, MESSAGES, MODELS, "/v1/messages/count_tokens"])
async def test_a_configured_credential_replaces_every_one_of_the_clients(path: str) -> None:
    async with ScriptedUpstream() as upstream:
        base = {"base_url": f"{upstream.url}/v1"}
        both = {
            "openai": {**base, "provider": "openai", "api_key": "sk-of-the-house"},
            "anthropic": {**base, "provider": "anthropic", "api_key": "sk-ant-of-the-house"},
        }
        async with gateway_here(upstream.url, upstreams=both) as gateway:
            upstream.otherwise(response(b"{}"))
            more = [("api-key", "clients-own"), ("Proxy-Authorization", "Basic clients-own")]
            for name, line in (
                ("openai", b"Authorization: Bearer sk-of-the-house"),
                ("anthropic", b"x-api-key: sk-ant-of-the-house"),
            ):
                number = len(upstream.seen)
                await fetch(gateway.api_url, "POST", f"/u/{name}{path}", question(), OWN + more)
                lines = upstream.seen[number].header_lines
                assert line in lines
                assert b"clients-own" not in b"\n".join(lines)
                secrets = [x for x in lines if b"house" in x]
                assert secrets == [line]


async def test_accept_encoding_is_narrowed_only_where_the_answer_is_recorded() -> None:
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        upstream.otherwise(ANSWER)
        wide = [("Accept-Encoding", "gzip, br, zstd")]
        for path, more, expected in (
            (CHAT, [], "gzip"),
            (CHAT, [("Cache-Control", "no-store")], "gzip, br, zstd"),
            (MODELS, [], "gzip, br, zstd"),
        ):
            number = len(upstream.seen)
            asked = question(f"{path} {more}")
            await fetch(gateway.api_url, "POST", path, asked, [*wide, *more])
            assert upstream.seen[number].headers()["accept-encoding"] == expected
        await fetch(gateway.api_url, "POST", CHAT, question("without"))
        assert "accept-encoding" not in upstream.seen[-1].headers()


# --- who is served a hit --------------------------------------------------------------------------


class Shop:
    """A gateway in some scope, and an upstream that knows which credentials are good."""

    def __init__(self, upstream: ScriptedUpstream, url: str) -> None:
        self.upstream = upstream
        self._url = url

    async def ask(self, who: str | None, text: str = "hi", **headers: str) -> tuple[int, str, int]:
        """Status, what the cache said, and how often the upstream was asked for it."""
        before = len(self.upstream.seen)
        sent = [] if who is None else [("Authorization", f"Bearer {who}")]
        sent += [(name.replace("_", "-"), value) for name, value in headers.items()]
        answer = await fetch(self._url, "POST", CHAT, question(text), sent)
        asked = len(self.upstream.seen) - before
        return answer.status, answer.head.get("x-gateway-cache"), asked


REFUSED = response(b'{"error":{"message":"no"}}', status="401 Unauthorized")


@contextlib.asynccontextmanager
async def shop(scope: str, **sections: Any) -> AsyncIterator[Shop]:
    async with ScriptedUpstream() as upstream:
        cache = {"scope": scope, **sections.pop("cache", {})}
        async with gateway_here(upstream.url, cache=cache, **sections) as gateway:
            made = Shop(upstream, gateway.api_url)
            upstream.answer(ANSWER)
            assert await made.ask("sk-a") == (200, "miss", 1)
            await gateway.background.idle()
            yield made


async def test_in_credential_scope_everybody_has_their_own_entries() -> None:
    async with shop("credential") as made:
        made.upstream.otherwise(ANSWER)
        assert await made.ask("sk-a") == (200, "hit", 0)
        assert await made.ask("sk-b") == (200, "miss", 1)
        assert await made.ask(None) == (200, "miss", 1)
        # The scheme's spelling is not the credential's.
        assert await made.ask(None, Authorization="bearer sk-a") == (200, "hit", 0)


async def test_in_shared_scope_a_credential_that_was_never_accepted_gets_no_hit() -> None:
    async with shop("shared") as made:
        made.upstream.otherwise(REFUSED)
        assert await made.ask("sk-a") == (200, "hit", 0)
        assert await made.ask("sk-forged") == (401, "miss", 1)
        assert await made.ask("sk-forged") == (401, "miss", 1)
        assert await made.ask(None) == (401, "miss", 1)


async def test_in_shared_scope_an_accepted_credential_shares_the_entries() -> None:
    async with shop("shared") as made:
        made.upstream.answer(ANSWER)
        assert await made.ask("sk-b", "something else") == (200, "miss", 1)
        assert await made.ask("sk-b") == (200, "hit", 0)


async def test_a_credential_that_is_refused_loses_its_hits() -> None:
    async with shop("shared") as made:
        assert await made.ask("sk-a") == (200, "hit", 0)
        made.upstream.answer(REFUSED)
        assert await made.ask("sk-a", "revoked meanwhile") == (401, "miss", 1)
        made.upstream.answer(REFUSED)
        assert await made.ask("sk-a") == (401, "miss", 1)


async def test_on_a_passed_through_route_only_a_refusal_counts() -> None:
    async with shop("shared") as made:
        # Model lists and preflights are answered to anybody.
        made.upstream.answer(response(b"[]"))
        await fetch(made._url, "GET", MODELS, None, [("Authorization", "Bearer sk-forged")])
        made.upstream.answer(REFUSED)
        assert await made.ask("sk-forged") == (401, "miss", 1)
        assert await made.ask("sk-a") == (200, "hit", 0)
        made.upstream.answer(REFUSED)
        await fetch(made._url, "GET", MODELS, None, [("Authorization", "Bearer sk-a")])
        made.upstream.answer(REFUSED)
        assert await made.ask("sk-a") == (401, "miss", 1)


async def test_acceptance_is_forgotten_after_a_while() -> None:
    async with shop("shared", cache={"auth_ttl_s": 0.2}) as made:
        async with asyncio.timeout(5):
            # What was accepted lapses by the machine's clock, and nothing tells of it.
            while (await made.ask("sk-a"))[1] == "hit":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        made.upstream.answer(REFUSED)
        assert await made.ask("sk-a", "another") == (401, "miss", 1)


async def test_a_tenant_header_from_anybody_is_ignored() -> None:
    async with shop("tenant") as made:
        made.upstream.otherwise(ANSWER)
        assert await made.ask("sk-b", x_gateway_tenant="acme") == (200, "miss", 1)
        assert await made.ask("sk-c", x_gateway_tenant="acme") == (200, "miss", 1)
        # Their own credential is their scope then.
        assert await made.ask("sk-c", x_gateway_tenant="other") == (200, "hit", 0)


async def test_a_tenant_header_from_a_trusted_proxy_is_the_scope() -> None:
    async with shop("tenant", server={"trusted_proxies": ["127.0.0.0/8"]}) as made:
        made.upstream.otherwise(ANSWER)
        assert await made.ask("sk-b", x_gateway_tenant="acme") == (200, "miss", 1)
        # Another credential of the tenant: a hit, once it was accepted.
        assert await made.ask("sk-c", x_gateway_tenant="acme") == (200, "miss", 1)
        assert await made.ask("sk-c", x_gateway_tenant="acme") == (200, "hit", 0)
        assert await made.ask("sk-c", x_gateway_tenant="rival") == (200, "miss", 1)
        assert b"acme" not in b"".join(b"".join(s.header_lines) for s in made.upstream.seen)


async def test_an_injected_credential_makes_nobody_share() -> None:
    async with ScriptedUpstream() as upstream:
        injected = {"base_url": f"{upstream.url}/v1", "provider": "openai", "api_key": "sk-house"}
        async with gateway_here(upstream.url, upstreams={"openai": injected}) as gateway:
            made = Shop(upstream, gateway.api_url)
            upstream.otherwise(ANSWER)
            assert await made.ask("client-a") == (200, "miss", 1)
            await gateway.background.idle()
            assert await made.ask("client-a") == (200, "hit", 0)
            assert await made.ask("client-b") == (200, "miss", 1)
            assert await made.ask(None) == (200, "miss", 1)


async def test_a_count_of_inputs_by_a_gateway_behind_us_is_not_passed_off_as_ours() -> None:
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        told = {"x-gateway-cache-inputs": "hit=9, miss=9", "x-gateway-cache": "hit"}
        upstream.answer(response(b"[]", headers=told))
        got = await fetch(gateway.api_url, "GET", MODELS)
        assert got.head.get("x-gateway-cache-inputs") == ""
        assert got.head.get("x-gateway-cache") == "pass"


async def test_a_client_that_is_slow_to_send_is_no_overhead_of_ours() -> None:
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        upstream.otherwise(ANSWER)
        async with RawClient(gateway.api_url) as client:
            whole = request("POST", CHAT, question())
            await client.send(whole[:-1])
            await asyncio.sleep(0.5)
            await client.send(whole[-1:])
            assert (await client.response()).status == 200
        page = (await fetch(gateway.probe_url, "GET", "/metrics")).body.decode()
        (spent,) = re.findall(r"gateway_overhead_duration_seconds_sum\{[^}]*\} (\S+)", page)
        assert float(spent) < 0.4

"""Bytes: what the client sends arrives at the upstream, and what the upstream sends at the client.

A thousand requests of every shape, made from a seed, with the cache off; then the understood
routes with the cache on, where one documented insertion is all that may change.
"""

from __future__ import annotations

import base64
import gzip
import random
import time
import zlib
from dataclasses import dataclass

import pytest

from tests.helpers.gateway_here import gateway_here
from tests.helpers.raw_client import RawClient
from tests.helpers.scripted_upstream import ScriptedUpstream, chunk, response

REQUESTS = 1000
SEED = 20261122

UNDERSTOOD = ("/v1/chat/completions", "/v1/messages")
PATHS = (
    "/v1/models",
    "/v1/models/ft:gpt-4o:acme::7p4lURel",
    "/v1/files/file-a%2fB%2Fc%20d/content",
    "/v1/files/%E2%82%AC%c3%a9/content",
    "/v1/audio/transcriptions",
    "/v1/images/edits",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/responses/resp_1/input_items",
    "/v1/batches/",
    "/v1/messages/count_tokens",
    "/v1/messages/batches/msgbatch_1/results",
    "/v1//double//slash/",
    "/v1/a;b=c,d/(e)/!$&'*+=:@~-._",
    "/v1/%7Etilde/%41%6a%6A/%25%2525",
    '/v1/pipe|caret^tick`quote"brace{}back\\less<>',
    "/v1/dots.in.names/..a/b../.c.",
)
QUERIES = (
    "",
    "",
    "",
    "?limit=20&after=file-1",
    "?a=1&a=2&a=1",
    "?q=%e2%82%ac+%2B%20%zz&empty=&bare",
    '?x=a/b?c=d&y=[1]&z={"k":1}|^`',
    "?&&=;;=&",
    "?",
    "?redirect=https://example.test/v1/../x%23frag",
)
JSON_BODIES = (
    b"{}",
    b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}',
    (
        b' {\n\t"model" : "gpt-4o" ,\r\n "temperature" : 1.0e-0 , "top_p": 0.10, "n":1,\n'
        b' "messages" : [ {"content":"h\\u00e9llo \\/ \\ud83d\\ude00","role":"user"} ] }\n\n'
    ),
    '{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"é漢字😀\u2028"}]}'.encode(),
    b'{"model":"claude-x","max_tokens":16,"messages":[{"role":"user","content":"x"}],"a":1,"a":2}',
    b'{"model":"gpt-4o","messages":[{"role":"user","content":"\\ud800"}]}',
    b'{"big":123456789012345678901234567890.5000,"neg":-0.0,"e":1E400}',
    b"[1, 2.0, 3e0]",
    b'{"unfinished": ',
    b'{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":false},"messages":[]}',
)
HEADER_POOL = (
    ("Authorization", "Bearer sk-test-0123456789"),
    ("x-api-key", "sk-ant-test"),
    ("anthropic-version", "2023-06-01"),
    ("anthropic-beta", "a-2025-01-01,b-2025-02-02"),
    ("anthropic-beta", "c"),
    ("OpenAI-Organization", "org-1"),
    ("User-Agent", "OpenAI/Python 3.54.0"),
    ("Accept", "application/json"),
    ("Accept", "text/event-stream;q=0.5, */*"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("X-Stainless-Retry-Count", "0"),
    ("X-Repeated", "1"),
    ("X-Repeated", "2"),
    ("x-repeated", "1"),
    ("X-Empty", ""),
    ("X-Spaces", "a  b   c\td"),
    ("X-Odd", "!#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\""),
    ("X-Unicode", "naïve 漢字 😀"),
    ("Cookie", "a=1; b=2"),
    ("Cookie", "c=3"),
    ("Range", "bytes=0-99"),
    ("If-None-Match", 'W/"abc"'),
    ("Idempotency-Key", "k-1"),
    ("Cache-Control", "no-transform"),
    ("X-Forwarded-For", "10.0.0.1"),
    ("Origin", "https://app.test"),
    ("X-Long", "y" * 6000),
)
# Dropped on the way, whatever they say.
HOP_POOL = (
    ("Connection", "keep-alive"),
    ("Keep-Alive", "timeout=5"),
    ("Proxy-Authorization", "Basic Zm9v"),
    ("TE", "trailers"),
    ("X-Gateway-Anything", "1"),
)
ANSWER_POOL = (
    (b"x-request-id", b"req_123"),
    (b"openai-processing-ms", b"12"),
    (b"x-ratelimit-remaining-requests", b"99"),
    (b"Set-Cookie", b"a=1; Path=/; HttpOnly"),
    (b"set-cookie", b"b=2; Secure"),
    (b"Set-Cookie", b"a=1; Path=/; HttpOnly"),
    (b"Server", b"cloudflare"),
    (b"Date", b"Thu, 01 Jan 2026 00:00:00 GMT"),
    (b"Cache-Control", b"private, max-age=0"),
    (b"Cache-Status", b"edge; hit; ttl=3"),
    (b"Age", b"7"),
    (b"ETag", b'"xyz"'),
    (b"Location", b"https://elsewhere.test/v1/x?y=%2F"),
    (b"Retry-After", b"3"),
    (b"Content-Disposition", 'attachment; filename="café.json"'.encode()),
    (b"X-Trailing", b"value with spaces after"),
    (b"X-Empty", b""),
    (b"Vary", b"Accept-Encoding"),
    (b"Alt-Svc", b'h3=":443"; ma=86400'),
    (b"Warning", b'299 - "odd"'),
)
REASONS = (b"OK", b"Very Fine Indeed", b"", b'I\'m a "reason"; (odd)', b"ok   spaced")
STATUSES = (
    (200,) * 12
    + (201, 202, 203, 206, 301, 302, 307, 400, 401, 404, 409, 418, 429)
    + (
        500,
        502,
        503,
        529,
        599,
    )
)


@dataclass(frozen=True)
class Shape:
    """One exchange: what the client puts on the wire, and what the upstream answers."""

    method: str
    target: str
    explicit: bool
    headers: tuple[tuple[str, str], ...]
    body: bytes
    request_chunks: tuple[bytes, ...] | None
    status_line: bytes
    answer_headers: tuple[tuple[bytes, bytes], ...]
    answer_body: bytes
    framing: str
    answer_chunks: tuple[bytes, ...]

    def request_bytes(self) -> bytes:
        prefix = "/u/openai" if self.explicit else ""
        lines = [f"{self.method} {prefix}{self.target} HTTP/1.1", "Host: gateway.test"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.request_chunks is not None:
            lines.append("Transfer-Encoding: chunked")
        elif self.body or self.method in {"POST", "PUT", "PATCH"}:
            lines.append(f"Content-Length: {len(self.body)}")
        head = "\r\n".join((*lines, "", "")).encode()
        if self.request_chunks is None:
            return head + self.body
        return head + b"".join(map(chunk, self.request_chunks)) + b"0\r\n\r\n"

    def forwarded_headers(self) -> list[tuple[str, str]]:
        dropped = {name.lower() for name, _ in HOP_POOL}
        return [(n.lower(), v) for n, v in self.headers if n.lower() not in dropped]

    def answer_pieces(self) -> list[bytes]:
        lines = [self.status_line, *(name + b": " + value for name, value in self.answer_headers)]
        if self.framing in {"length", "head", "304"}:
            lines.append(b"content-length: %d" % len(self.answer_body))
        elif self.framing == "chunked":
            lines.append(b"transfer-encoding: chunked")
        head = b"\r\n".join((*lines, b"", b""))
        match self.framing:
            case "chunked":
                return [head, *map(chunk, self.answer_chunks), b"0\r\n\r\n"]
            case "length" | "eof":
                return [head, *self.answer_chunks]
            case _:
                return [head]


def _cut(rng: random.Random, body: bytes) -> tuple[bytes, ...]:
    pieces: list[bytes] = []
    at = 0
    while at < len(body):
        size = min(rng.choice((1, 7, 100, 4096, 70_000)), len(body) - at)
        if len(pieces) > 20:
            size = len(body) - at
        pieces.append(body[at : at + size])
        at += size
    return tuple(pieces)


def _body(rng: random.Random) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    kind = rng.choice(("json", "json", "json", "binary", "large", "gzip", "form", "empty"))
    match kind:
        case "json":
            return rng.choice(JSON_BODIES), (("Content-Type", "application/json"),)
        case "binary":
            return rng.randbytes(rng.randrange(1, 5000)), ()
        case "large":
            text = base64.b64encode(rng.randbytes(rng.randrange(100_000, 900_000)))
            return b'{"model":"gpt-4o","x":"%b"}' % text, (("content-type", "application/json"),)
        case "gzip":
            packed = gzip.compress(rng.choice(JSON_BODIES), mtime=0)
            return packed, (("Content-Encoding", "gzip"), ("Content-Type", "application/json"))
        case "form":
            edge = f"----edge{rng.randrange(10**9)}"
            part = (
                f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="ä b.wav"\r\n'
                "Content-Type: audio/wav\r\n\r\n"
            )
            body = part.encode() + rng.randbytes(3000) + f"\r\n--{edge}--\r\n".encode()
            return body, (("Content-Type", f"multipart/form-data; boundary={edge}"),)
        case _:
            return b"", ()


def _sse(rng: random.Random) -> bytes:
    end = rng.choice((b"\n", b"\r\n", b"\r"))
    events = [
        b'data: {"choices":[{"delta":{"content":"%d"}}]}' % rng.randrange(1000) + end * 2,
        b": ping" + end * 2,
        b"event: message_start" + end + b"data: {}" + end * 2,
        'data: "é漢"'.encode() + end * 2,
        b'data: {"choices":[],"usage":{"prompt_tokens":1}}' + end * 2,
        b"data: [DONE]" + end * 2,
        b"data: unfinished",
    ]
    return b"".join(rng.choices(events, k=rng.randrange(1, 30)))


def _answer(rng: random.Random) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
    kind = rng.choice(("json", "json", "sse", "sse", "binary", "packed", "untyped", "empty"))
    match kind:
        case "json":
            return rng.choice(JSON_BODIES), ((b"Content-Type", b"application/json"),)
        case "sse":
            return _sse(rng), ((b"content-type", b"text/event-stream; charset=utf-8"),)
        case "binary":
            body = rng.randbytes(rng.randrange(1, 300_000))
            return body, ((b"Content-Type", b"audio/mpeg"),)
        case "packed":
            text = rng.choice(JSON_BODIES) * 50
            coding, body = rng.choice(
                (
                    (b"gzip", gzip.compress(text, mtime=0)),
                    (b"deflate", zlib.compress(text)),
                    (b"br", b"\x0b\x02\x80" + rng.randbytes(40)),
                    (b"zstd", b"\x28\xb5\x2f\xfd" + rng.randbytes(40)),
                    (b"gzip", rng.randbytes(50)),
                )
            )
            return body, ((b"content-encoding", coding), (b"content-type", b"application/json"))
        case "untyped":
            return b"no content-type at all \x00\xff", ()
        case _:
            return b"", ((b"Content-Type", b"text/plain"),)


def shapes(count: int, seed: int) -> list[Shape]:
    """Exchanges of every shape, the same ones for the same seed."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        understood = rng.random() < 0.4
        method = rng.choice(("GET", "GET", "HEAD", "POST", "POST", "PUT", "PATCH", "DELETE"))
        path = rng.choice(PATHS)
        if understood:
            method, path = "POST", rng.choice(UNDERSTOOD)
        elif rng.random() < 0.05:
            method = "OPTIONS"
        body, kind = _body(rng) if method in {"POST", "PUT", "PATCH"} else (b"", ())
        if method == "DELETE" and rng.random() < 0.2:
            body = b'{"reason": "why not"}'
        headers = [*kind, *rng.sample(HEADER_POOL, rng.randrange(0, 12))]
        headers += [pair for pair in HOP_POOL if rng.random() < 0.15]
        if rng.random() < 0.1:
            headers += [("Connection", "X-Named, close"[: rng.choice((7, 7))]), ("X-Named", "gone")]
        chunked = bool(body) and rng.random() < 0.3
        status = rng.choice(STATUSES)
        answer_body, answer_kind = _answer(rng)
        framing = rng.choice(("length", "chunked", "chunked", "eof"))
        roll = rng.random()
        if method == "HEAD":
            framing = rng.choice(("head", "none"))
        elif roll < 0.06:
            status, framing = 204, "none"
        elif roll < 0.12:
            status, framing = 304, rng.choice(("304", "none"))
        made.append(
            Shape(
                method=method,
                target=path + rng.choice(QUERIES),
                explicit=rng.random() < 0.2,
                headers=tuple(headers),
                body=body,
                request_chunks=_cut(rng, body) if chunked else None,
                status_line=b"HTTP/1.1 %d %b" % (status, rng.choice(REASONS)),
                answer_headers=(*answer_kind, *rng.sample(ANSWER_POOL, rng.randrange(0, 9))),
                answer_body=answer_body,
                framing=framing,
                answer_chunks=_cut(rng, answer_body),
            )
        )
    return made


async def _exchange(
    client: RawClient, upstream: ScriptedUpstream, shape: Shape, cache: str = "pass"
) -> list[str]:
    """Everything that is not as it should be, in words; `cache` is what our header says."""
    number = len(upstream.seen)
    upstream.answer(*shape.answer_pieces(), then_close=shape.framing == "eof")
    await client.send(shape.request_bytes())
    got = await client.response(shape.method)
    wrong: list[str] = []

    def same(what: str, expected: object, actual: object) -> None:
        if expected != actual:
            wrong.append(f"{what}: {str(expected)[:300]!r} became {str(actual)[:300]!r}")

    seen = await upstream.request(number)
    same("requests", number + 1, len(upstream.seen))
    same("request line", f"{shape.method} {shape.target} HTTP/1.1", seen.request_line.decode())
    same("request body", shape.body, seen.body)
    lines = [line.decode().partition(":") for line in seen.header_lines]
    arrived = [(name.lower(), value.strip(" ")) for name, _, value in lines]
    own = {"host", "content-length", "transfer-encoding"}
    same(
        "request headers",
        [pair for pair in shape.forwarded_headers() if pair[0] != "x-named"],
        [pair for pair in arrived if pair[0] not in own],
    )
    if shape.request_chunks is None and (shape.body or shape.method in {"POST", "PUT", "PATCH"}):
        same("content-length", str(len(shape.body)), dict(arrived).get("content-length"))

    same("status line", shape.status_line, got.head.status_line)
    same("answer body", b"" if _bodyless(shape) else shape.answer_body, got.body)
    expected = [(n.decode().lower(), v) for n, v in shape.answer_headers]
    ours = [("cache-status", _last(got.head.pairs, "cache-status"))]
    if not any(n == "date" for n, _ in expected):
        # RFC 9110 section 6.6.1: who forwards a response without Date adds one.
        ours.append(("date", _last(got.head.pairs, "date")))
    if shape.framing in {"length", "head", "304"}:
        ours.append(("content-length", b"%d" % len(shape.answer_body)))
    same("answer headers", sorted(expected + ours), got.head.end_to_end())
    # Fields of one name keep their order.
    same("cookies", _all(expected, "set-cookie"), _all(got.head.pairs, "set-cookie"))
    same("our header", cache, got.head.get("x-gateway-cache"))
    return [f"{shape.method} {shape.target} ({shape.framing}): {w}" for w in wrong]


def _bodyless(shape: Shape) -> bool:
    return shape.framing in {"head", "none", "304"}


def _all(pairs: list[tuple[str, bytes]], name: str) -> list[bytes]:
    return [value for key, value in pairs if key == name]


def _last(pairs: list[tuple[str, bytes]], name: str) -> bytes:
    return (_all(pairs, name) or [b"(absent)"])[-1]


@pytest.mark.slow
async def test_a_thousand_requests_of_every_shape_pass_byte_for_byte() -> None:
    began = time.perf_counter()
    wrong: list[str] = []
    async with (
        ScriptedUpstream() as upstream,
        gateway_here(upstream.url, cache={"when": "off"}) as gateway,
        RawClient(gateway.api_url) as client,
    ):
        for shape in shapes(REQUESTS, SEED):
            wrong += await _exchange(client, upstream, shape)
    print(f"{REQUESTS} exchanges in {time.perf_counter() - began:.1f} s, {len(wrong)} differences")
    assert wrong == []


async def test_other_routes_pass_byte_for_byte_while_the_cache_is_on() -> None:
    async with (
        ScriptedUpstream() as upstream,
        gateway_here(upstream.url) as gateway,
        RawClient(gateway.api_url) as client,
    ):
        for shape in shapes(300, SEED + 1):
            if not shape.target.partition("?")[0].endswith(UNDERSTOOD):
                assert await _exchange(client, upstream, shape) == []


INSERTED = b'"stream_options":{"include_usage":true},'
USER = b'"messages":[{"role":"user","content":"%d"}]'


@pytest.mark.parametrize(
    ("path", "body", "directive", "inserted"),
    [
        ("/v1/chat/completions", b' { "model" : "gpt-4o",' + USER + b"\n}", "", False),
        ("/v1/chat/completions", b'{"stream" :true,"model":"gpt-4o",' + USER + b"}", "", True),
        ("/v1/chat/completions", b'\n{ "stream":true, "model":"x" ,' + USER + b"} ", "", True),
        (
            "/v1/chat/completions",
            b'{"stream":true,"model":"gpt-4o",' + USER + b"}",
            "no-transform",
            False,
        ),
        (
            "/v1/chat/completions",
            b'{"stream":true,"model":"gpt-4o",' + USER + b"}",
            "no-store",
            False,
        ),
        (
            "/v1/chat/completions",
            b'{"stream":true,"stream_options":{"include_usage":false},"model":"x",' + USER + b"}",
            "",
            False,
        ),
        (
            "/v1/chat/completions",
            b'{"stream":true,"stream_options":null,"model":"x",' + USER + b"}",
            "",
            False,
        ),
        ("/v1/chat/completions", b'{"stream":false,"model":"x",' + USER + b"}", "", False),
        (
            "/v1/chat/completions",
            b'{"stream":true,"model":"x","model":"x",' + USER + b"}",
            "",
            False,
        ),
        (
            "/v1/messages",
            b'{"stream":true,"max_tokens":1.6e1,"model":"x",' + USER + b"}",
            "",
            False,
        ),
    ],
)
async def test_an_understood_body_goes_on_as_it_is_but_for_the_usage_that_is_asked_for(
    path: str, body: bytes, directive: str, inserted: bool
) -> None:
    body %= 7
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        upstream.answer(response(b"{}"))
        headers = [("Content-Type", "application/json"), ("Accept-Encoding", "br, gzip;q=0.8")]
        if directive:
            headers.append(("Cache-Control", directive))
        async with RawClient(gateway.api_url) as client:
            await client.ask("POST", path, body, headers)
            await client.response("POST")
        seen = await upstream.request(0)
    assert (seen.body != body) is inserted
    assert (INSERTED in seen.body) is inserted
    assert seen.body.replace(INSERTED, b"") == body
    assert seen.headers()["content-length"] == str(len(seen.body))


async def test_the_same_body_in_either_framing_is_the_same_request() -> None:
    body = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}'
    answer = response(
        b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o",'
        b'"choices":[{"index":0,"message":{"role":"assistant","content":"yo","refusal":null},'
        b'"finish_reason":"stop","logprobs":null}]}'
    )
    async with ScriptedUpstream() as upstream, gateway_here(upstream.url) as gateway:
        upstream.answer(answer)
        async with RawClient(gateway.api_url) as client:
            await client.ask("POST", "/v1/chat/completions", body)
            assert (await client.response()).head.get("x-gateway-cache") == "miss"
            await gateway.background.idle()
            head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            await client.send(head + chunk(body[:9]) + chunk(body[9:]) + b"0\r\n\r\n")
            assert (await client.response()).head.get("x-gateway-cache") == "hit"
        assert len(upstream.seen) == 1

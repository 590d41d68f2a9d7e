"""Which headers travel on."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.config import Config
from gateway.server.forwarding import (
    ask_only_for_decodable,
    pairs,
    request_headers,
    response_headers,
)
from gateway.upstream.choice import Choice, Endpoint

Lines = list[tuple[str, str]]


def endpoint(name: str = "openai", **settings: object) -> Endpoint:
    upstream = {"base_url": f"https://api.{name}.com/v1", "provider": name, **settings}
    return Choice(Config.model_validate({"upstreams": {name: upstream}})).endpoints[name]


def lines(*given: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(given))


def forwarded(*given: tuple[str, str], to: Endpoint | None = None) -> Lines:
    return list(request_headers(lines(*given), to or endpoint(), "x-tenant").items())


@pytest.mark.parametrize(
    "name",
    [
        "Connection",
        "keep-alive",
        "Proxy-Connection",
        "Proxy-Authenticate",
        "proxy-authorization",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "UPGRADE",
        "Host",
        "Content-Length",
        "Expect",
        "X-Gateway-Anything",
        "x-gateway-tenant",
        "X-Tenant",
    ],
)
def test_what_belongs_to_one_hop_or_to_us_stays_here(name: str) -> None:
    kept = ("X-Kept", "1")
    assert forwarded((name, "whatever"), kept) == [kept]


def test_what_connection_names_stays_here() -> None:
    given = (
        ("Connection", "close, X-One"),
        ("X-One", "1"),
        ("x-two", "2"),
        ("connection", " x-TWO ,"),
        ("X-Three", "3"),
    )
    assert forwarded(*given) == [("X-Three", "3")]


def test_order_and_repetition_are_kept() -> None:
    given = [("B", "1"), ("A", "2"), ("B", "3"), ("A", "2"), ("Cookie", "a=1"), ("Cookie", "b=2")]
    assert forwarded(*given) == given


def test_names_that_differ_in_case_alone_are_spelled_alike() -> None:
    # aiohttp's client would drop the first of them.
    given = (("X-A", "1"), ("x-a", "2"), ("X-a", "3"))
    assert forwarded(*given) == [("X-A", "1"), ("X-A", "2"), ("X-A", "3")]


CREDENTIALS: Lines = [
    ("Authorization", "Bearer client"),
    ("X-Api-Key", "client"),
    ("Api-Key", "client"),
    ("x-goog-api-key", "client"),
]


def test_credentials_pass_where_none_is_configured() -> None:
    assert forwarded(*CREDENTIALS) == CREDENTIALS


@pytest.mark.parametrize(
    ("provider", "line"),
    [
        ("openai", ("Authorization", "Bearer house")),
        ("anthropic", ("x-api-key", "house")),
        ("azure", ("api-key", "house")),
        ("vllm", ("Authorization", "Bearer house")),
        ("openrouter", ("Authorization", "Bearer house")),
        ("unknown", ("Authorization", "Bearer house")),
    ],
)
def test_a_configured_credential_takes_the_place_of_all(
    provider: str, line: tuple[str, str]
) -> None:
    to = endpoint(provider, api_key="house")
    assert forwarded(*CREDENTIALS, ("X-B", "1"), to=to) == [("X-B", "1"), line]


def test_traces_leave_only_where_the_config_says_so_and_baggage_never() -> None:
    given = (("traceparent", "00-a-b-01"), ("tracestate", "x=1"), ("baggage", "user=1"))
    assert forwarded(*given) == []
    assert forwarded(*given, to=endpoint(propagate_trace=True)) == list(given[:2])


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("gzip, deflate, br, zstd", "gzip, deflate"),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", "gzip;q=0.8"),
        ("GZIP , identity;q=0", "GZIP, identity;q=0"),
        ("br", "identity"),
        ("*", "identity"),
        ("identity", "identity"),
    ],
)
def test_only_codings_that_we_can_read_are_asked_for(asked: str, expected: str) -> None:
    headers = CIMultiDict([("accept-encoding", asked)])
    ask_only_for_decodable(headers, plain=False)
    assert headers.getall("Accept-Encoding") == [expected]
    ask_only_for_decodable(headers, plain=True)
    assert headers.getall("Accept-Encoding") == ["identity"]


def test_codings_on_several_lines_become_one() -> None:
    headers = CIMultiDict([("Accept-Encoding", "br"), ("accept-encoding", "gzip")])
    ask_only_for_decodable(headers, plain=False)
    assert headers.getall("Accept-Encoding") == ["gzip"]


def test_who_names_no_coding_is_left_alone_unless_events_must_be_told_apart() -> None:
    headers: CIMultiDict[str] = CIMultiDict()
    ask_only_for_decodable(headers, plain=False)
    assert "Accept-Encoding" not in headers
    ask_only_for_decodable(headers, plain=True)
    assert headers["Accept-Encoding"] == "identity"


def test_an_answer_keeps_what_is_about_the_message() -> None:
    given: Lines = [
        ("Content-Type", "text/event-stream"),
        ("Content-Length", "3"),
        ("Set-Cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("Cache-Status", "edge; hit"),
        ("x-request-id", "req_1"),
        ("Content-Encoding", "br"),
        ("Server", "cloudflare"),
    ]
    of_the_hop: Lines = [
        ("Connection", "keep-alive, X-Hop"),
        ("Keep-Alive", "timeout=5"),
        ("X-Hop", "1"),
        ("Transfer-Encoding", "chunked"),
        ("Trailer", "x"),
        ("Upgrade", "h2c"),
    ]
    assert list(response_headers(lines(*of_the_hop, *given)).items()) == given


def test_header_lines_as_data_have_lower_case_names() -> None:
    assert pairs(lines(("X-A", "B"), ("x-a", "c"))) == (("x-a", "B"), ("x-a", "c"))

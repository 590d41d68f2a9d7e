from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import identity
from gateway.providers.anthropic import ANTHROPIC
from gateway.providers.openai import OPENAI
from gateway.providers.unknown import UNKNOWN

if TYPE_CHECKING:
    from gateway.providers.base import Provider

PROVIDERS = [OPENAI, ANTHROPIC, UNKNOWN]
SECRET = bytes(range(32))

parts = st.lists(st.binary(max_size=12), max_size=5)
headers = st.lists(
    st.tuples(
        st.sampled_from(["openai-beta", "anthropic-beta", "x-a", "x-b", "authorization", "cookie"]),
        st.text(max_size=6),
    ),
    max_size=5,
).map(tuple)


@given(parts, parts)
def test_two_lists_of_parts_share_a_digest_only_when_they_are_equal(
    a: list[bytes], b: list[bytes]
) -> None:
    assert (a == b) == (identity.digest(a) == identity.digest(b))


@given(st.binary(max_size=20), st.integers(0, 20))
def test_moving_the_border_between_two_parts_changes_the_digest(text: bytes, at: int) -> None:
    whole = identity.digest([text, b""])

    assert (at >= len(text)) == (whole == identity.digest([text[:at], text[at:]]))


def test_every_part_of_an_identity_counts() -> None:
    parts = (b"scope", b"upstream", b"/route", b"a=1", b"headers", b"canonical")

    def key(scope: bytes, upstream: bytes, route: bytes, *rest: bytes) -> bytes:
        query, headers, canonical = rest
        return identity.identity(
            scope, upstream, route.decode(), query.decode(), headers, canonical
        )

    keys = {key(*parts)}
    keys |= {
        key(*parts[:index], part + b"x", *parts[index + 1 :]) for index, part in enumerate(parts)
    }

    assert len(parts) + 1 == len(keys)
    assert {32} == {len(each) for each in keys}


def test_an_identity_stays_what_it_is_until_its_version_is_raised() -> None:
    key = identity.identity(b"scope", b"upstream", "/v1/chat/completions", "", b"", b"{}")

    assert (1, "3fa69ba0") == (identity.KEY_VERSION, key.hex()[:8])


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda p: p.name)
@pytest.mark.parametrize(
    "name",
    [
        "accept",
        "accept-encoding",
        "authorization",
        "cache-control",
        "content-length",
        "cookie",
        "host",
        "traceparent",
        "user-agent",
        "x-api-key",
        "x-forwarded-for",
        "x-gateway-cache-ttl",
        "x-request-id",
        "x-stainless-retry-count",
    ],
)
def test_what_only_carries_the_request_is_not_keyed(provider: Provider, name: str) -> None:
    assert b"" == identity.keyed_headers(((name, "1"),), provider)


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        (OPENAI, "openai-organization"),
        (OPENAI, "openai-project"),
        (OPENAI, "openai-beta"),
        (ANTHROPIC, "anthropic-version"),
        (ANTHROPIC, "anthropic-beta"),
        (UNKNOWN, "anthropic-beta"),
        (UNKNOWN, "openai-organization"),
        (UNKNOWN, "x-anything"),
        (UNKNOWN, "prefer"),
        (UNKNOWN, "accept-language"),
        (UNKNOWN, "x-goog-user-project"),
    ],
)
def test_a_header_that_may_change_the_answer_is_keyed(provider: Provider, name: str) -> None:
    one = identity.keyed_headers(((name, "1"),), provider)

    assert one not in {b"", identity.keyed_headers(((name, "2"),), provider)}


@pytest.mark.parametrize(
    ("what", "a", "b"),
    [
        ("order of a set", [("anthropic-beta", "a,b")], [("anthropic-beta", "b, a")]),
        ("lines of a set", [("anthropic-beta", "a,b")], [("anthropic-beta", x) for x in "ab"]),
        ("repetition in a set", [("anthropic-beta", "a,a")], [("anthropic-beta", "a")]),
        ("white space around", [("anthropic-version", " 1 ")], [("anthropic-version", "1")]),
        (
            "order of different headers",
            [("anthropic-version", "1"), ("anthropic-beta", "a")],
            [("anthropic-beta", "a"), ("anthropic-version", "1")],
        ),
    ],
)
def test_headers_that_mean_the_same_are_keyed_alike(
    what: str, a: list[tuple[str, str]], b: list[tuple[str, str]]
) -> None:
    assert identity.keyed_headers(tuple(a), ANTHROPIC) == identity.keyed_headers(
        tuple(b), ANTHROPIC
    )


@pytest.mark.parametrize(
    ("what", "a", "b"),
    [
        ("order of values", [("x-a", "1"), ("x-a", "2")], [("x-a", "2"), ("x-a", "1")]),
        ("a list and its lines", [("x-a", "1, 2")], [("x-a", "1"), ("x-a", "2")]),
        ("one header or two", [("x-a", "1"), ("x-b", "2")], [("x-a", "1x-b:2")]),
        ("case of a value", [("x-a", "A")], [("x-a", "a")]),
    ],
)
def test_headers_that_may_mean_something_else_are_keyed_apart(
    what: str, a: list[tuple[str, str]], b: list[tuple[str, str]]
) -> None:
    assert identity.keyed_headers(tuple(a), UNKNOWN) != identity.keyed_headers(tuple(b), UNKNOWN)


@given(headers, st.sampled_from(PROVIDERS))
def test_any_headers_are_keyed_without_an_error(
    lines: tuple[tuple[str, str], ...], provider: Provider
) -> None:
    sent = tuple((name, value.encode("utf-8", "ignore").decode()) for name, value in lines)

    identity.keyed_headers(sent, provider)
    identity.credential(sent, provider)


def test_header_bytes_that_are_no_text_are_keyed_as_they_are() -> None:
    assert b"\xff" in identity.keyed_headers((("x-a", "\udcff"),), UNKNOWN)


def test_no_credential_is_empty() -> None:
    assert b"" == identity.credential((("accept", "*/*"), ("authorization", " ")), OPENAI)


@pytest.mark.parametrize(
    "name", ["authorization", "x-api-key", "api-key", "x-goog-api-key", "x-auth-token"]
)
@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda p: p.name)
def test_each_credential_is_its_own(name: str, provider: Provider) -> None:
    one = identity.credential(((name, "secret-1"),), provider)

    assert one not in {b"", identity.credential(((name, "secret-2"),), provider)}


def test_the_scheme_is_folded_and_the_secret_is_not() -> None:
    def sent(value: str) -> bytes:
        return identity.credential((("authorization", value),), OPENAI)

    assert sent("Bearer sk-A") == sent("bearer  sk-A ")
    assert sent("Bearer sk-A") != sent("Bearer sk-a")
    assert sent("Bearer sk-A") != sent("Basic sk-A")
    assert sent("Bearer") != sent("bearer")


def test_the_same_secret_in_another_header_is_another_credential() -> None:
    assert identity.credential((("x-api-key", "k"),), ANTHROPIC) != identity.credential(
        (("authorization", "k"),), ANTHROPIC
    )


def test_two_credentials_together_are_neither_of_them() -> None:
    both = (("authorization", "Bearer a"), ("x-api-key", "b"))

    together = identity.credential(both, ANTHROPIC)

    assert together == identity.credential(both[::-1], ANTHROPIC)
    assert together not in {identity.credential((line,), ANTHROPIC) for line in both}


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda p: p.name)
def test_a_cookie_is_a_credential_only_towards_an_unknown_upstream(provider: Provider) -> None:
    told_apart = identity.credential((("cookie", "session=1"),), provider) != b""

    assert told_apart == (provider is UNKNOWN)


def test_a_scope_depends_on_secret_kind_and_person() -> None:
    scopes = {
        identity.scope(SECRET, "credential", b"a"),
        identity.scope(SECRET, "credential", b"b"),
        identity.scope(SECRET, "tenant", b"a"),
        identity.scope(SECRET[::-1], "credential", b"a"),
        identity.scope(SECRET, "anonymous", b""),
        identity.scope(SECRET, "shared", b""),
    }

    assert 6 == len(scopes)
    assert {32} == {len(scope) for scope in scopes}

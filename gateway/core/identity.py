"""What identifies a request.

Rule 1: an identity is BLAKE3-256 over length-prefixed parts, so that no two lists of parts make
the same input, and no crafted collision can serve somebody else's answer.
Rule 2: every part that may change the answer, or who may see it, is in the list.
Rule 3: whoever changes what goes into a part raises KEY_VERSION: old entries must not answer.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from blake3 import blake3

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.core.model import Form, Pairs
    from gateway.providers.base import Provider

KEY_VERSION = 1

# What carries or routes a request and never reaches the model. For providers that document their
# headers only the documented ones are keyed; for `unknown` every header but these.
TRANSPORT = frozenset(
    (
        "accept",
        "accept-encoding",
        "access-control-request-headers",
        "access-control-request-method",
        "age",
        "cache-control",
        "cdn-loop",
        "cf-connecting-ip",
        "cf-ipcountry",
        "cf-ray",
        "cf-visitor",
        "connection",
        "content-length",
        "content-type",
        "date",
        "dnt",
        "expect",
        "forwarded",
        "from",
        "host",
        "idempotency-key",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "keep-alive",
        "max-forwards",
        "origin",
        "pragma",
        "priority",
        "proxy-connection",
        "range",
        "referer",
        "request-id",
        "te",
        "elastic-apm-traceparent",
        "sentry-trace",
        "traceparent",
        "uber-trace-id",
        "tracestate",
        "baggage",
        "b3",
        "trailer",
        "transfer-encoding",
        "true-client-ip",
        "upgrade",
        "upgrade-insecure-requests",
        "user-agent",
        "via",
        "x-amzn-trace-id",
        "x-b3-flags",
        "x-b3-parentspanid",
        "x-b3-sampled",
        "x-b3-spanid",
        "x-b3-traceid",
        "x-client-request-id",
        "x-cloud-trace-context",
        "x-correlation-id",
        "x-datadog-origin",
        "x-datadog-parent-id",
        "x-datadog-sampling-priority",
        "x-datadog-tags",
        "x-datadog-trace-id",
        "x-envoy-attempt-count",
        "x-envoy-expected-rq-timeout-ms",
        "x-envoy-external-address",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-proto",
        "x-forwarded-scheme",
        "x-forwarded-server",
        "x-original-forwarded-for",
        "x-real-ip",
        "x-request-id",
        "x-request-start",
        "x-scheme",
        "x-should-retry",
    )
)
_TRANSPORT_PREFIXES = ("x-gateway-", "x-stainless-", "sec-")

# A request's own credential goes into the scope, never into the keyed headers.
CREDENTIALS = (
    "authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "x-auth-token",
    "proxy-authorization",
)
_COOKIE = "cookie"


def is_transport(name: str) -> bool:
    """Does the (lower-case) header only carry or route the request?"""
    return _is_transport(name) if len(name) <= _USUAL_NAME else _judged_transport(name)


def _judged_transport(name: str) -> bool:
    return name in TRANSPORT or name.startswith(_TRANSPORT_PREFIXES)


# Every request has the same fifteen names or so; longer ones are nobody's to fill our memory with.
_USUAL_NAME = 64
_is_transport = lru_cache(1000)(_judged_transport)


_SHORT_BYTES = 8 * 1024


def entry_keys(keys: Iterable[bytes], form: Form) -> tuple[bytes, ...]:
    """Where an entry for this form may lie: under each key, with the other form or alone."""
    return tuple(each for key in keys for each in (key, form_key(key, form)))


def digest(parts: Iterable[bytes]) -> bytes:
    """32 bytes that stand for this list of parts and for no other."""
    short: list[bytes] = []
    hasher = blake3()
    for part in parts:
        short.append(len(part).to_bytes(8, "big"))
        if len(part) <= _SHORT_BYTES:
            short.append(part)
        else:
            # Each call of the hasher costs as much as hashing a kilobyte; a long part is not
            # copied for it.
            hasher.update(b"".join(short))
            hasher.update(part)
            short.clear()
    hasher.update(b"".join(short))
    return hasher.digest()


def keyed_headers(headers: Pairs, provider: Provider) -> bytes:
    """The headers that may change the answer, one line each, sorted; sets put in order."""
    kept: dict[str, list[str]] = {}
    prefixes = provider.header_prefixes
    for name, value in headers:
        if name in CREDENTIALS or name == _COOKIE:
            continue
        if is_transport(name) or name in provider.headers_excluded:
            continue
        if prefixes is not None and not name.startswith(prefixes):
            continue
        if name in provider.header_sets:
            kept.setdefault(name, []).extend(v for v in map(str.strip, value.split(",")) if v)
        else:
            kept.setdefault(name, []).append(value.strip())
    lines: list[bytes] = []
    for name in sorted(kept):
        values = kept[name]
        if name in provider.header_sets:
            values = sorted(set(values))
        lines.extend(f"{name}:{value}".encode("utf-8", "surrogateescape") for value in values)
    return b"".join(len(line).to_bytes(4, "big") + line for line in lines)


def treated(name: str, provider: Provider) -> tuple[str, str]:
    """What becomes of a header (its lower-case name) in an identity, and why: `keyed`, `excluded`, or
    `scope` for what says who asks.
    """
    if name in CREDENTIALS or (name == _COOKIE and provider.header_prefixes is None):
        return "scope", "says who asks: a keyed hash of it is in the scope"
    if name == _COOKIE:
        return "excluded", "no credential to this provider, whose edge sets another each time"
    if is_transport(name):
        return "excluded", "carries or routes the request, and never reaches the model"
    if name in provider.headers_excluded:
        return "excluded", provider.headers_excluded[name].reason
    prefixes = provider.header_prefixes
    if prefixes is not None and not name.startswith(prefixes):
        return "excluded", "the provider documents no such header"
    return "keyed", "may change the answer"


def credential(headers: Pairs, provider: Provider) -> bytes:
    """The request's own credential: every credential header it carries; empty for none.

    The scheme's spelling (`Bearer`/`bearer`) is folded, the secret itself is taken as it is.
    A cookie is a credential only towards an unknown upstream: the documented APIs take none, and
    their edges set bot-detection cookies that change with every response.
    """
    names = CREDENTIALS if provider.header_prefixes is not None else (*CREDENTIALS, _COOKIE)
    lines: list[bytes] = []
    for name, value in headers:
        if name not in names or not value.strip():
            continue
        scheme, space, rest = value.strip().partition(" ")
        if name in {"authorization", "proxy-authorization"} and space:
            value = f"{scheme.lower()} {rest.strip()}"  # noqa: PLW2901 - folded in place
        lines.append(f"{name}:{value.strip()}".encode("utf-8", "surrogateescape"))
    return b"".join(len(line).to_bytes(4, "big") + line for line in sorted(lines))


def scope(secret: bytes, kind: str, who: bytes) -> bytes:
    """32 bytes for who may share entries: keyed with the replicas' shared secret, so that a
    store's keys tell nothing about credentials. `secret` is 32 bytes.
    """
    keyed = blake3(key=secret)
    keyed.update(kind.encode() + b"\0")
    keyed.update(who)
    return keyed.digest()


def identity(  # noqa: PLR0917 - the list of parts, in order
    scope_id: bytes, upstream: bytes, route: str, query: str, headers: bytes, canonical: bytes
) -> bytes:
    """The 32-byte key of a request's meaning. `upstream` names provider and base URL."""
    return digest(
        (
            b"warmgate identity %d" % KEY_VERSION,
            scope_id,
            upstream,
            route.encode(),
            query.encode("utf-8", "surrogateescape"),
            headers,
            canonical,
        )
    )


def form_key(key: bytes, form: Form) -> bytes:
    """Where an entry lives that serves one form only, beside one that serves the other."""
    return digest((b"form", key, form.encode()))

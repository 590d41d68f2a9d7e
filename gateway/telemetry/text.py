"""Text from outside, made safe for spans, labels and log lines."""

from __future__ import annotations

SHORT = 256
"""Longest name (a model, a route, an id) that is told, in characters."""


def plain(text: str, limit: int = SHORT) -> str:
    """The first `limit` characters, with whatever is not printable escaped.

    A client can put lone surrogates and control characters into a path or a model name. The
    former cannot be encoded (one would cost a whole batch of spans, or the /metrics page), the
    latter forge lines on a terminal.
    """
    cut = text[:limit]
    if cut.isprintable():
        return cut
    return cut.encode("unicode_escape").decode("ascii")[:limit]


def without_query(url: str) -> str:
    """The URL or path up to its query or fragment, and without user info: both hold secrets."""
    end = len(url)
    for mark in "?#":
        at = url.find(mark)
        if 0 <= at < end:
            end = at
    url = url[:end]
    if "://" not in url:
        return url
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"

"""What can be wrong with a URL of Redis, and with the settings beside it: problem, mend."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from urllib.parse import SplitResult

_OF_MANY = re.compile(r"rediss?\+(sentinel|cluster)://")
_PLACE = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:@\[\]]+)(:[0-9]{1,5})?")
_UNQUOTED = ("has an @ after its host", "percent-encode special characters of the password")
_EXAMPLES = {
    "sentinel": "write redis+sentinel://host1:26379,host2:26379/mymaster/0",
    "cluster": "write redis+cluster://host1:6379,host2:6379",
}

_Found = Iterator[tuple[tuple[str | int, ...], str, str]]


def is_of_many(url: str) -> bool:
    """Whether the URL names Sentinels or a Cluster."""
    return _OF_MANY.match(url) is not None


def fault_of_one(parts: SplitResult) -> tuple[str, str] | None:
    """What is wrong with redis://host:6379/0, if anything."""
    if not parts.hostname:
        return "names no Redis host", "write redis://host:6379/0"
    if "@" in parts.path + parts.query + parts.fragment:
        # The password held a / ? or #, and its rest would be read (and shown) as a path.
        return _UNQUOTED
    if not re.fullmatch(r"/?[0-9]*", parts.path):
        return "ends in something other than a database number", "write redis://host:6379/0"
    return None


def fault_of_many(url: str) -> tuple[str, str] | None:
    """What is wrong with redis+sentinel://... or redis+cluster://..., if anything. By hand:
    urlsplit knows no lists of hosts.
    """
    found = _OF_MANY.match(url)
    if found is None:
        return None
    topology, rest = found[1], url[found.end() :]
    before, _, query = rest.partition("?")
    netloc, _, path = before.partition("/")
    example = _EXAMPLES[topology]
    if "@" in path + query:
        return _UNQUOTED
    if not all(_PLACE.fullmatch(host) for host in netloc.rpartition("@")[2].split(",")):
        return "names a Redis host or port that is none", example
    if topology == "sentinel":
        service, _, database = path.partition("/")
        if not service:
            return "names no service that the Sentinels monitor", example
        if not re.fullmatch("[0-9]*", database):
            return "ends in something other than a database number", example
    elif path not in {"", "0"}:
        return "names a database; a Cluster has only one", example
    return None


def redis_contradictions(store: Any) -> _Found:
    """What a URL can't do that the settings beside it ask for."""
    if not isinstance(store, Mapping):
        return
    url = store.get("url") or "sqlite://"
    if not isinstance(url, str):
        return
    scheme, _, rest = url.partition("://")
    yield from _tls(store.get("tls"), is_tls=scheme.startswith("rediss"))
    yield from _credentials(store, scheme, rest)
    if _is_yes(store.get("read_from_replicas")) and "+" not in scheme:
        yield (
            ("store", "read_from_replicas"),
            "needs to be told where replicas are",
            "use a redis+sentinel:// or redis+cluster:// URL",
        )
    if "+cluster" in scheme and "{" in str(store.get("key_prefix", "")):
        yield (
            ("store", "key_prefix"),
            "has a {, so that a Cluster would keep all entries in one slot",
            "choose one without braces",
        )


def _is_yes(value: Any) -> bool:
    """As pydantic reads it: a variable is text."""
    return str(value).strip().lower() in {"true", "yes", "on", "y", "t", "1"}


def _is_no(value: Any) -> bool:
    return str(value).strip().lower() in {"false", "no", "off", "n", "f", "0"}


def _tls(tls: Any, *, is_tls: bool) -> _Found:
    if not isinstance(tls, Mapping):
        return
    for name, value in tls.items():
        if not is_tls and (_is_no(value) if name == "check_hostname" else value):
            yield (
                ("store", "tls", name),
                "is for TLS, and the URL asks for none",
                "write rediss in place of redis in store.url, or leave this out",
            )
    if tls.get("key_path") and not tls.get("cert_path"):
        yield (("store", "tls", "key_path"), "has no certificate beside it", "set cert_path too")


def _credentials(store: Mapping[Any, Any], scheme: str, rest: str) -> _Found:
    user, colon, _ = rest.partition("/")[0].rpartition("@")[0].partition(":")
    for name, in_url in (("username", user), ("password", colon)):
        if store.get(name) and not scheme.startswith("redis"):
            yield ("store", name), "is for Redis, and the URL is of another kind", "leave it out"
        elif store.get(name) and in_url:
            yield ("store", name), "is in the URL as well", "leave one of them out"
        if store.get(f"sentinel_{name}") and "+sentinel" not in scheme:
            yield ("store", f"sentinel_{name}"), "is for redis+sentinel:// URLs", "leave it out"

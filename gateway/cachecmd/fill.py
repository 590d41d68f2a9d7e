"""`gateway cache fill`: recorded requests, asked through a running gateway until they are cached.

Rule 1: a request is sent for an answer only after `only-if-cached` has said that there is none and
that one would be kept: whatever the cache has no say in is never paid for here.
Rule 2: it may be repeated. What was done is cached.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

import aiohttp
import orjson

from gateway.cachecmd.desk import Trouble, operator
from gateway.core import canonical
from gateway.core.model import Reason
from gateway.telemetry.audit import audited

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OK, INCOMPLETE = 0, 1
STDIO = "-"
_MESSAGES = "/v1/messages"
_ANTHROPIC_VERSION = "2023-06-01"
_LINE_BYTES = 256 << 20
_IDLE_S = 600.0
_CHECK_S = 60.0
_REASON = re.compile(r"\(([a-z-]+)\)$")

FILLABLE = frozenset(
    {
        *(Reason.ABSENT, Reason.EXPIRED, Reason.TOO_OLD, Reason.FORM_UNAVAILABLE, Reason.PURGED),
        *(Reason.PURGES_UNKNOWN, Reason.CREDENTIAL_UNPROVEN, Reason.MORE_SAMPLES, Reason.PARTIAL),
    }
)
"""Why there was nothing to serve, where asking for it would help the next time."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request body and where it was sent."""

    line: int
    route: str
    body: bytes


@dataclass(slots=True)
class Filled:
    """What became of the requests."""

    cached: int = 0
    missing: int = 0
    fetched: int = 0
    uncacheable: int = 0
    failed: int = 0
    why: Counter[str] = field(default_factory=Counter)
    """Reasons and statuses of those that can't be cached or failed."""

    def told(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "cached": self.cached,
            "missing": self.missing,
            "fetched": self.fetched,
            "uncacheable": self.uncacheable,
            "failed": self.failed,
            "why": dict(self.why.most_common()),
        }


async def fill(
    name: str,
    url: str,
    out: BinaryIO,
    environ: Mapping[str, str],
    *,
    route: str,
    tags: tuple[str, ...],
    concurrency: int,
    yes: bool,
    as_json: bool,
) -> int:
    """Ask for every request of the file; 1 when one failed or could not be read."""
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).netloc:
        raise Trouble(f"{url!r} is not the URL of a gateway, such as http://127.0.0.1:8080")
    done = Filled()
    try:
        with _opened(name) as file:
            records = recorded(file, route, done)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CHECK_S, sock_read=_IDLE_S)
            async with aiohttp.ClientSession(
                timeout=timeout, connector=aiohttp.TCPConnector(limit=concurrency)
            ) as session:
                filler = _Filler(session, url.rstrip("/"), _headers(environ, tags), done, yes=yes)
                async with asyncio.TaskGroup() as group:
                    for _ in range(concurrency):
                        group.create_task(filler.work(records))
    except OSError as exc:
        raise Trouble(f"{name}: {exc.strerror or exc}") from exc
    if yes:
        audited("fill", who=operator(), result="fetched", file=name, url=url, **done.told())
    if as_json:
        out.write(orjson.dumps({**done.told(), "dry_run": not yes}) + b"\n")
    else:
        out.write(_line(done, yes=yes).encode())
    return INCOMPLETE if done.failed else OK


def recorded(file: BinaryIO, route: str, done: Filled) -> Iterator[Recorded]:
    """The requests of a file: a body on each line, or a record with `body` (or `params`) and
    `route` (or `url`). What can't be read is counted as failed.
    """
    for number, line in enumerate(iter(lambda: file.readline(_LINE_BYTES), b""), 1):
        text = line.strip()
        if not text:
            continue
        try:
            read = canonical.parse(text)
            if not isinstance(read, dict):
                raise ValueError("no object")  # noqa: TRY004, TRY301 - unreadable like the rest
            inner = read.get("body", read.get("params"))
            where = next((v for n in ("route", "url") if isinstance(v := read.get(n), str)), route)
            if inner is None:
                yield Recorded(number, route, text)
            else:
                body = inner.encode() if isinstance(inner, str) else canonical.encode(inner)
                yield Recorded(number, urlsplit(where).path, body)
        except (ValueError, RecursionError, UnicodeError):
            done.failed += 1
            done.why[f"line {number} is no request"] += 1


class _Filler:
    """Works through the requests; several may do so at once."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        headers: Mapping[str, Mapping[str, str]],
        done: Filled,
        *,
        yes: bool,
    ) -> None:
        self._session = session
        self._url = url
        self._headers = headers
        self._done = done
        self._yes = yes

    async def work(self, records: Iterator[Recorded]) -> None:
        """Until there are none left."""
        for record in records:
            try:
                await self._one(record)
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                self._done.failed += 1
                self._done.why[type(exc).__name__] += 1

    async def _one(self, record: Recorded) -> None:
        done = self._done
        status, reason = await self._send(record, only_if_cached=True)
        if status == 200:
            done.cached += 1
            return
        if reason is None:
            done.failed += 1
            done.why[f"status {status}"] += 1
            return
        if reason == Reason.STORE_UNAVAILABLE:
            # It would be paid for, and maybe not kept.
            done.failed += 1
            done.why[reason] += 1
            return
        if reason not in FILLABLE:
            done.uncacheable += 1
            done.why[reason] += 1
            return
        done.missing += 1
        if not self._yes:
            return
        status, _ = await self._send(record, only_if_cached=False)
        if status == 200:
            done.fetched += 1
        else:
            done.failed += 1
            done.why[f"status {status}"] += 1

    async def _send(self, record: Recorded, *, only_if_cached: bool) -> tuple[int, str | None]:
        """The status, and why there is nothing in the cache where that was the answer."""
        kind = _MESSAGES if record.route.startswith(_MESSAGES) else ""
        headers = dict(self._headers[kind])
        if only_if_cached:
            headers["Cache-Control"] = "only-if-cached"
        async with self._session.post(
            self._url + record.route, data=record.body, headers=headers, allow_redirects=False
        ) as answer:
            if only_if_cached and answer.status == 504:
                return 504, _reason(await answer.read())
            async for _ in answer.content.iter_chunked(1 << 16):
                pass
            return answer.status, None


def _headers(environ: Mapping[str, str], tags: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """By kind of route. Credentials come from the variables that the SDKs read."""
    common = {"Content-Type": "application/json"}
    if tags:
        common["x-gateway-cache-tags"] = ", ".join(tags)
    plain, messages = dict(common), {**common, "anthropic-version": _ANTHROPIC_VERSION}
    if key := environ.get("OPENAI_API_KEY"):
        plain["Authorization"] = f"Bearer {key}"
    if key := environ.get("ANTHROPIC_API_KEY"):
        messages["x-api-key"] = key
    elif key := environ.get("ANTHROPIC_AUTH_TOKEN"):
        messages["Authorization"] = f"Bearer {key}"
    return {"": plain, _MESSAGES: messages}


def _reason(body: bytes) -> str | None:
    """The reason in our own 504; None for anybody else's."""
    try:
        message = orjson.loads(body)["error"]["message"]
        found = _REASON.search(message)
    except (ValueError, KeyError, TypeError):
        return None
    return found[1] if found else None


def _line(done: Filled, *, yes: bool) -> str:
    asked = f"{done.fetched:,} fetched" if yes else f"{done.missing:,} would be fetched; say --yes"
    why = "".join(f"\n  {number:,} {what}" for what, number in done.why.most_common())
    return (
        f"{done.cached:,} cached already; {asked}; {done.uncacheable:,} can't be cached; "
        f"{done.failed:,} failed{why}\n"
    )


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == STDIO:
        yield sys.stdin.buffer
        return
    with Path(name).open("rb") as file:
        yield file

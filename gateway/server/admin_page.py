"""The page of the admin port, `/admin/`, and the data that it asks for, `/admin/page/...`: to read only.

The page polls: a request that finds nothing new is answered with 304, costs a tenth of a millisecond
and holds nothing open, so that a browser that is gone leaves nothing behind, and a token can be sent
(an EventSource could not).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web

from gateway import __version__
from gateway.core.recent import WANTED, Wanted, most_common
from gateway.server import page_records
from gateway.server.admin import Refused, json_answer, whole_number
from gateway.server.browsers import DATA, PAGE
from gateway.server.page_file import page_file

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from gateway.core.recent import Recent, Served
    from gateway.core.records import RequestRecord

    Told = dict[str, Any]

MOST_ROWS = 500
_WINDOW_S = 3600
_LONGEST_WINDOW_S = 24 * 3600
_MOST_NUMBER = 2**53
_LONGEST_WANTED = 512
_PAUSE_S = 0.0


class Views(Protocol):
    """What else the page tells (`gateway.overview`)."""

    def backends(self) -> list[Told]:
        """Replicas and engines."""

    def breakers(self) -> list[Told]:
        """What breaks prompts."""

    async def prefixes(self) -> list[Told]:
        """What many requests begin with."""

    async def savings(self) -> Told:
        """What was paid and saved, by day."""


class AdminPage:
    """Answers the page's requests."""

    def __init__(self, recent: Recent | None, views: Views, clock: Callable[[], float]) -> None:
        """`recent` is None where nothing is remembered; `clock` gives seconds since the epoch."""
        self._recent = recent
        self._views = views
        self._clock = clock
        self._since = clock()

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add the routes."""
        router.add_get(PAGE.rstrip("/"), self._elsewhere)
        router.add_get(PAGE, self._page)
        router.add_get(DATA + "summary", self._summary)
        router.add_get(DATA + "requests", self._requests)
        router.add_get(DATA + "requests/{id}", self._request)
        router.add_get(DATA + "names", self._names)
        router.add_get(DATA + "backends", self._backends)
        router.add_get(DATA + "breakers", self._breakers)
        router.add_get(DATA + "prefixes", self._prefixes)
        router.add_get(DATA + "savings", self._savings)

    async def _elsewhere(self, _: web.Request) -> web.Response:
        return web.Response(status=308, headers={"Location": PAGE})

    async def _page(self, _: web.Request) -> web.Response:
        body, headers = page_file()
        return web.Response(body=body, content_type="text/html", charset="utf-8", headers=headers)

    # --- what has happened ------------------------------------------------------------------------

    async def _summary(self, request: web.Request) -> web.Response:
        window_s = whole_number(request, "window", _WINDOW_S, _LONGEST_WINDOW_S)
        recent, now = self._recent, self._clock()
        told: Told = {"version": __version__, "since": self._since, "now": now}
        if recent is None:
            return json_answer({**told, "recent": None})
        tag = f'"{recent.version}-{window_s}-{int(now) // 60}-{int(self._since)}"'
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers={"ETag": tag})
        answer = json_answer(
            {
                **told,
                "recent": {"version": recent.version, "kept": len(recent)},
                **recent.minutes.series(now, window_s),
            }
        )
        answer.headers["ETag"] = tag
        return answer

    async def _requests(self, request: web.Request) -> web.Response:
        most = whole_number(request, "most", 100, MOST_ROWS)
        before = whole_number(request, "before", 0, _MOST_NUMBER)
        after = whole_number(request, "after", 0, _MOST_NUMBER)
        wanted = Wanted(**{name: request.query.get(name, "") for name in WANTED})
        if any(len(value) > _LONGEST_WANTED for value in request.query.values()):
            raise Refused(400, "bad_request", f"no value is longer than {_LONGEST_WANTED}")
        recent = self._recent
        found: list[tuple[int, RequestRecord]] = []
        version = 0 if recent is None else recent.version
        while recent is not None:
            portion = recent.look(wanted, before=before, after=after, most=most - len(found))
            found += portion.records
            before = portion.next
            if not before or len(found) >= most:
                break
            # Requests of clients have a turn in between.
            await asyncio.sleep(_PAUSE_S)
        return json_answer(
            {
                "version": version,
                "requests": [page_records.row(*each) for each in found],
                "next": before or None,
            }
        )

    async def _request(self, request: web.Request) -> web.Response:
        found = None if self._recent is None else self._recent.find(request.match_info["id"])
        if found is None:
            raise Refused(404, "not_found", "it is not, or no longer, among the recent requests")
        return json_answer(page_records.whole(*found))

    async def _names(self, _: web.Request) -> web.Response:
        counts: dict[str, Counter[str]] = {}
        before = 0
        while self._recent is not None:
            before = self._recent.names(counts, before)
            if not before:
                break
            await asyncio.sleep(_PAUSE_S)
        return json_answer(most_common(counts))

    # --- what is known ----------------------------------------------------------------------------

    async def _backends(self, _: web.Request) -> web.Response:
        served = self._recent.served if self._recent is not None else {}
        found = [
            each | _served(served.get((each["pool"], each["name"])))
            for each in self._views.backends()
        ]
        return json_answer({"backends": found})

    async def _breakers(self, _: web.Request) -> web.Response:
        return json_answer({"breakers": self._views.breakers()})

    async def _prefixes(self, _: web.Request) -> web.Response:
        return json_answer({"prefixes": await self._views.prefixes()})

    async def _savings(self, _: web.Request) -> web.Response:
        return json_answer(await self._views.savings())


def _served(served: Served | None) -> Told:
    if served is None:
        return {"served": 0}
    return {"served": served.requests, "input": served.input, "read": served.read}

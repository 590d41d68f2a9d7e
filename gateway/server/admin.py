"""The admin port: what lies in the cache, and purging it. For operators; for browsers its page alone.

Rule 1: whoever can't bring the token, where there is one, gets 401 and learns nothing else. (The page
itself, which holds no data, asks for it.)
Rule 2: a web page that somebody on this host looks at must not reach it: requests that a browser
makes for another page than its own are refused (`browsers`), and so is a name of somebody else's
for this address (`Host`), which is what DNS rebinding comes to.
Rule 3: payloads are shown only on demand, and purging is a rehearsal unless `dry_run` is false.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import orjson
import structlog
from aiohttp import web

from gateway.config.admin import is_loopback
from gateway.core.selection import Selection, hex8, select
from gateway.errors import GatewayError
from gateway.server.browsers import PAGE, admitted
from gateway.store.base import StoreUnavailable
from gateway.store.inventory import SAMPLED, TOP
from gateway.store.tiered import TieredStore
from gateway.telemetry.audit import audited

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from gateway.store.base import Store
    from gateway.store.inventory import Inventory

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
    Explain = Callable[[str, bytes, Mapping[str, str]], Awaitable[dict[str, Any]]]
    Tell = Callable[[], dict[str, dict[str, Any]]]

_log = structlog.get_logger("warmgate.admin")

_NO_STORE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_BODY_BYTES = 64 * 1024
_EXPLAINED_BYTES = 4 * 1024 * 1024
_KEY_DIGITS = 64
_MOST_SAMPLED = 1_000_000
_MOST_SHOWN = 1000
_OPERATOR = "x-gateway-operator"


class Refused(Exception):
    """The request can't be done: a status, a short fixed word, and words for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        """Keep them."""
        super().__init__(message)
        self.status = status
        self.code = code


class Desk(Protocol):
    """Answers some more paths of the admin port."""

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add their routes."""


class Admin:
    """Answers requests on the admin port."""

    def __init__(
        self,
        inventory: Inventory,
        serving: Store,
        token: str | None,
        *,
        explain: Explain,
        engines: Tell,
        sharing: Tell = dict,
    ) -> None:
        """`serving` is the store that requests are served from, `inventory` its furthest part.
        `explain` takes a path, a body and headers (`gateway.explaining`); `engines` tells what each
        watched engine says of itself (`gateway.upstream.engines`), `sharing` what gateways tell each
        other of each pool (`gateway.placements`).
        """
        self._inventory = inventory
        self._serving = serving
        self._token = token
        self._explained = explain
        self._engines = engines
        self._sharing = sharing

    def app(self, *desks: Desk) -> web.Application:
        """The application of the admin port, and of what else is asked there."""
        app = web.Application(client_max_size=_EXPLAINED_BYTES, middlewares=[self._guarded])
        app.router.add_get("/admin/stats", self._stats)
        app.router.add_get("/admin/cache/entries", self._list)
        app.router.add_get("/admin/cache/entries/{key}", self._show)
        app.router.add_post("/admin/cache/purge", self._purge)
        app.router.add_post("/admin/cache/reclaim", self._reclaim)
        app.router.add_post("/admin/explain", self._explain)
        for desk in desks:
            desk.add_to(app.router)
        app.router.add_route("*", "/{anything:.*}", _nothing)
        return app

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._admit(request)
            return await handler(request)
        except Refused as refused:
            return _error(refused.status, refused.code, str(refused))
        except StoreUnavailable as exc:
            return _error(503, "store_unavailable", f"the store did not answer: {exc.reason}")
        except web.HTTPException as exc:
            return _error(exc.status, "bad_request", exc.reason)
        except Exception:  # noqa: BLE001 - one shape for every error
            _log.exception("an admin request failed", path=request.path)
            return _error(500, "internal_error", "the gateway failed; its log has the details")

    def _admit(self, request: web.Request) -> None:
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else ""
        if not admitted(request.method, route, request.headers):
            raise Refused(403, "browser", "this port is for no web page but its own")
        if self._token is None:
            host = urlsplit(f"//{request.host}").hostname or ""
            if not is_loopback(host):
                raise Refused(403, "host", "ask for localhost or 127.0.0.1, or set admin.token")
            return
        if route == PAGE and request.method in {"GET", "HEAD"}:
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        # Compared as bytes: what a client sends may be no ASCII.
        same = hmac.compare_digest(
            given.strip().encode("utf-8", "surrogateescape"), self._token.encode()
        )
        if scheme.lower() != "bearer" or not same:
            raise Refused(401, "unauthorized", "send `Authorization: Bearer <admin.token>`")

    # --- what lies there --------------------------------------------------------------------------

    async def _stats(self, request: web.Request) -> web.Response:
        limit = whole_number(request, "limit", SAMPLED, _MOST_SAMPLED, least=1)
        tally = await self._inventory.tally(limit=limit)
        serving = self._serving
        memory = serving.memory if isinstance(serving, TieredStore) else serving
        return json_answer(
            {
                "store": self._inventory.store.name,
                **tally.told(),
                "memory": {
                    "entries": len(getattr(memory, "keys", list)()),
                    "bytes": getattr(memory, "size_bytes", 0),
                    "budget_bytes": getattr(memory, "budget_bytes", 0),
                },
                "purges": purges_told(self._inventory),
                "engines": self._engines(),
                "sharing": self._sharing(),
            }
        )

    async def _list(self, request: web.Request) -> web.Response:
        limit = whole_number(request, "limit", TOP, _MOST_SHOWN, least=1)
        selection = self._selected(
            {
                "tags": request.query.getall("tag", []),
                "models": request.query.getall("model", []),
                "keys": request.query.getall("key", []),
                "all": not {"tag", "model", "key"} & request.query.keys(),
            }
        )
        shown: list[dict[str, Any]] = []
        async for key, _, blob in self._inventory.entries(selection):
            told = self._inventory.told(key, blob)
            if told is not None:
                shown.append(told)
            if len(shown) >= limit:
                break
        return json_answer({"entries": shown})

    async def _show(self, request: web.Request) -> web.Response:
        key = request.match_info["key"].lower()
        try:
            hex8(key)
        except ValueError as exc:
            raise Refused(400, "bad_key", str(exc)) from exc
        if "payload" in request.query:
            if len(key) != _KEY_DIGITS:
                raise Refused(400, "bad_key", "a payload is shown by its whole key")
            try:
                payload = await self._inventory.payload(bytes.fromhex(key))
            except LookupError:
                raise Refused(404, "not_found", "no entry lies under this key") from None
            audited("show payload", who=self.who(request), result="shown", key=key)
            return web.Response(body=payload, content_type="text/plain", headers=_NO_STORE)
        found = await self._inventory.find(key)
        if not found:
            raise Refused(404, "not_found", "no entry has this key")
        return json_answer({"entries": found})

    # --- what is made of a request ----------------------------------------------------------------

    async def _explain(self, request: web.Request) -> web.Response:
        """Either the request itself, with its path as `?route=`, or an object around it."""
        route = request.query.get("route")
        headers: Any = {}
        if route is not None:
            body = await _read(request, _EXPLAINED_BYTES)
        else:
            asked = await body_of(request, _EXPLAINED_BYTES)
            route, headers = asked.pop("route", None), asked.pop("headers", None) or {}
            inner = asked.pop("body", None)
            if asked:
                raise Refused(400, "bad_request", f"unknown member {next(iter(asked))!r}")
            if not isinstance(route, str) or not isinstance(inner, dict):
                raise Refused(400, "bad_request", "send a route (a path) and a body (an object)")
            body = orjson.dumps(inner)
        if not isinstance(headers, dict) or not all(
            isinstance(each, str) for pair in headers.items() for each in pair
        ):
            raise Refused(400, "bad_request", "headers are an object of text")
        try:
            return json_answer(await self._explained(route, body, headers))
        except (GatewayError, ValueError) as exc:
            raise Refused(400, "bad_request", str(exc)) from exc

    # --- what is done to it -----------------------------------------------------------------------

    async def _purge(self, request: web.Request) -> web.Response:
        asked = await body_of(request)
        dry_run = asked.pop("dry_run", True)
        if not isinstance(dry_run, bool):
            raise Refused(400, "bad_request", "dry_run is true or false")
        selection = self._selected(asked)
        tally = await self._inventory.tally(selection)
        told: dict[str, Any] = {
            "what": str(selection),
            "dry_run": dry_run,
            "entries": tally.scaled(tally.entries),
            "exact": tally.exact,
        }
        if not dry_run:
            facts = {"what": told["what"], "entries": told["entries"], "exact": told["exact"]}
            who = self.who(request)
            try:
                told["sequence"] = await self._inventory.purge(selection)
            except StoreUnavailable as exc:
                audited("purge", who=who, result=f"failed: {exc.reason}", **facts)
                raise
            audited("purge", who=who, result="purged", sequence=told["sequence"], **facts)
        return json_answer(told)

    async def _reclaim(self, request: web.Request) -> web.Response:
        await body_of(request)
        deleted = await self._inventory.reclaim()
        audited("reclaim", who=self.who(request), result="deleted", entries=deleted)
        return json_answer({"deleted": deleted})

    def _selected(self, asked: dict[str, Any]) -> Selection:
        lists = {name: asked.pop(name, []) for name in ("keys", "tags", "models")}
        older = asked.pop("older_than_s", None)
        everything = asked.pop("all", False)
        if asked:
            raise Refused(400, "bad_request", f"unknown member {next(iter(asked))!r}")
        if (
            not all(
                isinstance(v, list) and all(isinstance(x, str) for x in v) for v in lists.values()
            )
            or not isinstance(everything, bool)
            or isinstance(older, bool)
            or not (older is None or isinstance(older, int | float))
        ):
            raise Refused(
                400, "bad_request", "keys, tags and models are lists of text, older_than_s a number"
            )
        try:
            return select(
                **lists, older_than_s=older, everything=everything, now=self._inventory.now()
            )
        except ValueError as exc:
            raise Refused(400, "bad_selection", str(exc)) from exc

    def who(self, request: web.Request) -> str:
        """Who asks, as far as it can be known: the token's holder, or somebody on this host; and
        what they say of themselves.
        """
        proven = "admin.token" if self._token is not None else "loopback"
        said = request.headers.get(_OPERATOR, "")[:64]
        return f"{proven} ({said})" if said.isprintable() and said else proven


def purges_told(inventory: Inventory) -> dict[str, Any]:
    """What is known of purges, as plain JSON values."""
    generations = inventory.generations
    age = generations.age_s
    return {
        "names": len(generations.marks),
        "sequence": generations.sequence,
        "age_s": None if age is None else round(age, 3),
        "bound_s": generations.bound_s,
        "fresh": generations.fresh,
    }


async def _read(request: web.Request, most: int) -> bytes:
    # A form can't have this type, so no page can send it without asking first.
    if request.content_type != "application/json":
        raise Refused(415, "content_type", "send Content-Type: application/json")
    body = await request.read()
    if len(body) > most:
        raise Refused(413, "too_large", f"the body has more than {most} bytes")
    return body


async def body_of(request: web.Request, most: int = _BODY_BYTES) -> dict[str, Any]:
    """The object that a request brings. Raises Refused."""
    try:
        read = orjson.loads(await _read(request, most))
    except ValueError as exc:
        raise Refused(400, "bad_request", "the body is not JSON") from exc
    if not isinstance(read, dict):
        raise Refused(400, "bad_request", "the body is not an object")
    return read


def whole_number(
    request: web.Request, name: str, default: int, most: int, *, least: int = 0
) -> int:
    """What a request's query says of `name`. Raises Refused."""
    text = request.query.get(name, str(default))
    short = text.isascii() and text.isdigit() and len(text) <= len(str(most))
    if not (short and least <= int(text) <= most):
        raise Refused(400, "bad_request", f"{name} is a whole number from {least} to {most}")
    return int(text)


async def _nothing(_: web.Request) -> web.Response:
    there = "/admin/ (a page), /admin/stats, /admin/backends, /admin/config, /admin/explain and /admin/cache/..."
    return _error(404, "not_found", f"there is {there}")


def json_answer(body: dict[str, Any], status: int = 200) -> web.Response:
    """An answer that nobody keeps."""
    return web.Response(
        status=status, body=orjson.dumps(body), content_type="application/json", headers=_NO_STORE
    )


def _error(status: int, code: str, message: str) -> web.Response:
    return json_answer({"error": {"code": code, "message": message}}, status)

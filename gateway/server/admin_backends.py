"""Replicas of pools as operators see and change them: `/admin/backends` of the admin port.

Rule 1: nothing that runs is cut: who is drained or deleted ends what it has.
Rule 2: what is changed here holds until the gateway stops; the config and DNS say who is there then.
Rule 3: each change, refused ones included, is one audit line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from gateway.config import BackendAt
from gateway.server.admin import Refused, body_of, json_answer
from gateway.telemetry.audit import audited
from gateway.upstream.replicas import Unfit

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from gateway.upstream.backend import Backend
    from gateway.upstream.pools import Pools
    from gateway.upstream.replicas import Replicas

_ONE = "/admin/backends/{upstream}/{name}"


class AdminBackends:
    """Answers requests about replicas."""

    def __init__(self, pools: Pools, who: Callable[[web.Request], str]) -> None:
        """`who` says who asks, for the audit."""
        self._pools = pools
        self._who = who

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add the routes."""
        router.add_get("/admin/backends", self._list)
        router.add_put(_ONE, self._put)
        router.add_post(_ONE + "/drain", self._drain)
        router.add_post(_ONE + "/undrain", self._undrain)
        router.add_delete(_ONE, self._delete)

    async def _list(self, _: web.Request) -> web.Response:
        return json_answer({"upstreams": self._pools.told()})

    async def _put(self, request: web.Request) -> web.Response:
        name, pool = request.match_info["name"], self._pool(request)
        body = await body_of(request)
        if "name" in body:
            raise Refused(400, "bad_request", "name: is said by the path")
        given = self._given({**body, "name": name})
        there = name in pool
        facts = {"url": given.url, "weight": given.weight}
        try:
            backend = pool.add(name, given.url, given.weight)
        except Unfit as exc:
            self._audit(request, "add backend", f"refused: {exc}", **facts)
            raise Refused(400, "bad_request", str(exc)) from exc
        self._audit(request, "add backend", "changed" if there else "added", **facts)
        return json_answer(backend.told(), 200 if there else 201)

    async def _drain(self, request: web.Request) -> web.Response:
        pool, backend = await self._asked(request)
        pool.drain(backend.name)
        self._audit(request, "drain backend", "draining", in_flight=backend.in_flight)
        return json_answer(backend.told())

    async def _undrain(self, request: web.Request) -> web.Response:
        pool, backend = await self._asked(request)
        pool.undrain(backend.name)
        self._audit(request, "undrain backend", "back")
        return json_answer(backend.told())

    async def _delete(self, request: web.Request) -> web.Response:
        now = request.query.get("now", "0")
        if now not in {"0", "1"} or set(request.query) - {"now"}:
            raise Refused(400, "bad_request", "now: is 1, or left out")
        pool, backend = self._found(request)
        pool.remove(backend.name, at_once=now == "1")
        gone = backend.name not in pool
        result = "deleted" if gone else "leaving"
        self._audit(request, "delete backend", result, in_flight=backend.in_flight)
        return json_answer({**backend.told(), "deleted": gone}, 200 if gone else 202)

    async def _asked(self, request: web.Request) -> tuple[Replicas, Backend]:
        found = self._found(request)
        # An object, though an empty one: no page can send that without asking first.
        body = await body_of(request)
        if body:
            raise Refused(400, "bad_request", f"unknown member {next(iter(body))!r}")
        return found

    def _pool(self, request: web.Request) -> Replicas:
        name = request.match_info["upstream"]
        pool = self._pools.get(name)
        if pool is None:
            known = ", ".join(sorted(self._pools)) or "none"
            raise Refused(404, "not_found", f"no pool {name[:64]!r}; there is: {known}")
        return pool

    def _found(self, request: web.Request) -> tuple[Replicas, Backend]:
        pool, name = self._pool(request), request.match_info["name"]
        if name not in pool:
            raise Refused(404, "not_found", f"pool {pool.name} has no backend {name[:128]!r}")
        return pool, pool[name]

    def _given(self, body: dict[str, Any]) -> BackendAt:
        try:
            return BackendAt.model_validate(body)
        except ValidationError as exc:
            told = [_told(error) for error in exc.errors(include_url=False, include_input=False)]
            raise Refused(400, "bad_request", "; ".join(told)) from exc

    def _audit(self, request: web.Request, action: str, result: str, **facts: Any) -> None:
        where = request.match_info
        audited(
            action,
            who=self._who(request),
            result=result,
            upstream=where["upstream"],
            backend=where["name"],
            **facts,
        )


def _told(error: Any) -> str:
    field = ".".join(map(str, error["loc"])) or "body"
    if error["type"] == "extra_forbidden":
        return f"{field}: is not a member; send url and weight"
    context = error.get("ctx", {})
    if error["type"] == "rule":
        return f"{field}: {context['problem']}; {context['mend']}"
    return f"{field}: {error['msg'][:1].lower()}{error['msg'][1:]}"

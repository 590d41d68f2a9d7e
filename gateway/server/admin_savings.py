"""What was paid and saved: `GET /admin/savings` of the admin port. To read only.

`?since=7d` (or a date), `&until=2026-11-22`, `&by=day,model` (any of day, provider, model, scope,
cause). The answer is that of `Accounts.savings`; its members are listed in docs/reference/savings.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.core.days import day_of
from gateway.core.period import period
from gateway.server.admin import Refused, json_answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aiohttp import web

    Savings = Callable[[str, str, Sequence[str]], Awaitable[dict[str, Any]]]

_KNOWN = frozenset({"since", "until", "by"})


class AdminSavings:
    """Answers requests for the ledger."""

    def __init__(self, savings: Savings, clock: Callable[[], float]) -> None:
        """`savings` as `Accounts` has it; `clock` gives seconds since the epoch."""
        self._savings = savings
        self._clock = clock

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add the route."""
        router.add_get("/admin/savings", self._told)

    async def _told(self, request: web.Request) -> web.Response:
        query = request.query
        unknown = sorted(query.keys() - _KNOWN)
        if unknown:
            raise Refused(400, "bad_request", f"unknown parameter {unknown[0]!r}")
        asked = (name for each in query.getall("by", []) for name in each.split(",") if name)
        by = list(dict.fromkeys(asked))
        try:
            since, until = period(
                query.get("since", "7d"), query.get("until", ""), day_of(self._clock())
            )
            return json_answer(await self._savings(since, until, by))
        except LookupError as exc:
            raise Refused(404, "ledger_off", str(exc)) from exc
        except ValueError as exc:
            raise Refused(400, "bad_request", str(exc)) from exc

"""Sends a prompt for the provider's cache alone, with a configured credential: nobody waits for its
answer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
import structlog
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.cache import judged
from gateway.core.model import Answer, Form
from gateway.errors import GatewayError, UpstreamUnreachable
from gateway.providers import registry
from gateway.providers.prompt_cache_rules import cache_rules
from gateway.server import forwarding
from gateway.server.stream import Recording
from gateway.telemetry.spans import NULL_INFERENCE
from gateway.upstream.choice import Asked
from gateway.wire.prefill_body import prefill_body, with_marker
from gateway.wire.table import APIS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.accounts import Accounts
    from gateway.core.model import Usage
    from gateway.core.ticket import Ticket
    from gateway.planning import Planning
    from gateway.providers.prompt_cache import CacheRules
    from gateway.routing import Routing
    from gateway.telemetry.setup import Telemetry
    from gateway.upstream.backend import Backend
    from gateway.upstream.choice import Endpoint

_log = structlog.get_logger("warmgate.prefill")

OK = "ok"
DENIED = frozenset({"401", "403"})
"""Outcomes of a credential that is not accepted: asking again is of no use."""

# What the config has sent: any replica may be asked for it next.
_FOR_EVERYBODY = frozenset({"start", "interval"})
_ANSWER_BYTES = 1024 * 1024
_ANTHROPIC_VERSION = "2023-06-01"


class Prefill:
    """Makes such calls."""

    def __init__(
        self, routing: Routing, telemetry: Telemetry, planning: Planning, accounts: Accounts
    ) -> None:
        self._accounts = accounts
        self._routing = routing
        self._telemetry = telemetry
        self._planning = planning

    async def write(
        self,
        endpoint: Endpoint,
        path: str,
        body: bytes,
        *,
        why: str,
        hold_s: float,
        timeout_s: float,
    ) -> tuple[str, Usage | None]:
        """Send a prompt marked at the end of what leads it, for a lifetime of `hold_s` seconds or the
        shortest; the planner hears what is kept from then on. As `send` otherwise.
        """
        api = APIS[path].name
        ticket: Ticket | None = None
        rules: CacheRules | None = None
        try:
            document = parsed(body)
            model = str(document.get("model"))
            kind = endpoint.deployment
            rules = cache_rules(endpoint.caches_as, api, model, deployment=kind)
            if rules is not None:
                marked, prompt = with_marker(api, body, rules, hold_s)
                document = parsed(marked)
                ticket = self._planning.expect(endpoint, prompt, rules)
                # A prefix that was kept of a request has its hint already.
                document = {**self._planning.hint_of(ticket, endpoint), **document}
        except Exception:  # noqa: BLE001 - then it is sent as it is written
            _log.exception("a prompt can't be marked", upstream=endpoint.name)
            document = parsed(body)
        outcome, usage = await self.send(
            endpoint, path, document, rules, why=why, timeout_s=timeout_s
        )
        if ticket is not None:
            self._planning.kept(ticket, usage, ok=outcome == OK)
        return outcome, usage

    async def send(
        self,
        endpoint: Endpoint,
        path: str,
        document: Mapping[str, Any],
        rules: CacheRules | None,
        *,
        why: str,
        timeout_s: float,
        only: Backend | None = None,
    ) -> tuple[str, Usage | None]:
        """Send it, cut down; how it went (`ok`, the status, or a short word), and what it took.
        Where the cut-down form is refused, one token is asked for instead. Raises only
        CancelledError.

        To a pool it goes as a client's request would; `only` to that replica if one is named, and to
        each of them for a warm-up of the config.
        """
        api = APIS[path].name
        body = prefill_body(api, document, rules)
        shortest = prefill_body(api, document, rules, shortest=True)
        worst, told = OK, None
        for each in self._routing.whom(endpoint, only, every=why in _FOR_EVERYBODY):
            outcome, usage = "failed", None
            try:
                async with asyncio.timeout(timeout_s):
                    outcome, usage = await self._call(endpoint, path, body, each, why)
                    if outcome == "400" and shortest != body:
                        outcome, usage = await self._call(endpoint, path, shortest, each, why)
            except TimeoutError:
                outcome = "timeout"
            except GatewayError as problem:
                outcome = problem.code
            except Exception:  # noqa: BLE001 - it is nobody's request
                _log.exception("a prompt can't be sent for its cache", upstream=endpoint.name)
            self._telemetry.metrics.prompt_cache.warmed(why, outcome)
            worst, told = (outcome if outcome != OK else worst), usage or told
        return worst, told

    async def _call(
        self, endpoint: Endpoint, path: str, body: bytes, only: Backend | None, why: str
    ) -> tuple[str, Usage | None]:
        routing, api = self._routing, APIS[path]
        headers = CIMultiDict({"Content-Type": "application/json", "Accept": "application/json"})
        if endpoint.provider.name == "anthropic":
            headers["anthropic-version"] = _ANTHROPIC_VERSION
        sent = forwarding.request_headers(CIMultiDictProxy(headers), endpoint, "")
        journey = await routing.alone(api.name, body, only) if endpoint.pool else None
        asked = Asked(None, path, None)
        answer: Answer | None = None
        failed = False
        try:
            async with routing.call(
                "POST", asked, sent, body, endpoint, NULL_INFERENCE.attempt, journey
            ) as upstream:
                if upstream.status != 200:
                    failed = True
                    return str(upstream.status), None
                coding = upstream.headers.get("Content-Encoding", "").strip().lower()
                taken = Recording(Form.BODY, coding, _ANSWER_BYTES)
                while part := await upstream.content.readany():
                    taken.feed(part)
                taken.complete = True
            if journey is not None:
                routing.begun(endpoint, journey)
            read = judged(api, registry.rules(endpoint.provider, api.name), taken)
            answer = read if isinstance(read, Answer) else None
        except UpstreamUnreachable:
            failed = True
            raise
        finally:
            model = answer.model if answer is not None else ""
            self._accounts.own(
                endpoint,
                api.name,
                model or str(parsed(body).get("model")),
                why,
                answer,
                failed=failed,
            )
            if journey is not None:
                routing.learn(endpoint, journey, answer)
        return OK, answer.usage if answer is not None else None


def parsed(body: bytes) -> dict[str, Any]:
    """A request's body as a document. Raises ValueError for what is none."""
    document = orjson.loads(body)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - a body's value, not a mistake here
    return document

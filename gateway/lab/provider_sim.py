"""A provider's prompt cache behind its real HTTP API: `ProviderSim`, and `gateway simulate`.

What is answered is the stub's; what is refused, read, written and billed is the documented
provider's. Tokens are bytes / 4.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from gateway.lab import sim_anthropic, sim_openai, sim_pieces, stub_anthropic, stub_openai
from gateway.lab.sim_bill import Meter
from gateway.lab.sim_cache import Caches
from gateway.lab.sim_diagnostics import Diagnostics
from gateway.lab.stub_provider import StubProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from aiohttp import web

    from gateway.core.miss import Miss
    from gateway.core.model import Usage
    from gateway.lab.sim_losses import Losses
    from gateway.lab.sim_prompt import Rendered
    from gateway.lab.sim_seen import Piece
    from gateway.lab.stub_answers import Reply

PROVIDERS = ("anthropic", "openai")
NOW_HEADER = "x-simulated-now"
"""The time of a request, in seconds of any origin, where the clock is not the real one."""
# The same in every run, so that a conversation goes on after a restart. It guards nothing.
_SECRET = b"the signatures of a simulation"
_APIS = {
    "/v1/messages": "anthropic_messages",
    "/v1/chat/completions": "openai_chat",
    "/v1/responses": "openai_responses",
}


_COUNT = "/v1/messages/count_tokens"
_MISSHAPEN = (AttributeError, LookupError, TypeError, ValueError)


class ProviderSim(StubProvider):
    """The server. Which provider's rules hold follows from the path that is asked."""

    def __init__(
        self,
        *,
        provider: str = "",
        ttft_s: float = 0.0,
        clock: Callable[[], float] | None = None,
        keys: Collection[str] = (),
        remember: int = 64,
        blank_text: bool = False,
        judges: bool = False,
        losses: Callable[[], Losses] | None = None,
    ) -> None:
        """`provider`: serve only this one's API. `ttft_s`: from a request to its answer's first
        byte, which is when what it wrote can be read. `clock`: seconds, instead of the real ones;
        then nobody waits `ttft_s`, it only counts, and a request may bring its time itself
        (`NOW_HEADER`). `keys` and `remember`: as of the stub. `blank_text`: blank text is only
        refused under a marker, as some models do. `judges`: say in `misses` why each request read
        less than it could have; every prompt is remembered for that. `losses`: makes, for each model's
        cache, what of it is gone before its time.
        """
        super().__init__(
            latency_s=0.0 if clock is not None else ttft_s, keys=keys, remember=remember
        )
        self.provider = provider
        self.ttft_s = ttft_s
        self.blank_text = blank_text
        self.misses: deque[Miss | None] = deque(maxlen=remember)
        """With `judges`: why the same requests as those of `usages` missed; None for those that
        didn't."""
        self.caches = Caches(self.misses.append if judges else None, losses)
        self._diagnostics = Diagnostics()
        self.usages: deque[Usage] = deque(maxlen=remember)
        """What the latest requests that were not refused read and wrote, in order."""
        self.meter = Meter()
        """What is billed."""
        self.refused: deque[str] = deque(maxlen=remember)
        """The bodies of the latest 400s."""
        self._clock = clock or time.monotonic
        self.is_told = clock is not None
        """The clock is not the real one."""
        self._now = float("-inf")

    def reply_to(self, request: web.Request, body: dict[str, Any], request_id: str) -> Reply:
        """The provider's answer, in the words that it documents."""
        path = request.path
        owner = "anthropic" if path.startswith("/v1/messages") else "openai"
        if self.provider not in {"", owner}:
            return self._not_found(path, request_id)
        if path not in _APIS and path != _COUNT:
            reply = super().reply_to(request, body, request_id)
            self.meter.saw(path, reply)
            return reply
        try:
            reply = self._answer(request, owner, body, request_id)
        except _MISSHAPEN:
            # The rules ask for what a request of this API has; this one hasn't.
            reply = _misshapen(owner, request_id)
        if reply.status == 400:
            self.refused.append(reply.body.decode())
        if path != _COUNT:
            self.meter.saw(path, reply)
        return reply

    def _answer(
        self, request: web.Request, owner: str, body: dict[str, Any], request_id: str
    ) -> Reply:
        path = request.path
        if path == _COUNT:
            return sim_anthropic.count_tokens(body, self._terms(request), request_id)
        now = self._time(request)
        scope = _credential(request)
        key = str(body.get("prompt_cache_key") or "")

        def bill(prompt: Rendered, failed: bool) -> Usage:
            def pieces() -> list[Piece]:
                return sim_pieces.of_rendered(body["model"], key, prompt, body)

            usage = self.caches.bill(
                owner,
                _APIS[path],
                body["model"],
                prompt,
                scope=scope,
                key=key,
                now=now,
                first_byte_at=None if failed else now + self.ttft_s,
                pieces=pieces,
            )
            if not failed:
                self.usages.append(usage)
            return usage

        if owner == "anthropic":
            return sim_anthropic.messages(body, self._terms(request), request_id, bill)
        if path == "/v1/responses":
            return sim_openai.responses(body, bill, self._diagnostics, scope)
        return sim_openai.chat(body, bill)

    def _terms(self, request: web.Request) -> sim_anthropic.Terms:
        return sim_anthropic.Terms(
            _SECRET, _betas(request), self.blank_text, self._diagnostics, _credential(request)
        )

    def _time(self, request: web.Request) -> float:
        """The request's time; never earlier than that of the one before."""
        now = self._clock()
        if self.is_told and NOW_HEADER in request.headers:
            with contextlib.suppress(ValueError):
                now = float(request.headers[NOW_HEADER])
        self._now = max(self._now, now)
        return self._now

    def _not_found(self, path: str, request_id: str) -> Reply:
        if self.provider == "anthropic":
            return stub_anthropic.error(404, "Not Found", request_id)
        return stub_openai.error(404, f"Invalid URL (POST {path})")


def _misshapen(owner: str, request_id: str) -> Reply:
    said = "The request does not have the shape of this API."
    if owner == "anthropic":
        return stub_anthropic.error(400, said, request_id)
    return stub_openai.error(400, said)


def _betas(request: web.Request) -> frozenset[str]:
    told = ",".join(request.headers.getall("anthropic-beta", []))
    return frozenset(beta.strip() for beta in told.split(","))


def _credential(request: web.Request) -> str:
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
    return request.headers.get("x-api-key", "") or bearer
